package main

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"skiff.dev/skiff/internal/ingress"
)

// leaseName is the Lease whose holder writes the status of Ingresses.
const leaseName = "skiff-ingress"

// again is when a status that could not be written is tried once more.
const again = 2 * time.Second

// self is the pod that this program runs in.
type self struct{ namespace, pod string }

// lead writes the status of Ingresses whenever this pod holds the Lease. Nobody is in a hurry for it, so the Lease is renewed seldom.
func lead(ctx context.Context, c clients, me self, w *watcher, log *slog.Logger) error {
	select {
	case <-w.first:
	case <-ctx.Done():
		return nil
	}
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta: metav1.ObjectMeta{Namespace: me.namespace, Name: leaseName}, Client: c.coordination,
				LockConfig: resourcelock.ResourceLockConfig{Identity: me.pod},
			},
			LeaseDuration: time.Minute, RenewDeadline: 40 * time.Second, RetryPeriod: 10 * time.Second,
			ReleaseOnCancel: true,
			Name:            leaseName,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) { writeStatuses(ctx, c, w, log) }, OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			return err
		}
		elector.Run(ctx)
	}
	return nil
}

// writeStatuses brings the status of Ingresses up to date until ctx ends.
func writeStatuses(ctx context.Context, c clients, w *watcher, log *slog.Logger) {
	for ctx.Err() == nil {
		done := true
		for _, i := range ingress.Statuses(w.objects(), ingress.Addresses(all[*corev1.Pod](w.pods))) {
			_, err := c.networking.Ingresses(i.Namespace).UpdateStatus(ctx, i, metav1.UpdateOptions{})
			if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
				done = false
				if !apierrors.IsConflict(err) {
					log.Warn("cannot write the status of an Ingress, will be tried again", "ingress", i.Namespace+"/"+i.Name, "err", err)
				}
			}
		}
		if !done {
			sleep(ctx, again)
			continue
		}
		select {
		case <-w.written:
		case <-ctx.Done():
		}
	}
}
