package device

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// claims are what a Book reads: they, and a class for each model of device and one for all.
type claims map[string]*resourcev1.ResourceClaim

func (c claims) Get(_ context.Context, key crclient.ObjectKey, o crclient.Object, _ ...crclient.GetOption) error {
	switch o := o.(type) {
	case *resourcev1.ResourceClaim:
		if claim := c[key.Name]; claim != nil {
			claim.DeepCopyInto(o)
			return nil
		}
	case *resourcev1.DeviceClass:
		expression := "true"
		if key.Name != "any" {
			expression = fmt.Sprintf("device.attributes['d'].model == %q", key.Name)
		}
		*o = resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: key.Name}, Spec: resourcev1.DeviceClassSpec{
			Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: expression}}}}}
		return nil
	}
	return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
}

func (c claims) List(context.Context, crclient.ObjectList, ...crclient.ListOption) error { return nil }

// have is the reference: which models the free devices of a node are of.
type have map[string]map[string]string // by node, then device

// gives tries all ways to give each request a device of its own.
func gives(free []string, wants []string) bool {
	if len(wants) == 0 {
		return true
	}
	for k, model := range free {
		if (wants[0] == "any" || wants[0] == model) && gives(slices.Delete(slices.Clone(free), k, k+1), wants[1:]) {
			return true
		}
	}
	return false
}

// For any devices and claims, a node has devices for a pod's claims exactly if there is a way to give each request one that nobody has; what is given is
// free, of the right model and on the node; and a Book that saw everything happen says what one says that saw how it is.
func TestLikeTheReference(t *testing.T) {
	first := uint64(time.Now().UnixNano())
	t.Logf("seeds from %d", first)
	for seed := first; seed < first+300; seed++ {
		if err := play(rand.New(rand.NewPCG(seed, 1))); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func play(d *rand.Rand) error {
	models := []string{"big", "small"}
	known, stock, offers := claims{}, have{}, []*resourcev1.ResourceSlice{}
	b := NewBook(known)
	nodes := []string{"n1", "n2", "n3"}
	for _, node := range nodes {
		stock[node] = map[string]string{}
		s := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: resourcev1.ResourceSliceSpec{
			Driver: "d", NodeName: &node, Pool: resourcev1.ResourcePool{Name: node, ResourceSliceCount: 1}}}
		for k := range d.IntN(5) {
			name, model := fmt.Sprintf("%s-%d", node, k), models[d.IntN(2)]
			stock[node][name] = model
			s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{Name: name, Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"model": {StringValue: &model}}})
		}
		offers = append(offers, s)
		b.SliceChanged(nil, s)
	}
	for k := range 12 {
		if d.IntN(4) == 0 && len(known) > 0 { // a claim goes, and what it had is free
			for name, c := range known {
				delete(known, name)
				b.ClaimChanged(c, nil)
				break
			}
			continue
		}
		if err := try(d, b, fmt.Sprintf("p%d", k), known, stock, offers); err != nil {
			return fmt.Errorf("pod %d: %w", k, err)
		}
	}
	return nil
}

// try has a pod with one or two claims looked at on every node, by a Book that was there all the time and by a new one, and gives it devices where it can.
func try(d *rand.Rand, b *Book, pod string, known claims, stock have, offers []*resourcev1.ResourceSlice) error {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: pod, UID: types.UID(pod)}}
	var wants []string
	for k := range 1 + d.IntN(2) {
		c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: fmt.Sprintf("%s-%d", pod, k), UID: types.UID(fmt.Sprintf("%s-%d", pod, k))}}
		for r := range 1 + d.IntN(2) {
			class := []string{"any", "big", "small"}[d.IntN(3)]
			wants = append(wants, class)
			c.Spec.Devices.Requests = append(c.Spec.Devices.Requests, resourcev1.DeviceRequest{Name: fmt.Sprint("r", r), Exactly: &resourcev1.ExactDeviceRequest{
				DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1}})
		}
		known[c.Name] = c
		b.ClaimChanged(nil, c)
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: c.Name, ResourceClaimName: &c.Name})
	}
	fresh := NewBook(known)
	taken := map[string]bool{}
	for _, c := range known {
		fresh.ClaimChanged(nil, c)
		if c.Status.Allocation != nil {
			for _, r := range c.Status.Allocation.Devices.Results {
				taken[r.Device] = true
			}
		}
	}
	for _, s := range offers {
		fresh.SliceChanged(nil, s)
	}
	for node, devices := range stock {
		var free []string
		for name, model := range devices {
			if !taken[name] {
				free = append(free, model)
			}
		}
		var list []Claimed
		for _, book := range []*Book{fresh, b} {
			need, why, err := book.Of(p)
			if why != "" || err != nil {
				return fmt.Errorf("%s, %w", why, err)
			}
			var reason string
			list, reason, err = book.On(need, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}})
			if err != nil || (reason == "") != gives(free, wants) {
				return fmt.Errorf("on %s with %v free for %v: %q, %w", node, free, wants, reason, err)
			}
		}
		if len(list) > 0 {
			return take(b, p, list, known, devices, taken)
		}
	}
	return nil
}

// take writes what a pod's claims were given, and checks it.
func take(b *Book, p *corev1.Pod, list []Claimed, known claims, devices map[string]string, taken map[string]bool) error {
	b.Promise(p.UID, list)
	for _, one := range list {
		old := known[one.Claim.Name]
		for k, r := range one.Allocation.Devices.Results {
			class := old.Spec.Devices.Requests[k].Exactly.DeviceClassName
			if model, here := devices[r.Device]; taken[r.Device] || !here || class != "any" && class != model {
				return fmt.Errorf("%s got %s for %s: taken %t, %q", old.Name, r.Device, class, taken[r.Device], model)
			}
			taken[r.Device] = true
		}
		written := old.DeepCopy()
		written.Status.Allocation = one.Allocation
		known[old.Name] = written
		b.ClaimChanged(old, written)
	}
	return nil
}
