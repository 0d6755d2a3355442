package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"skiff.dev/skiff/test/cluster"
	"skiff.dev/skiff/test/deviceplugin"
)

const thing = "test.skiff.dev/thing"

// TestDevicePlugin: a plug-in offers two devices; pods have one each, through a crash of Skiff, and a third waits for one to be freed. A device that
// turns unhealthy is said to be so.
func TestDevicePlugin(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	p := &deviceplugin.Plugin{Resource: thing, Content: t.TempDir(), Prefers: "two", Dir: filepath.Join(c.DataDir, "kubelet", "device-plugins")}
	if err := os.WriteFile(filepath.Join(p.Content, "f"), []byte("of the device\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	p.Set("one", pluginapi.Healthy)
	p.Set("two", pluginapi.Healthy)
	stop, err := p.Serve()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	wantThings(t, c, "2 2")

	c.Apply(user("p"))
	first := c.WaitPodReady("p")
	if out := c.Kubectl("exec", "p", "--", "sh", "-c", "echo $DEVICES; cat /device/f; test -c /dev/thing && echo there"); out != "two\nof the device\nthere\n" {
		t.Errorf("the container sees %q", out)
	}
	wantHeld(t, c, "p", "two")

	c.Kill()
	c.Up()
	wantThings(t, c, "2 2")
	if now := c.WaitPodReady("p"); now.Status.ContainerStatuses[0].ContainerID != first.Status.ContainerStatuses[0].ContainerID {
		t.Error("the container was restarted")
	}
	c.Apply(user("q"))
	c.WaitPodReady("q")
	wantHeld(t, c, "q", "one")
	c.Apply(user("r"))
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "pod", "r", "-o", `jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}`); out != "0/1 nodes are available: 1 Insufficient "+thing+". preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod." {
			return fmt.Errorf("it waits for %q", out)
		}
		return nil
	})
	c.Kubectl("delete", "pod", "p")
	c.WaitPodReady("r")
	wantHeld(t, c, "r", "two")

	p.Set("two", pluginapi.Unhealthy)
	wantThings(t, c, "2 1")
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "pod", "r", "-o", "jsonpath={.status.containerStatuses[0].allocatedResourcesStatus}")
		if want := `[{"name":"` + thing + `","resources":[{"health":"Unhealthy","resourceID":"two"}]}]`; out != want {
			return fmt.Errorf("its status says %s", out)
		}
		return nil
	})
	if calls := p.Calls(); !slices.Contains(calls, "prestart [one]") || !slices.Contains(calls, "prefer [one two]") {
		t.Errorf("the plug-in was asked %q", calls)
	}
}

// wantThings wants the node to have so many: capacity and allocatable.
func wantThings(t *testing.T, c *cluster.Cluster, want string) {
	t.Helper()
	cluster.Eventually(t, func() error {
		const about = `{.items[0].status.capacity.test\.skiff\.dev/thing} {.items[0].status.allocatable.test\.skiff\.dev/thing}`
		if out := c.Kubectl("get", "nodes", "-o", "jsonpath="+about); out != want {
			return fmt.Errorf("the node has %q, not %q", out, want)
		}
		return nil
	})
}

// wantHeld wants the pod resources API to say that the pod has the device.
func wantHeld(t *testing.T, c *cluster.Cluster, pod, id string) {
	t.Helper()
	devices := podResources(t, c, pod).Devices
	if len(devices) != 1 || devices[0].ResourceName != thing || !slices.Equal(devices[0].DeviceIds, []string{id}) {
		t.Errorf("%s has %v, not %s", pod, devices, id)
	}
}

// shownClaims are the claims and devices that the pod resources API says the pod's first container has.
func shownClaims(t *testing.T, c *cluster.Cluster, pod string) (list []string) {
	t.Helper()
	for _, claim := range podResources(t, c, pod).DynamicResources {
		for _, r := range claim.ClaimResources {
			list = append(list, claim.ClaimName+" "+r.DeviceName)
		}
	}
	return list
}

// podResources is what the pod resources API says of a pod's first container.
func podResources(t *testing.T, c *cluster.Cluster, pod string) *podresources.ContainerResources {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(c.DataDir, "kubelet", "pod-resources", "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := podresources.NewPodResourcesListerClient(conn)
	got, err := client.Get(ctx, &podresources.GetPodResourcesRequest{PodNamespace: "default", PodName: pod}, grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	return got.PodResources.Containers[0]
}

func user(name string) string {
	return `
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "skiff.dev/web:1", resources: {limits: {` + thing + `: 1}}}
`
}
