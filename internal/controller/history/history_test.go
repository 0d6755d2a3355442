package history

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"skiff.dev/skiff/internal/controller/clienttest"
)

func template(image string) *corev1.PodTemplateSpec {
	return &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image}}}}
}

func revision(t *testing.T, number int64, image string) *appsv1.ControllerRevision {
	patch, err := Patch(template(image))
	if err != nil {
		t.Fatal(err)
	}
	return &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint(number, image)}, Revision: number, Data: runtime.RawExtension{Raw: patch}}
}

func TestPatch(t *testing.T) {
	r := revision(t, 1, "db:1")
	if !strings.HasPrefix(string(r.Data.Raw), `{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"db"}},"spec":{`) {
		t.Errorf("patch %s", r.Data.Raw)
	}
	back, err := Template(r)
	if err != nil || back.Spec.Containers[0].Image != "db:1" || back.Labels["app"] != "db" {
		t.Errorf("template %+v, %v", back, err)
	}
}

// A revision that somebody else wrote, with an amount that nobody can compute with, is no one's template.
func TestHostileRevision(t *testing.T) {
	r := revision(t, 1, "a")
	r.Data.Raw = []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"1e99999","resources":{"limits":{"cpu":"1e999999999"}}}]}}}}`)
	if _, err := Template(r); err == nil || !strings.Contains(err.Error(), "spec.template.spec.containers[0].resources.limits.cpu: ") {
		t.Error(err)
	}
	if present, number := Choose([]*appsv1.ControllerRevision{r}, template("a"), nil); present != nil || number != 2 {
		t.Errorf("%v is present, and the next is %d", present, number)
	}
}

func TestChoose(t *testing.T) {
	for _, tt := range []struct {
		name, image string
		revisions   []*appsv1.ControllerRevision
		present     string
		number      int64
	}{
		{name: "the first", image: "1", number: 1},
		{name: "unchanged", image: "2", revisions: []*appsv1.ControllerRevision{revision(t, 1, "1"), revision(t, 2, "2")}, present: "2 2", number: 2},
		{name: "a new one", image: "3", revisions: []*appsv1.ControllerRevision{revision(t, 1, "1"), revision(t, 2, "2")}, number: 3},
		{name: "rolled back", image: "1", revisions: []*appsv1.ControllerRevision{revision(t, 1, "1"), revision(t, 2, "2")}, present: "1 1", number: 3},
	} {
		patch, err := Patch(template(tt.image))
		if err != nil {
			t.Fatal(err)
		}
		present, number := Choose(tt.revisions, template(tt.image), patch)
		name := ""
		if present != nil {
			name = fmt.Sprint(present.Revision, " ", strings.TrimPrefix(present.Name, fmt.Sprint(present.Revision)))
		}
		if name != tt.present || number != tt.number {
			t.Errorf("%s: %q is to be %d", tt.name, name, number)
		}
	}
}

func TestExcess(t *testing.T) {
	all := []*appsv1.ControllerRevision{revision(t, 1, "a"), revision(t, 2, "b"), revision(t, 3, "c"), revision(t, 4, "d")}
	used := func(r *appsv1.ControllerRevision) bool { return r.Revision == 1 || r.Revision == 4 }
	for limit, want := range []int{2, 1, 0, 0} {
		if got := Excess(all, used, int32(limit)); len(got) != want || want > 0 && got[0].Revision != 2 {
			t.Errorf("limit %d: %d too many", limit, len(got))
		}
	}
}

// A name that somebody else has is avoided, and the number of collisions told.
func TestKeeper(t *testing.T) {
	ctx := context.Background()
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db", UID: "s"}}
	patch, _ := Patch(template("1"))
	squatter := &appsv1.ControllerRevision{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db-" + Hash(patch, 0)}}
	orphan := revision(t, 1, "0")
	orphan.Namespace, orphan.Name, orphan.Labels = "default", "orphan", map[string]string{"app": "db"}
	c := clienttest.New(t, set, squatter, orphan)
	k := &Keeper{Client: c, Owner: set, GVK: appsv1.SchemeGroupVersion.WithKind("StatefulSet"), Selector: labels.SelectorFromSet(labels.Set{"app": "db"}), HashLabel: "hash"}
	all, err := k.List(ctx)
	if err != nil || len(all) != 1 || all[0].Name != "orphan" {
		t.Fatalf("%d revisions, %v", len(all), err)
	}
	present, all, collisions, err := k.Present(ctx, all, template("1"), 0)
	if err != nil || collisions != 1 || len(all) != 2 || present.Revision != 2 || present.Name != "db-"+Hash(patch, 1) {
		t.Fatalf("present %+v of %d, %d collisions, %v", present, len(all), collisions, err)
	}
	if present, all, _, err = k.Present(ctx, all, template("0"), 1); err != nil || present.Name != "orphan" || present.Revision != 3 || all[1].Name != "orphan" {
		t.Fatalf("rolled back to %+v, %v", present, err)
	}
	if err := k.Remove(ctx, Excess(all, func(*appsv1.ControllerRevision) bool { return false }, 1)); err != nil {
		t.Fatal(err)
	}
	if all, err = k.List(ctx); err != nil || len(all) != 1 || all[0].Name != "orphan" {
		t.Errorf("%d revisions left, %v", len(all), err)
	}
}
