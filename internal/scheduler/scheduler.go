// Package scheduler chooses a node for every pod that has none.
//
// One goroutine owns the picture of the cluster (package cluster), what classes of pods know of it (package class) and the queue (package
// queue); informers and binders only post to it. It takes a pod, asks its class for the best of all nodes, assumes that and hands the pod to a
// binder, so that choosing never waits for writing. If there is none, less important pods may have to give way (package preempt). Pods of a gang (package
// gang) are held back until enough of them are there, and are then placed together or not at all.
// Invariant: requested resources always include what was assumed and not yet seen, so no node is given more than it has. The host runs it.
package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/scheduler/profile"
)

// binders is how many writes are under way at once: etcd makes one fsync of those that come together.
const binders = 64

// Config is what a scheduler needs.
type Config struct {
	Settings *profile.Settings // nil: the default ones
	Groups   bool              // PodGroups are served, and pods are scheduled together that name one
	Client   client.Client
	Log      *slog.Logger
}

// Scheduler is made by New and lives while Run does.
type Scheduler struct {
	cfg    Config
	events map[string]record.EventRecorder // by the scheduler name that pods ask for
	ready  chan struct{}
	begun  sync.Once
	loop   atomic.Pointer[loop]   // nil while nothing is scheduled here
	leader atomic.Pointer[string] // nil without election
	now    func() time.Time       // the clock; waits are measured on its monotonic reading
}

// New returns a scheduler that does nothing yet.
func New(cfg Config) *Scheduler {
	if cfg.Settings == nil {
		cfg.Settings = profile.Default()
	}
	events := map[string]record.EventRecorder{}
	for name := range cfg.Settings.Profiles {
		events[name] = cfg.Client.Recorder(name)
	}
	return &Scheduler{cfg: cfg, events: events, ready: make(chan struct{}), now: time.Now}
}

// Ready closes when the scheduler knows every node and pod and has begun, or stands by.
func (s *Scheduler) Ready() <-chan struct{} { return s.ready }

// Run schedules until ctx ends, which is no error, and returns when the last binder has.
func (s *Scheduler) Run(ctx context.Context) error {
	if s.cfg.Settings.Election.Elect {
		return s.elected(ctx)
	}
	return s.work(ctx)
}

// work schedules until ctx ends. It remembers nothing of an earlier time.
func (s *Scheduler) work(ctx context.Context) error {
	l, err := newLoop(s)
	if err != nil {
		return err
	}
	stop, err := s.watch(ctx, l)
	defer stop()
	if err != nil || ctx.Err() != nil {
		return err
	}
	var workers sync.WaitGroup
	defer workers.Wait()
	defer close(l.writes)
	for range binders {
		workers.Go(func() {
			for write := range l.writes {
				write(ctx)
			}
		})
	}
	s.loop.Store(l)
	defer s.loop.Store(nil)
	s.begun.Do(func() { close(s.ready) })
	l.run(ctx)
	return nil
}

// watch posts the changes of nodes and pods, and returns once those present at the start are posted (no pod is placed before all others
// are known) or ctx ended. stop is to be called in any case.
func (s *Scheduler) watch(ctx context.Context, l *loop) (stop func(), err error) {
	type handler struct {
		kind   crclient.Object
		handle func(old, current any)
	}
	var stops []func()
	stop = func() {
		for _, s := range stops {
			s()
		}
	}
	handlers := []handler{
		{&corev1.Namespace{}, func(old, current any) {
			l.namespaceChanged(as[*corev1.Namespace](old), as[*corev1.Namespace](current))
		}},
		{&corev1.Service{}, func(old, current any) { l.serviceChanged(as[*corev1.Service](old), as[*corev1.Service](current)) }},
		{&policyv1.PodDisruptionBudget{}, func(old, current any) {
			l.budgetChanged(as[*policyv1.PodDisruptionBudget](old), as[*policyv1.PodDisruptionBudget](current))
		}},
		{&storagev1.StorageClass{}, func(_, _ any) { l.storageChanged() }},
		{&storagev1.CSIDriver{}, func(old, current any) {
			l.csiDriverChanged(as[*storagev1.CSIDriver](old), as[*storagev1.CSIDriver](current))
		}},
		{&storagev1.CSIStorageCapacity{}, func(_, _ any) { l.storageChanged() }},
		{&storagev1.CSINode{}, func(old, current any) { l.csiNodeChanged(as[*storagev1.CSINode](old), as[*storagev1.CSINode](current)) }},
		{&corev1.PersistentVolume{}, func(_, _ any) { l.storageChanged() }},
		{&corev1.PersistentVolumeClaim{}, func(old, current any) {
			l.claimChanged(as[*corev1.PersistentVolumeClaim](old), as[*corev1.PersistentVolumeClaim](current))
		}},
		{&storagev1.VolumeAttachment{}, func(old, current any) {
			l.attachmentChanged(as[*storagev1.VolumeAttachment](old), as[*storagev1.VolumeAttachment](current))
		}},
		{&resourcev1.DeviceClass{}, func(old, current any) {
			l.classChanged(as[*resourcev1.DeviceClass](old), as[*resourcev1.DeviceClass](current))
		}},
		{&resourcev1.DeviceTaintRule{}, func(old, current any) {
			l.taintRuleChanged(as[*resourcev1.DeviceTaintRule](old), as[*resourcev1.DeviceTaintRule](current))
		}},
		{&resourcev1.ResourceSlice{}, func(old, current any) {
			l.sliceChanged(as[*resourcev1.ResourceSlice](old), as[*resourcev1.ResourceSlice](current))
		}},
		{&resourcev1.ResourceClaim{}, func(old, current any) {
			l.deviceClaimChanged(as[*resourcev1.ResourceClaim](old), as[*resourcev1.ResourceClaim](current))
		}},
		{&corev1.Node{}, func(old, current any) { l.nodeChanged(as[*corev1.Node](old), as[*corev1.Node](current)) }},
		{&corev1.Pod{}, func(old, current any) { l.podChanged(as[*corev1.Pod](old), as[*corev1.Pod](current)) }},
	}
	if s.cfg.Groups {
		handlers = slices.Insert(handlers, 0, handler{&schedulingv1beta1.PodGroup{}, func(old, current any) {
			l.podGroupChanged(as[*schedulingv1beta1.PodGroup](old), as[*schedulingv1beta1.PodGroup](current))
		}})
	}
	for _, h := range handlers {
		informer, err := s.cfg.Client.Cache().GetInformer(ctx, h.kind)
		if err != nil {
			return stop, fmt.Errorf("watch %T: %w", h.kind, err)
		}
		post := func(old, current any) { l.mail.post(func() { h.handle(old, current) }) }
		registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { post(nil, obj) },
			UpdateFunc: post,
			DeleteFunc: func(obj any) {
				if gone, unknown := obj.(toolscache.DeletedFinalStateUnknown); unknown {
					obj = gone.Obj
				}
				post(obj, nil)
			},
		})
		if err != nil {
			return stop, fmt.Errorf("watch %T: %w", h.kind, err)
		}
		stops = append(stops, func() { _ = informer.RemoveEventHandler(registration) })
		if !toolscache.WaitFor(ctx, "", registration.HasSyncedChecker()) {
			return stop, nil
		}
	}
	return stop, nil
}

// as is a cast that makes nil of nil.
func as[T any](obj any) T {
	t, _ := obj.(T)
	return t
}

// mailbox takes work for the loop from any goroutine, without bound and without waiting: an informer must never be held up by the scheduler.
type mailbox struct {
	mu     sync.Mutex
	work   []func()
	signal chan struct{}
}

func (m *mailbox) post(do func()) {
	m.mu.Lock()
	m.work = append(m.work, do)
	m.mu.Unlock()
	select {
	case m.signal <- struct{}{}:
	default:
	}
}

func (m *mailbox) take() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	work := m.work
	m.work = nil
	return work
}
