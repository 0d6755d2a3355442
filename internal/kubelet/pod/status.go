package pod

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/kubelet/cgroup"
	"skiff.dev/skiff/internal/kubelet/dra"
)

// NodeFacts are what a pod's status says of its node.
type NodeFacts struct {
	IPs         []string
	RuntimeName string // "containerd"
}

// Status is what the API should say of the pod. What others wrote into the present status is kept.
func Status(pod *corev1.Pod, s *State, plan *Plan, node NodeFacts, now time.Time) corev1.PodStatus {
	st := *pod.Status.DeepCopy()
	st.ObservedGeneration = pod.Generation
	st.QOSClass = cgroup.Class(pod)
	if st.StartTime == nil {
		t := metav1.NewTime(now.Truncate(time.Second))
		st.StartTime = &t
	}
	st.HostIP, st.HostIPs = "", nil
	for _, ip := range node.IPs {
		st.HostIPs = append(st.HostIPs, corev1.HostIP{IP: ip})
	}
	if len(node.IPs) > 0 {
		st.HostIP = node.IPs[0]
	}
	setIPs(&st, pod, s, node)

	done := initialized(pod, s)
	over := plan.Ending && !anyRunning(s) && !s.Busy[string(Start)] && (pod.DeletionTimestamp != nil || plan.Verdict != nil || s.Gone || isTerminal(pod.Status.Phase))
	b := statusBuilder{pod: pod, s: s, plan: plan, node: node, over: over}
	st.InitContainerStatuses, st.ContainerStatuses = nil, nil
	for i := range pod.Spec.InitContainers {
		st.InitContainerStatuses = append(st.InitContainerStatuses, b.container(&pod.Spec.InitContainers[i], pod.Status.InitContainerStatuses, true, done))
	}
	for i := range pod.Spec.Containers {
		st.ContainerStatuses = append(st.ContainerStatuses, b.container(&pod.Spec.Containers[i], pod.Status.ContainerStatuses, false, done))
	}
	st.EphemeralContainerStatuses = nil
	for i := range pod.Spec.EphemeralContainers {
		c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		cs := b.container(&c, pod.Status.EphemeralContainerStatuses, false, done)
		cs.Ready, cs.Started = false, nil
		st.EphemeralContainerStatuses = append(st.EphemeralContainerStatuses, cs)
	}
	st.Phase = b.phase(&st)
	if isTerminal(st.Phase) && !isTerminal(pod.Status.Phase) && dra.Wants(pod) && !s.Cleaned {
		st.Phase = corev1.PodRunning // a pod that has ended frees its devices for others, so they must have been taken back
	}
	if plan.Verdict != nil && over && !isTerminal(pod.Status.Phase) {
		st.Reason, st.Message = plan.Verdict.Reason, plan.Verdict.Message
	}
	if plan.Verdict != nil && s.Disrupted {
		setDisrupted(&st, pod, plan.Verdict.Message, metav1.NewTime(now.Truncate(time.Second)))
	}
	b.conditions(&st, done, metav1.NewTime(now.Truncate(time.Second)))
	b.resources(&st)
	b.resizeConditions(&st, metav1.NewTime(now.Truncate(time.Second)))
	return st
}

// setDisrupted says that the pod fails because of its node, not of itself.
func setDisrupted(st *corev1.PodStatus, pod *corev1.Pod, message string, now metav1.Time) {
	if slices.ContainsFunc(st.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.DisruptionTarget }) {
		return
	}
	st.Conditions = append(st.Conditions, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: corev1.PodReasonTerminationByKubelet, Message: message,
		LastTransitionTime: now, ObservedGeneration: pod.Generation,
	})
}

func setIPs(st *corev1.PodStatus, pod *corev1.Pod, s *State, node NodeFacts) {
	ips := []string(nil)
	if sb := s.sandbox(); sb != nil && sb.Ready {
		ips = sb.IPs
		if pod.Spec.HostNetwork {
			ips = node.IPs
		}
	}
	if len(ips) == 0 {
		return // a stopped sandbox has none, but the status remembers
	}
	ips = primaryFirst(ips, node.IPs)
	st.PodIP, st.PodIPs = ips[0], nil
	for _, ip := range ips {
		st.PodIPs = append(st.PodIPs, corev1.PodIP{IP: ip})
	}
}

// primaryFirst puts a pod's addresses into the order of the node's families: runtimes have their own.
func primaryFirst(ips, node []string) []string {
	six := func(ip string) bool { return strings.Contains(ip, ":") }
	if len(ips) != 2 || len(node) == 0 || six(ips[0]) == six(node[0]) {
		return ips
	}
	return []string{ips[1], ips[0]}
}

func anyRunning(s *State) bool {
	return slices.ContainsFunc(s.Containers, func(c Container) bool { return c.Running() })
}

type statusBuilder struct {
	pod  *corev1.Pod
	s    *State
	plan *Plan
	node NodeFacts
	over bool // nothing runs and nothing will
}

func (b *statusBuilder) container(c *corev1.Container, old []corev1.ContainerStatus, init, done bool) corev1.ContainerStatus {
	last, before := b.s.newest(c.Name)
	cs := corev1.ContainerStatus{Name: c.Name, Image: c.Image}
	var former *corev1.ContainerStatus
	if i := slices.IndexFunc(old, func(o corev1.ContainerStatus) bool { return o.Name == c.Name }); i >= 0 {
		former = &old[i]
	}
	no := false
	cs.Started = &no
	if last == nil {
		b.absent(&cs, former, init, done)
		return cs
	}
	cs.RestartCount = last.Restarts
	cs.ContainerID = b.node.RuntimeName + "://" + last.ID
	cs.Image, cs.ImageID = last.Image, last.ImageRef
	if cs.Image == "" {
		cs.Image = c.Image
	}
	if last.User != nil {
		cs.User = &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: last.User.Uid, GID: last.User.Gid, SupplementalGroups: last.User.SupplementalGroups}}
	}
	if c.Lifecycle != nil {
		cs.StopSignal = c.Lifecycle.StopSignal
	}
	cs.AllocatedResources = c.Resources.Requests
	cs.Resources = c.Resources.DeepCopy()
	cs.Resources.Claims = nil
	if unsized(b.pod, c, last, b.s) && former != nil && former.Resources != nil {
		cs.Resources = former.Resources // what it still has
	}
	cs.VolumeMounts = mountStatuses(c)
	if before.Exited() {
		cs.LastTerminationState.Terminated = b.terminated(before, former)
	} else if former != nil && last.Restarts > 0 && before == nil {
		cs.LastTerminationState = remembered(former, cs.ContainerID)
	}
	switch {
	case last.Running() && last.ID != b.s.Hooked:
		cs.State.Running = &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(last.Started.Truncate(time.Second))}
		h := b.s.Health[last.ID]
		started := h.Started
		cs.Started = &started
		cs.Ready = h.Started && h.Ready
		if init && !isSidecar(c) {
			cs.Ready = false
		}
	case last.Exited():
		cs.State.Terminated = b.terminated(last, former)
		if w, ok := b.waiting(c.Name); ok && !b.over && restarts(b.pod, c, last) {
			cs.LastTerminationState = cs.State
			cs.State = corev1.ContainerState{Waiting: &w}
		}
		cs.Ready = init && !isSidecar(c) && last.ExitCode == 0
	default:
		cs.State.Waiting = b.defaultWaiting(init, done)
		if w, ok := b.waiting(c.Name); ok {
			cs.State.Waiting = &w
		}
	}
	return cs
}

// remembered is the last end the former status knew, for a container whose former incarnation the runtime has forgotten.
func remembered(former *corev1.ContainerStatus, id string) corev1.ContainerState {
	switch {
	case former.ContainerID == id:
	case former.State.Terminated != nil:
		return former.State
	case former.State.Running != nil:
		return lost(former)
	}
	return former.LastTerminationState
}

// lost is the end of a container that ran when it was last heard of, and that the runtime has forgotten, as after a reboot.
func lost(former *corev1.ContainerStatus) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		Reason: "ContainerStatusUnknown", ExitCode: 137, ContainerID: former.ContainerID,
		Message: "The container could not be located when the pod was deleted.  The container used to be Running",
	}}
}

// absent is a container that the runtime doesn't have: not made yet, or lost.
func (b *statusBuilder) absent(cs *corev1.ContainerStatus, former *corev1.ContainerStatus, init, done bool) {
	cs.State.Waiting = b.defaultWaiting(init, done)
	if w, ok := b.waiting(cs.Name); ok {
		cs.State.Waiting = &w
	}
	if former != nil && former.ContainerID != "" {
		cs.RestartCount, cs.Image, cs.ImageID, cs.ContainerID = former.RestartCount, former.Image, former.ImageID, former.ContainerID
		cs.LastTerminationState = former.LastTerminationState
		if former.State.Terminated != nil {
			if init || b.over || isTerminal(b.pod.Status.Phase) {
				// It ended, and the runtime has been tidied since.
				cs.State, cs.Ready = former.State, former.Ready
				return
			}
			cs.LastTerminationState = former.State
		} else if former.State.Running != nil {
			cs.LastTerminationState = lost(former)
		}
	}
	// Where the pod got so far that the container must have been there, its end is unknown; otherwise it never was.
	if b.over && (done || len(b.pod.Spec.InitContainers) == 0 || former != nil && former.ContainerID != "") {
		cs.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason: "ContainerStatusUnknown", ExitCode: 137,
			Message: "The container could not be located when the pod was terminated",
		}}
	}
}

func (b *statusBuilder) defaultWaiting(init, done bool) *corev1.ContainerStateWaiting {
	reason := "ContainerCreating"
	if len(b.pod.Spec.InitContainers) > 0 && !done {
		reason = "PodInitializing"
	}
	return &corev1.ContainerStateWaiting{Reason: reason, Message: b.s.Refused}
}

func (b *statusBuilder) waiting(name string) (corev1.ContainerStateWaiting, bool) {
	if w, ok := b.plan.CrashLoop[name]; ok {
		return corev1.ContainerStateWaiting{Reason: w.Reason, Message: w.Message}, true
	}
	if w, ok := b.s.Waiting[name]; ok && w.Reason != "" {
		return corev1.ContainerStateWaiting{Reason: w.Reason, Message: w.Message}, true
	}
	return corev1.ContainerStateWaiting{}, false
}

// terminated says how a container ended. Its message may have gone with the pod's directory since it was first told.
func (b *statusBuilder) terminated(c *Container, former *corev1.ContainerStatus) *corev1.ContainerStateTerminated {
	t := &corev1.ContainerStateTerminated{
		ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message,
		StartedAt: seconds(c.Started), FinishedAt: seconds(c.Finished),
		ContainerID: b.node.RuntimeName + "://" + c.ID,
	}
	if c.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN {
		t.Reason, t.ExitCode = "ContainerStatusUnknown", 137
	}
	if former == nil {
		return t
	}
	for _, told := range []*corev1.ContainerStateTerminated{former.State.Terminated, former.LastTerminationState.Terminated} {
		if told == nil || told.ContainerID != t.ContainerID {
			continue
		}
		if t.Message == "" {
			t.Message = told.Message
		}
		if told.Reason == oomKilled { // the kernel's word for it may be forgotten
			t.Reason = oomKilled
		}
	}
	return t
}

func seconds(t time.Time) metav1.Time {
	if t.IsZero() {
		return metav1.Time{}
	}
	return metav1.NewTime(t.Truncate(time.Second))
}

func mountStatuses(c *corev1.Container) []corev1.VolumeMountStatus {
	var out []corev1.VolumeMountStatus
	for _, m := range c.VolumeMounts {
		s := corev1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := corev1.RecursiveReadOnlyDisabled
			s.RecursiveReadOnly = &mode
		}
		out = append(out, s)
	}
	return out
}

// phase: the rules stand in the documentation of the pod lifecycle; a pod that ended once stays ended.
func (b *statusBuilder) phase(st *corev1.PodStatus) corev1.PodPhase {
	if isTerminal(b.pod.Status.Phase) {
		return b.pod.Status.Phase
	}
	if b.plan.Verdict != nil && b.over {
		return corev1.PodFailed
	}
	if b.plan.Verdict != nil && b.pod.Status.Phase != "" {
		return b.pod.Status.Phase // failed only once nothing runs any more
	}
	if b.over {
		for _, cs := range st.ContainerStatuses {
			if cs.State.Terminated == nil || cs.State.Terminated.ExitCode != 0 {
				return corev1.PodFailed
			}
		}
		return corev1.PodSucceeded
	}
	if b.plan.Ending { // whatever its containers do on their way out, they don't begin anew
		if phase := phaseOf(b.pod, b.s); phase != corev1.PodPending || b.pod.Status.Phase == "" {
			return phase
		}
		return b.pod.Status.Phase
	}
	return containersPhase(b.pod, b.s)
}

// containersPhase is the phase that follows from what containers did and will do.
func containersPhase(pod *corev1.Pod, s *State) corev1.PodPhase {
	if trigger(pod, s) != nil {
		return corev1.PodPending // for as long as all containers are on their way to beginning anew
	}
	return phaseOf(pod, s)
}

// phaseOf a pod, by what its containers did.
func phaseOf(pod *corev1.Pod, s *State) corev1.PodPhase {
	sidecar, pendingInit := false, false
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		last, _ := s.newest(c.Name)
		switch {
		case isSidecar(c):
			sidecar = sidecar || last.Running()
		case last.Exited() && last.ExitCode != 0 && !restarts(pod, c, last):
			return corev1.PodFailed
		case !last.Exited() || last.ExitCode != 0:
			pendingInit = true
		}
	}
	var running, waiting, stopped, failed, again int
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		last, _ := s.newest(c.Name)
		switch {
		case last.Running() && last.ID != s.Hooked:
			running++
		case last.Exited():
			stopped++
			if last.ExitCode != 0 {
				failed++
			}
			if restarts(pod, c, last) {
				again++
			}
		default:
			waiting++
		}
	}
	switch {
	case pendingInit && running+stopped == 0, waiting > 0:
		return corev1.PodPending
	case running > 0 || again > 0:
		return corev1.PodRunning
	case stopped == 0:
		return corev1.PodPending
	case sidecar:
		return corev1.PodRunning
	case failed > 0:
		return corev1.PodFailed
	}
	return corev1.PodSucceeded
}

func (b *statusBuilder) conditions(st *corev1.PodStatus, done bool, now metav1.Time) {
	put := func(kind corev1.PodConditionType, status corev1.ConditionStatus, reason, message string) {
		c := corev1.PodCondition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: now, ObservedGeneration: b.pod.Generation}
		for i := range st.Conditions {
			if old := &st.Conditions[i]; old.Type == kind {
				if old.Status == status {
					c.LastTransitionTime = old.LastTransitionTime
				}
				*old = c
				return
			}
		}
		st.Conditions = append(st.Conditions, c)
	}
	// set says why a condition is not met; of one that is, nothing but that the pod has completed.
	set := func(kind corev1.PodConditionType, ok bool, reason, message string) {
		switch {
		case !ok:
			put(kind, corev1.ConditionFalse, reason, message)
		case reason == "PodCompleted":
			put(kind, corev1.ConditionTrue, reason, "")
		default:
			put(kind, corev1.ConditionTrue, "", "")
		}
	}
	sb := b.s.sandbox()
	set(corev1.PodReadyToStartContainers, sb != nil && sb.Ready && (b.pod.Spec.HostNetwork || len(sb.IPs) > 0), "", "")

	ended := ""
	switch st.Phase {
	case corev1.PodSucceeded:
		ended = "PodCompleted"
	case corev1.PodFailed:
		ended = "PodFailed"
	}
	if cause := trigger(b.pod, b.s); cause != nil && !b.plan.Ending {
		put(corev1.AllContainersRestarting, corev1.ConditionTrue, "RestartAllContainersStarted", fmt.Sprintf("container %s exited with code %d", cause.Name, cause.ExitCode))
	} else if api.MayRestartAll(&b.pod.Spec) {
		put(corev1.AllContainersRestarting, corev1.ConditionFalse, ended, "")
	}
	pending := b.uninitialized(st, done || b.stayedInitialized())
	set(corev1.PodInitialized, len(pending) == 0, pick(ended == "PodCompleted", "PodCompleted", "ContainersNotInitialized"),
		"containers with incomplete status: ["+strings.Join(pending, " ")+"]")

	unready := b.unready(st)
	reason, message := "ContainersNotReady", "containers with unready status: ["+strings.Join(unready, " ")+"]"
	if ended != "" {
		reason, message = ended, ""
	}
	ready := len(unready) == 0 && ended == ""
	set(corev1.ContainersReady, ready, reason, message)
	if ready {
		var missing []string
		for _, gate := range b.pod.Spec.ReadinessGates {
			i := slices.IndexFunc(st.Conditions, func(c corev1.PodCondition) bool { return c.Type == gate.ConditionType })
			if i < 0 {
				missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
			} else if st.Conditions[i].Status != corev1.ConditionTrue {
				missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, st.Conditions[i].Status))
			}
		}
		ready, reason, message = len(missing) == 0, "ReadinessGatesNotReady", strings.Join(missing, ", ")
	}
	set(corev1.PodReady, ready, reason, message)
	set(corev1.PodScheduled, true, "", "") // it is here
}

func pick(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

// stayedInitialized: a pod is initialized once in a sandbox, also while its init containers run again because all of its containers do.
func (b *statusBuilder) stayedInitialized() bool {
	sb := b.s.sandbox()
	return sb != nil && api.MayRestartAll(&b.pod.Spec) && slices.ContainsFunc(b.pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodInitialized && c.Status == corev1.ConditionTrue && !sb.Created.Truncate(time.Second).After(c.LastTransitionTime.Time)
	})
}

func (b *statusBuilder) uninitialized(st *corev1.PodStatus, done bool) []string {
	var names []string
	if done {
		return nil
	}
	for i := range b.pod.Spec.InitContainers {
		c, cs := &b.pod.Spec.InitContainers[i], &st.InitContainerStatuses[i]
		if isSidecar(c) {
			if cs.Started == nil || !*cs.Started {
				names = append(names, c.Name)
			}
		} else if cs.State.Terminated == nil || cs.State.Terminated.ExitCode != 0 {
			names = append(names, c.Name)
		}
	}
	return names
}

func (b *statusBuilder) unready(st *corev1.PodStatus) []string {
	var names []string
	for i := range b.pod.Spec.InitContainers {
		if isSidecar(&b.pod.Spec.InitContainers[i]) && !st.InitContainerStatuses[i].Ready {
			names = append(names, st.InitContainerStatuses[i].Name)
		}
	}
	for _, cs := range st.ContainerStatuses {
		if !cs.Ready {
			names = append(names, cs.Name)
		}
	}
	return names
}
