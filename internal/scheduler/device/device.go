// Package device finds devices for pods' resource claims: upstream's DynamicResources, with structured parameters.
//
// A Book knows which devices drivers offer (ResourceSlices, less what DeviceTaintRules taint), who has which (claims with an allocation) and what was
// promised and is not seen written yet. Choosing devices on one node is the published structured allocator's; everything around it is here.
// Invariant: a device that a claim has, or was promised, is offered to no other, however late its writing is seen. The scheduler's own goroutine
// alone uses a Book. Nothing is made, and no expression compiled, before a pod has a claim.
package device

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/cel"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// Book of devices and claims.
type Book struct {
	reader    crclient.Reader
	has       map[types.UID]*resourcev1.AllocationResult // claims, as they were last seen
	promise   map[types.UID]*promise                     // likewise; not seen written yet
	held      holdings                                   // what both have
	slices    map[string]*resourcev1.ResourceSlice
	onNode    map[string][]*resourcev1.ResourceSlice // by node; "" for those that several nodes can use; with taints
	rules     map[string]*resourcev1.DeviceTaintRule
	classes   map[string]*resourcev1.DeviceClass
	standsFor map[corev1.ResourceName]string          // which class for an extended resource
	made      map[types.UID]*resourcev1.ResourceClaim // for extended resources, by pod
	cache     *cel.Cache
	selected  map[*resourcev1.DeviceClass]map[*resourcev1.ResourceSlice][]int // by class and slice, with taints; which devices of it the class is about
}

// promise of an allocation to a claim, for the sake of pods.
type promise struct {
	allocation *resourcev1.AllocationResult
	pods       map[types.UID]state
}

// state of a pod that counts on a promise.
type state struct{ writing, gone bool }

// Outcome of writing an allocation.
type Outcome int

// An outcome is unknown if the API was asked and did not answer.
const (
	Refused Outcome = iota
	Unknown
	Written
)

// NewBook returns an empty book.
func NewBook(reader crclient.Reader) *Book {
	return &Book{
		reader: reader, has: map[types.UID]*resourcev1.AllocationResult{}, promise: map[types.UID]*promise{},
		held: newHoldings(), slices: map[string]*resourcev1.ResourceSlice{}, onNode: map[string][]*resourcev1.ResourceSlice{}, rules: map[string]*resourcev1.DeviceTaintRule{},
		classes: map[string]*resourcev1.DeviceClass{}, made: map[types.UID]*resourcev1.ResourceClaim{},
		selected: map[*resourcev1.DeviceClass]map[*resourcev1.ResourceSlice][]int{},
	}
}

// ClaimChanged takes a claim in and says whether that may help a pod that waits.
func (b *Book) ClaimChanged(old, current *resourcev1.ResourceClaim) (helps bool) {
	if current == nil {
		b.set(old.UID, nil)
		b.settle(old.UID)
		b.note(old, false)
		return true
	}
	if old != nil && old.UID != current.UID {
		b.set(old.UID, nil)
		b.settle(old.UID)
		b.note(old, false)
	}
	b.note(current, true)
	b.set(current.UID, current.Status.Allocation)
	if current.Status.Allocation != nil {
		b.settle(current.UID)
	}
	return old == nil || old.Status.Allocation != nil && current.Status.Allocation == nil || len(current.Status.ReservedFor) < len(old.Status.ReservedFor)
}

func (b *Book) set(claim types.UID, allocation *resourcev1.AllocationResult) {
	b.held.add(b.has[claim], -1)
	b.held.add(allocation, 1)
	if allocation == nil {
		delete(b.has, claim)
		return
	}
	b.has[claim] = allocation
}

// settle ends a promise: it was kept, or there is nobody left to keep it to.
func (b *Book) settle(claim types.UID) {
	if p := b.promise[claim]; p != nil {
		b.held.add(p.allocation, -1)
		delete(b.promise, claim)
	}
}

// Promise keeps devices for the claims of a pod until they are seen written, or Kept or Forget says that they won't be.
func (b *Book) Promise(pod types.UID, list []Claimed) {
	for _, c := range list {
		p := b.promise[c.Claim.UID]
		switch {
		case p == nil && c.Allocation == nil:
			continue // it has its devices
		case p == nil:
			p = &promise{allocation: c.Allocation, pods: map[types.UID]state{}}
			b.promise[c.Claim.UID] = p
			b.held.add(p.allocation, 1)
		}
		p.pods[pod] = state{writing: true}
	}
}

// Kept says how the writing for a pod has ended, claim by claim; one that was not come to was refused. Refused devices are free again, unless other
// pods count on them. Written ones stay promised until they are seen. Of those in doubt the pod's next try asks for the same.
func (b *Book) Kept(pod types.UID, list []Claimed, how []Outcome) {
	for k, c := range list {
		p := b.promise[c.Claim.UID]
		if p == nil {
			continue
		}
		was, outcome := p.pods[pod], Refused
		if k < len(how) {
			outcome = how[k]
		}
		if outcome == Refused || outcome == Unknown && was.gone {
			b.drop(c.Claim.UID, pod)
			continue
		}
		p.pods[pod] = state{gone: was.gone}
	}
}

// Forget is for a pod that is gone, or is to be given other devices. What is being written for it just now stays promised.
// It says whether anything is free for that.
func (b *Book) Forget(pod types.UID) (freed bool) {
	for claim, p := range b.promise {
		s, counts := p.pods[pod]
		switch {
		case counts && s.writing:
			p.pods[pod] = state{true, true}
		case counts:
			b.drop(claim, pod)
			freed = true
		}
	}
	return freed
}

func (b *Book) drop(claim, pod types.UID) {
	p := b.promise[claim]
	delete(p.pods, pod)
	if len(p.pods) == 0 {
		b.settle(claim)
	}
}

// allocation that a claim has or was promised.
func (b *Book) allocation(c *resourcev1.ResourceClaim) *resourcev1.AllocationResult {
	if c.Status.Allocation != nil {
		return c.Status.Allocation
	}
	if p := b.promise[c.UID]; p != nil {
		return p.allocation
	}
	return nil
}

// SliceChanged takes in what a driver offers.
func (b *Book) SliceChanged(old, current *resourcev1.ResourceSlice) {
	one := old
	if current != nil {
		one = current
	}
	delete(b.slices, one.Name)
	if current != nil {
		b.slices[one.Name] = current
	}
	b.sorted()
}

// RuleChanged takes a rule in that taints devices.
func (b *Book) RuleChanged(old, current *resourcev1.DeviceTaintRule) {
	if current == nil {
		delete(b.rules, old.Name)
	} else {
		b.rules[current.Name] = current
	}
	b.sorted()
}

// sorted forgets which slices nodes have, and what is in them.
func (b *Book) sorted() {
	clear(b.onNode)
	clear(b.selected)
}

// offered are the slices that node can use, or might.
func (b *Book) offered(node string) []*resourcev1.ResourceSlice {
	if len(b.onNode) == 0 {
		for _, s := range b.slices {
			name := ""
			if s.Spec.NodeName != nil {
				name = *s.Spec.NodeName
			}
			b.onNode[name] = append(b.onNode[name], b.tainted(s))
		}
		for _, list := range b.onNode { // the allocator takes devices in order
			slices.SortFunc(list, func(x, y *resourcev1.ResourceSlice) int { return strings.Compare(x.Name, y.Name) })
		}
	}
	if len(b.onNode[""]) == 0 {
		return b.onNode[node]
	}
	return slices.Concat(b.onNode[node], b.onNode[""])
}

// tainted is a slice with the taints of the rules that select its devices.
func (b *Book) tainted(s *resourcev1.ResourceSlice) *resourcev1.ResourceSlice {
	own := s
	for _, rule := range b.rules {
		selector := rule.Spec.DeviceSelector
		if selector == nil || differs(selector.Driver, s.Spec.Driver) || differs(selector.Pool, s.Spec.Pool.Name) {
			continue
		}
		for k := range s.Spec.Devices {
			if differs(selector.Device, s.Spec.Devices[k].Name) {
				continue
			}
			if own == s {
				own = s.DeepCopy()
			}
			own.Spec.Devices[k].Taints = append(own.Spec.Devices[k].Taints, rule.Spec.Taint)
		}
	}
	return own
}

func differs(want *string, has string) bool { return want != nil && *want != has }

// classes are the DeviceClasses as the allocator asks for them.
type classes struct{ reader crclient.Reader }

func (c classes) Get(name string) (*resourcev1.DeviceClass, error) {
	var class resourcev1.DeviceClass
	if err := c.reader.Get(context.Background(), crclient.ObjectKey{Name: name}, &class); err != nil {
		return nil, err
	}
	return &class, nil
}

func (c classes) List() (out []*resourcev1.DeviceClass, err error) {
	var list resourcev1.DeviceClassList
	if err := c.reader.List(context.Background(), &list, crclient.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	for i := range list.Items {
		out = append(out, &list.Items[i])
	}
	return out, nil
}
