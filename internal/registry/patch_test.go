package registry_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/registry/registrytest"
)

func TestPatchKinds(t *testing.T) {
	f := start(t)
	base := workload("a")
	base.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}}
	base = create(f, base)
	cases := []struct {
		name  string
		kind  types.PatchType
		patch string
		check func(d *appsv1.Deployment) bool
		code  int32
		text  string
	}{
		{name: "merge", kind: types.MergePatchType, patch: `{"metadata":{"labels":{"a":"b"}},"spec":{"replicas":3}}`,
			check: func(d *appsv1.Deployment) bool {
				return *d.Spec.Replicas == 3 && d.Labels["a"] == "b" && d.Generation == 2
			}},
		{name: "merge as YAML", kind: types.MergePatchType, patch: "spec:\n  replicas: 4\n",
			check: func(d *appsv1.Deployment) bool { return *d.Spec.Replicas == 4 }},
		{name: "merge removes", kind: types.MergePatchType, patch: `{"metadata":{"labels":{"a":null}}}`,
			check: func(d *appsv1.Deployment) bool { return len(d.Labels) == 0 }},
		{name: "merge replaces lists", kind: types.MergePatchType, patch: `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"web:2"}]}}}}`,
			check: func(d *appsv1.Deployment) bool {
				return len(d.Spec.Template.Spec.Containers[0].Env) == 0 && d.Spec.Template.Spec.Containers[0].Image == "web:2"
			}},
		{name: "strategic merges lists", kind: types.StrategicMergePatchType, patch: `{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"C","value":"3"}]}]}}}}`,
			check: func(d *appsv1.Deployment) bool {
				c := d.Spec.Template.Spec.Containers
				return len(c) == 1 && c[0].Image == "web:2" && len(c[0].Env) == 1 && c[0].Env[0].Value == "3"
			}},
		{name: "strategic deletes", kind: types.StrategicMergePatchType, patch: `{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"C","$patch":"delete"}]}]}}}}`,
			check: func(d *appsv1.Deployment) bool { return len(d.Spec.Template.Spec.Containers[0].Env) == 0 }},
		{name: "JSON", kind: types.JSONPatchType, patch: `[{"op":"test","path":"/spec/replicas","value":4},{"op":"replace","path":"/spec/replicas","value":5}]`,
			check: func(d *appsv1.Deployment) bool { return *d.Spec.Replicas == 5 }},
		{name: "JSON whose test fails", kind: types.JSONPatchType, patch: `[{"op":"test","path":"/spec/replicas","value":9}]`, code: 422, text: "test"},
		{name: "JSON of what is not there", kind: types.JSONPatchType, patch: `[{"op":"remove","path":"/spec/nothing"}]`, code: 422, text: "nothing"},
		{name: "no JSON", kind: types.JSONPatchType, patch: `{`, code: 400, text: "error decoding patch"},
		{name: "too much of it", kind: types.JSONPatchType, patch: "[" + strings.Repeat(`{"op":"test","path":"/kind","value":"Deployment"},`, 10000) + `{"op":"test","path":"/kind","value":"Deployment"}]`, code: 413,
			text: "The allowed maximum operations in a JSON patch is 10000, got 10001"},
		{name: "merge of no object", kind: types.MergePatchType, patch: `[1]`, code: 400, text: "error decoding patch"},
		{name: "bad value", kind: types.MergePatchType, patch: `{"spec":{"replicas":"many"}}`, code: 422, text: "replicas"},
		{name: "invalid outcome", kind: types.MergePatchType, patch: `{"spec":{"replicas":-1}}`, code: 422, text: `Deployment.apps "a" is invalid: spec.replicas: Invalid value: -1`},
		{name: "immutable field", kind: types.MergePatchType, patch: `{"spec":{"selector":{"matchLabels":{"app":"b"}}}}`, code: 422, text: "field is immutable"},
		{name: "another name", kind: types.MergePatchType, patch: `{"metadata":{"name":"b"}}`, code: 400, text: "does not match the name on the URL"},
		{name: "an old state", kind: types.MergePatchType, patch: `{"metadata":{"resourceVersion":"1"},"spec":{"replicas":1}}`, code: 409, text: "the object has been modified"},
		{name: "another object", kind: types.MergePatchType, patch: `{"metadata":{"uid":"other"}}`, code: 409, text: "Precondition failed: UID"},
		{name: "status is not there", kind: types.MergePatchType, patch: `{"status":{"replicas":9}}`, check: func(d *appsv1.Deployment) bool { return d.Status.Replicas == 0 }},
		{name: "another sort", kind: "application/other", patch: `{}`, code: 415, text: "unknown format"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			res, err := f.Patch(ctx, f.About(registrytest.Admin, base, ""), c.kind, []byte(c.patch), &metav1.PatchOptions{})
			switch {
			case c.code != 0:
				refused(t, err, c.code, c.text)
			case err != nil:
				t.Error(err)
			case !c.check(res.Object.(*appsv1.Deployment)):
				t.Errorf("%+v", res.Object)
			}
		})
	}
}

func TestPatchFieldValidation(t *testing.T) {
	f := start(t)
	d := create(f, workload("a"))
	cases := []struct{ validation, patch, warning, failure string }{
		{"Strict", `{"spec":{"replica":2}}`, "", `strict decoding error: unknown field "spec.replica"`},
		{"Warn", `{"spec":{"replica":2}}`, `unknown field "spec.replica"`, ""},
		{"", `{"spec":{"replica":2}}`, `unknown field "spec.replica"`, ""},
		{"Ignore", `{"spec":{"replica":2}}`, "", ""},
		{"Strict", `{"spec":{"replicas":2}}`, "", ""},
	}
	for _, c := range cases {
		t.Run(c.validation+" "+c.patch, func(t *testing.T) {
			q := f.About(registrytest.Admin, d, "")
			var warnings []string
			q.Warn = func(text string) { warnings = append(warnings, text) }
			_, err := f.Patch(ctx, q, types.MergePatchType, []byte(c.patch), &metav1.PatchOptions{FieldValidation: c.validation})
			if c.failure != "" {
				refused(t, err, 400, c.failure)
			} else if err != nil {
				t.Error(err)
			}
			if got := strings.Join(warnings, "; "); got != c.warning {
				t.Errorf("warned of %q, want %q", got, c.warning)
			}
		})
	}
}

func TestPatchOfSubresources(t *testing.T) {
	f := start(t)
	d := create(f, workload("a"))
	res, err := f.Patch(ctx, f.About(registrytest.Admin, d, "scale"), types.MergePatchType, []byte(`{"spec":{"replicas":6}}`), &metav1.PatchOptions{})
	if err != nil || res.Object.(*autoscalingv1.Scale).Spec.Replicas != 6 {
		t.Errorf("%v, %v", res, err)
	}
	res, err = f.Patch(ctx, f.About(registrytest.Admin, d, "status"), types.StrategicMergePatchType, []byte(`{"status":{"replicas":2},"spec":{"replicas":9}}`), &metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Object.(*appsv1.Deployment); got.Status.Replicas != 2 || *got.Spec.Replicas != 6 || got.Generation != 2 {
		t.Errorf("%+v", got)
	}
}

// Patches that name no state never conflict, and none gets lost.
func TestConcurrentPatches(t *testing.T) {
	f := start(t)
	c := create(f, configMap("a"))
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			patch := fmt.Appendf(nil, `{"data":{"k%d":"v"}}`, i)
			if _, err := f.Patch(ctx, f.About(registrytest.Admin, c, ""), types.MergePatchType, patch, &metav1.PatchOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if now, _ := read(f, c); len(now.Data) != 12 {
		t.Errorf("%d of 12 patches are there", len(now.Data))
	}
}
