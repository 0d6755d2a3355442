package device

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// What of the API is GA or beta, and on by default.
var features = structured.Features{
	AdminAccess: true, PrioritizedList: true, DeviceTaints: true, PartitionableDevices: true,
	ConsumableCapacity: true, FractionalCapacityRange: true, DeviceBindingAndStatus: true,
}

// compiled is how many expressions are kept, as upstream.
const compiled = 10

// Late is why a node will not do on which finding devices took too long. That may go better at the next try.
const Late = "timed out trying to allocate devices"

// Reasons upstream gives.
const (
	notHere = "resourceclaim not available on the node"
	notAll  = "cannot allocate all claims"
)

// Need is what a pod's claims come to.
type Need struct {
	claims   []*resourcev1.ResourceClaim // all
	open     []*resourcev1.ResourceClaim // without devices
	places   []place                     // where the others' are
	extended *extended                   // nil for most
	known    map[string]outcome          // by node; good as long as nothing changes
	limits   Limits
}

// Limits in time.
type Limits struct {
	Search  time.Duration // for devices, on one node; it is exponential in bad cases. 0: none
	Expired time.Time     // devices that were allocated before and are not ready for their pods to be bound won't be
}

type place struct {
	claim *resourcev1.ResourceClaim
	at    *nodeaffinity.NodeSelector
	lost  bool // its devices will not be ready
}

// elsewhere says that a claim's devices are of no use on a node.
func (p *place) elsewhere(node *corev1.Node) bool {
	return p.lost || p.at != nil && !p.at.Match(node)
}

type outcome struct {
	list   []Claimed
	reason string
}

// Claimed is a claim and what it is to get; a nil allocation is for one that has its devices. Mappings are of the claim for a pod's extended resources, which has
// no name until it is made.
type Claimed struct {
	Claim      *resourcev1.ResourceClaim
	Allocation *resourcev1.AllocationResult
	Mappings   []corev1.ContainerExtendedResourceRequest
}

// Of finds out what a pod's claims need, and those of its extended resources that devices back; nil for pods without. why is the reason if no node can do yet,
// whichever. The error is resourceclaim.ErrClaimNotFound if a claim is still to be made from its template; the pod's status will name it.
func (b *Book) Of(p *corev1.Pod, backed []corev1.ResourceName, limits Limits) (n *Need, why string, err error) {
	if len(p.Spec.ResourceClaims) == 0 && len(backed) == 0 {
		return nil, "", nil
	}
	n = &Need{known: map[string]outcome{}, limits: limits, extended: b.extendedOf(p, backed)}
	for k := range p.Spec.ResourceClaims {
		name, owned, err := resourceclaim.Name(p, &p.Spec.ResourceClaims[k])
		if err != nil {
			return nil, "", err
		}
		if name == nil {
			continue // the template needs no claim
		}
		var claim resourcev1.ResourceClaim
		err = b.reader.Get(context.Background(), crclient.ObjectKey{Namespace: p.Namespace, Name: *name}, &claim)
		switch {
		case apierrors.IsNotFound(err):
			return nil, fmt.Sprintf("resourceclaim %q not found", *name), nil
		case err != nil:
			return nil, "", err
		case claim.DeletionTimestamp != nil:
			return nil, fmt.Sprintf("resourceclaim %q is being deleted", *name), nil
		}
		if owned {
			if err := resourceclaim.IsForPod(p, &claim, false); err != nil {
				return nil, err.Error(), nil
			}
		}
		if why, err := b.take(n, p, &claim); why != "" || err != nil {
			return nil, why, err
		}
	}
	return n, "", nil
}

func (b *Book) take(n *Need, p *corev1.Pod, claim *resourcev1.ResourceClaim) (why string, err error) {
	n.claims = append(n.claims, claim)
	if !resourceclaim.IsReservedForPod(p, claim, false) && len(claim.Status.ReservedFor) >= resourcev1.ResourceClaimReservedForMaxSize {
		return "resourceclaim in use", nil
	}
	a := b.allocation(claim)
	if a == nil {
		n.open = append(n.open, claim)
		return b.missingClass(claim)
	}
	at := place{claim: claim, lost: unready(claim, n.limits.Expired)}
	if a.NodeSelector != nil {
		if at.at, err = nodeaffinity.NewNodeSelector(a.NodeSelector); err != nil {
			return "", fmt.Errorf("resourceclaim %q: where its devices are: %w", claim.Name, err)
		}
	}
	n.places = append(n.places, at)
	return "", nil
}

// missingClass says which class a claim names that is not there.
func (b *Book) missingClass(claim *resourcev1.ResourceClaim) (string, error) {
	for k := range claim.Spec.Devices.Requests {
		r := &claim.Spec.Devices.Requests[k]
		names := map[string]string{}
		if r.Exactly != nil {
			names[r.Name] = r.Exactly.DeviceClassName
		}
		for _, sub := range r.FirstAvailable {
			names[r.Name+"/"+sub.Name] = sub.DeviceClassName
		}
		for _, request := range slices.Sorted(maps.Keys(names)) {
			if _, err := (classes{b.reader}).Get(names[request]); apierrors.IsNotFound(err) {
				return fmt.Sprintf("request %s: device class %s does not exist", request, names[request]), nil
			} else if err != nil {
				return "", err
			}
		}
	}
	return "", nil
}

// On says what each claim gets on a node, or why the node will not do. An error is about the claims, whichever the node.
func (b *Book) On(n *Need, node *corev1.Node) (list []Claimed, reason string, err error) {
	o, known := n.known[node.Name]
	if !known {
		if o, err = b.try(n, node); err != nil {
			return nil, "", err
		}
		n.known[node.Name] = o
	}
	if o.reason != "" {
		return nil, o.reason, nil
	}
	for _, at := range n.places {
		list = append(list, Claimed{Claim: at.claim})
	}
	return append(list, o.list...), "", nil
}

func (b *Book) try(n *Need, node *corev1.Node) (o outcome, err error) {
	for k := range n.places {
		if n.places[k].elsewhere(node) {
			return outcome{reason: notHere}, nil
		}
	}
	open := n.open
	special, needed := n.extended.on(node)
	if needed {
		open = append(slices.Clip(open), special.Claim)
	}
	if len(open) == 0 {
		return outcome{}, nil
	}
	offered := b.offered(node.Name)
	if b.short(open, offered) {
		return outcome{reason: notAll}, nil
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if n.limits.Search > 0 {
		ctx, cancel = context.WithTimeout(ctx, n.limits.Search)
	}
	defer cancel()
	allocator, err := structured.NewAllocator(ctx, features, b.held.state, classes{b.reader}, offered, b.programs())
	if err != nil {
		return outcome{}, err
	}
	list, err := allocator.Allocate(ctx, node, open)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return outcome{reason: Late}, nil
	case errors.Is(err, structured.ErrFailedAllocationOnNode):
		return outcome{reason: err.Error()}, nil
	case err != nil:
		return outcome{}, err
	case list == nil:
		return outcome{reason: notAll}, nil
	}
	for k, claim := range open {
		o.list = append(o.list, Claimed{Claim: claim, Allocation: &list[k]})
	}
	if needed {
		o.list[len(open)-1].Mappings = special.Mappings
	}
	return o, nil
}

// Elsewhere are claims that have devices where the pod cannot go, or that did not get ready, and nobody else uses: they might be given other devices.
func (n *Need) Elsewhere(p *corev1.Pod) (list []*resourcev1.ResourceClaim) {
	for _, at := range n.places {
		if !Shared(at.claim, p.UID) && (at.at != nil || at.lost) && at.claim.Status.Allocation != nil {
			list = append(list, at.claim)
		}
	}
	return list
}

// Shared says whether a claim is in use by others than a pod.
func Shared(claim *resourcev1.ResourceClaim, pod types.UID) bool {
	return slices.ContainsFunc(claim.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID != pod })
}

// Detail tells what devices a node has and how many of them are free, for people.
func (b *Book) Detail(n *Need, node *corev1.Node) string {
	for k := range n.places {
		switch at := &n.places[k]; {
		case at.lost:
			return fmt.Sprintf("the devices of claim %s did not get ready: %s", at.claim.Name, strings.Join(Awaited(at.claim), ", "))
		case at.elsewhere(node):
			return fmt.Sprintf("claim %s has its devices elsewhere: %s", at.claim.Name, devices(b.allocation(at.claim)))
		}
	}
	all, free, shared := map[string]int{}, map[string]int{}, map[string][]string{}
	for _, s := range b.offered(node.Name) {
		driver := s.Spec.Driver
		for k := range s.Spec.Devices {
			all[driver]++
			id := structured.MakeDeviceID(driver, s.Spec.Pool.Name, s.Spec.Devices[k].Name)
			if b.held.free(id) {
				free[driver]++
			}
			shared[driver] = append(shared[driver], b.held.left(id, &s.Spec.Devices[k])...)
		}
	}
	var parts []string
	for _, driver := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, fmt.Sprintf("%d of %d devices of %s free", free[driver], all[driver], driver))
		parts = append(parts, shared[driver]...)
	}
	if len(parts) == 0 {
		parts = append(parts, "no driver offers devices here")
	}
	if words := n.extended.words(node); words != "" {
		parts = slices.Insert(parts, 0, words)
	}
	return strings.Join(parts, ", ")
}

func devices(a *resourcev1.AllocationResult) string {
	var list []string
	for _, r := range a.Devices.Results {
		list = append(list, r.Driver+"/"+r.Pool+"/"+r.Device)
	}
	return strings.Join(list, ", ")
}
