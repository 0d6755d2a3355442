package clienttest

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

func readsFollowWrites(s *suite) {
	for i := range 5 {
		c := s.configMap(fmt.Sprint("c", i))
		s.create(c)
		live := s.configMap(c.Name)
		s.live(live)
		if live.UID != c.UID || live.ResourceVersion != c.ResourceVersion {
			s.Errorf("a live read after a create shows %s at %s, want %s at %s", live.UID, live.ResourceVersion, c.UID, c.ResourceVersion)
		}
		s.soon(func() error {
			cached := &corev1.ConfigMap{}
			err := s.Get(s.ctx, crclient.ObjectKeyFromObject(c), cached)
			return errors.Join(err, expect("the cached version", cached.ResourceVersion, c.ResourceVersion))
		})
		c.Data["n"] = "1"
		s.must(s.Update(s.ctx, c))
		s.live(live)
		if live.Data["n"] != "1" {
			s.Error("a live read after an update shows the state before")
		}
		list := &corev1.ConfigMapList{}
		s.must(s.Live().List(s.ctx, list, crclient.InNamespace(s.space)))
		if len(list.Items) != i+1 || list.ResourceVersion == "" {
			s.Errorf("a live list has %d items at %q", len(list.Items), list.ResourceVersion)
		}
		s.must(s.Delete(s.ctx, c))
		if err := s.Live().Get(s.ctx, crclient.ObjectKeyFromObject(c), live); !apierrors.IsNotFound(err) {
			s.Errorf("a live read after a delete: %v", err)
		}
		s.create(s.configMap(c.Name))
	}
	if err := s.Get(s.ctx, crclient.ObjectKey{Namespace: s.space, Name: "nobody"}, &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
		s.Errorf("a cached read of what is not there: %v", err)
	}
}

func names[T any, P interface {
	*T
	crclient.Object
}](items []T) string {
	out := make([]string, len(items))
	for i := range items {
		out[i] = P(&items[i]).GetName()
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func listsSelect(s *suite) {
	owner := s.configMap("owner")
	s.create(owner)
	owned := []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}}
	s.create(
		s.pod("a", func(p *corev1.Pod) {
			p.Spec.NodeName, p.Labels, p.OwnerReferences = "n1", map[string]string{"app": "x"}, owned
		}),
		s.pod("b", func(p *corev1.Pod) { p.Spec.NodeName, p.Labels = "n1", map[string]string{"app": "y"} }),
		s.pod("c", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "x", "tier": "1"} }),
		s.pod("d", func(p *corev1.Pod) { p.Namespace, p.Spec.NodeName, p.OwnerReferences = "default", "n1", owned }),
	)
	all := crclient.InNamespace(s.space)
	has, err := metav1.LabelSelectorAsSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "Exists"}}})
	s.must(err)
	cases := []struct {
		what    string
		options []crclient.ListOption
		want    string
	}{
		{"everything", nil, "a b c d"},
		{"a namespace", []crclient.ListOption{all}, "a b c"},
		{"an empty namespace", []crclient.ListOption{crclient.InNamespace("kube-public")}, ""},
		{"labels", []crclient.ListOption{all, crclient.MatchingLabels{"app": "x"}}, "a c"},
		{"a label selector", []crclient.ListOption{all, crclient.MatchingLabelsSelector{Selector: has}}, "c"},
		{"a node", []crclient.ListOption{crclient.MatchingFields{"spec.nodeName": "n1"}}, "a b d"},
		{"no node", []crclient.ListOption{crclient.MatchingFields{"spec.nodeName": ""}}, "c"},
		{"a node and a namespace", []crclient.ListOption{all, crclient.MatchingFields{"spec.nodeName": "n1"}}, "a b"},
		{"a node and labels", []crclient.ListOption{all, crclient.MatchingFields{"spec.nodeName": "n1"}, crclient.MatchingLabels{"app": "x"}}, "a"},
		{"an owner", []crclient.ListOption{crclient.MatchingFields{"owner.uid": string(owner.UID)}}, "a d"},
		{"an owner and a node", []crclient.ListOption{all, crclient.MatchingFields{"owner.uid": string(owner.UID), "spec.nodeName": "n1"}}, "a"},
		{"a phase", []crclient.ListOption{all, crclient.MatchingFields{"status.phase": "Pending"}}, "a b c"},
		{"a phase and a node", []crclient.ListOption{all, crclient.MatchingFields{"status.phase": "Running", "spec.nodeName": "n1"}}, ""},
		{"a name", []crclient.ListOption{crclient.MatchingFields{"metadata.name": "b"}}, "b"},
	}
	for _, c := range cases {
		s.soon(func() error {
			list := &corev1.PodList{}
			err := s.List(s.ctx, list, c.options...)
			return errors.Join(err, expect("the list by "+c.what, names(list.Items), c.want))
		})
	}
	slice := func(name, service string) *discoveryv1.EndpointSlice {
		e := &discoveryv1.EndpointSlice{ObjectMeta: s.meta(name), AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{}}
		e.Labels = map[string]string{discoveryv1.LabelServiceName: service}
		return e
	}
	s.create(slice("e1", "web"), slice("e2", "web"), slice("e3", "db"))
	s.soon(func() error {
		list := &discoveryv1.EndpointSliceList{}
		err := s.List(s.ctx, list, crclient.MatchingFields{"service": s.space + "/web"})
		return errors.Join(err, expect("the list by service", names(list.Items), "e1 e2"))
	})
}

func listsRefuse(s *suite) {
	for _, field := range []string{"spec.nothing", "owner.name"} {
		if err := s.List(s.ctx, &corev1.PodList{}, crclient.MatchingFields{field: "x"}); err == nil {
			s.Errorf("a list by %s finds nothing instead of failing", field)
		}
	}
	if err := s.List(s.ctx, &corev1.ConfigMapList{}, crclient.MatchingFields{"spec.nodeName": "x"}); err == nil {
		s.Error("a list by a field of another kind finds nothing instead of failing")
	}
}

func metadataAlone(s *suite) {
	d := s.deployment("d")
	d.Labels = map[string]string{"a": "b"}
	s.create(d)
	kind := appsv1.SchemeGroupVersion.WithKind("Deployment")
	for what, reader := range map[string]crclient.Reader{"cached": s, "live": s.Live()} {
		s.soon(func() error {
			m := &metav1.PartialObjectMetadata{}
			m.SetGroupVersionKind(kind)
			err := reader.Get(s.ctx, crclient.ObjectKeyFromObject(d), m)
			return errors.Join(err, expect(what+" UID", m.UID, d.UID), expect(what+" label", m.Labels["a"], "b"),
				expect(what+" kind", m.GroupVersionKind(), kind), expect(what+" version", m.ResourceVersion, d.ResourceVersion))
		})
		s.soon(func() error {
			list := &metav1.PartialObjectMetadataList{}
			list.SetGroupVersionKind(kind.GroupVersion().WithKind("DeploymentList"))
			err := reader.List(s.ctx, list, crclient.InNamespace(s.space))
			return errors.Join(err, expect(what+" list", names(list.Items), "d"))
		})
	}
}

func kindsAreKnown(s *suite) {
	for _, c := range []struct {
		obj        crclient.Object
		kind       schema.GroupVersionKind
		namespaced bool
		plural     string
	}{
		{&corev1.Pod{}, corev1.SchemeGroupVersion.WithKind("Pod"), true, "pods"},
		{&corev1.Node{}, corev1.SchemeGroupVersion.WithKind("Node"), false, "nodes"},
		{&appsv1.Deployment{}, appsv1.SchemeGroupVersion.WithKind("Deployment"), true, "deployments"},
	} {
		gvk, err := s.GroupVersionKindFor(c.obj)
		s.must(err)
		namespaced, err := s.IsObjectNamespaced(c.obj)
		s.must(err)
		m, err := s.RESTMapper().RESTMapping(gvk.GroupKind(), gvk.Version)
		s.must(err)
		if gvk != c.kind || namespaced != c.namespaced || m.Resource.Resource != c.plural || !s.Scheme().Recognizes(gvk) {
			s.Errorf("%T is %s, namespaced %v, %s", c.obj, gvk, namespaced, m.Resource)
		}
	}
}
