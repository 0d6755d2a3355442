// Package podautoscaler keeps the number of pods of a workload where their load wants it: HorizontalPodAutoscaler v2.
//
// It owns the replica count behind the scale subresource of every target, and the autoscalers' status. It is woken when somebody has measured,
// not by a clock; what it decides follows from what it read alone (plan.go), and from the little it remembers of each autoscaler: what it
// recommended and did of late. Its invariant: between minReplicas and maxReplicas, never faster than the behaviour allows. Only
// internal/controller makes it.
package podautoscaler

import (
	"context"
	"fmt"
	"sync"
	"time"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

const (
	// pace is how often an autoscaler is looked at when nothing wakes it.
	pace = 15 * time.Second
	// rest is how long a status is left alone of which only the figures would change.
	rest = 5 * time.Second
)

// Sampled calls f whenever something was measured, until stop is called.
type Sampled func(f func()) (stop func())

type autoscaler struct {
	client client.Client
	events record.EventRecorder
	ask    Ask
	now    func() time.Time

	mu     sync.Mutex
	memory map[harness.Key]*memory
}

// memory is what is remembered of one autoscaler. It is lost with the process, after which scaling down waits for its window again.
type memory struct {
	history  history
	selector labels.Selector // of the target's pods, so that autoscalers that fight over the same ones are found
	wrote    time.Time
}

// New makes the controller; sampled may be nil, and so may ask: then nobody knows metrics but those of resources.
func New(c client.Client, sampled Sampled, ask Ask) harness.Controller {
	a := &autoscaler{client: c, ask: ask, events: c.Recorder("horizontal-pod-autoscaler"), now: time.Now, memory: map[harness.Key]*memory{}}
	return harness.Controller{
		Workers: 4,
		Watches: []harness.Watch{harness.On(&autoscalingv2.HorizontalPodAutoscaler{}, a.changed)},
		Begin: func(wake func(harness.Key)) {
			if sampled != nil {
				sampled(func() {
					for _, key := range a.keys() {
						wake(key)
					}
				})
			}
		},
		Reconcile: a.reconcile,
	}
}

// changed keeps the books; a status, which nobody else writes, wakes nobody.
func (a *autoscaler) changed(old, current *autoscalingv2.HorizontalPodAutoscaler) []harness.Key {
	a.mu.Lock()
	defer a.mu.Unlock()
	if current == nil {
		delete(a.memory, crclient.ObjectKeyFromObject(old))
		return nil
	}
	key := crclient.ObjectKeyFromObject(current)
	if a.memory[key] == nil || old != nil && old.UID != current.UID {
		a.memory[key] = &memory{}
	}
	if old != nil && old.UID == current.UID && old.Generation == current.Generation {
		return nil
	}
	return []harness.Key{key}
}

func (a *autoscaler) keys() []harness.Key {
	a.mu.Lock()
	defer a.mu.Unlock()
	keys := make([]harness.Key, 0, len(a.memory))
	for key := range a.memory {
		keys = append(keys, key)
	}
	return keys
}

func (a *autoscaler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var h autoscalingv2.HorizontalPodAutoscaler
	if err := a.client.Get(ctx, key, &h); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	a.mu.Lock()
	m := a.memory[key]
	a.mu.Unlock()
	if m == nil {
		return 0, nil // it has just gone
	}
	f := a.read(ctx, &h, m)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	now := a.now()
	o := decide(f, &m.history, now)
	if o.rescale {
		if err := a.rescale(ctx, f, &o, &m.history); err != nil {
			return 0, err
		}
	}
	if err := a.write(ctx, &h, &o, m, now); err != nil {
		return 0, err
	}
	for _, e := range o.events {
		a.events.Event(&h, e.kind, e.reason, e.message)
	}
	return pace, nil
}

// read gathers what the decision is made of. What cannot be read is part of it.
func (a *autoscaler) read(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, m *memory) *facts {
	f := &facts{autoscaler: h}
	gv, err := schema.ParseGroupVersion(h.Spec.ScaleTargetRef.APIVersion)
	if err != nil {
		f.scaleErr = fmt.Errorf("invalid API version in scale target reference: %w", err)
		return f
	}
	f.target = &unstructured.Unstructured{}
	f.target.SetGroupVersionKind(gv.WithKind(h.Spec.ScaleTargetRef.Kind))
	f.target.SetNamespace(h.Namespace)
	f.target.SetName(h.Spec.ScaleTargetRef.Name)
	f.scale = &autoscalingv1.Scale{}
	if f.scaleErr = a.client.SubResource("scale").Get(ctx, f.target, f.scale); f.scaleErr != nil {
		return f
	}
	if f.scale.Status.Selector == "" {
		return f
	}
	if f.selector, f.selectorErr = labels.Parse(f.scale.Status.Selector); f.selectorErr != nil {
		return f
	}
	a.mu.Lock()
	m.selector = f.selector
	a.mu.Unlock()
	in, by := crclient.InNamespace(h.Namespace), crclient.MatchingLabelsSelector{Selector: f.selector}
	var pods corev1.PodList
	if f.podsErr = a.client.List(ctx, &pods, in, by, crclient.UnsafeDisableDeepCopy); f.podsErr != nil {
		return f
	}
	f.pods = make([]*corev1.Pod, len(pods.Items))
	for i := range pods.Items {
		f.pods[i] = &pods.Items[i]
	}
	f.rivals = a.rivals(h, f.pods)
	if usesResources(h.Spec.Metrics) {
		var usage metricsv1beta1.PodMetricsList
		f.usageErr = a.client.Live().List(ctx, &usage, in, by)
		f.usage = usage.Items
	}
	f.outside = a.measured(ctx, f)
	return f
}

// rivals are the other autoscalers that go by some of the same pods.
func (a *autoscaler) rivals(h *autoscalingv2.HorizontalPodAutoscaler, pods []*corev1.Pod) (names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, m := range a.memory {
		if key.Namespace != h.Namespace || key.Name == h.Name || m.selector == nil {
			continue
		}
		for _, p := range pods {
			if m.selector.Matches(labels.Set(p.Labels)) {
				names = append(names, key.String())
				break
			}
		}
	}
	return names
}

// rescale acts. Losing a race is no failure to tell of: the next attempt reads anew.
func (a *autoscaler) rescale(ctx context.Context, f *facts, o *outcome, h *history) error {
	f.scale.Spec.Replicas = o.desired
	err := a.client.SubResource("scale").Update(ctx, f.target, crclient.WithSubResourceBody(f.scale))
	if apierrors.IsConflict(err) || ctx.Err() != nil {
		return fmt.Errorf("scale %s %s: %w", f.target.GetKind(), f.target.GetName(), err)
	}
	now := a.now()
	if err != nil {
		o.failed(err, now)
		return nil
	}
	o.succeeded(f.autoscaler, now)
	h.scaled(now, o.current, o.desired, f.autoscaler.Spec.Behavior)
	return nil
}

// write stores the status where it says something new.
func (a *autoscaler) write(ctx context.Context, h *autoscalingv2.HorizontalPodAutoscaler, o *outcome, m *memory, now time.Time) error {
	next := h.DeepCopy()
	next.Status.CurrentReplicas, next.Status.DesiredReplicas, next.Status.Conditions = o.current, o.desired, o.conditions
	generation := h.Generation
	next.Status.ObservedGeneration = &generation
	if o.done {
		next.Status.LastScaleTime = &metav1.Time{Time: now}
	}
	said := apiequality.Semantic.DeepEqual(next.Status, h.Status)
	next.Status.CurrentMetrics = o.metrics
	if apiequality.Semantic.DeepEqual(next.Status, h.Status) || said && now.Sub(m.wrote) < rest {
		return nil
	}
	if err := a.client.Status().Update(ctx, next); err != nil {
		return crclient.IgnoreNotFound(err)
	}
	m.wrote = now
	return nil
}

func usesResources(metrics []autoscalingv2.MetricSpec) bool {
	for i := range metrics {
		if metrics[i].Type == autoscalingv2.ResourceMetricSourceType || metrics[i].Type == autoscalingv2.ContainerResourceMetricSourceType {
			return true
		}
	}
	return false
}
