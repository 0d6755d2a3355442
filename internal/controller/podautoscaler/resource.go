package podautoscaler

import (
	"errors"
	"fmt"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

const (
	// A container that starts works for itself: how long a pod's CPU counts only if it was measured while the pod was ready, and how long an
	// unready pod is taken for one that has never been ready.
	initializing   = 5 * time.Minute
	firstReadiness = 30 * time.Second
	// tolerance is how far off the target usage may be before something is done about it.
	tolerance = 0.1
)

// measure is one pod's usage, in thousandths.
type measure struct {
	value  int64
	at     time.Time
	window time.Duration
}

// pod sorts, by what can be said of their load.
type sorts struct {
	ready   int
	unready map[string]bool
	missing map[string]bool
	ignored map[string]bool
}

// proposeResource is what the usage of a resource asks for; the status is of kind Resource, whatever the metric is called.
func proposeResource(f *facts, name corev1.ResourceName, container string, target autoscalingv2.MetricTarget, now time.Time) (proposal, error) {
	p := proposal{name: fmt.Sprintf("%s resource", name)}
	var current autoscalingv2.MetricValueStatus
	switch {
	case target.AverageValue != nil:
		wanted := target.AverageValue.MilliValue()
		c := calculation{ratio: plainRatio(wanted), full: func(string) int64 { return wanted }}
		average, err := int64(0), error(nil)
		if p.replicas, _, average, err = c.replicas(f, name, container, now); err != nil {
			return p, fmt.Errorf("failed to get %s usage: %w", name, err)
		}
		current.AverageValue = resource.NewMilliQuantity(average, resource.DecimalSI)
	case target.AverageUtilization != nil:
		p.name = fmt.Sprintf("%s resource utilization (percentage of request)", name)
		wanted := int64(*target.AverageUtilization)
		requests, missing := requestsOf(f.pods, container, name)
		c := calculation{missing: missing, ratio: utilizationRatio(requests, wanted), full: func(pod string) int64 {
			return requests[pod] * max(100, wanted) / 100
		}}
		percent, average, err := int32(0), int64(0), error(nil)
		if p.replicas, percent, average, err = c.replicas(f, name, container, now); err != nil {
			return p, fmt.Errorf("failed to get %s utilization: %w", name, err)
		}
		current.AverageUtilization, current.AverageValue = &percent, resource.NewMilliQuantity(average, resource.DecimalSI)
	default:
		return p, errNoTarget
	}
	p.status.Resource = &autoscalingv2.ResourceMetricStatus{Name: name, Current: current}
	return p, nil
}

// measuresOf sums up the containers of each pod, or picks the one that is meant. A pod that lacks a figure lacks them all.
func measuresOf(f *facts, name corev1.ResourceName, container string) (map[string]measure, error) {
	fail := func(err error) (map[string]measure, error) {
		return nil, fmt.Errorf("unable to get metrics for resource %s: %w", name, err)
	}
	if f.usageErr != nil {
		return fail(fmt.Errorf("unable to fetch metrics from resource metrics API: %w", f.usageErr))
	}
	if f.podsErr != nil {
		return nil, fmt.Errorf("unable to get pods while calculating replica count: %w", f.podsErr)
	}
	if len(f.usage) == 0 {
		return fail(errors.New("no metrics returned from resource metrics API"))
	}
	out := make(map[string]measure, len(f.usage))
	for i := range f.usage {
		u := &f.usage[i]
		sum, ok := usageOf(u, name, container)
		if !ok && container != "" {
			return fail(fmt.Errorf("container %s not present in metrics for pod %s/%s", container, u.Namespace, u.Name))
		}
		if ok {
			out[u.Name] = measure{sum, u.Timestamp.Time, u.Window.Duration}
		}
	}
	return out, nil
}

func usageOf(u *metricsv1beta1.PodMetrics, name corev1.ResourceName, container string) (sum int64, ok bool) {
	for j := range u.Containers {
		c := &u.Containers[j]
		if container != "" && c.Name != container {
			continue
		}
		q, found := c.Usage[name]
		if !found {
			return 0, false
		}
		sum, ok = sum+q.MilliValue(), true
	}
	return sum, ok
}

// requestsOf is what each pod asked for, in thousandths.
func requestsOf(pods []*corev1.Pod, container string, name corev1.ResourceName) (map[string]int64, error) {
	out := make(map[string]int64, len(pods))
	for _, p := range pods {
		if container == "" && p.Spec.Resources != nil {
			if q, found := p.Spec.Resources.Requests[name]; found {
				out[p.Name] = q.MilliValue()
				continue
			}
		}
		sum := int64(0)
		for _, c := range lasting(p) {
			if container != "" && c.Name != container {
				continue
			}
			q, found := c.Resources.Requests[name]
			if !found {
				return nil, fmt.Errorf("missing request for %s in container %s of Pod %s", name, c.Name, p.Name)
			}
			sum += q.MilliValue()
		}
		out[p.Name] = sum
	}
	return out, nil
}

// lasting are the containers that run as long as the pod does.
func lasting(p *corev1.Pod) []*corev1.Container {
	var out []*corev1.Container
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out = append(out, c)
		}
	}
	for i := range p.Spec.Containers {
		out = append(out, &p.Spec.Containers[i])
	}
	return out
}

// calculation is the arithmetic that usage against a request and usage against an amount share.
type calculation struct {
	missing error // requests that usage cannot be compared with
	// ratio of usage to target over some measures, the usage in percent where that makes sense, and the average usage of a pod.
	ratio func(map[string]measure) (ratio float64, percent int32, average int64, err error)
	// full is what a pod uses that is taken to be at its target.
	full func(pod string) int64
}

// replicas is how many would bring usage to its target. Pods that say nothing are taken to change as little as possible: unready ones use nothing
// when the rest wants more; missing ones use nothing when it wants more and all they may when it wants less. If that turns the tide, nothing is done.
func (c *calculation) replicas(f *facts, name corev1.ResourceName, container string, now time.Time) (replicas, percent int32, average int64, err error) {
	measures, err := measuresOf(f, name, container)
	if err != nil {
		return 0, 0, 0, err
	}
	return c.replicasOf(f, measures, name, now)
}

// replicasOf does so for what was measured, of which it takes away what does not count.
func (c *calculation) replicasOf(f *facts, measures map[string]measure, name corev1.ResourceName, now time.Time) (replicas int32, percent int32, average int64, err error) {
	if len(f.pods) == 0 {
		return 0, 0, 0, errors.New("no pods returned by selector while calculating replica count")
	}
	if c.missing != nil {
		return 0, 0, 0, c.missing
	}
	current, within := f.scale.Spec.Replicas, toleranceOf(f.autoscaler.Spec.Behavior)
	s := sortPods(f.pods, measures, name, now)
	for pod := range s.ignored {
		delete(measures, pod)
	}
	for pod := range s.unready {
		delete(measures, pod)
	}
	if len(measures) == 0 {
		return 0, 0, 0, errors.New("did not receive metrics for targeted pods (pods might be unready)")
	}
	ratio, percent, average, err := c.ratio(measures)
	if err != nil {
		return 0, 0, 0, err
	}
	upWithUnready := len(s.unready) > 0 && ratio > 1
	if !upWithUnready && len(s.missing) == 0 {
		if within.hold(ratio) {
			return current, percent, average, nil
		}
		return int32(math.Ceil(ratio * float64(s.ready))), percent, average, nil
	}
	for pod := range s.missing {
		switch {
		case ratio < 1:
			measures[pod] = measure{value: c.full(pod)}
		case ratio > 1:
			measures[pod] = measure{}
		}
	}
	if upWithUnready {
		for pod := range s.unready {
			measures[pod] = measure{}
		}
	}
	careful, _, _, err := c.ratio(measures)
	if err != nil {
		return 0, percent, average, err
	}
	replicas = int32(math.Ceil(careful * float64(len(measures))))
	turned := ratio < 1 && careful > 1 || ratio > 1 && careful < 1
	against := careful < 1 && replicas > current || careful > 1 && replicas < current
	if within.hold(careful) || turned || against {
		return current, percent, average, nil
	}
	return replicas, percent, average, nil
}

func plainRatio(target int64) func(map[string]measure) (float64, int32, int64, error) {
	return func(measures map[string]measure) (float64, int32, int64, error) {
		total := int64(0)
		for _, m := range measures {
			total += m.value
		}
		average := total / int64(len(measures))
		return float64(average) / float64(target), 0, average, nil
	}
}

func utilizationRatio(requests map[string]int64, target int64) func(map[string]measure) (float64, int32, int64, error) {
	return func(measures map[string]measure) (float64, int32, int64, error) {
		total, asked, n := int64(0), int64(0), int64(0)
		for pod, m := range measures {
			if request, known := requests[pod]; known { // the figures may be of pods that are gone
				total, asked, n = total+m.value, asked+request, n+1
			}
		}
		if asked == 0 {
			return 0, 0, 0, errors.New("no metrics returned matched known pods")
		}
		percent := int32(total * 100 / asked)
		return float64(percent) / float64(target), percent, total / n, nil
	}
}

// sortPods tells those whose figures count from those that are on their way in or out.
func sortPods(pods []*corev1.Pod, measures map[string]measure, name corev1.ResourceName, now time.Time) sorts {
	s := sorts{unready: map[string]bool{}, missing: map[string]bool{}, ignored: map[string]bool{}}
	for _, p := range pods {
		m, measured := measures[p.Name]
		switch {
		case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodFailed:
			s.ignored[p.Name] = true
		case p.Status.Phase == corev1.PodPending:
			s.unready[p.Name] = true
		case !measured:
			s.missing[p.Name] = true
		case name == corev1.ResourceCPU && starting(p, m, now):
			s.unready[p.Name] = true
		default:
			s.ready++
		}
	}
	return s
}

// starting: what a pod uses until it is ready says nothing of the load.
func starting(p *corev1.Pod, m measure, now time.Time) bool {
	var ready *corev1.PodCondition
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == corev1.PodReady {
			ready = &p.Status.Conditions[i]
		}
	}
	if ready == nil || p.Status.StartTime == nil {
		return true
	}
	is := ready.Status == corev1.ConditionTrue
	if p.Status.StartTime.Add(initializing).After(now) {
		return !is || m.at.Before(ready.LastTransitionTime.Add(m.window))
	}
	// It has been unready since about when it started: it never was ready.
	return !is && p.Status.StartTime.Add(firstReadiness).After(ready.LastTransitionTime.Time)
}

// tolerances of both directions.
type tolerances struct{ up, down float64 }

func toleranceOf(b *autoscalingv2.HorizontalPodAutoscalerBehavior) tolerances {
	t := tolerances{tolerance, tolerance}
	if b != nil && b.ScaleUp != nil && b.ScaleUp.Tolerance != nil {
		t.up = b.ScaleUp.Tolerance.AsApproximateFloat64()
	}
	if b != nil && b.ScaleDown != nil && b.ScaleDown.Tolerance != nil {
		t.down = b.ScaleDown.Tolerance.AsApproximateFloat64()
	}
	return t
}

// hold says that the ratio is near enough to 1.
func (t tolerances) hold(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }
