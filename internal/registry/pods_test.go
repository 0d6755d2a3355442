package registry_test

import (
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"skiff.dev/skiff/internal/registry/registrytest"
)

func bindTo(node string) *corev1.Binding {
	return &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}}
}

func TestBinding(t *testing.T) {
	f := start(t)
	bind := func(p *corev1.Pod, b *corev1.Binding, o metav1.CreateOptions) error {
		_, err := f.Registry.Registry.Create(ctx, f.About(registrytest.Admin, p, "binding"), b, &o)
		return err
	}
	p := create(f, registrytest.Pod("p"))
	if err := bind(p, bindTo("n"), metav1.CreateOptions{DryRun: []string{"All"}}); err != nil {
		t.Error(err)
	}
	other := bindTo("n")
	other.UID = "other"
	refused(t, bind(p, other, metav1.CreateOptions{}), 409, "Precondition failed: UID")
	refused(t, bind(p, bindTo(""), metav1.CreateOptions{}), 422, "target.name: Required value")
	p.Status.NominatedNodeName = "n"
	p = mustUpdate(f, p, "status")
	b := bindTo("n")
	b.UID, b.Annotations = p.UID, map[string]string{"a": "b"}
	if err := bind(p, b, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	now, _ := read(f, p)
	if now.Spec.NodeName != "n" || now.Status.NominatedNodeName != "" || now.Annotations["a"] != "b" || len(now.Status.Conditions) != 1 || now.Status.Conditions[0].Type != corev1.PodScheduled {
		t.Errorf("%+v", now)
	}
	refused(t, bind(p, bindTo("m"), metav1.CreateOptions{}), 409, `Operation cannot be fulfilled on pods/binding "p": pod p is already assigned to node "n"`)
	gated := create(f, registrytest.Pod("gated", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}} }))
	refused(t, bind(gated, bindTo("n"), metav1.CreateOptions{}), 409, "has non-empty .spec.schedulingGates")
	refused(t, bind(registrytest.Pod("nobody"), bindTo("n"), metav1.CreateOptions{}), 404, `pods "nobody" not found`)

	// The old way: a Binding of its own, which names the pod.
	old := create(f, registrytest.Pod("old"))
	legacy := bindTo("n")
	legacy.Name = "old"
	if _, err := f.Registry.Registry.Create(ctx, f.Request(registrytest.Admin, "", "bindings", "", "default", ""), legacy, &metav1.CreateOptions{}); err != nil {
		t.Error(err)
	}
	if now, _ := read(f, old); now.Spec.NodeName != "n" {
		t.Error("a Binding did not bind")
	}
}

// readyPods creates pods of an app that are ready, on a node.
func readyPods(f *fixture, app string, n int) (out []*corev1.Pod) {
	for i := range n {
		p := create(f, registrytest.Pod(fmt.Sprintf("%s-%d", app, i), func(p *corev1.Pod) { p.Labels, p.Spec.NodeName = map[string]string{"app": app}, "n" }))
		p.Status.Phase = corev1.PodRunning
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		out = append(out, mustUpdate(f, p, "status"))
	}
	return out
}

// budget creates a budget and says what its controller would: so many may be disrupted, so many are healthy.
func budget(f *fixture, app string, allowed, healthy int32, changes ...func(b *policyv1.PodDisruptionBudget)) *policyv1.PodDisruptionBudget {
	one := intstr.FromInt32(1)
	b := &policyv1.PodDisruptionBudget{ObjectMeta: meta(app), Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
	}}
	for _, change := range changes {
		change(b)
	}
	b = create(f, b)
	b.Status = policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: b.Generation, DisruptionsAllowed: allowed, CurrentHealthy: healthy, DesiredHealthy: healthy - allowed, ExpectedPods: healthy,
	}
	return mustUpdate(f, b, "status")
}

func evict(f *fixture, p *corev1.Pod, o metav1.CreateOptions) error {
	_, err := f.Registry.Registry.Create(ctx, f.About(registrytest.Admin, p, "eviction"), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace}}, &o)
	return err
}

func TestEvictionHeedsBudgets(t *testing.T) {
	f := start(t)
	for name, allowed := range map[string]int32{"none": 3, "nothing": 0, "one": 1, "two": 2} {
		t.Run(name, func(t *testing.T) {
			f := f.in(t)
			pods := readyPods(f, name, 3)
			if name != "none" {
				budget(f, name, allowed, 3)
			}
			if err := evict(f, pods[0], metav1.CreateOptions{DryRun: []string{"All"}}); (err == nil) != (allowed > 0) {
				t.Errorf("a try: %v", err)
			}
			n := 0
			for _, p := range pods {
				err := evict(f, p, metav1.CreateOptions{})
				switch {
				case err == nil:
					n++
					if now, found := read(f, p); found && now.DeletionTimestamp == nil {
						t.Error("an evicted pod is not being deleted")
					}
				case !apierrors.IsTooManyRequests(err):
					t.Error(err)
				default:
					refused(t, err, 429, "Cannot evict pod as it would violate the pod's disruption budget.")
					cause, ok := apierrors.StatusCause(err, policyv1.DisruptionBudgetCause)
					if !ok || cause.Message == "" {
						t.Errorf("no cause: %v", err)
					}
				}
			}
			if n != int(allowed) {
				t.Errorf("%d of 3 were evicted, want %d", n, allowed)
			}
		})
	}
}

// However many evict at once, no budget is overdrawn.
func TestConcurrentEvictions(t *testing.T) {
	f := start(t)
	pods := readyPods(f, "web", 10)
	budget(f, "web", 3, 10)
	var wg sync.WaitGroup
	var mu sync.Mutex
	n := 0
	for _, p := range pods {
		wg.Go(func() {
			if err := evict(f, p, metav1.CreateOptions{}); err == nil {
				mu.Lock()
				n++
				mu.Unlock()
			} else if !apierrors.IsTooManyRequests(err) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n != 3 {
		t.Errorf("%d were evicted, the budget allows 3", n)
	}
}

func TestEvictionOfPodsThatDoNotCount(t *testing.T) {
	f := start(t)
	budget(f, "web", 0, 9)
	label := func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web"} }
	if err := evict(f, create(f, registrytest.Pod("pending", label)), metav1.CreateOptions{}); err != nil {
		t.Errorf("a pod that never ran: %v", err)
	}
	done := create(f, registrytest.Pod("done", label))
	done.Status.Phase = corev1.PodSucceeded
	if err := evict(f, mustUpdate(f, done, "status"), metav1.CreateOptions{}); err != nil {
		t.Errorf("a pod that ended: %v", err)
	}
	refused(t, evict(f, registrytest.Pod("nobody"), metav1.CreateOptions{}), 404, `pods "nobody" not found`)
}
