package api

import (
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
)

var podColumns = columnsThenWide([]Column{
	text("Ready", func(p *corev1.Pod) string {
		ready, total := podReady(p)
		return fmt.Sprintf("%d/%d", ready, total)
	}),
	text("Status", PodStatus),
	column("Restarts", "string", 0, func(p *corev1.Pod, now time.Time) any { return podRestarts(p, now) }),
},
	wide("IP", func(p *corev1.Pod) string { return orNone(p.Status.PodIP) }),
	wide("Node", func(p *corev1.Pod) string { return orNone(p.Spec.NodeName) }),
	wide("Nominated Node", func(p *corev1.Pod) string { return orNone(p.Status.NominatedNodeName) }),
	wide("Readiness Gates", func(p *corev1.Pod) string {
		if len(p.Spec.ReadinessGates) == 0 {
			return "<none>"
		}
		met := 0
		for _, g := range p.Spec.ReadinessGates {
			if podConditionTrue(p, g.ConditionType) {
				met++
			}
		}
		return fmt.Sprintf("%d/%d", met, len(p.Spec.ReadinessGates))
	}),
)

func podConditionTrue(p *corev1.Pod, kind corev1.PodConditionType) bool {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			return p.Status.Conditions[i].Status == corev1.ConditionTrue
		}
	}
	return false
}

// restartable says whether an init container is a sidecar, which stays.
func restartable(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// sidecars are the names of the init containers that stay.
func sidecars(p *corev1.Pod) map[string]bool {
	out := map[string]bool{}
	for i := range p.Spec.InitContainers {
		if restartable(&p.Spec.InitContainers[i]) {
			out[p.Spec.InitContainers[i].Name] = true
		}
	}
	return out
}

func podReady(p *corev1.Pod) (ready, total int) {
	side := sidecars(p)
	for _, s := range p.Status.InitContainerStatuses {
		if side[s.Name] && s.Started != nil && *s.Started && s.Ready {
			ready++
		}
	}
	for _, s := range p.Status.ContainerStatuses {
		if s.Ready && s.State.Running != nil {
			ready++
		}
	}
	return ready, len(p.Spec.Containers) + len(side)
}

// podRestarts counts restarts as kubectl shows them: of init containers while the pod initializes, then of the others and sidecars.
func podRestarts(p *corev1.Pod, now time.Time) string {
	side := sidecars(p)
	var n int32
	var last metav1.Time
	add := func(s *corev1.ContainerStatus) {
		n += s.RestartCount
		if t := s.LastTerminationState.Terminated; t != nil && last.Before(&t.FinishedAt) {
			last = t.FinishedAt
		}
	}
	initializing := initStatus(p) != "" && !podConditionTrue(p, corev1.PodInitialized)
	for i := range p.Status.InitContainerStatuses {
		if s := &p.Status.InitContainerStatuses[i]; initializing || side[s.Name] {
			add(s)
		}
	}
	if !initializing {
		for i := range p.Status.ContainerStatuses {
			add(&p.Status.ContainerStatuses[i])
		}
	}
	if n == 0 || last.IsZero() {
		return strconv.Itoa(int(n))
	}
	return fmt.Sprintf("%d (%s ago)", n, duration.HumanDuration(now.Sub(last.Time)))
}

// initStatus is the STATUS of a pod that still initializes; "" once it has.
func initStatus(p *corev1.Pod) string {
	specs := make(map[string]*corev1.Container, len(p.Spec.InitContainers))
	for i := range p.Spec.InitContainers {
		specs[p.Spec.InitContainers[i].Name] = &p.Spec.InitContainers[i]
	}
	for i := range p.Status.InitContainerStatuses {
		s := &p.Status.InitContainerStatuses[i]
		spec := specs[s.Name]
		switch t, w := s.State.Terminated, s.State.Waiting; {
		case t != nil && t.ExitCode == 0:
			continue
		case spec != nil && restartable(spec) && s.Started != nil && *s.Started:
			continue
		case t != nil:
			return "Init:" + terminatedText(t)
		case w != nil && w.Reason != "" && w.Reason != "PodInitializing":
			return "Init:" + w.Reason
		default:
			return fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
		}
	}
	return ""
}

func terminatedText(t *corev1.ContainerStateTerminated) string {
	switch {
	case t.Reason != "":
		return t.Reason
	case t.Signal != 0:
		return fmt.Sprintf("Signal:%d", t.Signal)
	}
	return fmt.Sprintf("ExitCode:%d", t.ExitCode)
}

// PodStatus is the word that kubectl shows in a pod's STATUS column.
func PodStatus(p *corev1.Pod) string {
	status := string(p.Status.Phase)
	if p.Status.Reason != "" {
		status = p.Status.Reason
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonSchedulingGated {
			status = corev1.PodReasonSchedulingGated
		}
	}
	initializing := initStatus(p)
	if initializing != "" {
		status = initializing
	}
	if initializing == "" || podConditionTrue(p, corev1.PodInitialized) {
		status = mainStatus(p, status)
	}
	if p.DeletionTimestamp == nil {
		return status
	}
	switch {
	case p.Status.Reason == "NodeLost":
		return "Unknown"
	case p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		return status
	}
	return "Terminating"
}

// mainStatus is the status that the pod's main containers give it: the first one's that waits or has ended.
func mainStatus(p *corev1.Pod, status string) string {
	running := false
	for i := len(p.Status.ContainerStatuses) - 1; i >= 0; i-- {
		s := &p.Status.ContainerStatuses[i]
		switch {
		case s.State.Waiting != nil && s.State.Waiting.Reason != "":
			status = s.State.Waiting.Reason
		case s.State.Terminated != nil:
			status = terminatedText(s.State.Terminated)
		case s.Ready && s.State.Running != nil:
			running = true
		}
	}
	if status == "Completed" && running {
		if podConditionTrue(p, corev1.PodReady) {
			return "Running"
		}
		return "NotReady"
	}
	return status
}
