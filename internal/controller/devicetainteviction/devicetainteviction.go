// Package devicetainteviction deletes pods whose devices have NoExecute taints that their claims don't tolerate, or tolerate only for a time. Taints are
// in the drivers' ResourceSlices and in administrators' DeviceTaintRules.
//
// The time counts from when the taint was added, as the taint says. A rule's condition EvictionInProgress says how far that is.
package devicetainteviction

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/podstate"
	"skiff.dev/skiff/internal/controller/tainteviction"
)

type reconciler struct {
	client client.Client
	events record.EventRecorder
	now    func() time.Time

	mu      sync.Mutex
	runs    map[types.UID]bool // pods whose time runs
	evicted map[types.UID]int  // pods, by rule
}

// New returns the controller. Its keys are pods, and rules, which have no namespace.
func New(c client.Client) harness.Controller {
	r := newReconciler(c)
	return harness.Controller{
		Watches: []harness.Watch{
			harness.On(&resourcev1.ResourceSlice{}, r.sliceChanged), harness.On(&resourcev1.DeviceTaintRule{}, r.ruleChanged),
			harness.On(&resourcev1.ResourceClaim{}, r.claimChanged), harness.On(&corev1.Pod{}, r.podChanged),
		},
		Reconcile: r.reconcile,
	}
}

func newReconciler(c client.Client) *reconciler {
	return &reconciler{client: c, events: c.Recorder("device-taint-eviction"), now: time.Now, runs: map[types.UID]bool{}, evicted: map[types.UID]int{}}
}

func (r *reconciler) sliceChanged(old, current *resourcev1.ResourceSlice) []harness.Key {
	before, after := executing(old), executing(current)
	if equality.Semantic.DeepEqual(before, after) {
		return nil
	}
	return r.users()
}

// executing are the NoExecute taints of a slice, by device.
func executing(s *resourcev1.ResourceSlice) map[string][]resourcev1.DeviceTaint {
	out := map[string][]resourcev1.DeviceTaint{}
	if s == nil {
		return out
	}
	for i := range s.Spec.Devices {
		for _, t := range s.Spec.Devices[i].Taints {
			if t.Effect == resourcev1.DeviceTaintEffectNoExecute {
				out[s.Spec.Devices[i].Name] = append(out[s.Spec.Devices[i].Name], t)
			}
		}
	}
	return out
}

func (r *reconciler) ruleChanged(old, current *resourcev1.DeviceTaintRule) []harness.Key {
	if old != nil && current != nil && equality.Semantic.DeepEqual(old.Spec, current.Spec) {
		return nil
	}
	keys := r.users()
	if current != nil {
		return append(keys, harness.Key{Name: current.Name})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.evicted, old.UID)
	return keys
}

// users are the pods that any claim is reserved for.
func (r *reconciler) users() (keys []harness.Key) {
	var claims resourcev1.ResourceClaimList
	if err := r.client.List(context.Background(), &claims, crclient.UnsafeDisableDeepCopy); err != nil {
		return nil // the cache is stopping
	}
	for i := range claims.Items {
		keys = append(keys, usersOf(&claims.Items[i])...)
	}
	return keys
}

func usersOf(c *resourcev1.ResourceClaim) (keys []harness.Key) {
	if c.Status.Allocation == nil {
		return nil
	}
	for _, u := range c.Status.ReservedFor {
		if u.APIGroup == "" && u.Resource == "pods" {
			keys = append(keys, harness.Key{Namespace: c.Namespace, Name: u.Name})
		}
	}
	return keys
}

func (r *reconciler) claimChanged(old, current *resourcev1.ResourceClaim) []harness.Key {
	if current == nil {
		return r.rules()
	}
	if old != nil && equality.Semantic.DeepEqual(old.Status.Allocation, current.Status.Allocation) && len(old.Status.ReservedFor) == len(current.Status.ReservedFor) {
		return nil
	}
	return append(usersOf(current), r.rules()...)
}

func (r *reconciler) podChanged(old, current *corev1.Pod) []harness.Key {
	switch {
	case current == nil:
		r.stop(old.UID)
		if len(old.Spec.ResourceClaims) == 0 {
			return nil
		}
		return r.rules()
	case len(current.Spec.ResourceClaims) == 0 && current.Status.ExtendedResourceClaimStatus == nil, current.Spec.NodeName == "":
		return nil
	case old != nil && old.Spec.NodeName == current.Spec.NodeName && podstate.Active(old) == podstate.Active(current):
		return nil
	}
	return append(r.rules(), crclient.ObjectKeyFromObject(current))
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	if key.Namespace == "" {
		return 0, r.progress(ctx, key.Name)
	}
	var pod corev1.Pod
	if err := r.client.Get(ctx, key, &pod); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if pod.Spec.NodeName == "" || !podstate.Active(&pod) {
		r.stop(pod.UID)
		return 0, nil
	}
	at, limited, err := r.deadline(ctx, &pod)
	if err != nil {
		return 0, err
	}
	if !limited {
		if r.stop(pod.UID) {
			r.events.Event(&pod, corev1.EventTypeNormal, "DeviceTaintManagerEviction", "Cancelling deletion")
		}
		return 0, nil
	}
	if left := at.Sub(r.now()); left > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.runs[pod.UID] = true
		return left, nil
	}
	r.events.Event(&pod, corev1.EventTypeNormal, "DeviceTaintManagerEviction", "Marking for deletion")
	if err := tainteviction.Evict(ctx, r.client, &pod, "DeletionByDeviceTaintManager", "Device Taint manager: deleting due to NoExecute taint", r.now()); err != nil {
		return 0, err
	}
	return 0, r.noteEvicted(ctx, &pod)
}

// claimsOf are the claims that a pod uses.
func (r *reconciler) claimsOf(ctx context.Context, pod *corev1.Pod) (list []*resourcev1.ResourceClaim, err error) {
	for name := range resourceclaim.PodClaims(pod) {
		var c resourcev1.ResourceClaim
		err := r.client.Get(ctx, crclient.ObjectKey{Namespace: pod.Namespace, Name: name}, &c)
		switch {
		case crclient.IgnoreNotFound(err) != nil:
			return nil, err
		case err == nil && c.Status.Allocation != nil && resourceclaim.IsReservedForPod(pod, &c, false):
			list = append(list, &c)
		}
	}
	return list, nil
}

func (r *reconciler) stop(uid types.UID) (ran bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ran = r.runs[uid]
	delete(r.runs, uid)
	return ran
}

// deadline is when a pod must go for one of its devices' sake; limited is false if it may stay.
func (r *reconciler) deadline(ctx context.Context, pod *corev1.Pod) (at time.Time, limited bool, err error) {
	var sl resourcev1.ResourceSliceList
	var rules resourcev1.DeviceTaintRuleList
	claims, err := r.claimsOf(ctx, pod)
	if err != nil {
		return at, false, err
	}
	for _, c := range claims {
		if sl.Items == nil {
			if err := r.client.List(ctx, &sl, crclient.UnsafeDisableDeepCopy); err != nil {
				return at, false, err
			}
			if err := r.client.List(ctx, &rules, crclient.UnsafeDisableDeepCopy); err != nil {
				return at, false, err
			}
		}
		for i := range c.Status.Allocation.Devices.Results {
			result := &c.Status.Allocation.Devices.Results[i]
			if t, is := until(taints(result, sl.Items, rules.Items), result.Tolerations); is && (!limited || t.Before(at)) {
				at, limited = t, true
			}
		}
	}
	return at, limited, nil
}

// taints are the NoExecute taints of a device that was allocated, of the newest generation of its pool.
func taints(d *resourcev1.DeviceRequestAllocationResult, published []resourcev1.ResourceSlice, rules []resourcev1.DeviceTaintRule) (out []resourcev1.DeviceTaint) {
	generation := int64(-1)
	for i := range published {
		s := &published[i].Spec
		if s.Driver != d.Driver || s.Pool.Name != d.Pool || s.Pool.Generation < generation {
			continue
		}
		if s.Pool.Generation > generation {
			generation, out = s.Pool.Generation, nil
		}
		out = append(out, executing(&published[i])[d.Device]...)
	}
	for i := range rules {
		s, taint := rules[i].Spec.DeviceSelector, rules[i].Spec.Taint
		if taint.Effect == resourcev1.DeviceTaintEffectNoExecute && s != nil && is(s.Driver, d.Driver) && is(s.Pool, d.Pool) && is(s.Device, d.Device) {
			out = append(out, taint)
		}
	}
	return out
}

func is(want *string, has string) bool { return want == nil || *want == has }

// until is when a device must be free of its user; limited is false if it need not. The shortest of all tolerations of a taint counts.
func until(taints []resourcev1.DeviceTaint, tolerations []resourcev1.DeviceToleration) (at time.Time, limited bool) {
	for _, taint := range taints {
		matching := slices.DeleteFunc(slices.Clone(tolerations), func(t resourcev1.DeviceToleration) bool {
			return !resourceclaim.ToleratesTaint(t, taint)
		})
		var since time.Time
		if taint.TimeAdded != nil {
			since = taint.TimeAdded.Time
		}
		if len(matching) == 0 {
			matching = []resourcev1.DeviceToleration{{TolerationSeconds: new(int64)}}
		}
		for _, t := range matching {
			if t.TolerationSeconds == nil {
				continue
			}
			if end := since.Add(time.Duration(max(0, *t.TolerationSeconds)) * time.Second); !limited || end.Before(at) {
				at, limited = end, true
			}
		}
	}
	return at, limited
}
