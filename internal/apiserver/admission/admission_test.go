package admission

import (
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry/registrytest"
)

func start(t *testing.T) *registrytest.Registry {
	admit, validate := Default()
	r := registrytest.Start(t, admit, validate)
	r.Must(registrytest.Account("default"))
	return r
}

// refused checks that an error has a code and says what it should.
func refused(t *testing.T, err error, code int32, text string) {
	t.Helper()
	status, ok := err.(apierrors.APIStatus)
	if !ok || status.Status().Code != code || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want a %d that says %q", err, code, text)
	}
}

func TestNamespaces(t *testing.T) {
	r := start(t)
	_, err := r.Create(registrytest.Admin, registrytest.Pod("a", func(p *corev1.Pod) { p.Namespace = "nowhere" }))
	refused(t, err, 404, `namespaces "nowhere" not found`)

	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "going"}}
	r.Must(ns)
	if err := r.Delete(registrytest.Admin, ns); err != nil {
		t.Fatal(err)
	}
	_, err = r.Create(registrytest.Admin, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "going", Name: "late"}})
	refused(t, err, 403, `configmaps "late" is forbidden: unable to create new content in namespace going because it is being terminated`)
	if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		t.Errorf("no cause %s in %v", corev1.NamespaceTerminatingCause, err)
	}
	for _, name := range []string{"default", "kube-system", "kube-public"} {
		err := r.Delete(registrytest.Admin, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		refused(t, err, 403, `namespaces "`+name+`" is forbidden: this namespace may not be deleted`)
	}
}

func TestServiceAccounts(t *testing.T) {
	r := start(t)
	no := false
	r.Must(
		registrytest.Account("quiet", func(a *corev1.ServiceAccount) { a.AutomountServiceAccountToken = &no }),
		registrytest.Account("puller", func(a *corev1.ServiceAccount) { a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}} }),
	)
	yes := true
	cases := []struct {
		name    string
		change  func(*corev1.Pod)
		account string
		mounts  int // of the first container, at tokenPath
		volumes int
		pull    int
	}{
		{"plain", func(*corev1.Pod) {}, "default", 1, 1, 0},
		{"pod-says-no", func(p *corev1.Pod) { p.Spec.AutomountServiceAccountToken = &no }, "default", 0, 0, 0},
		{"account-says-no", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "quiet" }, "quiet", 0, 0, 0},
		{"pod-overrules", func(p *corev1.Pod) { p.Spec.ServiceAccountName, p.Spec.AutomountServiceAccountToken = "quiet", &yes }, "quiet", 1, 1, 0},
		{"own-mount", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "mine", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "mine", MountPath: tokenPath}}
		}, "default", 1, 1, 0},
		{"puller", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "puller" }, "puller", 1, 1, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			obj, err := r.Create(registrytest.Admin, registrytest.Pod(c.name, c.change))
			if err != nil {
				t.Fatal(err)
			}
			p, mounts := obj.(*corev1.Pod), 0
			for _, m := range p.Spec.Containers[0].VolumeMounts {
				if m.MountPath == tokenPath {
					mounts++
				}
			}
			if p.Spec.ServiceAccountName != c.account || mounts != c.mounts || len(p.Spec.Volumes) != c.volumes || len(p.Spec.ImagePullSecrets) != c.pull {
				t.Errorf("account %q, %d mounts, volumes %v, pull secrets %v", p.Spec.ServiceAccountName, mounts, p.Spec.Volumes, p.Spec.ImagePullSecrets)
			}
		})
	}
	_, err := r.Create(registrytest.Admin, registrytest.Pod("b", func(p *corev1.Pod) { p.Spec.ServiceAccountName = "missing" }))
	refused(t, err, 403, `pods "b" is forbidden: error looking up service account default/missing: serviceaccount "missing" not found`)
}

// TestNewNamespace: a pod that is as quick as its namespace waits for the account, and no longer than it must.
func TestNewNamespace(t *testing.T) {
	r := start(t)
	r.Must(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "fresh"}})
	failed := make(chan error, 1)
	go func() {
		time.Sleep(50 * time.Millisecond)
		_, err := r.Create(registrytest.Admin, registrytest.Account("default", func(a *corev1.ServiceAccount) { a.Namespace = "fresh" }))
		failed <- err
	}()
	_, err := r.Create(registrytest.Admin, registrytest.Pod("a", func(p *corev1.Pod) { p.Namespace = "fresh" }))
	if err != nil {
		t.Error(err)
	}
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

func TestPriorityAndTolerations(t *testing.T) {
	r := start(t)
	never := corev1.PreemptNever
	r.Must(
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "high"}, Value: 1000, PreemptionPolicy: &never},
		&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "usual"}, Value: 7, GlobalDefault: true},
	)
	for class, want := range map[string]int32{"": 7, "high": 1000, "system-node-critical": 2000001000, "system-cluster-critical": 2000000000} {
		obj, err := r.Create(registrytest.Admin, registrytest.Pod("p"+class, func(p *corev1.Pod) { p.Spec.PriorityClassName = class }))
		if err != nil {
			t.Fatal(err)
		}
		p := obj.(*corev1.Pod)
		if *p.Spec.Priority != want || (*p.Spec.PreemptionPolicy == never) != (class == "high") {
			t.Errorf("class %q gives priority %d and policy %s", class, *p.Spec.Priority, *p.Spec.PreemptionPolicy)
		}
		if len(p.Spec.Tolerations) != 2 || *p.Spec.Tolerations[0].TolerationSeconds != 300 {
			t.Errorf("tolerations %v", p.Spec.Tolerations)
		}
	}
	_, err := r.Create(registrytest.Admin, registrytest.Pod("x", func(p *corev1.Pod) { p.Spec.PriorityClassName = "none" }))
	refused(t, err, 403, `pods "x" is forbidden: no PriorityClass with name none was found`)
	five := int32(5)
	_, err = r.Create(registrytest.Admin, registrytest.Pod("y", func(p *corev1.Pod) { p.Spec.Priority = &five }))
	refused(t, err, 403, "the integer value of priority (5) must not be provided in pod spec; priority admission controller computed 7")
	_, err = r.Create(registrytest.Admin, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "second"}, Value: 8, GlobalDefault: true})
	refused(t, err, 403, "PriorityClass usual is already marked as default. Only one default can exist")

	obj, err := r.Create(registrytest.Admin, registrytest.Pod("z", func(p *corev1.Pod) {
		p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(obj.(*corev1.Pod).Spec.Tolerations); n != 1 {
		t.Errorf("a pod that tolerates everything got %d tolerations", n)
	}
}

func list(cpu string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
}

func TestLimitRanges(t *testing.T) {
	r := start(t)
	r.Must(&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "l"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{
		{Type: corev1.LimitTypeContainer, Default: list("200m"), DefaultRequest: list("100m"), Min: list("50m"), Max: list("1"), MaxLimitRequestRatio: list("4")},
		{Type: corev1.LimitTypePod, Max: list("1500m")},
	}}})
	resources := func(request, limit string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list(request), Limits: list(limit)}
		}
	}
	obj, err := r.Create(registrytest.Admin, registrytest.Pod("plain"))
	if err != nil {
		t.Fatal(err)
	}
	p := obj.(*corev1.Pod)
	if got := p.Spec.Containers[0].Resources; got.Requests.Cpu().String() != "100m" || got.Limits.Cpu().String() != "200m" {
		t.Errorf("defaults: %v", got)
	}
	if got, want := p.Annotations[limitAnnotation], "LimitRanger plugin set: cpu request for container c; cpu limit for container c"; got != want {
		t.Errorf("annotation %q, want %q", got, want)
	}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		text   string
	}{
		"small": {resources("10m", "30m"), "minimum cpu usage per Container is 50m, but request is 10m"},
		"large": {resources("1", "2"), "maximum cpu usage per Container is 1, but limit is 2"},
		"ratio": {resources("100m", "1"), "cpu max limit to request ratio per Container is 4, but provided ratio is 10.000000"},
		"many": {func(p *corev1.Pod) {
			resources("1", "1")(p)
			p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0])
			p.Spec.Containers[1].Name = "d"
		}, "maximum cpu usage per Pod is 1500m, but limit is 2"},
	} {
		_, err := r.Create(registrytest.Admin, registrytest.Pod(name, c.change))
		refused(t, err, 403, c.text)
	}
	larger := p.DeepCopy()
	resources("1", "2")(larger)
	refused(t, r.Update(registrytest.Admin, larger, "resize"), 403, "maximum cpu usage per Container is 1, but limit is 2")
}

func TestNodeRestriction(t *testing.T) {
	r := start(t)
	node := func(name string) *corev1.Node { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	one := registrytest.Node("one")
	created, err := r.Create(one, node("one"))
	if err != nil {
		t.Fatal(err)
	}
	if taints := created.(*corev1.Node).Spec.Taints; len(taints) != 1 || taints[0].Key != corev1.TaintNodeNotReady {
		t.Errorf("a new node's taints: %v", taints)
	}
	_, err = r.Create(one, node("two"))
	refused(t, err, 403, `nodes "two" is forbidden: node "one" is not allowed to modify node "two"`)

	changed := func(f func(*corev1.Node)) api.Object {
		n := created.DeepCopyObject().(*corev1.Node)
		f(n)
		return n
	}
	refused(t, r.Update(one, changed(func(n *corev1.Node) { n.Spec.Taints = nil }), ""), 403, "is not allowed to modify taints")
	refused(t, r.Update(one, changed(func(n *corev1.Node) {
		n.Labels = map[string]string{"node-restriction.kubernetes.io/team": "a", "example.org/free": "b"}
	}), ""), 403, "is not allowed to modify labels: node-restriction.kubernetes.io/team")
	if err := r.Update(one, changed(func(n *corev1.Node) {
		n.Labels = map[string]string{corev1.LabelHostname: "one", "example.org/free": "b"}
	}), ""); err != nil {
		t.Error(err)
	}

	r.Must(registrytest.Pod("here", func(p *corev1.Pod) { p.Spec.NodeName = "one" }), registrytest.Pod("there", func(p *corev1.Pod) { p.Spec.NodeName = "two" }))
	refused(t, r.Delete(one, registrytest.Pod("there")), 403, `node "one" can only delete pods with spec.nodeName set to itself`)
	if err := r.Delete(one, registrytest.Pod("here")); err != nil {
		t.Error(err)
	}
	_, err = r.Create(one, registrytest.Pod("own", func(p *corev1.Pod) { p.Spec.NodeName = "one" }))
	refused(t, err, 403, `can only create mirror pods`)
	_, err = r.Create(one, registrytest.Pod("mirror", func(p *corev1.Pod) {
		p.Spec.NodeName = "one"
		p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
	}))
	if err != nil {
		t.Errorf("a mirror pod: %v", err)
	}
	slice := func(node string) *resourcev1.ResourceSlice {
		return &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: resourcev1.ResourceSliceSpec{
			Driver: "d.example.com", NodeName: &node, Pool: resourcev1.ResourcePool{Name: node, ResourceSliceCount: 1},
		}}
	}
	if _, err := r.Create(one, slice("one")); err != nil {
		t.Error(err)
	}
	_, err = r.Create(one, slice("two"))
	refused(t, err, 403, "can only create ResourceSlice with the same NodeName as the requesting node")
	r.Must(slice("two"))
	refused(t, r.Delete(one, slice("two")), 403, "can only delete ResourceSlice with the same NodeName as the requesting node")
	lease := func(ns, name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	}
	if _, err := r.Create(one, lease("kube-node-lease", "one")); err != nil {
		t.Error(err)
	}
	_, err = r.Create(one, lease("kube-node-lease", "two"))
	refused(t, err, 403, "can only access node lease with the same name as the requesting node")
	_, err = r.Create(one, lease("default", "one"))
	refused(t, err, 403, "can only access leases in")
}

// Claims see others' devices only in namespaces that are labelled for that.
func TestAdminAccess(t *testing.T) {
	r := with(t, Config{})
	r.Must(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "admins", Labels: map[string]string{resourcev1.DRAAdminNamespaceLabelKey: "true"}}})
	spec := func(admin bool) resourcev1.ResourceClaimSpec {
		return resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{
			Name: "all", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu", AllocationMode: resourcev1.DeviceAllocationModeAll, AdminAccess: &admin},
		}}}}
	}
	claim := func(namespace, name string, admin bool) error {
		_, err := r.Create(registrytest.Admin, &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec(admin)})
		return err
	}
	const why = "admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"
	refused(t, claim("default", "a", true), 422, why)
	_, err := r.Create(registrytest.Admin, &resourcev1.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}, Spec: resourcev1.ResourceClaimTemplateSpec{Spec: spec(true)},
	})
	refused(t, err, 422, why)
	for _, err := range []error{claim("default", "b", false), claim("admins", "a", true)} {
		if err != nil {
			t.Error(err)
		}
	}
}
