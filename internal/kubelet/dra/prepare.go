package dra

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	draapi "k8s.io/kubelet/pkg/apis/dra/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// Error is that a pod's devices could not be prepared or taken back.
type Error struct{ Err error }

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Prepare has the drivers of a pod's claims prepare them. It can be called again at any time.
func (n *Node) Prepare(ctx context.Context, pod *corev1.Pod) error {
	if err := n.prepare(ctx, pod); err != nil {
		return &Error{fmt.Errorf("prepare dynamic resources: %w", err)}
	}
	return nil
}

func (n *Node) prepare(ctx context.Context, pod *corev1.Pod) error {
	names, err := claimNames(pod)
	if err != nil {
		return err
	}
	if n.has(pod, names) {
		return nil
	}
	var wanted []*claim
	// Everything is looked at before anything is written down: a pod whose driver was never here could not be got rid of.
	for _, name := range names {
		c, err := n.allocated(ctx, pod, name)
		if err != nil {
			return err
		}
		for driver := range c.Drivers {
			if _, err := n.driver(driver); err != nil {
				return err
			}
		}
		wanted = append(wanted, c)
	}
	return n.entrust(ctx, pod, wanted)
}

// claimNames are those of a pod's claims; for a claim that the pod turned out not to need there is none.
func claimNames(pod *corev1.Pod) ([]named, error) {
	var out []named
	for i := range pod.Spec.ResourceClaims {
		name, own, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return nil, err
		}
		if name != nil {
			out = append(out, named{*name, own})
		}
	}
	if s := pod.Status.ExtendedResourceClaimStatus; s != nil {
		out = append(out, named{s.ResourceClaimName, true})
	}
	return out, nil
}

type named struct {
	name string
	own  bool // made for the pod
}

// has: all is prepared already, for this pod too.
func (n *Node) has(pod *corev1.Pod, names []named) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !slices.ContainsFunc(names, func(one named) bool {
		c := n.book.claims[types.NamespacedName{Namespace: pod.Namespace, Name: one.name}]
		return c == nil || !c.Prepared || c.leaving || !slices.Contains(c.Pods, pod.UID)
	})
}

// allocated is a claim as the API has it now, if the pod may use it.
func (n *Node) allocated(ctx context.Context, pod *corev1.Pod, name named) (*claim, error) {
	var have resourcev1.ResourceClaim
	if err := n.client.Live().Get(ctx, crclient.ObjectKey{Namespace: pod.Namespace, Name: name.name}, &have); err != nil {
		return nil, fmt.Errorf("fetch ResourceClaim %s: %w", name.name, err)
	}
	if name.own {
		if err := resourceclaim.IsForPod(pod, &have, false); err != nil {
			return nil, err
		}
	}
	if !resourceclaim.IsReservedForPod(pod, &have, false) {
		return nil, fmt.Errorf("pod %s (%s) is not allowed to use ResourceClaim %s (%s)", pod.Name, pod.UID, have.Name, have.UID)
	}
	if have.Status.Allocation == nil {
		return nil, fmt.Errorf("ResourceClaim %s: not allocated", have.Name)
	}
	c := &claim{Namespace: have.Namespace, Name: have.Name, UID: have.UID, Drivers: map[string][]prepared{}}
	for _, r := range have.Status.Allocation.Devices.Results {
		c.Drivers[r.Driver] = nil
	}
	return c, nil
}

// entrust writes down who uses what, and asks the drivers for what is not prepared yet.
func (n *Node) entrust(ctx context.Context, pod *corev1.Pod, wanted []*claim) error {
	for {
		missing, busy, err := n.enter(pod, wanted)
		if err != nil {
			return err
		}
		if busy != nil { // for another pod that shares it
			select {
			case <-busy:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		answers, err := n.ask(ctx, missing)
		return n.settle(missing, answers, err)
	}
}

// enter adds the pod to its claims and marks those that are to be prepared now, or says what to wait for.
func (n *Node) enter(pod *corev1.Pod, wanted []*claim) (missing []*claim, busy <-chan struct{}, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range wanted {
		c := n.book.claims[w.key()]
		switch {
		case c == nil:
		case c.UID != w.UID:
			return nil, nil, fmt.Errorf("old ResourceClaim with same name %s and different UID %s still exists (previous pod force-deleted?!)", w.Name, c.UID)
		case c.leaving:
			return nil, nil, fmt.Errorf("ResourceClaim %s is being unprepared", w.Name)
		case c.busy != nil:
			return nil, c.busy, nil
		}
	}
	for _, w := range wanted {
		c := n.book.claims[w.key()]
		if c == nil {
			c = w
			n.book.claims[c.key()] = c
		}
		if !slices.Contains(c.Pods, pod.UID) {
			c.Pods = append(c.Pods, pod.UID)
		}
		if !c.Prepared && !slices.Contains(missing, c) {
			missing = append(missing, c)
		}
	}
	if err := n.book.save(); err != nil {
		return nil, nil, err
	}
	for _, c := range missing {
		c.busy = make(chan struct{})
	}
	return missing, nil, nil
}

// ask has each driver prepare its claims, all in one call.
func (n *Node) ask(ctx context.Context, claims []*claim) (map[string]map[string]*draapi.NodePrepareResourceResponse, error) {
	answers := map[string]map[string]*draapi.NodePrepareResourceResponse{}
	for name, batch := range batches(claims) {
		d, err := n.driver(name)
		if err != nil {
			return nil, err
		}
		resp, err := d.prepare(ctx, wires(batch))
		if err != nil {
			return nil, fmt.Errorf("NodePrepareResources: %w", err)
		}
		if err := complete("NodePrepareResources", batch, resp.Claims); err != nil {
			return nil, err
		}
		answers[name] = resp.Claims
	}
	return answers, nil
}

// settle puts the answers into the book.
func (n *Node) settle(claims []*claim, answers map[string]map[string]*draapi.NodePrepareResourceResponse, err error) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range claims {
		if err == nil {
			for driver := range c.Drivers {
				c.Drivers[driver] = devicesOf(answers[driver][string(c.UID)])
			}
			c.Prepared = true
		}
		close(c.busy)
		c.busy = nil
	}
	if err != nil {
		return err
	}
	return n.book.save()
}

func devicesOf(r *draapi.NodePrepareResourceResponse) []prepared {
	var out []prepared
	for _, d := range r.GetDevices() {
		out = append(out, prepared{Pool: d.PoolName, Device: d.DeviceName, Requests: d.RequestNames, CDI: d.CdiDeviceIds})
	}
	return out
}

// batches are the claims of each driver.
func batches(claims []*claim) map[string][]*claim {
	out := map[string][]*claim{}
	for _, c := range claims {
		for driver := range c.Drivers {
			out[driver] = append(out[driver], c)
		}
	}
	return out
}

func wires(claims []*claim) []*draapi.Claim {
	var out []*draapi.Claim
	for _, c := range claims {
		out = append(out, c.wire())
	}
	return out
}

// complete: a driver answers for each claim it was asked for, and for no other.
func complete[A interface{ GetError() string }](call string, asked []*claim, answers map[string]A) error {
	for _, uid := range slices.Sorted(maps.Keys(answers)) {
		i := slices.IndexFunc(asked, func(c *claim) bool { return string(c.UID) == uid })
		if i < 0 {
			return fmt.Errorf("%s returned result for unknown claim UID %s", call, uid)
		}
		if text := answers[uid].GetError(); text != "" {
			return fmt.Errorf("%s failed for ResourceClaim %s: %s", call, asked[i].Name, text)
		}
	}
	if skipped := len(asked) - len(answers); skipped > 0 {
		return fmt.Errorf("%s skipped %d ResourceClaims", call, skipped)
	}
	return nil
}

// Unprepare has the drivers take back what a pod used, unless another pod does too. It can be called again at any time, also for pods that used nothing.
func (n *Node) Unprepare(ctx context.Context, pod types.UID) error {
	if err := n.unprepare(ctx, pod); err != nil {
		return &Error{fmt.Errorf("unprepare dynamic resources: %w", err)}
	}
	return nil
}

func (n *Node) unprepare(ctx context.Context, pod types.UID) error {
	leaving, err := n.leave(pod)
	if err != nil {
		return err
	}
	for name, batch := range batches(leaving) {
		d, err := n.driver(name)
		if err != nil {
			return err
		}
		resp, err := d.unprepare(ctx, wires(batch))
		if err != nil {
			return fmt.Errorf("NodeUnprepareResources: %w", err)
		}
		if err := complete("NodeUnprepareResources", batch, resp.Claims); err != nil {
			return err
		}
	}
	return n.strike(leaving)
}

// leave takes the pod out of claims that others use, and marks the rest as leaving.
func (n *Node) leave(pod types.UID) (leaving []*claim, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	shared := false
	for _, c := range n.book.of(pod) {
		if len(c.Pods) > 1 {
			c.Pods = slices.DeleteFunc(c.Pods, func(uid types.UID) bool { return uid == pod })
			shared = true
			continue
		}
		c.leaving, c.Prepared = true, false
		leaving = append(leaving, c)
	}
	if shared {
		err = n.book.save()
	}
	return leaving, err
}

func (n *Node) strike(claims []*claim) error {
	if len(claims) == 0 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range claims {
		delete(n.book.claims, c.key())
	}
	return n.book.save()
}

// Pods lists the pods that use something.
func (n *Node) Pods() map[types.UID]bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[types.UID]bool{}
	for _, c := range n.book.claims {
		for _, uid := range c.Pods {
			out[uid] = true
		}
	}
	return out
}

// Uses says whether a pod uses something.
func (n *Node) Uses(pod types.UID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.book.of(pod)) > 0
}

// CDI names the devices that a container is to be given.
func (n *Node) CDI(pod *corev1.Pod, c *corev1.Container) ([]string, error) {
	var out []string
	err := n.each(pod, c, func(_ use, _ string, d prepared) {
		for _, id := range d.CDI {
			if !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	})
	return out, err
}

// Held is a device that a container has by a claim.
type Held struct {
	Claim, Driver, Pool, Device string
	CDI                         []string
}

// Held lists the devices of a container, none if they are not prepared.
func (n *Node) Held(pod *corev1.Pod, c *corev1.Container) (out []Held) {
	_ = n.each(pod, c, func(u use, driver string, d prepared) {
		out = append(out, Held{u.claim, driver, d.Pool, d.Device, d.CDI})
	})
	return out
}

// each goes through the devices of a container by its own names for them.
func (n *Node) each(pod *corev1.Pod, c *corev1.Container, f func(u use, driver string, d prepared)) error {
	uses, err := usesOf(pod, c)
	if err != nil || len(uses) == 0 {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, u := range uses {
		have := n.book.claims[types.NamespacedName{Namespace: pod.Namespace, Name: u.claim}]
		if have == nil {
			return fmt.Errorf("ResourceClaim %s is not prepared", u.claim)
		}
		for _, driver := range slices.Sorted(maps.Keys(have.Drivers)) {
			for _, d := range have.Drivers[driver] {
				if u.request == "" || len(d.Requests) == 0 || slices.Contains(d.Requests, u.request) {
					f(u, driver, d)
				}
			}
		}
	}
	return nil
}

// use is what a container asks for of a claim; without a request, everything.
type use struct{ name, claim, request string }

func usesOf(pod *corev1.Pod, c *corev1.Container) ([]use, error) {
	var out []use
	for _, want := range c.Resources.Claims {
		i := slices.IndexFunc(pod.Spec.ResourceClaims, func(p corev1.PodResourceClaim) bool { return p.Name == want.Name })
		if i < 0 {
			continue
		}
		name, _, err := resourceclaim.Name(pod, &pod.Spec.ResourceClaims[i])
		if err != nil {
			return nil, err
		}
		if name == nil {
			continue
		}
		label := "claim:" + want.Name
		if want.Request != "" {
			label += "/" + want.Request
		}
		request, _, _ := strings.Cut(want.Request, "/") // whichever alternative it was
		out = append(out, use{label, *name, request})
	}
	if s := pod.Status.ExtendedResourceClaimStatus; s != nil {
		for _, m := range s.RequestMappings {
			if m.ContainerName == c.Name {
				out = append(out, use{"claim:" + s.ResourceClaimName + "/" + m.RequestName, s.ResourceClaimName, m.RequestName})
			}
		}
	}
	return out, nil
}
