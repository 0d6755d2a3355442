package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/kubelet/probe"
)

// probes are those of running containers, by container ID.
type probes map[string]*containerProbes

type containerProbes struct {
	startup, liveness, readiness *probe.Worker
}

func (p *containerProbes) stop() {
	for _, w := range []*probe.Worker{p.startup, p.liveness, p.readiness} {
		if w != nil {
			w.Stop()
		}
	}
}

func (p probes) stop() {
	for _, c := range p {
		c.stop()
	}
}

// ending: a pod on its way out isn't restarted any more, but may still become unready.
func (p probes) ending() {
	for _, c := range p {
		for _, w := range []*probe.Worker{c.startup, c.liveness} {
			if w != nil {
				w.Stop()
			}
		}
	}
}

// syncProbes lets each running container be probed and forgets those that ended.
func (a *Actor) syncProbes(pod *corev1.Pod) {
	for id, p := range a.probes {
		if !a.s.find(id).Running() {
			p.stop()
			delete(a.probes, id)
		}
	}
	for id := range a.s.Health {
		if !a.s.find(id).Running() {
			delete(a.s.Health, id)
		}
	}
	for i := range a.s.Containers {
		c := &a.s.Containers[i]
		if !c.Running() || c.ID == a.s.Hooked || a.probes[c.ID] != nil {
			continue
		}
		one, _ := spec(pod, c.Name)
		if one == nil || isEphemeral(pod, c.Name) {
			a.s.Health[c.ID] = Health{Started: true, Ready: true}
			continue
		}
		a.probes[c.ID] = a.watch(pod, one, c)
	}
}

// watch starts the probes of a container. One that ran before this kubelet did is what the status last said of it until its probe
// says otherwise: taking over doesn't make it unready.
func (a *Actor) watch(pod *corev1.Pod, one *corev1.Container, c *Container) *containerProbes {
	wasStarted, wasReady := former(pod, a.d.Node().RuntimeName+"://"+c.ID)
	h := Health{Started: one.StartupProbe == nil || wasStarted, Ready: one.ReadinessProbe == nil || wasReady}
	a.s.Health[c.ID] = h
	p := &containerProbes{}
	if !a.s.StopSince.IsZero() {
		return p
	}
	id, name := c.ID, c.Name
	target := probe.Target{
		Container: one, ID: id, Started: c.Started, Runtime: a.d.Runtime,
		Address: func() string { return podIP(withAddresses(pod, a.s.sandbox(), a.d.Node())) }(),
	}
	begin := func(kind string, spec *corev1.Probe, started bool, passed bool, on func(h *Health, ok bool)) *probe.Worker {
		if spec == nil {
			return nil
		}
		w := probe.New(spec, target, passed, probe.Report{
			Result: func(ok bool) {
				a.put(func() {
					a.results = append(a.results, func(s *State) {
						if h, known := s.Health[id]; known {
							on(&h, ok)
							s.Health[id] = h
						}
					})
				})
			},
			Failed: func(message string) {
				a.event(pod, name, corev1.EventTypeWarning, "Unhealthy", fmt.Sprintf("%s probe failed: %s", kind, message))
			},
			Warned: func(message string) {
				a.event(pod, name, corev1.EventTypeWarning, "ProbeWarning", fmt.Sprintf("%s probe warning: %s", kind, message))
			},
			Attempted: a.d.Probes.Of(pod, name, kind),
		})
		if kind != "Liveness" {
			w.Eager()
		}
		if started {
			w.Begin()
		}
		return w
	}
	p.liveness = begin("Liveness", one.LivenessProbe, h.Started, true, func(h *Health, ok bool) {
		if !ok && h.Unhealthy == "" {
			h.Unhealthy = livenessProbe
		}
	})
	p.readiness = begin("Readiness", one.ReadinessProbe, h.Started, h.Ready, func(h *Health, ok bool) { h.Ready = ok })
	if !h.Started {
		p.startup = begin("Startup", one.StartupProbe, true, false, func(h *Health, ok bool) {
			if !ok {
				h.Unhealthy = startupProbe
				return
			}
			h.Started = true
			for _, w := range []*probe.Worker{p.liveness, p.readiness} {
				if w != nil {
					w.Begin()
				}
			}
		})
	}
	return p
}

func former(pod *corev1.Pod, id string) (started, ready bool) {
	for _, list := range [][]corev1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
		for i := range list {
			if list[i].ContainerID == id {
				return list[i].Started != nil && *list[i].Started, list[i].Ready
			}
		}
	}
	return false, false
}
