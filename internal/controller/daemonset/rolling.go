package daemonset

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// surges says whether a rollout makes the new pod before it removes the old one.
func surges(d *appsv1.DaemonSet) bool {
	r := d.Spec.UpdateStrategy.RollingUpdate
	return d.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType && r != nil && scaled(r.MaxSurge, 100, 0) > 0
}

func scaled(n *intstr.IntOrString, total, otherwise int) int {
	if n == nil {
		return otherwise
	}
	v, err := intstr.GetScaledValueFromIntOrPercent(n, total, true)
	if err != nil {
		return otherwise
	}
	return v
}

// limits are maxSurge and maxUnavailable as numbers. If both come out as nothing, one node at a time may be without its pod.
func limits(d *appsv1.DaemonSet, places []place) (surge, unavailable int) {
	desired := 0
	for _, at := range places {
		if at.fit == wanted {
			desired++
		}
	}
	unavailable = 1
	if r := d.Spec.UpdateStrategy.RollingUpdate; r != nil {
		surge, unavailable = scaled(r.MaxSurge, desired, 0), scaled(r.MaxUnavailable, desired, 1)
	}
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, unavailable
}

// pair finds a node's one pod of a former template and its one of the present; ok is false if there are more, which is for manage to mend.
func pair(o observed, at place) (former, present *corev1.Pod, ok bool) {
	for _, pod := range at.pods {
		if pod.DeletionTimestamp != nil {
			continue
		}
		one := &former
		if updated(pod, o.hash) {
			one = &present
		}
		if *one != nil {
			return nil, nil, false
		}
		*one = pod
	}
	return former, present, true
}

// roll moves a rollout on by as many nodes as the limits allow.
func (p *plan) roll(o observed, places []place) {
	var concerned []place
	for _, at := range places {
		if at.fit == wanted || len(at.pods) > 0 {
			concerned = append(concerned, at)
		}
	}
	surge, unavailable := limits(o.set, places)
	if surge > 0 {
		p.rollSurging(o, concerned, surge)
		return
	}
	p.rollReplacing(o, concerned, unavailable)
}

// rollReplacing removes former pods; manage makes new ones once they are gone. Former pods that are out of service anyway cost nothing.
func (p *plan) rollReplacing(o observed, places []place, limit int) {
	var candidates []*corev1.Pod
	for _, at := range places {
		former, present, ok := pair(o, at)
		switch {
		case !ok || (former == nil) == (present == nil):
			limit-- // nothing runs there yet, or too much
		case present != nil:
			if !available(o, present) {
				limit--
			}
		case !available(o, former):
			p.remove = append(p.remove, former)
		default:
			candidates = append(candidates, former)
		}
	}
	p.remove = append(p.remove, candidates[:min(max(limit, 0), len(candidates))]...)
}

// rollSurging makes present pods beside former ones, and removes a former pod once its successor is available. Where none can be made any
// more, because the node takes no new pods, the former pod goes when it serves no longer, or when all nodes that are wanted are served.
func (p *plan) rollSurging(o observed, places []place, limit int) {
	var candidates []string
	var last []*corev1.Pod
	served := true
	for _, at := range places {
		former, present, ok := pair(o, at)
		if !ok {
			limit--
			continue
		}
		works := former != nil && available(o, former) || present != nil && available(o, present)
		served = served && (works || at.fit != wanted)
		switch {
		case former == nil:
		case present != nil:
			if !available(o, former) || available(o, present) {
				p.remove = append(p.remove, former)
				continue
			}
			limit--
		case at.fit != wanted && works:
			last = append(last, former)
		case at.fit != wanted:
			p.remove = append(p.remove, former)
		case !works:
			p.create = append(p.create, at.node)
		default:
			candidates = append(candidates, at.node)
		}
	}
	if served {
		p.remove = append(p.remove, last...)
	}
	p.create = append(p.create, candidates[:min(max(limit, 0), len(candidates))]...)
}
