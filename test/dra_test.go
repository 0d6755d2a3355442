package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/test/cluster"
	"skiff.dev/skiff/test/dradriver"
)

const draName = "dra.test.skiff.dev"

// TestDRA: a driver offers one device; a pod has it, through a crash of Skiff; another waits until the device was taken back. A
// taint evicts that one while the driver is away, which it must wait for.
func TestDRA(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	node := c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	d := &dradriver.Driver{Name: draName, Node: node, Devices: []string{"one"}, Content: t.TempDir()}
	if err := os.WriteFile(filepath.Join(d.Content, "f"), []byte("of the device\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	serve := serveDRA(t, c, d)
	stop := serve()
	c.Kubectl("wait", "resourceslices", "--all", "--for=jsonpath={.spec.nodeName}="+node, "--timeout=3m")
	c.Apply(`
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: things}
spec: {selectors: [{cel: {expression: 'device.driver == "` + draName + `"'}}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: thing}
spec: {spec: {devices: {requests: [{name: it, exactly: {deviceClassName: things}}]}}}
` + claimant("p"))
	p := c.WaitPodReady("p")
	if out := c.Kubectl("exec", "p", "-c", "main", "--", "sh", "-c", "echo $DEVICE_IT; cat /device/f"); out != "one\nof the device\n" {
		t.Errorf("the container sees %q", out)
	}
	if out := c.Kubectl("exec", "p", "-c", "other", "--", "sh", "-c", "echo -$DEVICE_IT-"); out != "--\n" {
		t.Errorf("the container that asked for nothing sees %q", out)
	}
	sickDevice(t, c, d)
	c.Apply(claimant("q"))
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "pod", "q", "-o", `jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}`)
		if !strings.Contains(out, "cannot allocate all claims") {
			return fmt.Errorf("it waits for %q", out)
		}
		return nil
	})

	c.Kill()
	c.Up()
	if now := c.WaitPodReady("p"); now.Status.ContainerStatuses[0].ContainerID != p.Status.ContainerStatuses[0].ContainerID {
		t.Error("the container was restarted")
	}
	c.Kubectl("delete", "pod", "p")
	c.WaitPodReady("q")
	wantCalls(t, d, "prepare p-it", "unprepare p-it", "prepare q-it")

	stop()
	c.Apply(`
apiVersion: resource.k8s.io/v1
kind: DeviceTaintRule
metadata: {name: broken}
spec: {deviceSelector: {driver: ` + draName + `}, taint: {key: test.skiff.dev/broken, effect: NoExecute}}
`)
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "events", "-o", `jsonpath={.items[?(@.reason=="FailedSync")].message}`)
		if !strings.Contains(out, "unprepare dynamic resources: DRA driver "+draName+" is not registered") {
			return fmt.Errorf("the events say %q", out)
		}
		return nil
	})
	serve()
	c.WaitPodGone("q")
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "resourceclaims", "--no-headers"); strings.Contains(out, "-it-") {
			return fmt.Errorf("left: %s", out)
		}
		return nil
	})
	wantCalls(t, d, "unprepare q-it")
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "devicetaintrule", "broken", "-o", `jsonpath={.status.conditions[?(@.type=="EvictionInProgress")]}`)
		if !strings.Contains(out, `"status":"False"`) || !strings.Contains(out, "1 pod evicted") {
			return fmt.Errorf("the rule says %s", out)
		}
		return nil
	})
}

// TestDRAExtended: pods ask for devices as for those of a device plug-in. Each container has those it asked for; a pod that has ended gives its own back, and the
// claim that was made for it goes.
func TestDRAExtended(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	node := c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	d := &dradriver.Driver{Name: draName, Node: node, Devices: []string{"one", "two"}, Content: t.TempDir()}
	serveDRA(t, c, d)()
	c.Apply(`
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: things}
spec: {extendedResourceName: test.skiff.dev/thing, selectors: [{cel: {expression: 'device.driver == "` + draName + `"'}}]}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: things}
spec: {hard: {requests.test.skiff.dev/thing: 9, requests.deviceclass.resource.kubernetes.io/things: 9, things.deviceclass.resource.k8s.io/devices: 9}}
`)
	used := func(want string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			out := c.Kubectl("get", "resourcequota", "things", "-o", "go-template={{range $k, $v := .status.used}}{{$v}} {{end}}")
			if out != want {
				return fmt.Errorf("used %s", out)
			}
			return nil
		})
	}
	used("0 0 0 ")
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: "skiff.dev/web:1", resources: {limits: {test.skiff.dev/thing: 1}}}
  - {name: other, image: "skiff.dev/web:1", command: [sleep, inf]}
---
apiVersion: v1
kind: Pod
metadata: {name: implicit}
spec:
  restartPolicy: Never
  containers:
  - {name: main, image: "skiff.dev/web:1", command: [sh, -c, 'echo $DEVICE_CONTAINER_0_REQUEST_0; until [ -e /end ]; do sleep 1; done'], resources: {limits: {deviceclass.resource.kubernetes.io/things: 1}}}
`)
	p := c.WaitPodReady("p")
	c.WaitPodReady("implicit")
	mine := strings.TrimSpace(c.Kubectl("exec", "p", "-c", "main", "--", "sh", "-c", "ls /device && echo $DEVICE_CONTAINER_0_REQUEST_0"))
	other := strings.TrimSpace(c.Kubectl("logs", "implicit"))
	if both := []string{mine, other}; !slices.Contains(both, "one") || !slices.Contains(both, "two") {
		t.Errorf("the containers see %q", both)
	}
	if out := c.Kubectl("exec", "p", "-c", "other", "--", "sh", "-c", "ls -d /device || env"); strings.Contains(out, "DEVICE") || strings.Contains(out, "/device") {
		t.Errorf("the container that asked for nothing sees %q", out)
	}
	s := p.Status.ExtendedResourceClaimStatus
	if s == nil || !strings.HasPrefix(s.ResourceClaimName, "p-extended-resources-") || len(s.RequestMappings) != 1 || s.RequestMappings[0].ResourceName != "test.skiff.dev/thing" {
		t.Fatalf("the running pod says %+v", s)
	}
	if shown := shownClaims(t, c, "p"); !slices.Equal(shown, []string{s.ResourceClaimName + " " + mine}) {
		t.Errorf("the pod resources API shows %v", shown)
	}
	used("2 2 2 ")
	c.Apply(user("q"))
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "pod", "q", "-o", `jsonpath={.status.conditions[?(@.type=="PodScheduled")].message}`)
		if !strings.Contains(out, "cannot allocate all claims") {
			return fmt.Errorf("it waits for %q", out)
		}
		return nil
	})
	c.Kubectl("exec", "implicit", "--", "sh", "-c", "echo > /end")
	q := c.WaitPodReady("q")
	if out := c.Kubectl("get", "pod", "implicit", "-o", "jsonpath={.status.phase}"); out != "Succeeded" {
		t.Errorf("the pod whose device q has is %s", out)
	}
	c.Kubectl("delete", "pod", "p")
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "resourceclaims", "-o", "jsonpath={.items[*].metadata.name}")
		if out != q.Status.ExtendedResourceClaimStatus.ResourceClaimName {
			return fmt.Errorf("claims %s", out)
		}
		return nil
	})
	used("1 1 1 ")
	wantCalls(t, d, "prepare p-extended-resources-", "unprepare p-extended-resources-")
	wantCalls(t, d, "unprepare implicit-extended-resources-", "prepare q-extended-resources-")
}

// TestDRAShared: two pods share a device that has to get ready before they are bound, and a third finds too little of it left.
func TestDRAShared(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	node := c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	d := &dradriver.Driver{Name: draName, Node: node, Devices: []string{"one"}, Content: t.TempDir(), Shape: func(d *resourcev1.Device) {
		d.AllowMultipleAllocations = new(true)
		d.Capacity = map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{"memory": {Value: resource.MustParse("10Gi")}}
		d.BindingConditions, d.BindingFailureConditions = []string{"Attached"}, []string{"Broken"}
	}}
	serveDRA(t, c, d)()
	c.Apply(`
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: things}
spec: {selectors: [{cel: {expression: 'device.driver == "` + draName + `" && device.allowMultipleAllocations'}}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: thing}
spec: {spec: {devices: {requests: [{name: it, exactly: {deviceClassName: things, capacity: {requests: {memory: 4Gi}}}}]}}}
` + claimant("p") + claimant("q"))
	for _, name := range []string{"p", "q"} {
		cluster.Eventually(t, func() error {
			out, err := c.Skiff("explain", "pod", name)
			if !strings.Contains(out, "for its devices to get ready: Attached of device "+draName+"/"+node+"/one") {
				return fmt.Errorf("the explanation of %s is %s, %v", name, out, err)
			}
			return nil
		})
		if out := c.Kubectl("get", "pod", name, "-o", "jsonpath={.spec.nodeName}"); out != "" {
			t.Errorf("%s was bound to %s before its device was ready", name, out)
		}
	}
	claims, err := c.Client().ResourceV1().ResourceClaims("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(claims.Items) != 2 {
		t.Fatal(claims, err)
	}
	for i := range claims.Items {
		readyDevice(t, c, &claims.Items[i])
	}
	for _, name := range []string{"p", "q"} {
		c.WaitPodReady(name)
		if out := c.Kubectl("exec", name, "-c", "main", "--", "sh", "-c", "echo $DEVICE_IT"); out != "one\n" {
			t.Errorf("the container of %s sees %q", name, out)
		}
	}
	c.Apply(claimant("r"))
	cluster.Eventually(t, func() error {
		out, err := c.Skiff("explain", "pod", "r")
		if !strings.Contains(out, "2Gi of 10Gi memory of one free") {
			return fmt.Errorf("the explanation of r is %s, %v", out, err)
		}
		return nil
	})
}

// readyDevice reports that what a claim has is ready.
func readyDevice(t *testing.T, c *cluster.Cluster, claim *resourcev1.ResourceClaim) {
	t.Helper()
	r := claim.Status.Allocation.Devices.Results[0]
	if r.ShareID == nil {
		t.Fatalf("allocated without a share: %+v", r)
	}
	claim.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: r.Driver, Pool: r.Pool, Device: r.Device, ShareID: new(string(*r.ShareID)), Conditions: []metav1.Condition{
		{Type: "Attached", Status: metav1.ConditionTrue, Reason: "Tested", LastTransitionTime: metav1.Now()}}}}
	if _, err := c.Client().ResourceV1().ResourceClaims(claim.Namespace).UpdateStatus(t.Context(), claim, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// serveDRA returns what starts the driver.
func serveDRA(t *testing.T, c *cluster.Cluster, d *dradriver.Driver) func() (stop func()) {
	t.Helper()
	socket, err := os.MkdirTemp("", "dra") // a socket's path may not be long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(socket) })
	return func() func() {
		t.Helper()
		stop, err := d.Serve(c.Client(), socket, filepath.Join(c.DataDir, "kubelet", "plugins_registry"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		return stop
	}
}

func claimant(name string) string {
	return `
---
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  terminationGracePeriodSeconds: 1
  resourceClaims: [{name: it, resourceClaimTemplateName: thing}]
  containers:
  - {name: main, image: "skiff.dev/web:1", resources: {claims: [{name: it}]}}
  - {name: other, image: "skiff.dev/web:1", command: [sleep, inf]}
`
}

func sickDevice(t *testing.T, c *cluster.Cluster, d *dradriver.Driver) {
	t.Helper()
	d.Report("one", false, "too hot")
	cluster.Eventually(t, func() error {
		const about = `{.status.containerStatuses[?(@.name=="main")].allocatedResourcesStatus[0]}`
		out := c.Kubectl("get", "pod", "p", "-o", "jsonpath="+about)
		if !strings.Contains(out, `"name":"claim:it"`) || !strings.Contains(out, `"health":"Unhealthy"`) || !strings.Contains(out, "too hot") {
			return fmt.Errorf("its status says %s", out)
		}
		return nil
	})
}

// wantCalls wants calls that begin so, in this order.
func wantCalls(t *testing.T, d *dradriver.Driver, want ...string) {
	t.Helper()
	calls, errs := d.Calls()
	rest := calls
	for _, w := range want {
		i := slices.IndexFunc(rest, func(call string) bool { return strings.HasPrefix(call, w) })
		if i < 0 {
			t.Errorf("the driver was called %v, without %q in its place; %v", calls, w, errs)
			return
		}
		rest = rest[i+1:]
	}
}
