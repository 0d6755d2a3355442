package registry_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry/registrytest"
)

func TestDeleteAtOnce(t *testing.T) {
	f := start(t)
	c := create(f, configMap("a"))
	res, err := remove(f, c, metav1.DeleteOptions{})
	if err != nil || !res.Deleted || res.Object.(*corev1.ConfigMap).UID != c.UID {
		t.Errorf("%v, %v", res, err)
	}
	_, err = remove(f, c, metav1.DeleteOptions{})
	refused(t, err, 404, `configmaps "a" not found`)
}

func TestSystemPriorityClassesStay(t *testing.T) {
	f := start(t)
	for _, want := range api.SystemPriorityClasses() {
		class, found := read(f, want)
		if !found || class.Value != want.Value || class.Description != want.Description || class.GlobalDefault {
			t.Fatalf("%s is there: %v: %+v", want.Name, found, class)
		}
		_, err := remove(f, class, metav1.DeleteOptions{})
		refused(t, err, 403, `priorityclasses.scheduling.k8s.io "`+want.Name+`" is forbidden: this is a system priority class and cannot be deleted`)
	}
	own := create(f, &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "own"}, Value: 1})
	q := f.Request(registrytest.Admin, schedulingv1.GroupName, "priorityclasses", "", "", "")
	_, err := f.DeleteCollection(ctx, q, &metav1.DeleteOptions{}, &metainternalversion.ListOptions{})
	refused(t, err, 403, "this is a system priority class and cannot be deleted")
	if _, found := read(f, own); found {
		t.Error("a user's class is kept")
	}
	for _, want := range api.SystemPriorityClasses() {
		if _, found := read(f, want); !found {
			t.Errorf("%s is gone", want.Name)
		}
	}
}

func TestFinalizersKeepAnObject(t *testing.T) {
	f := start(t)
	c := configMap("a")
	c.Finalizers = []string{"example.com/b", "example.com/a"}
	c = create(f, c)
	res, err := remove(f, c, metav1.DeleteOptions{})
	if err != nil || res.Deleted {
		t.Fatalf("%v, %v", res, err)
	}
	now, found := read(f, c)
	if !found || now.DeletionTimestamp == nil || *now.DeletionGracePeriodSeconds != 0 || !slices.Equal(now.Finalizers, []string{"example.com/b", "example.com/a"}) {
		t.Fatalf("found %v: %+v", found, now)
	}
	if again, err := remove(f, c, metav1.DeleteOptions{}); err != nil || again.Object.(*corev1.ConfigMap).ResourceVersion != now.ResourceVersion {
		t.Errorf("a second delete wrote: %v", err)
	}
	more := now.DeepCopy()
	more.Finalizers = append(more.Finalizers, "example.com/c")
	_, err = update(f, more, "")
	refused(t, err, 422, `metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"example.com/c"}`)

	now.Finalizers = now.Finalizers[:1]
	now.DeletionTimestamp = nil // it cannot be taken back
	now = mustUpdate(f, now, "")
	if now.DeletionTimestamp == nil {
		t.Error("a deletion was taken back")
	}
	now.Finalizers = nil
	last := mustUpdate(f, now, "")
	if _, found := read(f, c); found || last.DeletionTimestamp == nil {
		t.Errorf("the last finalizer is gone and the object is there: %v", found)
	}
}

func TestPodsEndGracefully(t *testing.T) {
	f := start(t)
	on := func(node string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Spec.NodeName = node } }
	waiting, running := create(f, registrytest.Pod("waiting")), create(f, registrytest.Pod("running", on("n")))
	if res, err := remove(f, waiting, metav1.DeleteOptions{}); err != nil || !res.Deleted {
		t.Errorf("a pod without a node: %v, %v", res, err)
	}
	seconds := func(n int64) metav1.DeleteOptions { return metav1.DeleteOptions{GracePeriodSeconds: &n} }
	check := func(what string, want int64) {
		t.Helper()
		p, found := read(f, running)
		if !found || p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds != want || p.Generation != 2 {
			t.Fatalf("%s: found %v, %+v", what, found, p.ObjectMeta)
		}
		if left := time.Until(p.DeletionTimestamp.Time); left > time.Duration(want)*time.Second || left < time.Duration(want-5)*time.Second {
			t.Errorf("%s: %s left", what, left)
		}
	}
	for _, step := range []struct {
		what string
		o    metav1.DeleteOptions
		want int64
	}{
		{"first", metav1.DeleteOptions{}, 30}, {"again", metav1.DeleteOptions{}, 30}, {"longer", seconds(60), 30}, {"shorter", seconds(10), 10}, {"negative", seconds(-7), 1},
	} {
		if res, err := remove(f, running, step.o); err != nil || res.Deleted {
			t.Fatalf("%s: %v, %v", step.what, res, err)
		}
		check(step.what, step.want)
	}
	if res, err := remove(f, running, seconds(0)); err != nil || !res.Deleted {
		t.Errorf("at once: %v, %v", res, err)
	}
	// A pod's last status may be written while it ends.
	ending := create(f, registrytest.Pod("ending", on("n")))
	if _, err := remove(f, ending, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ending, _ = read(f, ending)
	ending.Status.Phase = corev1.PodSucceeded
	if got := mustUpdate(f, ending, "status"); got.Status.Phase != corev1.PodSucceeded || got.DeletionTimestamp == nil {
		t.Errorf("%+v", got)
	}
}

func TestDeletePreconditions(t *testing.T) {
	f := start(t)
	c := create(f, configMap("a"))
	other := types.UID("other")
	_, err := remove(f, c, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}})
	refused(t, err, 409, "the UID in the precondition (other) does not match the UID in record ("+string(c.UID)+"). The object might have been deleted and then recreated")
	old := c.ResourceVersion
	c.Data = map[string]string{"a": "b"}
	c = mustUpdate(f, c, "")
	_, err = remove(f, c, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &old}})
	refused(t, err, 409, "the ResourceVersion in the precondition ("+old+") does not match the ResourceVersion in record ("+c.ResourceVersion+")")
	if _, err = remove(f, c, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &c.UID, ResourceVersion: &c.ResourceVersion}}); err != nil {
		t.Error(err)
	}
}

func TestPropagation(t *testing.T) {
	f := start(t)
	yes, no := true, false
	policy := func(p metav1.DeletionPropagation) metav1.DeleteOptions {
		return metav1.DeleteOptions{PropagationPolicy: &p}
	}
	cases := map[string]struct {
		o          metav1.DeleteOptions
		finalizers []string // nil: the object goes
	}{
		"none said":           {metav1.DeleteOptions{}, nil},
		"background":          {policy(metav1.DeletePropagationBackground), nil},
		"foreground":          {policy(metav1.DeletePropagationForeground), []string{metav1.FinalizerDeleteDependents}},
		"orphan":              {policy(metav1.DeletePropagationOrphan), []string{metav1.FinalizerOrphanDependents}},
		"orphan, the old way": {metav1.DeleteOptions{OrphanDependents: &yes}, []string{metav1.FinalizerOrphanDependents}}, //nolint:staticcheck
		"not, the old way":    {metav1.DeleteOptions{OrphanDependents: &no}, nil},                                         //nolint:staticcheck
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := f.in(t)
			d := create(f, workload("a"))
			res, err := remove(f, d, c.o)
			if err != nil || res.Deleted != (c.finalizers == nil) {
				t.Fatalf("%v, %v", res, err)
			}
			if c.finalizers == nil {
				return
			}
			now, _ := read(f, d)
			if !slices.Equal(now.Finalizers, c.finalizers) || now.DeletionTimestamp == nil {
				t.Errorf("%+v", now.ObjectMeta)
			}
			// Who asks again says it anew.
			if res, err := remove(f, d, policy(metav1.DeletePropagationBackground)); err != nil || !res.Deleted {
				t.Errorf("%v, %v", res, err)
			}
		})
	}
	d := create(f, workload("b"))
	_, err := remove(f, d, policy("Sideways"))
	refused(t, err, 422, `propagationPolicy: Unsupported value: "Sideways"`)
	both := policy(metav1.DeletePropagationOrphan)
	both.OrphanDependents = &yes //nolint:staticcheck
	_, err = remove(f, d, both)
	refused(t, err, 422, "orphanDependents and deletionPropagation cannot be both set")
}

func TestNamespacesWaitToBeEmptied(t *testing.T) {
	f := start(t)
	ns := create(f, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	res, err := remove(f, ns, metav1.DeleteOptions{})
	if err != nil || res.Deleted {
		t.Fatalf("%v, %v", res, err)
	}
	ns, found := read(f, ns)
	if !found || ns.Status.Phase != corev1.NamespaceTerminating || ns.DeletionTimestamp == nil {
		t.Fatalf("found %v: %+v", found, ns)
	}
	ns.Spec.Finalizers = nil
	if kept := mustUpdate(f, ns, ""); len(kept.Spec.Finalizers) != 1 {
		t.Error("the main resource changed spec.finalizers")
	}
	mustUpdate(f, ns, "finalize")
	if _, found := read(f, ns); found {
		t.Error("a finalized namespace is there still")
	}
}

func TestDeleteCollection(t *testing.T) {
	f := start(t)
	for i := range 30 {
		c := configMap(fmt.Sprint("c-", i))
		c.Labels = map[string]string{"odd": fmt.Sprint(i%2 == 1)}
		f.Must(c)
	}
	kept := configMap("kept")
	kept.Finalizers, kept.Labels = []string{"example.com/a"}, map[string]string{"odd": "true"}
	f.Must(kept)
	q := f.Request(registrytest.Admin, "", "configmaps", "", "default", "")
	gone, err := f.DeleteCollection(ctx, q, &metav1.DeleteOptions{}, &metainternalversion.ListOptions{LabelSelector: labels.SelectorFromSet(labels.Set{"odd": "true"})})
	if err != nil || len(gone) != 16 {
		t.Errorf("%d, %v", len(gone), err)
	}
	page, err := f.List(ctx, q, &metainternalversion.ListOptions{})
	if err != nil || len(page.Entries) != 16 {
		t.Errorf("%d are left, %v", len(page.Entries), err)
	}
	if now, found := read(f, kept); !found || now.DeletionTimestamp == nil {
		t.Errorf("found %v, %+v", found, now)
	}
}
