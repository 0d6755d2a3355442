package registry_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry/registrytest"
)

func workload(name string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{ObjectMeta: meta(name), Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "web"}}}},
	}}
}

func TestUpdateNeedsTheNewestState(t *testing.T) {
	f := start(t)
	first := create(f, configMap("a", "k", "1"))
	next := first.DeepCopy()
	next.Data["k"] = "2"
	second := mustUpdate(f, next, "")
	if second.ResourceVersion == first.ResourceVersion || second.Data["k"] != "2" || second.UID != first.UID || !second.CreationTimestamp.Equal(&first.CreationTimestamp) {
		t.Errorf("%+v", second)
	}
	_, err := update(f, next, "")
	refused(t, err, 409, `Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again`)

	other := second.DeepCopy()
	other.UID = "other"
	_, err = update(f, other, "")
	refused(t, err, 409, "Precondition failed: UID in precondition: other, UID in object meta: "+string(first.UID))

	// Without a resourceVersion the last writer wins.
	if got := mustUpdate(f, configMap("a", "k", "3"), ""); got.Data["k"] != "3" || got.UID != first.UID {
		t.Errorf("%+v", got)
	}
	_, err = update(f, configMap("b"), "")
	refused(t, err, 404, `configmaps "b" not found`)

	renamed := second.DeepCopy()
	renamed.Name, renamed.ResourceVersion = "c", ""
	_, err = f.Registry.Registry.Update(ctx, f.About(registrytest.Admin, first, ""), renamed, &metav1.UpdateOptions{})
	refused(t, err, 400, "the name of the object (c) does not match the name on the URL (a)")
}

func TestUpdateWithoutChangeWritesNothing(t *testing.T) {
	f := start(t)
	first := create(f, workload("a"))
	if again := mustUpdate(f, first, ""); again.ResourceVersion != first.ResourceVersion || again.Generation != 1 {
		t.Errorf("version %s became %s, generation %d", first.ResourceVersion, again.ResourceVersion, again.Generation)
	}
	if again := mustUpdate(f, first, "status"); again.ResourceVersion != first.ResourceVersion {
		t.Error("an unchanged status was written")
	}
}

// Of many writers of one state exactly one succeeds.
func TestConcurrentUpdatesConflict(t *testing.T) {
	f := start(t)
	base := create(f, configMap("a"))
	var wg sync.WaitGroup
	var mu sync.Mutex
	won, lost := 0, 0
	for i := range 16 {
		wg.Go(func() {
			mine := base.DeepCopy()
			mine.Data = map[string]string{"writer": strconv.Itoa(i)}
			_, err := update(f, mine, "")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case apierrors.IsConflict(err):
				lost++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won != 1 || lost != 15 {
		t.Errorf("%d won, %d lost", won, lost)
	}
}

// An update that names no state means whichever is there: it does not lose against a write that comes between.
func TestUpdatesWithoutAStateAreTriedAgain(t *testing.T) {
	f := start(t)
	create(f, configMap("a"))
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 5 {
				mine := configMap("a")
				mine.Data = map[string]string{"writer": fmt.Sprint(i, n)}
				if _, err := update(f, mine, ""); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	stranger := configMap("a")
	stranger.UID = "another"
	if _, err := update(f, stranger, ""); !apierrors.IsConflict(err) {
		t.Errorf("an update of another object: %v", err)
	}
}

func TestStatusAndSpecAreApart(t *testing.T) {
	f := start(t)
	d := create(f, workload("a"))
	if d.Generation != 1 {
		t.Errorf("generation begins at %d", d.Generation)
	}
	both := d.DeepCopy()
	both.Spec.Replicas, both.Status.Replicas = new(int32), 7
	*both.Spec.Replicas = 3
	got := mustUpdate(f, both, "")
	if *got.Spec.Replicas != 3 || got.Status.Replicas != 0 || got.Generation != 2 {
		t.Errorf("a write of the spec: %d replicas, status %d, generation %d", *got.Spec.Replicas, got.Status.Replicas, got.Generation)
	}
	both.ResourceVersion, *both.Spec.Replicas = "", 5
	got = mustUpdate(f, both, "status")
	if *got.Spec.Replicas != 3 || got.Status.Replicas != 7 || got.Generation != 2 {
		t.Errorf("a write of the status: %d replicas, status %d, generation %d", *got.Spec.Replicas, got.Status.Replicas, got.Generation)
	}
	got.Labels = map[string]string{"a": "b"}
	if got = mustUpdate(f, got, ""); got.Generation != 2 || got.Status.Replicas != 7 {
		t.Errorf("a write of labels: generation %d, status %d", got.Generation, got.Status.Replicas)
	}
	_, err := update(f, create(f, configMap("c")), "status")
	refused(t, err, 405, "")
}

func TestPodFieldsWithSubresources(t *testing.T) {
	f := start(t)
	p := create(f, registrytest.Pod("p", func(p *corev1.Pod) { p.Spec.NodeName = "n" }))
	change := p.DeepCopy()
	change.Spec.Containers[0].Image = "other"
	if got := mustUpdate(f, change, ""); got.Spec.Containers[0].Image != "other" || got.Generation != 2 {
		t.Errorf("%+v", got.Spec)
	}
	change.ResourceVersion = ""
	more := change.DeepCopy()
	more.Spec.Containers[0].Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("7")}
	_, err := update(f, more, "")
	refused(t, err, 422, "pod updates may not change fields other than")
	change.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "sh"}}}
	_, err = update(f, change, "")
	refused(t, err, 422, "pod updates may not change fields other than")
	got := mustUpdate(f, change, "ephemeralcontainers")
	if len(got.Spec.EphemeralContainers) != 1 || got.Spec.EphemeralContainers[0].ImagePullPolicy != "Always" {
		t.Errorf("%+v", got.Spec.EphemeralContainers)
	}
	got.Spec.EphemeralContainers = nil
	_, err = update(f, got, "ephemeralcontainers")
	refused(t, err, 422, "may not be removed")
	got, _ = read(f, p)
	got.Spec.Hostname = "h"
	_, err = update(f, got, "")
	refused(t, err, 422, "pod updates may not change fields other than")
}

func TestScale(t *testing.T) {
	f := start(t)
	d := create(f, workload("a"))
	q := f.About(registrytest.Admin, d, "scale")
	res, err := f.Get(ctx, q, nil)
	if err != nil {
		t.Fatal(err)
	}
	scale := res.Object.(*autoscalingv1.Scale)
	if scale.Spec.Replicas != 1 || scale.Status.Selector != "app=a" || scale.UID != d.UID || scale.ResourceVersion != d.ResourceVersion || scale.Kind != "Scale" {
		t.Errorf("%+v", scale)
	}
	scale = scale.DeepCopy()
	scale.Spec.Replicas = 4
	res, err = f.Registry.Registry.Update(ctx, q, scale, &metav1.UpdateOptions{})
	if err != nil || res.Object.(*autoscalingv1.Scale).Spec.Replicas != 4 {
		t.Fatalf("%v, %v", res, err)
	}
	if now, _ := read(f, d); *now.Spec.Replicas != 4 || now.Generation != 2 {
		t.Errorf("%d replicas, generation %d", *now.Spec.Replicas, now.Generation)
	}
	_, err = f.Registry.Registry.Update(ctx, q, scale, &metav1.UpdateOptions{})
	refused(t, err, 409, "the object has been modified")
	scale.ResourceVersion, scale.Spec.Replicas = "", -1
	_, err = f.Registry.Registry.Update(ctx, q, scale, &metav1.UpdateOptions{})
	refused(t, err, 422, `Scale.autoscaling "a" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0`)
}
