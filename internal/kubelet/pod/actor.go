package pod

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/kubelet/cgroup"
	"skiff.dev/skiff/internal/kubelet/device"
	"skiff.dev/skiff/internal/kubelet/dra"
	"skiff.dev/skiff/internal/kubelet/image"
	"skiff.dev/skiff/internal/kubelet/logs"
	"skiff.dev/skiff/internal/kubelet/oom"
	"skiff.dev/skiff/internal/kubelet/probe"
	"skiff.dev/skiff/internal/kubelet/userns"
	"skiff.dev/skiff/internal/kubelet/volume"
)

// Deps is what all actors of a node share.
type Deps struct {
	Runtime runtimeapi.RuntimeServiceClient
	Images  *image.Puller
	Volumes *volume.Manager
	Claims  *dra.Node
	Devices *device.Manager
	Cgroups *cgroup.Manager
	Users   *userns.Ranges
	// OwnUsers says why a handler of the runtime gives no pod users of its own here; nil if it does.
	OwnUsers    func(ctx context.Context, handler string) error
	Started     *UserNamespaced
	Client      client.Client
	Events      record.EventRecorder
	Settings    *Settings
	Logs        *logs.Keeper
	Kills       *oom.Kills
	Node        func() NodeFacts
	Allocatable func() corev1.ResourceList
	Others      func() []*corev1.Pod // all pods of the node, with what they were given
	Allocating  *sync.Mutex          // held while a resize is weighed against them
	Services    func(ctx context.Context, namespace string) ([]corev1.Service, error)
	Probes      *probe.Counts                                 // may be nil
	Ends        *Ends                                         // may be nil
	Withdraw    func(ctx context.Context, addrs []netip.Addr) // returns when nothing new is led there, or after a while; may be nil
	Log         *slog.Logger
	Ended       func(*Actor) // the actor is done with its pod for good
}

// Actor is one pod's goroutine.
type Actor struct {
	d   *Deps
	uid types.UID
	log *slog.Logger

	wake chan struct{} // somebody put something below

	mu      sync.Mutex
	pod     *corev1.Pod // the newest there is
	gone    bool
	refusal *Verdict // the node doesn't take the pod
	leaving bool     // it makes room for another
	mirror  *mirror  // static pods: what the API shows of it
	network bool
	dirty   bool           // the runtime has news
	refresh bool           // sources of volumes have news
	results []func(*State) // of what ran beside the actor
	view    View
	exits   map[string][]chan struct{} // by container ID

	// Only the actor's goroutine touches the rest.
	s       State
	volumes volume.Pod
	kills   map[string]running
	hooks   map[string]chan struct{} // by container ID: preStop hooks that were begun before the container's turn to end; closed when they are over
	ops     sync.WaitGroup
	cancels map[string]context.CancelFunc // by action key
	delays  map[string]time.Duration      // by action key: how long a failed one waits
	probes  probes
	sent    corev1.PodStatus
	sentAt  time.Time
	looked  bool                 // the runtime has been looked at since start
	untold  map[string]*oom.Kill // by container ID
	failing int                  // looks at the runtime that failed in a row
	ends    endsSeen
	renew   time.Time
}

type running struct {
	cancel   context.CancelFunc
	deadline time.Time
}

// View is what others may see of a pod: its object with the status as of now, and what the runtime has of it.
type View struct {
	Pod *corev1.Pod
	Observed
	Cleaned bool // nothing of it is left on the node but logs and dead containers
	Settled bool // and the API knows how it ended
}

// New makes the actor of a pod. Run it.
func New(d *Deps, pod *corev1.Pod, gone, network bool) *Actor {
	a := &Actor{
		d: d, uid: pod.UID, log: d.Log.With("pod", pod.Namespace+"/"+pod.Name),
		wake: make(chan struct{}, 1), pod: pod, gone: gone, network: network, dirty: true, view: View{Pod: pod},
		kills: map[string]running{}, hooks: map[string]chan struct{}{}, cancels: map[string]context.CancelFunc{}, exits: map[string][]chan struct{}{},
		s: State{
			Waiting: map[string]Waiting{}, Backoff: map[string]Backoff{}, Health: map[string]Health{},
			Retry: map[string]time.Time{}, Busy: map[string]bool{}, StopHooks: map[string]bool{},
			Allocated: map[string]corev1.ResourceRequirements{}, Sized: map[string]Size{},
		},
		probes: probes{}, delays: map[string]time.Duration{}, untold: map[string]*oom.Kill{},
	}
	a.ends.add(&pod.Status, nil) // an earlier process counted these
	return a
}

func (a *Actor) UID() types.UID { return a.uid }

// Update tells the actor of a newer object.
func (a *Actor) Update(pod *corev1.Pod) {
	a.put(func() {
		if newer(pod, a.pod) {
			a.refresh = a.refresh || !maps.Equal(pod.Labels, a.pod.Labels) || !maps.Equal(pod.Annotations, a.pod.Annotations)
			a.pod = pod
		}
	})
}

// Removed tells the actor that the API doesn't have the pod any more; pod is the last that was seen of it.
func (a *Actor) Removed(pod *corev1.Pod) {
	a.put(func() {
		if pod != nil && newer(pod, a.pod) {
			a.pod = pod
		}
		a.gone = true
	})
}

// Refuse ends a pod that the node doesn't take, before anything of it starts. It is called before Run; nil is no refusal.
func (a *Actor) Refuse(v *Verdict) { a.refusal = v }

// Holds is the pod as the API has it, if it takes up room on the node; nil otherwise.
func (a *Actor) Holds() *corev1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone || a.leaving || a.refusal != nil || isTerminal(a.pod.Status.Phase) || isTerminal(a.view.Pod.Status.Phase) {
		return nil
	}
	return a.pod
}

// Evict ends the pod within a time, because of the node; it fails for that reason. Of several reasons the first counts, and the shortest time, which
// holds for a pod that ends already too.
func (a *Actor) Evict(reason, message string, within time.Duration) {
	a.put(func() {
		by := time.Now().Add(within)
		a.results = append(a.results, func(s *State) {
			if s.EndBy.IsZero() || by.Before(s.EndBy) {
				s.EndBy = by
			}
			a.disrupt(s, reason, message)
		})
	})
}

// Preempt ends the pod, within its grace period, to make room for a critical one. It holds no room from now on.
func (a *Actor) Preempt() {
	a.put(func() {
		a.leaving = true
		a.results = append(a.results, func(s *State) { a.disrupt(s, "Preempting", "Preempted in order to admit critical pod") })
	})
}

// disrupt makes a reason of the node's the pod's verdict, unless the pod ends for another.
func (a *Actor) disrupt(s *State, reason, message string) {
	if s.Verdict == nil && !s.Gone && a.pod.DeletionTimestamp == nil {
		s.Verdict, s.Disrupted = &Verdict{reason, message}, true
		a.event(a.pod, "", corev1.EventTypeWarning, reason, message)
	}
}

// refuse makes the refusal the pod's verdict, unless the runtime has it already: then it was taken before this process started.
func (a *Actor) refuse(pod *corev1.Pod) {
	a.mu.Lock()
	v := a.refusal
	if v != nil && len(a.s.Sandboxes) > 0 && a.s.Verdict == nil {
		a.refusal, v = nil, nil
	}
	a.mu.Unlock()
	if v == nil || a.s.Verdict != nil {
		return
	}
	a.s.Verdict = &Verdict{v.Reason, "Pod was rejected: " + v.Message}
	a.event(pod, "", corev1.EventTypeWarning, v.Reason, v.Message)
}

// Observe makes the actor look at the runtime.
func (a *Actor) Observe() { a.put(func() { a.dirty = true }) }

// Refresh makes the actor bring volumes up to date, and try again what a missing object made fail.
func (a *Actor) Refresh() { a.put(func() { a.refresh = true }) }

// Retry tries at once what failed for want of a driver.
func (a *Actor) Retry() {
	a.put(func() {
		a.results = append(a.results, func(s *State) {
			delete(s.Retry, string(Prepare))
			delete(s.Retry, string(CleanUp))
		})
	})
}

// Killed tells the actor that the kernel killed a process of a container for want of memory. An old kill is known to whoever wanted to know.
func (a *Actor) Killed(container string, k *oom.Kill, old bool) {
	a.put(func() {
		a.dirty = true
		a.results = append(a.results, func(*State) {
			if !old {
				a.untold[container] = k
			}
		})
	})
}

// tellKills tells of kills, of a container that the runtime has just made once it has been seen.
func (a *Actor) tellKills(pod *corev1.Pod) {
	for id, k := range a.untold {
		if c := a.s.find(id); c != nil {
			a.event(pod, c.Name, corev1.EventTypeWarning, "OOMKilling", k.Message(c.Name))
			delete(a.untold, id)
		}
	}
}

// Network tells the actor whether sandboxes can have a network.
func (a *Actor) Network(ready bool) { a.put(func() { a.network = ready }) }

// View of the pod as of the actor's last turn.
func (a *Actor) View() View {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.view
}

// Exit is closed once the container doesn't run any more, as far as the actor knows.
func (a *Actor) Exit(id string) <-chan struct{} {
	c := make(chan struct{})
	a.put(func() { a.exits[id] = append(a.exits[id], c) })
	return c
}

func (a *Actor) put(f func()) {
	a.mu.Lock()
	f()
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// newer: revisions of one object can be compared.
func newer(a, b *corev1.Pod) bool {
	x, y := a.ResourceVersion, b.ResourceVersion
	return len(x) > len(y) || len(x) == len(y) && x >= y
}

// Run until ctx ends, which leaves containers alone, or the pod is gone and nothing is left of it.
func (a *Actor) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer a.ops.Wait()
	defer cancel()
	defer a.probes.stop()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next, ended := a.turn(ctx)
		if ended {
			a.d.Ended(a)
			return
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = max(time.Until(next), time.Millisecond)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-a.wake:
		case <-timer.C:
		}
	}
}

// turn takes in what is new, decides, and acts.
func (a *Actor) turn(ctx context.Context) (next time.Time, ended bool) {
	now := time.Now()
	asked, told, dirty, refresh := a.take()
	pod, again := a.allocate(asked, now)
	if dirty || !a.looked {
		if err := a.observe(ctx, pod); err != nil {
			if ctx.Err() != nil {
				return time.Time{}, false
			}
			a.log.Warn("cannot see the pod's containers; trying again", "err", err)
			a.failing = min(a.failing+1, 6)
			a.mu.Lock()
			a.dirty = true
			a.mu.Unlock()
			return now.Add(100 * time.Millisecond << a.failing), false
		}
		a.looked, a.failing = true, 0
	}
	if refresh || (!a.renew.IsZero() && !now.Before(a.renew)) {
		a.again(ctx, pod)
	}
	a.syncProbes(pod)
	a.tellKills(pod)
	a.refuse(pod)

	plan := Next(pod, &a.s, now)
	if plan.Verdict != nil {
		a.s.Verdict = plan.Verdict
	}
	if plan.Ending && a.s.StopSince.IsZero() {
		a.stopping(now)
		plan = Next(pod, &a.s, now)
	}
	for _, action := range plan.Actions {
		if action.Verb == Forget {
			a.forget(pod)
			return time.Time{}, true
		}
		a.act(ctx, pod, action)
	}
	a.crashing(pod, plan)
	status := Status(pod, &a.s, &plan, a.d.Node(), now)
	a.devicesHealth(pod, &status)
	a.ends.add(&status, a.d.Ends)
	a.publish(pod, status)
	retry := a.report(ctx, asked, told, status, plan, now)
	return earliest(plan.Wake, retry, a.renew, again), false
}

func earliest(times ...time.Time) (out time.Time) {
	for _, t := range times {
		if !t.IsZero() && (out.IsZero() || t.Before(out)) {
			out = t
		}
	}
	return out
}

// take also says whether the API has the pod's status as the pod itself does.
func (a *Actor) take() (pod *corev1.Pod, told, dirty, refresh bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, apply := range a.results {
		apply(&a.s)
	}
	a.results = nil
	dirty, refresh = a.dirty, a.refresh
	a.dirty, a.refresh = false, false
	a.s.Gone, a.s.NetworkReady = a.gone, a.network
	return a.pod, a.mirror == nil || a.mirror.shown != nil, dirty, refresh
}

// stopping is the moment a pod begins to end: what was about to begin is called off.
func (a *Actor) stopping(now time.Time) {
	a.s.StopSince = now
	a.probes.ending()
	for _, key := range []string{string(Start), string(Prepare)} {
		if cancel := a.cancels[key]; cancel != nil {
			cancel()
		}
	}
}

// crashing tells an event for containers that wait for their next start.
func (a *Actor) crashing(pod *corev1.Pod, plan Plan) {
	for name, w := range plan.CrashLoop {
		if a.s.Waiting[name].Retry == w.Retry {
			continue
		}
		a.s.Waiting[name] = Waiting{Retry: w.Retry}
		a.event(pod, name, corev1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)%s", name, pod.Name, pod.Namespace, pod.UID, a.lastEnd(name)))
	}
}

// lastEnd says how a container ended that keeps ending.
func (a *Actor) lastEnd(name string) string {
	last, _ := a.s.newest(name)
	if !last.Exited() {
		return ""
	}
	if k := a.d.Kills.Of(last.ID); k != nil && last.Reason == oomKilled {
		return ": " + k.Message(name)
	}
	return fmt.Sprintf(": it ended with exit code %d (%s)", last.ExitCode, last.Reason)
}

func (a *Actor) publish(pod *corev1.Pod, status corev1.PodStatus) {
	view := *pod
	view.Status = status
	a.mu.Lock()
	defer a.mu.Unlock()
	a.view = View{Pod: &view, Observed: a.s.Observed, Cleaned: a.s.Cleaned, Settled: a.s.Settled}
	for id, waiters := range a.exits {
		if a.s.find(id).Running() {
			continue
		}
		for _, c := range waiters {
			close(c)
		}
		delete(a.exits, id)
	}
}

// glance is how long a container that reads its standard input has run before its start is told.
const glance = 500 * time.Millisecond

// beginning is when to tell of containers that have just begun and that somebody will attach to. Whoever waits for their start attaches at once, and is not
// shown what was said before: a container that says something and ends, as in kubectl run -i … -- echo hello, seemed to have said nothing. One that has
// ended when its start would be told is told to have ended, and its log is read instead.
func beginning(pod *corev1.Pod, s *State, now time.Time) (at time.Time) {
	for i := range s.Containers {
		c := &s.Containers[i]
		ran := now.Sub(c.Started)
		if spec := Spec(pod, c.Name); c.Running() && ran >= 0 && ran < glance && spec != nil && spec.Stdin {
			at = earliest(at, c.Started.Add(glance))
		}
	}
	return at
}

// report writes the status if it changed.
func (a *Actor) report(ctx context.Context, pod *corev1.Pod, told bool, status corev1.PodStatus, plan Plan, now time.Time) (retry time.Time) {
	const key = "status"
	if a.s.Gone || a.s.Busy[key] {
		return
	}
	if told && equality.Semantic.DeepEqual(status, pod.Status) {
		if plan.Ending && a.s.Cleaned && !a.s.Settled {
			a.s.Settled = true
			return now // it can be deleted
		}
		return
	}
	a.s.Settled = false
	if at := a.s.Retry[key]; now.Before(at) {
		return at
	}
	if at := beginning(pod, &a.s, now); !at.IsZero() {
		return at
	}
	// The API may show a status in other words than it was told; that's no reason to tell it over and over.
	if at := a.sentAt.Add(10 * time.Second); told && now.Before(at) && equality.Semantic.DeepEqual(status, a.sent) {
		a.s.Settled = plan.Ending && a.s.Cleaned
		return at
	}
	a.launch(ctx, key, func(ctx context.Context) func(*State) {
		if !told {
			// A mirror from before this process tells since when the pod has been there: it is taken in before it is written over.
			if mirror, _, err := a.found(ctx, pod, status.Phase); err == nil && mirror != nil {
				return func(*State) { a.show(mirror) }
			}
		}
		written, err := a.write(ctx, pod, status)
		return func(s *State) {
			if err != nil {
				a.log.Warn("cannot write the pod's status; trying again", "err", err)
				s.Retry[key] = time.Now().Add(time.Second)
				return
			}
			delete(s.Retry, key)
			a.sent, a.sentAt = status, time.Now()
			if a.mirror != nil {
				a.show(written)
				return
			}
			if written != nil && newer(written, a.pod) {
				a.pod = written
			}
		}
	})
	return time.Time{}
}

// launch runs f beside the actor; what f returns is applied in the actor's next turn.
func (a *Actor) launch(ctx context.Context, key string, f func(context.Context) func(*State)) {
	ctx, cancel := context.WithCancel(ctx)
	a.s.Busy[key] = true
	a.cancels[key] = cancel
	a.ops.Go(func() {
		apply := f(ctx)
		a.put(func() {
			a.results = append(a.results, func(s *State) {
				delete(s.Busy, key)
				delete(a.cancels, key)
				if apply != nil {
					apply(s) // it may ask whether ctx had been called off, so that ends only now
				}
				cancel()
			})
		})
	})
}

func (a *Actor) event(pod *corev1.Pod, container, kind, reason, message string) {
	ref := &corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
	}
	switch c, _ := spec(pod, container); {
	case c == nil:
	case isInit(pod, container):
		ref.FieldPath = "spec.initContainers{" + container + "}"
	case isEphemeral(pod, container):
		ref.FieldPath = "spec.ephemeralContainers{" + container + "}"
	default:
		ref.FieldPath = "spec.containers{" + container + "}"
	}
	a.d.Events.Event(ref, kind, reason, message)
}

func isEphemeral(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return true
		}
	}
	return false
}
