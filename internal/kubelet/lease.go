package kubelet

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	leaseEvery    = 5 * time.Second
	leaseDuration = int32(15)
	aliveFor      = 13 * time.Second // a node that is silent for 14 s may be held to be dead
)

// runLease renews the lease that says this node is alive.
func (k *Kubelet) runLease(ctx context.Context) error {
	var have *coordinationv1.Lease
	delay := 50 * time.Millisecond
	for {
		begun := time.Now()
		next, err := k.renew(ctx, have)
		wait := leaseEvery
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			next = nil
			delay = min(delay*2, 2*time.Second)
			wait = delay
			if delay > time.Second { // at start, the lease's namespace may not be there yet
				k.log.Warn("cannot renew the node's lease; trying again", "err", err)
			}
		} else {
			delay = 50 * time.Millisecond
			if k.cfg.Renewed != nil {
				k.cfg.Renewed(begun.Add(aliveFor))
			}
		}
		have = next
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (k *Kubelet) renew(ctx context.Context, have *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	now, holder, duration := metav1.NowMicro(), k.cfg.NodeName, leaseDuration
	if have == nil {
		var live coordinationv1.Lease
		err := k.cfg.Client.Live().Get(ctx, crclient.ObjectKey{Namespace: corev1.NamespaceNodeLease, Name: k.cfg.NodeName}, &live)
		switch {
		case err == nil:
			have = &live
		case !apierrors.IsNotFound(err):
			return nil, err
		}
	}
	if have == nil {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: k.cfg.NodeName}}
		lease.Spec = coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &duration, RenewTime: &now}
		k.own(ctx, lease)
		return lease, k.cfg.Client.Create(ctx, lease)
	}
	next := have.DeepCopy()
	next.Spec.HolderIdentity, next.Spec.LeaseDurationSeconds, next.Spec.RenewTime = &holder, &duration, &now
	if len(next.OwnerReferences) == 0 {
		k.own(ctx, next)
	}
	return next, k.cfg.Client.Update(ctx, next)
}

// own makes the lease go with the node.
func (k *Kubelet) own(ctx context.Context, lease *coordinationv1.Lease) {
	var node corev1.Node
	if err := k.cfg.Client.Get(ctx, crclient.ObjectKey{Name: k.cfg.NodeName}, &node); err != nil {
		return // next time
	}
	lease.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
}
