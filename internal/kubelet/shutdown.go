package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/kubelet/logind"
	"skiff.dev/skiff/internal/kubelet/pod"
)

const (
	shuttingDown     = "node is shutting down"
	shutdownReason   = "Terminated"
	shutdownMessage  = "Pod was terminated in response to imminent node shutdown."
	shutdownRefusal  = "NodeShutdown"
	shutdownRefusing = "Pod was rejected as the node is shutting down."

	inhibitor    = "skiff"
	inhibitorWhy = "pods get time to end"

	// tellTime is how long the host is held up, beyond the pods' own periods, until it is known in the API how they ended.
	tellTime = 5 * time.Second
	// logindAgain is how often logind is looked for, after it could not be reached.
	logindAgain = time.Minute
)

// hostShutdown is what the node knows of its host's shutdown.
type hostShutdown struct {
	begun atomic.Bool
	last  atomic.Pointer[shutdownTimes]
	told  bool // that there is no logind; only runShutdown touches it
}

// runShutdown gives pods time to end before the host shuts down. Without periods it does nothing.
func (k *Kubelet) runShutdown(ctx context.Context) error {
	if len(k.cfg.Shutdown) == 0 {
		return nil
	}
	k.recallShutdown()
	for wait := time.Second; ; {
		err := k.followShutdown(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			wait = time.Second
		case !k.shutdown.told:
			k.shutdown.told = true
			k.log.Warn("pods will not be given time to end when the host shuts down, as nobody tells of that; looking for systemd-logind now and then", "err", err)
		}
		if err != nil {
			wait = min(2*wait, logindAgain)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// followShutdown until the connection to logind is lost, which is no error: it is looked for again.
func (k *Kubelet) followShutdown(ctx context.Context) error {
	bus, err := logind.Dial(ctx)
	if err != nil {
		return err
	}
	defer bus.Close()
	begins, err := bus.Preparing(ctx)
	if err != nil {
		return err
	}
	var lock *os.File
	defer func() { _ = lock.Close() }() // again, perhaps
	if !begins {                        // logind gives none any more when it has begun
		if err := k.askForTime(ctx, bus); err != nil {
			return err
		}
		if lock, err = bus.Inhibit(ctx, inhibitor, inhibitorWhy); err != nil {
			return err
		}
	}
	k.shutdown.told = false
	for ok := true; ok; begins, ok = bus.Next(ctx) {
		if begins == k.shutdown.begun.Load() {
			continue
		}
		k.shutdown.begun.Store(begins)
		k.changed()
		if begins {
			k.log.Warn("the host is shutting down; the pods end")
			k.events.Event(k.reference(), corev1.EventTypeNormal, shutdownRefusal, "The host is shutting down: the node's pods end, by their priority")
			k.noteShutdown(shutdownTimes{Start: time.Now()})
			k.endPods(ctx)
			k.noteShutdown(shutdownTimes{Start: k.shutdown.last.Load().Start, End: time.Now()})
			_ = lock.Close()
			continue
		}
		k.log.Warn("the host's shutdown was called off")
		k.events.Event(k.reference(), corev1.EventTypeNormal, shutdownRefusal, "The host's shutdown was called off")
		k.pods.renewStatics(shutdownReason, shutdownRefusal)
		_ = lock.Close()
		if lock, err = bus.Inhibit(ctx, inhibitor, inhibitorWhy); err != nil {
			return err
		}
	}
	return nil
}

// askForTime has logind wait for as long as the pods may take.
func (k *Kubelet) askForTime(ctx context.Context, bus *logind.Bus) error {
	need := k.cfg.Shutdown.Sum()
	given, err := bus.MaxDelay(ctx)
	if err != nil || given >= need {
		return err
	}
	given, err = bus.RaiseDelay(ctx, logind.Settings, logind.File(k.cfg.Cluster), need+tellTime)
	if err != nil || given < need {
		k.log.Warn("logind does not wait for as long as pods may take to end when the host shuts down; set InhibitDelayMaxSec in logind.conf", "waits", given, "wanted", need, "err", err)
	}
	return nil
}

// endPods ends those of each priority within its period, the lowest first.
func (k *Kubelet) endPods(ctx context.Context) {
	groups := make([][]*pod.Actor, len(k.cfg.Shutdown))
	for _, a := range k.pods.holding() {
		n := k.cfg.Shutdown.At(a.View().Pod)
		groups[n] = append(groups[n], a)
	}
	for n, group := range groups {
		if len(group) == 0 {
			continue
		}
		grace := k.cfg.Shutdown[n].Grace
		for _, a := range group {
			a.Evict(shutdownReason, shutdownMessage, grace)
		}
		if err := k.awaitEnd(ctx, group, grace); err != nil {
			k.log.Warn("some pods have not ended within their time", "priority", k.cfg.Shutdown[n].Priority, "err", err)
		}
	}
	if err := k.awaitEnd(ctx, slices.Concat(groups...), tellTime); err != nil {
		k.log.Warn("the host shuts down before the API knows how all pods ended", "err", err)
	}
}

// awaitEnd waits until the API knows how pods ended, but not for longer than that.
func (k *Kubelet) awaitEnd(ctx context.Context, group []*pod.Actor, most time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, errors.New("time is up"))
	defer cancel()
	for {
		left := slices.IndexFunc(group, func(a *pod.Actor) bool { return !a.View().Settled && k.pods.actor(a.UID()) == a })
		if left < 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			one := group[left].View().Pod
			return fmt.Errorf("%s/%s: %w", one.Namespace, one.Name, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// refuseInShutdown: a node whose host is shutting down takes no more pods.
func (k *Kubelet) refuseInShutdown() *pod.Verdict {
	if k.shutdown.begun.Load() {
		return &pod.Verdict{Reason: shutdownRefusal, Message: shutdownRefusing}
	}
	return nil
}
