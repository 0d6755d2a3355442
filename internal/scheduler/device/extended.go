package device

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/api"
)

// This file is about extended resources that classes of devices stand for (KEP-5004): a pod asks for some as for those of a device plug-in, and where the
// node has no plug-in for them it gets devices of the class, by a claim that the scheduler makes for it.

// ClassChanged takes in a class of devices, and says whether other classes than before stand for extended resources now.
func (b *Book) ClassChanged(old, current *resourcev1.DeviceClass) (remapped bool) {
	if current == nil {
		delete(b.classes, old.Name)
	} else {
		b.classes[current.Name] = current
	}
	clear(b.selected)
	before := b.standsFor
	b.standsFor = map[corev1.ResourceName]string{}
	for name, class := range b.classes {
		b.standsFor[corev1.ResourceName(resourcev1.ResourceDeviceClassPrefix+name)] = name
		if class.Spec.ExtendedResourceName == nil {
			continue
		}
		extended := corev1.ResourceName(*class.Spec.ExtendedResourceName)
		if other, taken := b.standsFor[extended]; !taken || supersedes(class, b.classes[other]) {
			b.standsFor[extended] = name
		}
	}
	return !maps.Equal(before, b.standsFor)
}

// supersedes decides between classes of one extended resource: the younger one counts, of twins the first by name.
func supersedes(class, other *resourcev1.DeviceClass) bool {
	if !class.CreationTimestamp.Equal(&other.CreationTimestamp) {
		return other.CreationTimestamp.Before(&class.CreationTimestamp)
	}
	return class.Name < other.Name
}

// Backed are those of the resources that pods may get as devices, in order.
func (b *Book) Backed(requested ...map[corev1.ResourceName]int64) (list []corev1.ResourceName) {
	for _, r := range requested {
		for name, much := range r {
			if _, is := b.standsFor[name]; is && much > 0 {
				list = append(list, name)
			}
		}
	}
	slices.Sort(list)
	return list
}

// note keeps who has a claim that was made for its extended resources.
func (b *Book) note(claim *resourcev1.ResourceClaim, there bool) {
	owner := metav1.GetControllerOfNoCopy(claim)
	if claim.Annotations[resourcev1.ExtendedResourceClaimAnnotation] != "true" || owner == nil || owner.Kind != "Pod" {
		return
	}
	if there {
		b.made[owner.UID] = claim
	} else if was := b.made[owner.UID]; was != nil && was.UID == claim.UID {
		delete(b.made, owner.UID)
	}
}

// Made is the claim for a pod's extended resources that there is, nil if there is none. One that a pod without a node has is left over from a try that failed.
func (b *Book) Made(p *corev1.Pod) *resourcev1.ResourceClaim {
	if claim := b.made[p.UID]; claim != nil && claim.Namespace == p.Namespace {
		return claim
	}
	return nil
}

// Created says that a claim for extended resources, which was promised devices before it was made, goes by its own name now.
func (b *Book) Created(pod types.UID, claim *resourcev1.ResourceClaim) {
	if p := b.promise[unmade(pod)]; p != nil {
		delete(b.promise, unmade(pod))
		b.promise[claim.UID] = p
	}
}

// unmade is what the claim for a pod's extended resources is known by until it is made.
func unmade(pod types.UID) types.UID { return pod + "/extended-resources" }

// extended is what a pod asks for as extended resources. On each node it is another claim, for what the node has no plug-ins for.
type extended struct {
	pod   *corev1.Pod
	class map[corev1.ResourceName]string
	names []corev1.ResourceName
	made  map[string]Claimed // by names
}

func (b *Book) extendedOf(p *corev1.Pod, backed []corev1.ResourceName) *extended {
	if len(backed) == 0 {
		return nil
	}
	return &extended{p, b.standsFor, backed, map[string]Claimed{}}
}

// on is the claim for a node; false if its plug-ins have everything.
func (e *extended) on(node *corev1.Node) (c Claimed, needed bool) {
	if e == nil {
		return c, false
	}
	var names []corev1.ResourceName
	key := ""
	for _, name := range e.names {
		if q := node.Status.Allocatable[name]; q.Sign() <= 0 {
			names = append(names, name)
			key += string(name) + " "
		}
	}
	c, known := e.made[key]
	if !known && len(names) > 0 {
		c = e.claim(names)
		e.made[key] = c
	}
	return c, len(c.Mappings) > 0
}

func (e *extended) claim(names []corev1.ResourceName) (c Claimed) {
	c.Claim = &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{
		Namespace: e.pod.Namespace, GenerateName: e.pod.Name + "-extended-resources-", UID: unmade(e.pod.UID),
		Annotations:     map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: e.pod.Name, UID: e.pod.UID, Controller: new(true)}},
		Finalizers:      []string{resourcev1.Finalizer},
	}}
	containers := slices.Concat(e.pod.Spec.InitContainers, e.pod.Spec.Containers)
	for _, name := range names {
		requests, mappings := requestsFor(containers, len(e.pod.Spec.InitContainers), name, e.class[name])
		c.Claim.Spec.Devices.Requests = append(c.Claim.Spec.Devices.Requests, requests...)
		c.Mappings = append(c.Mappings, mappings...)
	}
	slices.SortFunc(c.Claim.Spec.Devices.Requests, func(x, y resourcev1.DeviceRequest) int { return strings.Compare(x.Name, y.Name) })
	return c
}

// requestsFor are a claim's requests for one resource, and which containers have what of it. Containers that run side by side have a request each. An init
// container that ends before them uses what is there for those after it; what is needed beyond that is requested once, as much as the neediest
// of them lacks, and they use it one after the other.
func requestsFor(containers []corev1.Container, inits int, name corev1.ResourceName, class string) (requests []resourcev1.DeviceRequest, mappings []corev1.ContainerExtendedResourceRequest) {
	ends := func(i int) bool {
		policy := containers[i].RestartPolicy
		return i < inits && (policy == nil || *policy != corev1.ContainerRestartPolicyAlways)
	}
	use := func(i int, request string) {
		mappings = append(mappings, corev1.ContainerExtendedResourceRequest{ContainerName: containers[i].Name, ResourceName: string(name), RequestName: request})
	}
	own := make([]*resourcev1.DeviceRequest, len(containers))
	for i := range containers {
		if asked := containers[i].Resources.Requests[name]; !ends(i) && asked.Sign() > 0 {
			own[i] = requestOf(i, &containers[i], name, class, asked.Value())
			use(i, own[i].Name)
		}
	}
	var most *resourcev1.DeviceRequest
	var beyond []int // mappings to it
	for i := range inits {
		asked := containers[i].Resources.Requests[name]
		if !ends(i) || asked.Sign() <= 0 {
			continue
		}
		lacks := asked.Value()
		for _, later := range own[i:] {
			if later != nil && lacks > 0 {
				use(i, later.Name)
				lacks -= later.Exactly.Count
			}
		}
		if lacks <= 0 {
			continue
		}
		if most == nil || lacks > most.Exactly.Count {
			most = requestOf(i, &containers[i], name, class, lacks)
		}
		beyond = append(beyond, len(mappings))
		use(i, "")
	}
	for _, k := range beyond {
		mappings[k].RequestName = most.Name
	}
	for _, r := range append(own, most) {
		if r != nil {
			requests = append(requests, *r)
		}
	}
	return requests, mappings
}

func requestOf(i int, c *corev1.Container, name corev1.ResourceName, class string, count int64) *resourcev1.DeviceRequest {
	return &resourcev1.DeviceRequest{Name: api.ExtendedRequestName(i, c, name), Exactly: &resourcev1.ExactDeviceRequest{
		DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: count}}
}

// words says for people which classes stand for what the pod asks for on a node.
func (e *extended) words(node *corev1.Node) string {
	var list []string
	if e != nil {
		for _, name := range e.names {
			if q := node.Status.Allocatable[name]; q.Sign() <= 0 {
				list = append(list, fmt.Sprintf("%s is devices of class %s", name, e.class[name]))
			}
		}
	}
	return strings.Join(list, ", ")
}
