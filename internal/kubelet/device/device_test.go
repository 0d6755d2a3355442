package device_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"skiff.dev/skiff/internal/kubelet/device"
	"skiff.dev/skiff/test/deviceplugin"
)

const thing = "test.skiff.dev/thing"

// node is a kubelet's folder with a manager that can be started anew.
type node struct {
	*device.Manager
	root string
	stop func()
}

func start(t *testing.T, root string) *node {
	t.Helper()
	m, err := device.New(root, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	n := &node{Manager: m, root: root}
	done := false
	n.stop = func() {
		if !done {
			done = true
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(n.stop)
	eventually(t, func() error { _, err := os.Stat(filepath.Join(root, "device-plugins/kubelet.sock")); return err })
	return n
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func (n *node) wants(t *testing.T, want device.Count) {
	t.Helper()
	eventually(t, func() error {
		if got := n.Counts()[thing]; got != want {
			return fmt.Errorf("the node has %+v, not %+v", got, want)
		}
		return nil
	})
}

func serve(t *testing.T, p *deviceplugin.Plugin) func() {
	t.Helper()
	stop, err := p.Serve()
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	once := func() {
		if !stopped {
			stopped = true
			stop()
		}
	}
	t.Cleanup(once)
	return once
}

func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dev") // a socket's path may not be long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func asking(name string, inits, own string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	of := func(n, count string) corev1.Container {
		return corev1.Container{Name: n, Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{thing: resource.MustParse(count)}}}
	}
	if inits != "" {
		pod.Spec.InitContainers = []corev1.Container{of("init", inits)}
	}
	pod.Spec.Containers = []corev1.Container{of("main", own)}
	return pod
}

func held(n *node, pod *corev1.Pod, container string) (ids []string) {
	for _, d := range n.Held(pod.UID, container) {
		ids = append(ids, d.DeviceIds...)
	}
	return ids
}

func TestAllocate(t *testing.T) {
	ctx, root := t.Context(), folder(t)
	n := start(t, root)
	p := &deviceplugin.Plugin{Resource: thing, Prefers: "c", Dir: filepath.Join(root, "device-plugins")}
	for _, id := range []string{"a", "b", "c"} {
		p.Set(id, pluginapi.Healthy)
	}
	p.Set("d", pluginapi.Unhealthy)
	stop := serve(t, p)
	n.wants(t, device.Count{Capacity: 4, Allocatable: 3})

	one, two := asking("one", "1", "2"), asking("two", "", "1")
	for range 2 { // asked again, it gives the same
		if err := n.Allocate(ctx, one); err != nil {
			t.Fatal(err)
		}
	}
	if got := held(n, one, "init"); !reflect.DeepEqual(got, []string{"c"}) {
		t.Errorf("the init container holds %v", got)
	}
	if got := held(n, one, "main"); !reflect.DeepEqual(got, []string{"a", "c"}) {
		t.Errorf("the container holds %v: what its init container had, and the first that is free", got)
	}
	given, err := n.Start(ctx, one.UID, "main")
	if err != nil || len(given.Env) != 1 || string(given.Env[0].Value) != "a,c" || given.Annotations["test.skiff.dev/devices"] != "a,c" {
		t.Errorf("it gets %+v, %v", given, err)
	}
	if calls := p.Calls(); calls[len(calls)-1] != "prestart [a c]" {
		t.Errorf("the plug-in was asked for %q last", calls[len(calls)-1])
	}
	if err := n.Allocate(ctx, two); err != nil {
		t.Fatal(err)
	}
	var short *device.Short
	if err := n.Allocate(ctx, asking("three", "", "1")); !errors.As(err, &short) || short.Final || short.Available != 0 {
		t.Errorf("a third pod is told %v", err)
	}
	if err := n.Allocate(ctx, asking("four", "", "4")); !errors.As(err, &short) || !short.Final {
		t.Errorf("a pod that can never have enough is told %v", err)
	}

	// A device that turns unhealthy is not given; whoever holds it is told.
	p.Set("b", pluginapi.Unhealthy)
	n.wants(t, device.Count{Capacity: 4, Allocatable: 2})
	if got := n.Health(two.UID, "main"); len(got) != 1 || got[0].Resources[0].Health != corev1.ResourceHealthStatusUnhealthy {
		t.Errorf("the health of what it holds: %+v", got)
	}

	// Started anew, the manager knows who holds what, and has nothing to give until the plug-in is back, which comes by itself.
	n.stop()
	n = start(t, root)
	n.wants(t, device.Count{Capacity: 4, Allocatable: 2})
	if got := held(n, one, "main"); !reflect.DeepEqual(got, []string{"a", "c"}) {
		t.Errorf("after a restart the container holds %v", got)
	}
	if err := n.Free(one.UID); err != nil {
		t.Fatal(err)
	}
	if err := n.Allocate(ctx, asking("five", "", "2")); err != nil {
		t.Errorf("what was freed is not given: %v", err)
	}
	stop()
	n.wants(t, device.Count{Capacity: 4})
	if err := n.Allocate(ctx, asking("six", "", "1")); err == nil || errors.As(err, &short) {
		t.Errorf("without its plug-in a pod is told %v", err)
	}
}

func TestRegisterRefuses(t *testing.T) {
	n := start(t, folder(t))
	for _, r := range []struct{ name, version string }{
		{"thing", "v1beta1"}, {"kubernetes.io/thing", "v1beta1"}, {"a.b/c d", "v1beta1"}, {thing, "v2"}, {thing, "v1beta1"},
	} {
		if err := n.Register(t.Context(), r.name, filepath.Join(n.root, "nobody.sock"), []string{r.version}); err == nil {
			t.Errorf("%s of %s is taken", r.name, r.version)
		}
	}
}

// TestLongPath: where a socket's path cannot be, the node goes on without plug-ins.
func TestLongPath(t *testing.T) {
	root := filepath.Join(t.TempDir(), strings.Repeat("long", 25))
	if err := os.MkdirAll(root, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := device.New(root, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
