package pod

import (
	"context"
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
	a.kills[action.ID] = running{cancel, deadline}
	a.s.Busy[key] = true
	a.ops.Go(func() {
		defer cancel()
		err := a.killContainer(own, pod, action, deadline, !again)
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

func (a *Actor) killContainer(ctx context.Context, pod *corev1.Pod, action Action, deadline time.Time, hook bool) error {
	timeout := action.Grace
	if c, _ := spec(pod, action.Container); hook && timeout > 0 && c != nil && c.Lifecycle != nil && c.Lifecycle.PreStop != nil {
		bounded, cancel := context.WithDeadline(ctx, deadline)
		err := a.hook(bounded, pod, c, action.ID, c.Lifecycle.PreStop)
		cancel()
		if err != nil && ctx.Err() == nil {
			a.event(pod, action.Container, corev1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed")
			a.log.Info("preStop hook failed", "container", action.Container, "err", err)
		}
		timeout = max(int64(time.Until(deadline).Round(time.Second)/time.Second), leastAfterHook)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, err := a.d.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: action.ID, Timeout: timeout})
	if isNotFound(err) {
		return nil
	}
	return err
}
