package pod

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// end is the plan of a pod on its way out: containers, then sidecars from the last to the first, whose preStop hooks however all begin
// at once, then the sandbox, then volumes and cgroup, then the object. A pod that ended by itself keeps its dead containers, for their logs, until it is deleted.
func (p *planner) end() {
	p.Ending = true
	if p.stopContainers() {
		return
	}
	if p.s.Busy[string(Start)] { // what is being started needs the sandbox to fail or to run, and is stopped then
		return
	}
	for _, sb := range p.s.Sandboxes {
		if sb.Ready {
			p.do(Action{Verb: StopSandbox, ID: sb.ID})
			return
		}
	}
	// What was on its way into being is awaited: it would be left behind.
	for _, key := range []string{string(Start), "sandbox", string(Prepare)} {
		if p.s.Busy[key] {
			return
		}
	}
	if !p.s.Cleaned {
		p.do(Action{Verb: CleanUp})
		return
	}
	switch {
	case p.s.Gone && len(p.s.Sandboxes) > 0:
		for _, sb := range p.s.Sandboxes {
			p.do(Action{Verb: RemoveSandbox, ID: sb.ID})
		}
	case p.s.Gone && len(p.s.Containers) > 0:
		for _, c := range p.s.Containers {
			p.do(Action{Verb: RemoveContainer, ID: c.ID})
		}
	case p.s.Gone:
		p.do(Action{Verb: Forget})
	case p.pod.DeletionTimestamp != nil && p.s.Settled:
		p.do(Action{Verb: Delete})
	}
}

// stopContainers is true while something runs.
func (p *planner) stopContainers() bool {
	var sidecars []*Container
	busy := false
	for i := range p.s.Containers {
		c := &p.s.Containers[i]
		if !c.Running() {
			continue
		}
		if n := slices.IndexFunc(p.pod.Spec.InitContainers, func(s corev1.Container) bool { return s.Name == c.Name && isSidecar(&s) }); n >= 0 {
			sidecars = append(sidecars, c)
			continue
		}
		busy = true
		p.stop(c)
	}
	slices.SortFunc(sidecars, func(a, b *Container) int { return p.position(a.Name) - p.position(b.Name) })
	if last := len(sidecars) - 1; !busy && last >= 0 {
		p.stop(sidecars[last])
		sidecars, busy = sidecars[:last], true
	}
	for _, c := range sidecars {
		p.runHook(c)
	}
	return busy
}

// runHook has the preStop hook of a sidecar run that does not end yet.
func (p *planner) runHook(c *Container) {
	if s := Spec(p.pod, c.Name); s == nil || s.Lifecycle == nil || s.Lifecycle.PreStop == nil || p.s.StopHooks[c.ID] {
		return
	}
	p.do(Action{Verb: PreStop, Container: c.Name, ID: c.ID, Grace: p.remaining(c)})
}

func (p *planner) position(name string) int {
	return slices.IndexFunc(p.pod.Spec.InitContainers, func(s corev1.Container) bool { return s.Name == name })
}

func (p *planner) stop(c *Container) {
	p.Actions = append(p.Actions, Action{
		Verb: Kill, Container: c.Name, ID: c.ID, Grace: p.remaining(c), Message: "Stopping container " + c.Name,
	})
}

// remaining is what is left of the pod's grace period, in whole seconds. Kill actions that run already are told anew only if they
// must become shorter; the actor sees to that.
func (p *planner) remaining(c *Container) int64 {
	grace := Grace(p.pod)
	switch {
	case p.pod.DeletionGracePeriodSeconds != nil:
		grace = max(*p.pod.DeletionGracePeriodSeconds, 1)
	case p.s.Gone && p.pod.Spec.TerminationGracePeriodSeconds == nil && c.Grace > 0:
		grace = c.Grace
	}
	left := grace
	if !p.s.StopSince.IsZero() {
		left -= int64(p.now.Sub(p.s.StopSince) / time.Second)
	}
	if !p.s.EndBy.IsZero() {
		left = min(left, int64((p.s.EndBy.Sub(p.now)+time.Second-1)/time.Second))
	}
	return max(left, 1)
}
