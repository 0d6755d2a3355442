package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/device"
)

func (l *loop) deviceClaimChanged(old, current *resourcev1.ResourceClaim) {
	if l.devices.ClaimChanged(old, current) {
		l.pending |= cluster.Devices
	}
	l.readyChanged(old, current)
}

// limits in time for the claims of a pod.
func (l *loop) limits(p *cluster.Pod) device.Limits {
	times := p.Profile.DeviceTimes()
	return device.Limits{Search: times.Search, Expired: l.now().Add(-times.Ready)}
}

func (l *loop) sliceChanged(old, current *resourcev1.ResourceSlice) {
	l.devices.SliceChanged(old, current)
	l.pending |= cluster.Devices
}

func (l *loop) taintRuleChanged(old, current *resourcev1.DeviceTaintRule) {
	l.devices.RuleChanged(old, current)
	l.pending |= cluster.Devices
}

// refuser says of nodes that the claims of the pod in hand keep it off, whoever leaves them; nil if there are none.
func (l *loop) refuser() func(i int) bool {
	need := l.need
	if need == nil {
		return nil
	}
	return func(i int) bool {
		_, reason, err := l.devices.On(need, l.nodes.Node[i])
		return reason != "" || err != nil
	}
}

// otherwise has devices of a pod that fits nowhere given back, if it could go where those are not. It says that another try is due at once.
func (l *loop) otherwise(p *cluster.Pod) (again bool) {
	if l.devices.Forget(p.UID) {
		return true // they were only promised
	}
	for _, claim := range l.need.Elsewhere(p.Pod) {
		object := p.Pod
		l.write(p.UID, func(ctx context.Context) {
			err := l.changeClaim(ctx, claim, func(live *resourcev1.ResourceClaim) (bool, error) {
				if device.Shared(live, object.UID) || live.Status.Allocation == nil {
					return false, nil
				}
				live.Status.Allocation, live.Status.ReservedFor, live.Status.Devices = nil, nil, nil
				return true, nil
			})
			if err != nil && ctx.Err() == nil {
				l.cfg.Log.Warn("give devices back", "claim", claim.Namespace+"/"+claim.Name, "error", err)
			}
		})
		break // one may be enough
	}
	return false
}

// reserve writes which devices a pod's claims get, and that the pod uses them, before it is bound. It says how that ended for each claim it came to, and
// what those have; in list, a claim that was made is put for what was to be made.
func (l *loop) reserve(ctx context.Context, p *corev1.Pod, list []device.Claimed) (how []device.Outcome, given []*resourcev1.AllocationResult, err error) {
	for k := range list {
		c := &list[k]
		if len(c.Mappings) > 0 {
			if c.Claim, err = l.makeClaim(ctx, p, c.Claim); err != nil {
				return append(how, device.Refused), nil, err
			}
		}
		a, err := l.reserveOne(ctx, p, *c)
		if err != nil {
			outcome := device.Unknown
			if apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || errors.Is(err, errOtherwise) {
				outcome = device.Refused
			}
			return append(how, outcome), nil, fmt.Errorf("resourceclaim %q: %w", c.Claim.Name, err)
		}
		how, given = append(how, device.Written), append(given, a)
	}
	return how, given, l.nameExtended(ctx, p, list)
}

var errOtherwise = errors.New("its devices are no longer those it had when the node was chosen")

func (l *loop) reserveOne(ctx context.Context, p *corev1.Pod, c device.Claimed) (given *resourcev1.AllocationResult, err error) {
	if err := l.protect(ctx, c); err != nil {
		return nil, err
	}
	err = l.changeClaim(ctx, c.Claim, func(live *resourcev1.ResourceClaim) (bool, error) {
		changed := false
		switch {
		case live.Status.Allocation == nil && c.Allocation != nil:
			live.Status.Allocation, changed = c.Allocation.DeepCopy(), true
			live.Status.Allocation.AllocationTimestamp = new(metav1.NewTime(l.now()))
		case live.Status.Allocation == nil, c.Allocation != nil && !equality.Semantic.DeepEqual(live.Status.Allocation.Devices, c.Allocation.Devices):
			return false, errOtherwise
		}
		if !resourceclaim.IsReservedForPod(p, live, false) {
			live.Status.ReservedFor = append(live.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
			changed = true
		}
		given = live.Status.Allocation
		return changed, nil
	})
	return given, err
}

// unwritten gives free what a pod's claims were promised and nobody has begun to write.
func (l *loop) unwritten(p *cluster.Pod) { l.devices.Kept(p.UID, p.Claims, nil) }

// protect keeps a claim from being deleted while it has devices.
func (l *loop) protect(ctx context.Context, c device.Claimed) error {
	if c.Allocation == nil || slices.Contains(c.Claim.Finalizers, resourcev1.Finalizer) {
		return nil
	}
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		live, err := l.liveClaim(ctx, c.Claim)
		if err != nil || slices.Contains(live.Finalizers, resourcev1.Finalizer) {
			return err
		}
		live.Finalizers = append(live.Finalizers, resourcev1.Finalizer)
		return l.cfg.Client.Update(ctx, live)
	})
}

func (l *loop) changeClaim(ctx context.Context, claim *resourcev1.ResourceClaim, change func(live *resourcev1.ResourceClaim) (bool, error)) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		live, err := l.liveClaim(ctx, claim)
		if err != nil {
			return err
		}
		if changed, err := change(live); err != nil || !changed {
			return err
		}
		return l.cfg.Client.SubResource("status").Update(ctx, live)
	})
}

// liveClaim reads a claim past the cache; one that is on its way out, or another of the same name, counts as gone.
func (l *loop) liveClaim(ctx context.Context, claim *resourcev1.ResourceClaim) (*resourcev1.ResourceClaim, error) {
	var live resourcev1.ResourceClaim
	if err := l.cfg.Client.Live().Get(ctx, crclient.ObjectKeyFromObject(claim), &live); err != nil {
		return nil, err
	}
	if live.UID != claim.UID || live.DeletionTimestamp != nil {
		return nil, apierrors.NewNotFound(resourcev1.Resource("resourceclaims"), claim.Name)
	}
	return live.DeepCopy(), nil
}

// unreserve takes back that a pod uses its claims. They keep their devices, which the next try uses, or has given back. One that was made for extended
// resources goes.
func (l *loop) unreserve(ctx context.Context, p *corev1.Pod, list []device.Claimed) {
	for _, c := range list {
		if len(c.Mappings) > 0 {
			if c.Claim.Name != "" {
				l.dropExtended(ctx, p, c.Claim)
			}
			continue
		}
		err := l.changeClaim(ctx, c.Claim, func(live *resourcev1.ResourceClaim) (bool, error) {
			before := len(live.Status.ReservedFor)
			live.Status.ReservedFor = slices.DeleteFunc(live.Status.ReservedFor, func(r resourcev1.ResourceClaimConsumerReference) bool { return r.UID == p.UID })
			return len(live.Status.ReservedFor) < before, nil
		})
		if crclient.IgnoreNotFound(err) != nil && ctx.Err() == nil {
			l.cfg.Log.Warn("take back a reservation", "claim", c.Claim.Namespace+"/"+c.Claim.Name, "error", err)
		}
	}
}
