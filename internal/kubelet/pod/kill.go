package pod

import (
	"context"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// After a preStop hook that used up the grace period, a container still gets this much to end.
const leastAfterHook = 2

// kill ends a container: preStop hook, then its stop signal, then SIGKILL once the grace period is over. A kill that runs already is
// replaced only by one that is over sooner.
func (a *Actor) kill(ctx context.Context, pod *corev1.Pod, action Action) {
	key := action.Key()
	deadline := time.Now().Add(time.Duration(action.Grace) * time.Second)
	again := false
	if r, ok := a.kills[action.ID]; ok {
		if !deadline.Before(r.deadline.Add(-1500 * time.Millisecond)) {
			return
		}
		r.cancel()
		again = true
	} else if at, ok := a.s.Retry[key]; ok && time.Now().Before(at) {
		return
	}
	if !again && a.delays[key] == 0 && action.Message != "" {
		a.event(pod, action.Container, corev1.EventTypeNormal, "Killing", action.Message)
	}
	own, cancel := context.WithCancel(ctx)
	ahead := a.hooks[action.ID]
	a.kills[action.ID] = running{cancel, deadline}
	a.s.Busy[key] = true
	a.ops.Go(func() {
		defer cancel()
		err := a.killContainer(own, pod, action, deadline, !again, ahead)
		a.put(func() {
			a.results = append(a.results, func(s *State) {
				if r, ok := a.kills[action.ID]; ok && !r.deadline.Equal(deadline) {
					return // replaced
				}
				delete(a.kills, action.ID)
				delete(s.Busy, key)
				a.dirty = true
				if err != nil && ctx.Err() == nil {
					a.log.Warn("cannot kill container; trying again", "container", action.Container, "err", err)
					a.delays[key] = min(max(time.Second, 2*a.delays[key]), 10*time.Second)
					s.Retry[key] = time.Now().Add(a.delays[key])
					time.AfterFunc(a.delays[key], a.Observe)
				}
			})
		})
	})
}

// killContainer does it. A hook that was begun ahead is awaited, and not run again.
func (a *Actor) killContainer(ctx context.Context, pod *corev1.Pod, action Action, deadline time.Time, hook bool, ahead <-chan struct{}) error {
	timeout := action.Grace
	withdrawn := a.withdraw(ctx, pod, action)
	if c, _ := spec(pod, action.Container); hook && timeout > 0 && c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		if ahead == nil {
			a.runPreStop(ctx, pod, c, action, deadline)
		} else {
			select {
			case <-ahead:
			case <-time.After(time.Until(deadline)):
			case <-ctx.Done():
			}
		}
		timeout = max(int64(time.Until(deadline).Round(time.Second)/time.Second), leastAfterHook)
	}
	<-withdrawn
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, err := a.d.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: action.ID, Timeout: timeout})
	if isNotFound(err) {
		return nil
	}
	return err
}

// preStop begins the hook of a sidecar that ends when it is its turn.
func (a *Actor) preStop(ctx context.Context, pod *corev1.Pod, action Action) {
	c, _ := spec(pod, action.Container)
	if c == nil {
		return
	}
	over, deadline := make(chan struct{}), time.Now().Add(time.Duration(action.Grace)*time.Second)
	a.hooks[action.ID], a.s.StopHooks[action.ID] = over, true
	a.ops.Go(func() {
		defer close(over)
		a.runPreStop(ctx, pod, c, action, deadline)
	})
}

// runPreStop runs a container's hook to its end, or until the time is over.
func (a *Actor) runPreStop(ctx context.Context, pod *corev1.Pod, c *corev1.Container, action Action, deadline time.Time) {
	bounded, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if err := a.hook(bounded, pod, c, action.ID, c.Lifecycle.PreStop); err != nil && ctx.Err() == nil {
		a.event(pod, action.Container, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
		a.log.Info("preStop hook failed", "container", action.Container, "err", err)
	}
}

// withdraw waits, beside the preStop hook, until no new connection is led to a pod that was deleted: a program that is told to stop first
// would refuse those on their way. It takes half of the grace period at most. Who deletes at once does not wait.
func (a *Actor) withdraw(ctx context.Context, pod *corev1.Pod, action Action) <-chan struct{} {
	done := make(chan struct{})
	if a.d.Withdraw == nil || pod.DeletionTimestamp == nil || pod.Spec.HostNetwork || action.Grace <= 1 {
		close(done)
		return done
	}
	var addrs []netip.Addr
	for _, ip := range pod.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			addrs = append(addrs, addr)
		}
	}
	go func() {
		defer close(done)
		bounded, cancel := context.WithTimeout(ctx, time.Duration(action.Grace)*time.Second/2)
		defer cancel()
		a.d.Withdraw(bounded, addrs)
	}()
	return done
}
