package scheduler

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/scheduler/device"
)

// await has a pod whose claims are written bound once their devices are ready, which conditions in the claims' status tell. No goroutine waits for
// them: the claims' events do.
func (l *loop) await(b *binding, since time.Time) {
	if !l.assumed[b.pod.UID] {
		return // gone meanwhile
	}
	l.awaiting[b.pod.UID] = b
	b.until = since.Add(b.pod.Profile.DeviceTimes().Ready)
	b.timer = time.AfterFunc(b.until.Sub(l.now()), func() {
		l.mail.post(func() { l.notReady(b, fmt.Errorf("device binding timeout: claim=%s", l.late(b))) })
	})
	if l.looked(b); l.awaiting[b.pod.UID] == b {
		l.expect(b)
		l.tell(b.object, corev1.EventTypeNormal, "BindingConditionsPending", "waiting for binding conditions for device on node %s", b.node)
	}
}

// looked binds a pod if the devices of all its claims are ready, and gives up if one will not be.
func (l *loop) looked(b *binding) {
	for _, c := range b.pod.Claims {
		var claim resourcev1.ResourceClaim
		err := l.cfg.Client.Get(context.Background(), crclient.ObjectKeyFromObject(c.Claim), &claim)
		if err != nil || claim.UID != c.Claim.UID {
			l.notReady(b, fmt.Errorf("resourceclaim %q is gone", c.Claim.Name))
			return
		}
		ready, err := device.Ready(&claim)
		switch {
		case err != nil:
			l.notReady(b, err)
			return
		case !ready:
			return // its event will come
		}
	}
	l.dropAwaiting(b.pod.UID)
	l.write(b.pod.UID, func(ctx context.Context) { l.bindTo(ctx, b.pod, b.object, b.node, b.attempts) })
}

// late is the first of a pod's claims whose devices are not ready.
func (l *loop) late(b *binding) string {
	for _, c := range b.pod.Claims {
		var claim resourcev1.ResourceClaim
		if l.cfg.Client.Get(context.Background(), crclient.ObjectKeyFromObject(c.Claim), &claim) != nil {
			return c.Claim.Name
		}
		if ready, _ := device.Ready(&claim); !ready {
			return claim.Name
		}
	}
	return ""
}

// notReady sends a pod back to the queue. Its next try finds that the devices are of no use, and has them given back.
func (l *loop) notReady(b *binding, err error) {
	if l.awaiting[b.pod.UID] != b {
		return
	}
	l.dropAwaiting(b.pod.UID)
	l.unbound(b.pod, b.object, b.attempts, fmt.Sprintf("running PreBind plugin %q: %v", "DynamicResources", err))
}

// dropAwaiting is for a pod that went, got its node otherwise, or waits no more.
func (l *loop) dropAwaiting(uid types.UID) {
	if b := l.awaiting[uid]; b != nil {
		b.timer.Stop()
		delete(l.awaiting, uid)
	}
}

// readyChanged goes on with the pods that wait for a claim's devices.
func (l *loop) readyChanged(old, current *resourcev1.ResourceClaim) {
	one := current
	if one == nil {
		one = old
	}
	for _, b := range l.awaiting {
		for _, c := range b.pod.Claims {
			if c.Claim.UID != one.UID {
				continue
			}
			if current != nil && current.Status.Allocation == nil && old != nil && old.Status.Allocation != nil {
				l.notReady(b, fmt.Errorf("resourceclaim %q has no devices any more", one.Name))
			} else {
				l.looked(b)
			}
			break
		}
	}
}

// awaited says what a pod waits for that has a node and is not bound yet.
func (l *loop) awaited(uid types.UID) string {
	b := l.awaiting[uid]
	if b == nil {
		return ""
	}
	var list []string
	for _, c := range b.pod.Claims {
		var claim resourcev1.ResourceClaim
		if l.cfg.Client.Get(context.Background(), crclient.ObjectKeyFromObject(c.Claim), &claim) == nil {
			list = append(list, device.Awaited(&claim)...)
		}
	}
	return fmt.Sprintf("it waits until %s for its devices to get ready: %s", b.until.UTC().Format(time.RFC3339), strings.Join(list, ", "))
}
