package registry_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
)

var ctx = context.Background()

// fixture is a registry and its test.
type fixture struct {
	*registrytest.Registry
	*testing.T
}

func start(t *testing.T, change ...func(*registry.Config)) *fixture {
	t.Helper()
	return &fixture{registrytest.Start(t, nil, nil, change...), t}
}

// in is the fixture for a subtest.
func (f *fixture) in(t *testing.T) *fixture { return &fixture{f.Registry, t} }

// create creates a copy of obj, or fails the test. What it returns is the test's own.
func create[T api.Object](f *fixture, obj T) T {
	f.Helper()
	out, err := f.Create(registrytest.Admin, obj.DeepCopyObject().(api.Object))
	if err != nil {
		f.Fatalf("create %s: %v", obj.GetName(), err)
	}
	return out.DeepCopyObject().(T)
}

// read returns the object with obj's name as it is stored, and whether there is one.
func read[T api.Object](f *fixture, obj T) (out T, found bool) {
	f.Helper()
	res, err := f.Get(ctx, f.About(registrytest.Admin, obj, ""), &metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return out, false
	case err != nil:
		f.Fatalf("get %s: %v", obj.GetName(), err)
	}
	return res.Object.DeepCopyObject().(T), true
}

// update writes obj, to sub or the main resource.
func update[T api.Object](f *fixture, obj T, sub string) (out T, err error) {
	f.Helper()
	res, err := f.Registry.Registry.Update(ctx, f.About(registrytest.Admin, obj, sub), obj.DeepCopyObject(), &metav1.UpdateOptions{})
	if err != nil {
		return out, err
	}
	return res.Object.DeepCopyObject().(T), nil
}

// mustUpdate writes obj or fails the test.
func mustUpdate[T api.Object](f *fixture, obj T, sub string) T {
	f.Helper()
	out, err := update(f, obj, sub)
	if err != nil {
		f.Fatalf("update %s: %v", obj.GetName(), err)
	}
	return out
}

func remove(f *fixture, obj api.Object, o metav1.DeleteOptions) (*registry.Result, error) {
	f.Helper()
	return f.Registry.Registry.Delete(ctx, f.About(registrytest.Admin, obj, ""), &o)
}

// refused checks that err is a status of that code whose message contains the text.
func refused(t *testing.T, err error, code int32, text string) {
	t.Helper()
	status, ok := err.(apierrors.APIStatus)
	if !ok {
		t.Fatalf("got %v, want a status %d: %s", err, code, text)
	}
	if s := status.Status(); s.Code != code || !strings.Contains(s.Message, text) {
		t.Errorf("got %d %s: %s\nwant %d: …%s…", s.Code, s.Reason, s.Message, code, text)
	}
}

func meta(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }

func configMap(name string, data ...string) *corev1.ConfigMap {
	c := &corev1.ConfigMap{ObjectMeta: meta(name), Data: map[string]string{}}
	for i := 0; i+1 < len(data); i += 2 {
		c.Data[data[i]] = data[i+1]
	}
	return c
}

func TestEveryClusterHas(t *testing.T) {
	f := start(t, func(c *registry.Config) { c.Advertise = netip.MustParseAddrPort("192.0.2.7:6443") })
	for _, name := range []string{"default", "kube-system", "kube-public", "kube-node-lease"} {
		ns, found := read(f, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
		if !found || ns.Status.Phase != corev1.NamespaceActive || ns.Labels[corev1.LabelMetadataName] != name || len(ns.Spec.Finalizers) != 1 {
			t.Errorf("namespace %s: found %v, %+v", name, found, ns)
		}
	}
	svc, found := read(f, &corev1.Service{ObjectMeta: meta("kubernetes")})
	if !found || svc.Spec.ClusterIP != "10.96.0.1" || svc.Spec.Ports[0].Port != 443 || svc.Spec.Ports[0].TargetPort.IntValue() != 6443 {
		t.Errorf("the Service kubernetes: found %v, %+v", found, svc)
	}
	ep, found := read(f, &corev1.Endpoints{ObjectMeta: meta("kubernetes")}) //nolint:staticcheck // old clients read it
	if !found || ep.Subsets[0].Addresses[0].IP != "192.0.2.7" || ep.Subsets[0].Ports[0].Port != 6443 {
		t.Errorf("its endpoints: found %v, %+v", found, ep)
	}
	slice, found := read(f, &discoveryv1.EndpointSlice{ObjectMeta: meta("kubernetes")})
	if !found || slice.Endpoints[0].Addresses[0] != "192.0.2.7" || slice.Labels[discoveryv1.LabelServiceName] != "kubernetes" {
		t.Errorf("its endpoint slice: found %v, %+v", found, slice)
	}
}

// One event is stored once and served by two groups.
func TestEventsOfBothGroups(t *testing.T) {
	f := start(t)
	row := f.Table().ByResource(schema.GroupResource{Group: "events.k8s.io", Resource: "events"})
	q := &registry.Request{Resource: row, Served: &row.Also[0], Namespace: "default", User: registrytest.Admin}
	res, err := f.Registry.Registry.Create(ctx, q, &eventsv1.Event{
		ObjectMeta: meta("e"), Note: "it went well", Reason: "Went", Action: "Going", Type: "Normal", ReportingController: "c", ReportingInstance: "c-1",
		Regarding: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p"}, EventTime: metav1.NowMicro(),
	}, &metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := res.Object.(*eventsv1.Event); !ok || e.APIVersion != "events.k8s.io/v1" || e.Note != "it went well" {
		t.Errorf("created as %T %+v", res.Object, res.Object)
	}
	core, found := read(f, &corev1.Event{ObjectMeta: meta("e")})
	if !found || core.Message != "it went well" || core.InvolvedObject.Name != "p" || core.APIVersion != "v1" {
		t.Errorf("in the core group: found %v, %+v", found, core)
	}
	core.Message = "it went very well"
	mustUpdate(f, core, "")
	q.Name = "e"
	res, err = f.Get(ctx, q, nil)
	if err != nil || res.Object.(*eventsv1.Event).Note != "it went very well" {
		t.Errorf("in events.k8s.io: %v, %v", res, err)
	}
	q.Name = ""
	for selector, want := range map[string]int{
		"reportingController=c": 1, "reportingController!=c": 0, "regarding.name=p,metadata.name=e": 1, "regarding.kind=Node": 0,
		"involvedObject.name=p": -1, "source=c": -1,
	} {
		page, err := f.List(ctx, q, &metainternalversion.ListOptions{FieldSelector: fields.ParseSelectorOrDie(selector)})
		if want < 0 && (err == nil || !strings.HasPrefix(err.Error(), "field label not supported: ")) || want >= 0 && (err != nil || len(page.Entries) != want) {
			t.Errorf("%s in events.k8s.io: %v, %v", selector, page, err)
		}
	}
}

func TestListOptions(t *testing.T) {
	f := start(t)
	f.Must(configMap("a"), configMap("b"))
	field := func(s string) metainternalversion.ListOptions {
		return metainternalversion.ListOptions{FieldSelector: fields.ParseSelectorOrDie(s)}
	}
	cases := map[string]struct {
		o    metainternalversion.ListOptions
		n    int
		code int32
		text string
	}{
		"all":                          {n: 2},
		"from memory":                  {o: metainternalversion.ListOptions{ResourceVersion: "0"}, n: 2},
		"by name":                      {o: field("metadata.name=a"), n: 1},
		"by not being a name":          {o: field("metadata.name!=a"), n: 1},
		"by a name that is not there":  {o: field("metadata.name=c"), n: 0},
		"by a field that is not known": {o: field("data.a=c"), code: 400, text: `"data.a" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		"at no revision":               {o: metainternalversion.ListOptions{ResourceVersion: "soon"}, code: 400, text: "resourceVersion"},
		"exactly at nothing": {o: metainternalversion.ListOptions{ResourceVersionMatch: metav1.ResourceVersionMatchExact}, code: 422,
			text: "resourceVersionMatch is forbidden unless resourceVersion is provided"},
		"matching strangely": {o: metainternalversion.ListOptions{ResourceVersion: "1", ResourceVersionMatch: "Some"}, code: 422, text: "supported values"},
		"a foreign token":    {o: metainternalversion.ListOptions{Continue: "xyz"}, code: 400, text: "continue"},
		"a token and a version": {o: metainternalversion.ListOptions{Continue: "xyz", ResourceVersion: "5"}, code: 400,
			text: "specifying resource version is not allowed when using continue"},
		"in the far future": {o: metainternalversion.ListOptions{ResourceVersion: "999999"}, code: 504, text: "Too large resource version"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			page, err := f.List(ctx, f.Request(registrytest.Admin, "", "configmaps", "", "default", ""), &c.o)
			if c.code != 0 {
				refused(t, err, c.code, c.text)
			} else if err != nil || len(page.Entries) != c.n {
				t.Errorf("%v, %v; want %d", page, err, c.n)
			}
		})
	}
}

// again is another registry over the same store, as after a restart with other settings.
func again(f *fixture, change func(*registry.Config)) *fixture {
	f.Helper()
	cfg := registry.Config{
		Store: f.Store(), Table: f.Table(), NodePortRange: "30000-32767", ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	}
	change(&cfg)
	r, err := registry.New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	registrytest.Run(f.T, r)
	return &fixture{registrytest.Over(f.T, r), f.T}
}
