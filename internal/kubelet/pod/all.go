package pod

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/api"
)

// matching is the first of a container's restart rules that its exit code meets (KEP-5307).
func matching(c *corev1.Container, exitCode int32) *corev1.ContainerRestartRule {
	for i := range c.RestartPolicyRules {
		rule := &c.RestartPolicyRules[i]
		if rule.ExitCodes == nil {
			continue
		}
		in := slices.Contains(rule.ExitCodes.Values, exitCode)
		if in == (rule.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) {
			return rule
		}
	}
	return nil
}

// trigger is the container whose end has all of the pod's containers begin anew (KEP-5532), nil if there is none. That the pod was over
// before it ended counts more: a sidecar that is stopped at the end of a pod may exit with any code.
func trigger(pod *corev1.Pod, s *State) *Container {
	if !api.MayRestartAll(&pod.Spec) {
		return nil
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			last, _ := s.newest(list[i].Name)
			if !last.Exited() {
				continue
			}
			rule := matching(&list[i], last.ExitCode)
			if rule != nil && rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers && !overBefore(pod, s, last) {
				return last
			}
		}
	}
	return nil
}

// overBefore: when the container ended, an init container had failed for good, or all of the pod's own containers had ended for good.
func overBefore(pod *corev1.Pod, s *State, ended *Container) bool {
	before := func(c *corev1.Container) *Container {
		last, _ := s.newest(c.Name)
		if !last.Exited() || !last.Finished.Before(ended.Finished) || restarts(pod, c, last) {
			return nil
		}
		return last
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if last := before(c); last != nil && !isSidecar(c) && last.ExitCode != 0 {
			return true
		}
	}
	return !slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return before(&c) == nil })
}

// restartAll ends all containers at once, without hooks or grace, and removes them, so that the pod begins anew in its sandbox and with its
// volumes; true while it is about that. The container that triggered it goes last: as long as it is there, it is known what goes on, also
// by a kubelet that starts again. Ephemeral containers are left alone.
func (p *planner) restartAll() bool {
	cause := trigger(p.pod, p.s)
	if cause == nil {
		return false
	}
	var others []*Container
	running := false
	for i := range p.s.Containers {
		c := &p.s.Containers[i]
		if isEphemeral(p.pod, c.Name) {
			continue
		}
		if c.Running() {
			running = true
			p.Actions = append(p.Actions, Action{Verb: Kill, Container: c.Name, ID: c.ID, Message: fmt.Sprintf(
				"Container %s is stopped, as all containers restart: container %s exited with code %d", c.Name, cause.Name, cause.ExitCode)})
		} else if c != cause {
			others = append(others, c)
		}
	}
	switch {
	case running, p.s.Busy[string(Start)], p.waits(cause.Name, cause):
	case !p.told(): // restart counts go on from what the status remembers
	case len(others) > 0:
		for _, c := range others {
			p.do(Action{Verb: RemoveContainer, Container: c.Name, ID: c.ID})
		}
	default:
		p.do(Action{Verb: RemoveContainer, Container: cause.Name, ID: cause.ID, Ended: cause.Finished})
	}
	return true
}

// told: the API knows how each of the pod's containers ended that the runtime has.
func (p *planner) told() bool {
	for _, list := range [][]corev1.Container{p.pod.Spec.InitContainers, p.pod.Spec.Containers} {
		for i := range list {
			last, _ := p.s.newest(list[i].Name)
			known := func(cs corev1.ContainerStatus) bool {
				return cs.Name == last.Name && strings.HasSuffix(cs.ContainerID, "://"+last.ID) && cs.State.Running == nil
			}
			if last != nil && !slices.ContainsFunc(p.pod.Status.InitContainerStatuses, known) && !slices.ContainsFunc(p.pod.Status.ContainerStatuses, known) {
				return false
			}
		}
	}
	return true
}
