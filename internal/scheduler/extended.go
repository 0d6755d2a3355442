package scheduler

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/device"
)

// leftOver is upstream's reason while the claim of a try that failed is still there: its devices can neither be used nor had anew.
const leftOver = "cannot schedule extended resource claim"

func (l *loop) classChanged(old, current *resourcev1.DeviceClass) {
	l.pending |= cluster.Devices
	if l.devices.ClassChanged(old, current) {
		l.pending |= cluster.Mapped
	}
}

// makeClaim makes the claim for a pod's extended resources. What was promised to it goes by its name from then on, before anybody can see it have devices.
func (l *loop) makeClaim(ctx context.Context, p *corev1.Pod, plan *resourcev1.ResourceClaim) (*resourcev1.ResourceClaim, error) {
	claim := plan.DeepCopy()
	claim.UID = ""
	if err := l.cfg.Client.Create(ctx, claim); err != nil {
		return plan, fmt.Errorf("create claim for extended resources: %w", err)
	}
	l.mail.post(func() { l.devices.Created(p.UID, claim) })
	return claim, nil
}

// nameExtended tells a pod which claim has the devices of its extended resources, and what of those is for which container; or that there is none.
func (l *loop) nameExtended(ctx context.Context, p *corev1.Pod, list []device.Claimed) error {
	var name *corev1.PodExtendedResourceClaimStatus
	for _, c := range list {
		if len(c.Mappings) > 0 {
			name = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: c.Claim.Name, RequestMappings: c.Mappings}
		}
	}
	if resourceclaim.PodExtendedStatusEqual(p.Status.ExtendedResourceClaimStatus, name) {
		return nil
	}
	return l.writeStatus(ctx, p, "write which claim has a pod's extended resources", func(p *corev1.Pod) { p.Status.ExtendedResourceClaimStatus = name })
}

// dropExtended deletes a claim that was made for a pod's extended resources, and with it what the pod says of it. A pod that was bound after all, by a write
// that was not answered, keeps both.
func (l *loop) dropExtended(ctx context.Context, p *corev1.Pod, claim *resourcev1.ResourceClaim) {
	var now corev1.Pod
	err := l.cfg.Client.Live().Get(ctx, crclient.ObjectKeyFromObject(p), &now)
	if crclient.IgnoreNotFound(err) != nil || err == nil && now.UID == p.UID && now.Spec.NodeName != "" {
		return // where the API is away, the next try finds the claim left over
	}
	_ = l.writeStatus(ctx, p, "take back which claim has a pod's extended resources", func(p *corev1.Pod) { p.Status.ExtendedResourceClaimStatus = nil })
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		var live resourcev1.ResourceClaim
		if err := l.cfg.Client.Live().Get(ctx, crclient.ObjectKeyFromObject(claim), &live); err != nil || live.UID != claim.UID {
			return err
		}
		if !slices.Contains(live.Finalizers, resourcev1.Finalizer) {
			return nil
		}
		next := live.DeepCopy()
		next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
		return l.cfg.Client.Update(ctx, next)
	})
	if err == nil {
		err = l.cfg.Client.Delete(ctx, claim.DeepCopy(), crclient.Preconditions{UID: &claim.UID})
	}
	if crclient.IgnoreNotFound(err) != nil && ctx.Err() == nil {
		l.cfg.Log.Warn("delete a claim for extended resources", "claim", claim.Namespace+"/"+claim.Name, "error", err)
	}
}
