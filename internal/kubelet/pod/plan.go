package pod

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Verb is a kind of action.
type Verb string

const (
	Prepare         Verb = "prepare"          // cgroup, directories, volumes
	CreateSandbox   Verb = "create-sandbox"   // Attempt
	StopSandbox     Verb = "stop-sandbox"     // ID
	RemoveSandbox   Verb = "remove-sandbox"   // ID
	Start           Verb = "start"            // Container, Restarts
	Kill            Verb = "kill"             // Container, ID, Grace, Reason, Message
	PreStop         Verb = "pre-stop"         // Container, ID, Grace: a sidecar's hook, before it is its turn to end
	RemoveContainer Verb = "remove-container" // ID
	Actuate         Verb = "resize"           // running containers get what is allocated to them
	CleanUp         Verb = "clean-up"         // volumes, cgroup
	Forget          Verb = "forget"           // everything else on this host: logs; the actor ends
	Delete          Verb = "delete"           // the object in the API
)

// Action is one thing to do.
type Action struct {
	Verb      Verb
	Container string
	ID        string
	Attempt   uint32
	Restarts  int32
	Grace     int64
	Ended     time.Time // RemoveContainer: when the container ended that has all others begin anew; its back-off grows
	Reason    string    // of an event
	Message   string
}

// Key: of actions with the same key only one runs at a time.
func (a Action) Key() string {
	switch a.Verb {
	case Kill, PreStop, RemoveContainer, RemoveSandbox:
		return string(a.Verb) + "/" + a.ID
	case CreateSandbox, StopSandbox:
		return "sandbox"
	}
	return string(a.Verb)
}

// Waiting says why a container doesn't run.
type Waiting struct {
	Reason, Message string
	Retry           time.Time // not to be tried before
}

// Health is what the probes of one running container say.
type Health struct {
	Started   bool // its startup probe succeeded, or it has none
	Ready     bool
	Unhealthy string // set: why it must be restarted
}

// Probes for which a container is restarted.
const (
	livenessProbe = "liveness"
	startupProbe  = "startup"
)

// Verdict ends a pod before its containers do.
type Verdict struct{ Reason, Message string }

// State is all that Next decides upon, besides the pod.
type State struct {
	Observed
	Gone         bool // the API doesn't have the pod any more
	NetworkReady bool
	Prepared     bool
	Cleaned      bool
	Settled      bool               // the final status is in the API
	Refused      string             // why the node makes no sandbox for the pod
	Verdict      *Verdict           // of the kubelet: eviction
	Disrupted    bool               // it ends because of its node
	EndBy        time.Time          // for its node's sake it has ended by then; zero: it has its own grace period
	StopSince    time.Time          // when the pod began to end; zero if it hasn't
	Hooked       string             // ID of the container whose postStart hook has not ended yet: until then it counts as being started
	Waiting      map[string]Waiting // by container: why its last start failed
	Backoff      map[string]Backoff
	Health       map[string]Health    // by container ID
	Retry        map[string]time.Time // by action key: not before
	Busy         map[string]bool      // by action key: runs now
	StopHooks    map[string]bool      // by container ID: its preStop hook was begun before its turn to end
	Resize       Resize
	Allocated    map[string]corev1.ResourceRequirements // by container; the pod's as a whole by ""
	Sized        map[string]Size                        // by container ID: what the runtime was told since it was made
}

// Plan is what to do now, and when to ask again although nothing happened (zero: never).
type Plan struct {
	Actions []Action
	Wake    time.Time
	// Waiting for their back-off to end.
	CrashLoop map[string]Waiting
	// Verdict that this plan came to: the pod ends.
	Verdict *Verdict
	// Ending: the pod is on its way out, by deletion, verdict or because all is done.
	Ending bool
}

type planner struct {
	Plan
	pod *corev1.Pod
	s   *State
	now time.Time
}

// Next decides what to do with a pod.
func Next(pod *corev1.Pod, s *State, now time.Time) Plan {
	p := &planner{pod: pod, s: s, now: now}
	p.Verdict = s.Verdict
	if p.Verdict == nil {
		p.Verdict = p.overdue()
	}
	if name := forbiddenSysctl(pod); name != "" && p.Verdict == nil {
		p.Verdict = &Verdict{"SysctlForbidden", fmt.Sprintf("forbidden sysctl: %q not allowlisted", name)}
	}
	switch {
	case s.Gone, pod.DeletionTimestamp != nil, p.Verdict != nil, isTerminal(pod.Status.Phase):
		p.end()
	case isTerminal(containersPhase(pod, s)), finished(pod, s):
		p.end()
	default:
		p.live()
	}
	return p.Plan
}

// finished: all of the pod's own containers have ended for good. Sidecars may still run, but have nobody left to serve.
func finished(pod *corev1.Pod, s *State) bool {
	if trigger(pod, s) != nil {
		return false
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if last, _ := s.newest(c.Name); !last.Exited() || restarts(pod, c, last) {
			return false
		}
	}
	return true
}

func isTerminal(p corev1.PodPhase) bool { return p == corev1.PodSucceeded || p == corev1.PodFailed }

func (p *planner) do(a Action) {
	if p.s.Busy[a.Key()] {
		return
	}
	if at, ok := p.s.Retry[a.Key()]; ok && p.now.Before(at) {
		p.wake(at)
		return
	}
	p.Actions = append(p.Actions, a)
}

func (p *planner) wake(at time.Time) {
	if !at.IsZero() && (p.Wake.IsZero() || at.Before(p.Wake)) {
		p.Wake = at
	}
}

const deadlineExceeded = "DeadlineExceeded"

// overdue: activeDeadlineSeconds counts from the pod's start on this node.
func (p *planner) overdue() *Verdict {
	limit := p.pod.Spec.ActiveDeadlineSeconds
	if limit == nil || p.pod.Status.StartTime == nil {
		return nil
	}
	end := p.pod.Status.StartTime.Add(time.Duration(*limit) * time.Second)
	if p.now.Before(end) {
		p.wake(end)
		return nil
	}
	return &Verdict{deadlineExceeded, "Pod was active on the node longer than the specified deadline"}
}

// live is the plan of a pod that should run.
func (p *planner) live() {
	p.discard()
	if !p.s.Prepared {
		p.do(Action{Verb: Prepare})
		return
	}
	sb := p.s.sandbox()
	if sb == nil || !sb.Ready {
		p.sandbox(sb)
		return
	}
	for _, old := range p.s.Sandboxes[1:] {
		p.retire(old)
	}
	if p.restartAll() {
		return
	}
	if p.initialize(sb) {
		for i := range p.pod.Spec.Containers {
			p.app(&p.pod.Spec.Containers[i])
		}
	}
	p.resize()
	for i := range p.pod.Spec.EphemeralContainers {
		c := &p.pod.Spec.EphemeralContainers[i]
		if last, _ := p.s.newest(c.Name); last == nil {
			p.start(c.Name, nil)
		}
	}
}

// sandbox replaces a missing or dead sandbox. What still runs in the dead one goes with it.
func (p *planner) sandbox(dead *Sandbox) {
	var attempt uint32
	if dead != nil {
		attempt = dead.Attempt + 1
		if slices.ContainsFunc(p.s.Containers, func(c Container) bool { return c.Running() }) {
			p.do(Action{Verb: StopSandbox, ID: dead.ID})
			return
		}
	}
	if !p.s.NetworkReady && !p.pod.Spec.HostNetwork {
		return
	}
	p.do(Action{Verb: CreateSandbox, Attempt: attempt})
}

func (p *planner) retire(old Sandbox) {
	if old.Ready {
		p.do(Action{Verb: StopSandbox, ID: old.ID})
		return
	}
	// Its containers are kept for their logs; the runtime would remove them with it.
	if !slices.ContainsFunc(p.s.Containers, func(c Container) bool { return c.SandboxID == old.ID }) {
		p.do(Action{Verb: RemoveSandbox, ID: old.ID})
	}
}

// discard removes incarnations nobody asks for: all but the newest, and the two that ended last.
func (p *planner) discard() {
	seen := map[string]int{}
	for i := range p.s.Containers {
		c := &p.s.Containers[i]
		seen[c.Name]++
		if seen[c.Name] > 2 && !c.Running() {
			p.do(Action{Verb: RemoveContainer, ID: c.ID, Container: c.Name})
		}
	}
}

// initialize goes through the init containers in order; true once the pod's own containers may run.
func (p *planner) initialize(sb *Sandbox) bool {
	done := initialized(p.pod, p.s)
	for i := range p.pod.Spec.InitContainers {
		c := &p.pod.Spec.InitContainers[i]
		last, _ := p.s.newest(c.Name)
		if isSidecar(c) {
			if !p.keep(c, last) && !done {
				return false
			}
			continue
		}
		if done {
			continue
		}
		inThis := last != nil && last.SandboxID == sb.ID
		switch {
		case inThis && last.Running():
			return false
		case inThis && last.Exited() && last.ExitCode == 0:
			continue
		case inThis && last.Exited():
			if restarts(p.pod, c, last) {
				p.start(c.Name, last)
			}
			return false
		default:
			p.start(c.Name, nil)
			return false
		}
	}
	return true
}

// keep keeps a sidecar running; true once it has started.
func (p *planner) keep(c *corev1.Container, last *Container) bool {
	if last.Running() {
		if p.sick(c, last) {
			return false
		}
		return p.s.Health[last.ID].Started
	}
	p.start(c.Name, last)
	return false
}

func (p *planner) app(c *corev1.Container) {
	last, _ := p.s.newest(c.Name)
	switch {
	case last.Running():
		p.sick(c, last)
	case last == nil, last.State == runtimeapi.ContainerState_CONTAINER_CREATED:
		p.start(c.Name, nil)
	case restarts(p.pod, c, last):
		p.start(c.Name, last)
	}
}

// sick kills a container that fails its probes or isn't what the spec says any more; what follows is like after any other end.
func (p *planner) sick(c *corev1.Container, last *Container) bool {
	message, grace := "", Grace(p.pod)
	if h := p.s.Health[last.ID]; h.Unhealthy != "" {
		grace = p.graceAfter(c, h.Unhealthy)
		message = fmt.Sprintf("Container %s failed %s probe, will be restarted", c.Name, h.Unhealthy)
	} else if last.Hash != "" && last.Hash != containerHash(c) {
		message = fmt.Sprintf("Container %s definition changed, will be restarted", c.Name)
	} else if unsized(p.pod, c, last, p.s) && resizeRestarts(p.pod, c, *last.Size) {
		message = fmt.Sprintf("Container %s resize requires restart", c.Name)
	}
	if message == "" {
		return false
	}
	p.do(Action{Verb: Kill, Container: c.Name, ID: last.ID, Grace: grace, Message: message})
	return true
}

// start starts a container; ended is its former incarnation where that counts for the back-off.
func (p *planner) start(name string, ended *Container) {
	if p.waits(name, ended) {
		return
	}
	if w, ok := p.s.Waiting[name]; ok && p.now.Before(w.Retry) {
		p.wake(w.Retry)
		return
	}
	// One start at a time, in the spec's order.
	if slices.ContainsFunc(p.Actions, func(a Action) bool { return a.Verb == Start }) {
		return
	}
	p.do(Action{Verb: Start, Container: name, Restarts: nextRestarts(p.pod, p.s, name)})
}

// waits: the back-off of a container that ended is not over.
func (p *planner) waits(name string, ended *Container) bool {
	if !ended.Exited() || ended.Hash != containerHash(Spec(p.pod, name)) {
		return false
	}
	at := p.s.Backoff[name].Until(ended.Finished)
	if !p.now.Before(at) {
		return false
	}
	p.wake(at)
	if p.CrashLoop == nil {
		p.CrashLoop = map[string]Waiting{}
	}
	p.CrashLoop[name] = Waiting{Reason: "CrashLoopBackOff", Retry: at, Message: fmt.Sprintf(
		"back-off %s restarting failed container=%s pod=%s_%s(%s)", p.s.Backoff[name].Delay, name, p.pod.Name, p.pod.Namespace, p.pod.UID)}
	return true
}

// nextRestarts counts on from the newest incarnation; if the runtime has none, from what the status remembers.
func nextRestarts(pod *corev1.Pod, s *State, name string) int32 {
	if last, _ := s.newest(name); last != nil {
		return last.Restarts + 1
	}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].Name == name && list[i].ContainerID != "" {
				return list[i].RestartCount + 1
			}
		}
	}
	return 0
}

// graceAfter is what a container gets to end that has failed a probe: what that probe says, else what the pod does.
func (p *planner) graceAfter(c *corev1.Container, failed string) int64 {
	probe := c.LivenessProbe
	if failed == startupProbe {
		probe = c.StartupProbe
	}
	if probe != nil && probe.TerminationGracePeriodSeconds != nil {
		return *probe.TerminationGracePeriodSeconds
	}
	return Grace(p.pod)
}

func isSidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// initialized: some container of the pod proper was made in this sandbox, so all init containers were done with, even if they have
// been removed since.
func initialized(pod *corev1.Pod, s *State) bool {
	sb := s.sandbox()
	for i := range pod.Spec.Containers {
		if last, _ := s.newest(pod.Spec.Containers[i].Name); last != nil && (sb == nil || last.SandboxID == sb.ID) {
			return true
		}
	}
	return false
}

// restarts: does a container that ended start again? Its own policy and rules go before the pod's.
func restarts(pod *corev1.Pod, c *corev1.Container, last *Container) bool {
	if matching(c, last.ExitCode) != nil {
		return true // alone or with all others
	}
	policy := string(pod.Spec.RestartPolicy)
	if c.RestartPolicy != nil {
		policy = string(*c.RestartPolicy)
	} else if policy == string(corev1.RestartPolicyAlways) && isInit(pod, c.Name) {
		policy = string(corev1.RestartPolicyOnFailure)
	}
	switch policy {
	case string(corev1.RestartPolicyNever):
		return false
	case string(corev1.RestartPolicyOnFailure):
		return last.ExitCode != 0
	}
	return true
}

func isInit(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
}

// Grace is the seconds that a pod asks for to end.
func Grace(pod *corev1.Pod) int64 {
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		return *g
	}
	return 30
}
