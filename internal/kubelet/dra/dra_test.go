package dra

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	draapi "k8s.io/kubelet/pkg/apis/dra/v1"
	draold "k8s.io/kubelet/pkg/apis/dra/v1beta1"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// driverServer answers for claims; both versions of the API have the same messages, and so one server.
type driverServer struct {
	draapi.UnimplementedDRAPluginServer
	mu    sync.Mutex
	calls []string
	fail  string
}

func (s *driverServer) called(what string, claims []*draapi.Claim) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range claims {
		s.calls = append(s.calls, what+" "+c.Name)
	}
	return s.fail
}

func (s *driverServer) failing(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = text
}

func (s *driverServer) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *driverServer) NodePrepareResources(_ context.Context, r *draapi.NodePrepareResourcesRequest) (*draapi.NodePrepareResourcesResponse, error) {
	fail := s.called("prepare", r.Claims)
	out := &draapi.NodePrepareResourcesResponse{Claims: map[string]*draapi.NodePrepareResourceResponse{}}
	for _, c := range r.Claims {
		out.Claims[c.Uid] = &draapi.NodePrepareResourceResponse{Error: fail, Devices: []*draapi.Device{
			{RequestNames: []string{"a"}, PoolName: "pool", DeviceName: "one", CdiDeviceIds: []string{"v/c=one"}},
			{RequestNames: []string{"b"}, PoolName: "pool", DeviceName: "two", CdiDeviceIds: []string{"v/c=two"}},
		}}
	}
	return out, nil
}

func (s *driverServer) NodeUnprepareResources(_ context.Context, r *draapi.NodeUnprepareResourcesRequest) (*draapi.NodeUnprepareResourcesResponse, error) {
	s.called("unprepare", r.Claims)
	out := &draapi.NodeUnprepareResourcesResponse{Claims: map[string]*draapi.NodeUnprepareResourceResponse{}}
	for _, c := range r.Claims {
		out.Claims[c.Uid] = &draapi.NodeUnprepareResourceResponse{}
	}
	return out, nil
}

// serve under a service's name until the returned function is called.
func (s *driverServer) serve(t *testing.T, service string) (endpoint string, stop func()) {
	t.Helper()
	endpoint = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", endpoint)
	if err != nil {
		t.Fatal(err)
	}
	desc := draapi.DRAPlugin_ServiceDesc
	desc.ServiceName = service
	g := grpc.NewServer()
	g.RegisterService(&desc, s)
	go func() { _ = g.Serve(l) }() // ends with Stop
	t.Cleanup(g.Stop)
	return endpoint, g.Stop
}

type world struct {
	*Node
	reg  *registrytest.Registry
	root string
	t    *testing.T
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{reg: registrytest.Start(t, nil, nil), root: t.TempDir(), t: t}
	w.restart()
	return w
}

// restart begins anew with what is on disk.
func (w *world) restart() {
	w.t.Helper()
	n, err := New(w.root, "n", client.Local(w.reg.Registry, registrytest.Admin, slog.New(slog.DiscardHandler)), slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	n.ctx = ctx
	go func() { defer close(done); _ = n.Run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done })
	w.Node = n
}

// claim makes one that is allocated and reserved for pods.
func (w *world) claim(name string, pods ...*corev1.Pod) {
	w.t.Helper()
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: resourcev1.ResourceClaimSpec{
		Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			{Name: "a", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "x"}}, {Name: "b", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "x"}},
		}},
	}}
	made, err := w.reg.Create(registrytest.Admin, c)
	if err != nil {
		w.t.Fatal(err)
	}
	c = made.(*resourcev1.ResourceClaim).DeepCopy()
	c.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{
		{Request: "a", Driver: "d.example.com", Pool: "pool", Device: "one"}, {Request: "b", Driver: "d.example.com", Pool: "pool", Device: "two"},
	}}}
	for _, p := range pods {
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
	}
	if err := w.reg.Update(registrytest.Admin, c, "status"); err != nil {
		w.t.Fatal(err)
	}
}

func podWith(name string, claims ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID("uid-" + name)}}
	p.Spec.Containers = []corev1.Container{{Name: "all"}, {Name: "half"}, {Name: "none"}}
	for i := range claims {
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: claims[i], ResourceClaimName: &claims[i]})
		p.Spec.Containers[0].Resources.Claims = append(p.Spec.Containers[0].Resources.Claims, corev1.ResourceClaim{Name: claims[i]})
		p.Spec.Containers[1].Resources.Claims = append(p.Spec.Containers[1].Resources.Claims, corev1.ResourceClaim{Name: claims[i], Request: "b"})
	}
	return p
}

func (w *world) register(s *driverServer, version string) (stop func()) {
	w.t.Helper()
	service := draapi.DRAPlugin_ServiceDesc.ServiceName
	if version == draold.DRAPluginService {
		service = draold.DRAPlugin_ServiceDesc.ServiceName
	}
	endpoint, stop := s.serve(w.t, service)
	if err := w.Register(context.Background(), "d.example.com", endpoint, []string{version}); err != nil {
		w.t.Fatal(err)
	}
	return stop
}

func (w *world) wantCDI(p *corev1.Pod, container int, want ...string) {
	w.t.Helper()
	if got, err := w.CDI(p, &p.Spec.Containers[container]); err != nil || !slices.Equal(got, want) {
		w.t.Errorf("container %d gets %v, %v; want %v", container, got, err, want)
	}
}

func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%v; want %q", err, text)
	}
}

func TestPreparedOnce(t *testing.T) {
	ctx := context.Background()
	for _, version := range []string{draapi.DRAPluginService, draold.DRAPluginService} {
		t.Run(version, func(t *testing.T) {
			w, s := newWorld(t), &driverServer{}
			p, q := podWith("p", "c"), podWith("q", "c")
			wantError(t, w.Prepare(ctx, p), `fetch ResourceClaim c: resourceclaims.resource.k8s.io "c" not found`)
			w.claim("c", p, q)
			wantError(t, w.Prepare(ctx, p), "prepare dynamic resources: DRA driver d.example.com is not registered")
			if w.Uses(p.UID) {
				t.Error("a pod whose driver was never there holds something")
			}
			w.register(s, version)
			s.failing("broken")
			wantError(t, w.Prepare(ctx, p), "NodePrepareResources failed for ResourceClaim c: broken")
			s.failing("")
			for _, one := range []*corev1.Pod{p, q, p} {
				if err := w.Prepare(ctx, one); err != nil {
					t.Fatal(err)
				}
			}
			w.wantCDI(p, 0, "v/c=one", "v/c=two")
			w.wantCDI(q, 1, "v/c=two")
			w.wantCDI(q, 2)
			for _, one := range []*corev1.Pod{q, q, p, p} {
				if err := w.Unprepare(ctx, one.UID); err != nil {
					t.Fatal(err)
				}
			}
			if want := []string{"prepare c", "prepare c", "unprepare c"}; !slices.Equal(s.all(), want) {
				t.Errorf("the driver was called %v; want %v", s.all(), want)
			}
			wantError(t, w.Prepare(ctx, podWith("r", "c")), "pod r (uid-r) is not allowed to use ResourceClaim c")
		})
	}
}

// A container has the devices of the extended resources that it asked for by the requests its pod's status names; they are in a claim that was made for the pod.
func TestExtendedResources(t *testing.T) {
	ctx := context.Background()
	w, s := newWorld(t), &driverServer{}
	w.register(s, draapi.DRAPluginService)
	p := podWith("p")
	p.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: "c", RequestMappings: []corev1.ContainerExtendedResourceRequest{
		{ContainerName: "all", ResourceName: "example.com/gpu", RequestName: "a"}, {ContainerName: "all", ResourceName: "example.com/nic", RequestName: "b"},
		{ContainerName: "half", ResourceName: "example.com/nic", RequestName: "b"},
	}}
	w.claim("c", p)
	wantError(t, w.Prepare(ctx, p), "was not created for Pod default/p")
	c := w.owned("c", p)
	if err := w.Prepare(ctx, p); err != nil {
		t.Fatal(err)
	}
	w.wantCDI(p, 0, "v/c=one", "v/c=two")
	w.wantCDI(p, 1, "v/c=two")
	w.wantCDI(p, 2)
	if held := w.Held(p, &p.Spec.Containers[1]); len(held) != 1 || held[0].Claim != c || held[0].Device != "two" {
		t.Errorf("the pod resources API shows %v", held)
	}
	if err := w.Unprepare(ctx, p.UID); err != nil {
		t.Fatal(err)
	}
	if want := []string{"prepare c", "unprepare c"}; !slices.Equal(s.all(), want) {
		t.Errorf("the driver was called %v; want %v", s.all(), want)
	}
}

// owned gives a claim to a pod.
func (w *world) owned(name string, p *corev1.Pod) string {
	w.t.Helper()
	res, err := w.reg.Get(context.Background(), w.reg.Request(registrytest.Admin, resourcev1.GroupName, "resourceclaims", "", "default", name), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	c := res.Object.(*resourcev1.ResourceClaim).DeepCopy()
	c.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(p, corev1.SchemeGroupVersion.WithKind("Pod"))}
	if err := w.reg.Update(registrytest.Admin, c, ""); err != nil {
		w.t.Fatal(err)
	}
	return c.Name
}

func TestSharedAtOnce(t *testing.T) {
	w, s := newWorld(t), &driverServer{}
	var pods []*corev1.Pod
	for _, name := range strings.Split("abcdefgh", "") {
		pods = append(pods, podWith(name, "c"))
	}
	w.claim("c", pods...)
	w.register(s, draapi.DRAPluginService)
	var work sync.WaitGroup
	for _, p := range pods {
		work.Go(func() {
			if err := w.Prepare(context.Background(), p); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	if got := s.all(); len(got) != 1 {
		t.Errorf("the driver was called %v", got)
	}
}

func TestRestart(t *testing.T) {
	ctx := context.Background()
	w, s := newWorld(t), &driverServer{}
	p := podWith("p", "c")
	w.claim("c", p)
	w.register(s, draapi.DRAPluginService)
	if err := w.Prepare(ctx, p); err != nil {
		t.Fatal(err)
	}
	w.restart()
	if err := w.Prepare(ctx, p); err != nil { // although no driver has registered yet
		t.Error(err)
	}
	w.wantCDI(p, 0, "v/c=one", "v/c=two")
	wantError(t, w.Unprepare(ctx, p.UID), "unprepare dynamic resources: DRA driver d.example.com is not registered")
	w.restart()
	if !w.Pods()[p.UID] {
		t.Error("forgotten what nobody took back")
	}
	w.register(s, draapi.DRAPluginService)
	if err := w.Unprepare(ctx, p.UID); err != nil {
		t.Error(err)
	}
	w.restart()
	if len(w.Pods()) != 0 {
		t.Errorf("left: %v", w.Pods())
	}
	// After a boot of the machine, drivers' answers are worth nothing.
	if err := w.reg.Delete(registrytest.Admin, &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}}); err != nil {
		t.Fatal(err)
	}
	w.claim("c", p)
	w.register(s, draapi.DRAPluginService)
	if err := w.Prepare(ctx, p); err != nil {
		t.Fatal(err)
	}
	w.book.boot = "another"
	if err := w.book.save(); err != nil {
		t.Fatal(err)
	}
	w.restart()
	wantError(t, w.Prepare(ctx, p), "is not registered")
}

func TestUnknownServices(t *testing.T) {
	w := newWorld(t)
	wantError(t, w.Register(context.Background(), "d.example.com", "/nowhere", []string{"v1alpha4"}), "none of its services [v1alpha4] is supported: v1.DRAPlugin and v1beta1.DRAPlugin are")
}

// TestAway: the devices of a driver that is away, dead or deregistered, are not offered any more; those of one that is back are.
func TestAway(t *testing.T) {
	w, s := newWorld(t), &driverServer{}
	w.patience = 50 * time.Millisecond
	node := "n"
	publish := func(name, driver string) {
		t.Helper()
		_, err := w.reg.Create(registrytest.Admin, &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.ResourceSliceSpec{
			Driver: driver, NodeName: &node, Pool: resourcev1.ResourcePool{Name: "n", ResourceSliceCount: 1}, Devices: []resourcev1.Device{{Name: "one"}},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	gone := func() bool {
		var list resourcev1.ResourceSliceList
		if err := w.client.Live().List(context.Background(), &list); err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(list.Items, func(s resourcev1.ResourceSlice) bool { return s.Spec.Driver == "d.example.com" })
	}
	eventually := func() {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !gone(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("its devices are still offered")
			}
		}
	}
	publish("theirs", "other.example.com")
	stop := w.register(s, draapi.DRAPluginService)
	publish("ours", "d.example.com")
	stop() // its registration stays, like that of a driver that was killed
	eventually()
	w.register(s, draapi.DRAPluginService)
	publish("ours", "d.example.com")
	w.mu.Lock()
	waiting, endpoints := w.wipes["d.example.com"] != nil, slices.Clone(w.drivers["d.example.com"])
	w.mu.Unlock()
	if waiting {
		t.Error("its devices are to be taken away although it is back")
	}
	for _, d := range endpoints {
		w.Deregister(context.Background(), d.name, d.endpoint)
	}
	eventually()
}
