package device

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/structured"
)

// A class stands for its own name and for the one it is given; of several with one name the youngest does, and when that goes the next.
func TestWhatClassesStandFor(t *testing.T) {
	begin := time.Unix(1_800_000_000, 0)
	class := func(name, extended string, age int) *resourcev1.DeviceClass {
		c := &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(begin.Add(-time.Duration(age) * time.Hour))}}
		if extended != "" {
			c.Spec.ExtendedResourceName = &extended
		}
		return c
	}
	const gpu = "example.com/gpu"
	b := NewBook(nil)
	for _, step := range []struct {
		old, current *resourcev1.DeviceClass
		remapped     bool
		gpu          string
	}{
		{nil, class("plain", "", 5), true, ""},
		{nil, class("old", gpu, 4), true, "old"},
		{nil, class("young", gpu, 2), true, "young"},
		{nil, class("twin", gpu, 2), true, "twin"},
		{nil, class("older", gpu, 9), true, "twin"},
		{class("twin", gpu, 2), class("twin", gpu, 2), false, "twin"},
		{class("twin", gpu, 2), class("twin", "example.com/other", 2), true, "young"},
		{class("young", gpu, 2), nil, true, "old"},
		{class("old", gpu, 4), nil, true, "older"},
		{class("older", gpu, 9), nil, true, ""},
	} {
		name := ""
		if step.current != nil {
			name = step.current.Name
		}
		if got := b.ClassChanged(step.old, step.current); got != step.remapped || b.standsFor[gpu] != step.gpu {
			t.Errorf("after %v, %q: %q, changed %t", step.old, name, b.standsFor[gpu], got)
		}
		if name != "" && b.standsFor[corev1.ResourceName("deviceclass.resource.kubernetes.io/"+name)] != name {
			t.Errorf("%s does not stand for itself", name)
		}
	}
	backed := b.Backed(map[corev1.ResourceName]int64{"example.com/other": 1, "example.com/unknown": 1, "cpu": 4}, map[corev1.ResourceName]int64{"deviceclass.resource.kubernetes.io/plain": 2, "example.com/none": 0})
	if want := []corev1.ResourceName{"deviceclass.resource.kubernetes.io/plain", "example.com/other"}; !slices.Equal(backed, want) {
		t.Errorf("backed by devices: %v, want %v", backed, want)
	}
}

// container asks for so many of a resource, beside CPU and memory, which come before and after it by name.
func container(name string, much string, of corev1.ResourceName, sidecar bool) corev1.Container {
	c := corev1.Container{Name: name}
	c.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1Gi")}
	if much != "" {
		c.Resources.Requests[of] = resource.MustParse(much)
	}
	if sidecar {
		c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	}
	return c
}

func TestRequestsFor(t *testing.T) {
	const gpu = corev1.ResourceName("example.com/gpu")
	init := func(name, much string) corev1.Container { return container(name, much, gpu, false) }
	sidecar := func(name, much string) corev1.Container { return container(name, much, gpu, true) }
	for _, one := range []struct {
		what              string
		inits, containers []corev1.Container
		requests          string
		mappings          string
	}{
		{"containers side by side", nil, []corev1.Container{init("a", "2"), init("b", ""), init("c", "1")},
			"container-0-request-1=2 container-2-request-1=1", "a:container-0-request-1 c:container-2-request-1"},
		{"an init container uses what comes after", []corev1.Container{init("i", "2")}, []corev1.Container{init("a", "1"), init("b", "3")},
			"container-1-request-1=1 container-2-request-1=3", "a:container-1-request-1 b:container-2-request-1 i:container-1-request-1 i:container-2-request-1"},
		{"and no more than it needs", []corev1.Container{init("i", "1")}, []corev1.Container{init("a", "1"), init("b", "3")},
			"container-1-request-1=1 container-2-request-1=3", "a:container-1-request-1 b:container-2-request-1 i:container-1-request-1"},
		{"but not what a sidecar before it has", []corev1.Container{sidecar("s", "1"), init("i", "2"), sidecar("u", "1")}, []corev1.Container{init("a", "")},
			"container-0-request-1=1 container-1-request-1=1 container-2-request-1=1", "s:container-0-request-1 u:container-2-request-1 i:container-2-request-1 i:container-1-request-1"},
		{"what several need beyond that is there once", []corev1.Container{init("i", "2"), init("j", "4"), init("k", "1")}, []corev1.Container{init("a", "1")},
			"container-1-request-1=3 container-3-request-1=1", "a:container-3-request-1 i:container-3-request-1 i:container-1-request-1 j:container-3-request-1 j:container-1-request-1 k:container-3-request-1"},
		{"only an init container asks", []corev1.Container{init("i", "2")}, []corev1.Container{init("a", "")}, "container-0-request-1=2", "i:container-0-request-1"},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "p", UID: "u"}, Spec: corev1.PodSpec{InitContainers: one.inits, Containers: one.containers}}
		b := NewBook(nil)
		b.ClassChanged(nil, &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: new(string(gpu))}})
		c, needed := b.extendedOf(p, []corev1.ResourceName{gpu}).on(&corev1.Node{})
		var requests, mappings []string
		for _, r := range c.Claim.Spec.Devices.Requests {
			if e := r.Exactly; e.DeviceClassName != "gold" || e.AllocationMode != resourcev1.DeviceAllocationModeExactCount {
				t.Errorf("%s: request %+v", one.what, e)
			}
			requests = append(requests, fmt.Sprintf("%s=%d", r.Name, r.Exactly.Count))
		}
		for _, m := range c.Mappings {
			if m.ResourceName != string(gpu) {
				t.Errorf("%s: mapping %+v", one.what, m)
			}
			mappings = append(mappings, m.ContainerName+":"+m.RequestName)
		}
		if got := strings.Join(requests, " "); !needed || got != one.requests {
			t.Errorf("%s: requests %s, want %s", one.what, got, one.requests)
		}
		if got := strings.Join(mappings, " "); got != one.mappings {
			t.Errorf("%s: mappings %s, want %s", one.what, got, one.mappings)
		}
		if owner := metav1.GetControllerOf(c.Claim); owner == nil || owner.UID != "u" || c.Claim.GenerateName != "p-extended-resources-" || c.Claim.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" {
			t.Errorf("%s: claim %+v", one.what, c.Claim.ObjectMeta)
		}
	}
}

// Each node has its own claim: for what it has no plug-in for.
func TestClaimOfANode(t *testing.T) {
	b := NewBook(nil)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", UID: "u"}}
	extended := map[corev1.ResourceName]int64{}
	for k, class := range []string{"gold", "silver"} {
		name := corev1.ResourceName("example.com/" + class)
		extended[name] = 1
		b.ClassChanged(nil, &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: class}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: new(string(name))}})
		p.Spec.Containers = append(p.Spec.Containers, container(fmt.Sprint("c", k), "1", name, false))
	}
	e := b.extendedOf(p, b.Backed(extended))
	for _, one := range []struct {
		node corev1.ResourceList
		want string
	}{
		{nil, "[gold silver]"},
		{corev1.ResourceList{"example.com/gold": resource.MustParse("1")}, "[silver]"},
		{corev1.ResourceList{"example.com/gold": resource.MustParse("0"), "example.com/silver": resource.MustParse("4")}, "[gold]"},
		{corev1.ResourceList{"example.com/gold": resource.MustParse("1"), "example.com/silver": resource.MustParse("4")}, "[]"},
	} {
		c, needed := e.on(&corev1.Node{Status: corev1.NodeStatus{Allocatable: one.node}})
		classes := []string{}
		if needed {
			for _, r := range c.Claim.Spec.Devices.Requests {
				classes = append(classes, r.Exactly.DeviceClassName)
			}
		}
		if got := fmt.Sprint(classes); got != one.want {
			t.Errorf("on a node with %v: %s, want %s", one.node, got, one.want)
		}
	}
}

// What is promised to a claim that is still to be made stays promised when it is made, and until it is seen written.
func TestPromiseToAClaimToBeMade(t *testing.T) {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "p", UID: "pod"}}
	plan, gpu := (&extended{pod: p}).claim(nil), structured.MakeDeviceID("d", "p", "gpu")
	plan.Allocation = allocation("gpu")
	real := plan.Claim.DeepCopy()
	real.Name, real.UID = "made", "real"
	written := real.DeepCopy()
	written.Status.Allocation = allocation("gpu")
	list := func(c *resourcev1.ResourceClaim) []Claimed { return []Claimed{{Claim: c, Allocation: plan.Allocation}} }
	for _, one := range []struct {
		name string
		do   func(b *Book)
		free bool
		made bool
	}{
		{"not made", func(b *Book) { b.Kept("pod", list(plan.Claim), []Outcome{Refused}) }, true, false},
		{"made", func(b *Book) { b.Created("pod", real); b.ClaimChanged(nil, real) }, false, true},
		{"made, and in doubt", func(b *Book) { b.Created("pod", real); b.Kept("pod", list(real), []Outcome{Unknown}) }, false, false},
		{"made, in doubt, seen and deleted", func(b *Book) {
			b.Created("pod", real)
			b.Kept("pod", list(real), []Outcome{Unknown})
			b.ClaimChanged(nil, real)
			b.ClaimChanged(real, nil)
		}, true, false},
		{"seen made before that is known", func(b *Book) { b.ClaimChanged(nil, real); b.Created("pod", real) }, false, true},
		{"written and seen", func(b *Book) {
			b.Created("pod", real)
			b.ClaimChanged(nil, real)
			b.Kept("pod", list(real), []Outcome{Written})
			b.ClaimChanged(real, written)
		}, false, true},
		{"and deleted", func(b *Book) {
			b.Created("pod", real)
			b.ClaimChanged(nil, written)
			b.Kept("pod", list(real), []Outcome{Written})
			b.ClaimChanged(written, nil)
		}, true, false},
	} {
		b := NewBook(nil)
		b.Promise("pod", list(plan.Claim))
		one.do(b)
		if free := b.held.free(gpu); free != one.free || (b.Made(p) != nil) != one.made {
			t.Errorf("%s: free %t, made %v", one.name, free, b.Made(p))
		}
	}
}
