package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/scheduler/profile"
)

// elected works while this scheduler holds the lease, and stands by while another does. A lease that is lost ends the work, not the process.
//
// Invariant: the lease is given back only when the last write has ended, and lost (RenewDeadline) well before anybody else may take it
// (LeaseDuration), so that two are never at work.
func (s *Scheduler) elected(ctx context.Context) error {
	lock := newLease(s.cfg.Client, s.cfg.Settings.Election)
	for ctx.Err() == nil {
		if err := s.term(ctx, lock); err != nil {
			return err
		}
	}
	return nil
}

// term stands for election, works while the lease is held, and gives it back.
func (s *Scheduler) term(ctx context.Context, lock *lease) error {
	logged := klog.NewContext(context.WithoutCancel(ctx), logr.FromSlogHandler(s.cfg.Log.Handler()))
	standing, resign := context.WithCancel(logged)
	defer resign()
	won := make(chan context.Context, 1)
	e := s.cfg.Settings.Election
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, Name: "scheduler", LeaseDuration: e.LeaseDuration, RenewDeadline: e.RenewDeadline, RetryPeriod: e.RetryPeriod,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(held context.Context) { won <- held },
			OnStoppedLeading: func() {},
			OnNewLeader: func(identity string) {
				s.leader.Store(&identity)
				s.cfg.Log.Info("a scheduler was elected", "leader", identity, "own", identity == lock.Identity())
			},
		},
	})
	if err != nil {
		return fmt.Errorf("stand for election as scheduler: %w", err)
	}
	var election sync.WaitGroup
	election.Go(func() { elector.Run(standing) })
	s.begun.Do(func() { close(s.ready) })
	select {
	case <-ctx.Done():
	case held := <-won:
		working, stop := context.WithCancel(held)
		defer stop()
		defer context.AfterFunc(ctx, stop)()
		err = s.work(working)
	}
	resign()
	election.Wait()
	lock.release(context.WithoutCancel(ctx))
	return err
}

// lease is the resource lock of client-go's leader election over our own client.
type lease struct {
	client   client.Client
	events   record.EventRecorder
	key      crclient.ObjectKey
	identity string

	mu   sync.Mutex
	last *coordinationv1.Lease // as it was read or written
}

func newLease(c client.Client, e profile.Election) *lease {
	host, err := os.Hostname()
	if err != nil {
		host = "skiff"
	}
	return &lease{
		client: c, events: c.Recorder("default-scheduler"), key: crclient.ObjectKey{Namespace: e.Namespace, Name: e.Name},
		identity: host + "_" + string(uuid.NewUUID()),
	}
}

func (l *lease) Identity() string { return l.identity }

func (l *lease) Describe() string { return l.key.String() }

func (l *lease) keep(o *coordinationv1.Lease) {
	l.mu.Lock()
	l.last = o
	l.mu.Unlock()
}

func (l *lease) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	var o coordinationv1.Lease
	if err := l.client.Live().Get(ctx, l.key, &o); err != nil {
		return nil, nil, err
	}
	l.keep(o.DeepCopy())
	r := resourcelock.LeaseSpecToLeaderElectionRecord(&o.Spec)
	raw, err := json.Marshal(r)
	return r, raw, err
}

func (l *lease) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	o := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: l.key.Namespace, Name: l.key.Name}, Spec: resourcelock.LeaderElectionRecordToLeaseSpec(&r),
	}
	if err := l.client.Create(ctx, o); err != nil {
		return err
	}
	l.keep(o)
	return nil
}

func (l *lease) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	l.mu.Lock()
	o := l.last.DeepCopy()
	l.mu.Unlock()
	o.Spec = resourcelock.LeaderElectionRecordToLeaseSpec(&r)
	if err := l.client.Update(ctx, o); err != nil {
		return err
	}
	l.keep(o)
	return nil
}

func (l *lease) RecordEvent(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last != nil {
		l.events.Eventf(l.last, corev1.EventTypeNormal, "LeaderElection", "%s %s", l.identity, what)
	}
}

// release lets the next one in at once if the lease is still held; else that happens when it runs out.
func (l *lease) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, _, err := l.Get(ctx)
	if err != nil || r.HolderIdentity != l.identity {
		return
	}
	now := metav1.Now()
	_ = l.Update(ctx, resourcelock.LeaderElectionRecord{LeaderTransitions: r.LeaderTransitions, LeaseDurationSeconds: 1, RenewTime: now, AcquireTime: now})
}
