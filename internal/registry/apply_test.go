package registry_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// applier makes requests as kubectl would, over one registry.
type applier struct {
	*registrytest.Registry
	t *testing.T
}

func (a applier) request(group, plural, sub, name string) *registry.Request {
	q := a.Request(registrytest.Admin, group, plural, sub, "default", name)
	q.UserAgent = "kubectl/v1.37.0 (linux/amd64)"
	return q
}

func (a applier) patch(q *registry.Request, kind types.PatchType, by, body string, force bool) (*registry.Result, error) {
	o := &metav1.PatchOptions{FieldManager: by}
	if force {
		o.Force = &force
	}
	return a.Patch(context.Background(), q, kind, []byte(body), o)
}

func (a applier) apply(q *registry.Request, by, body string) *registry.Result {
	a.t.Helper()
	out, err := a.patch(q, types.ApplyYAMLPatchType, by, body, false)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

func managersOf(obj any) string {
	var out []string
	for _, e := range obj.(metav1.Object).GetManagedFields() {
		text := e.Manager + "/" + string(e.Operation)
		if e.Subresource != "" {
			text += "/" + e.Subresource
		}
		out = append(out, text)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

const configHead = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: "

func TestApplyCreatesAndUpdates(t *testing.T) {
	a := applier{registrytest.Start(t, nil, nil), t}
	q := a.request("", "configmaps", "", "c")
	first := a.apply(q, "one", configHead+`{a: "1"}`)
	if !first.Created || first.Object.(*corev1.ConfigMap).UID == "" || managersOf(first.Object) != "one/Apply" {
		t.Fatalf("%+v", first.Object)
	}
	again := a.apply(q, "one", configHead+`{a: "1"}`)
	if again.Created || again.Object.(*corev1.ConfigMap).ResourceVersion != first.Object.(*corev1.ConfigMap).ResourceVersion {
		t.Error("an apply that changes nothing is stored")
	}
	time.Sleep(1100 * time.Millisecond) // the time alone is no change either
	if again = a.apply(q, "one", configHead+`{a: "1"}`); again.Object.(*corev1.ConfigMap).ResourceVersion != first.Object.(*corev1.ConfigMap).ResourceVersion {
		t.Error("an apply that changes nothing but its time is stored")
	}
	if _, err := a.patch(q, types.ApplyYAMLPatchType, "two", configHead+`{a: "2"}`, false); !apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict) {
		t.Errorf("a conflict is answered with %v", err)
	}
	out, err := a.patch(q, types.ApplyYAMLPatchType, "two", configHead+`{a: "2"}`, true)
	if err != nil || managersOf(out.Object) != "two/Apply" {
		t.Errorf("%v %v", err, managersOf(out.Object))
	}
	out = a.apply(q, "two", configHead+`{}`)
	if len(out.Object.(*corev1.ConfigMap).Data) != 0 {
		t.Errorf("a field that its only owner gave up stays: %v", out.Object.(*corev1.ConfigMap).Data)
	}
}

func TestApplyIsRefused(t *testing.T) {
	a := applier{registrytest.Start(t, nil, nil), t}
	q := a.request("", "configmaps", "", "c")
	nobody := a.request("", "configmaps", "", "c")
	nobody.MayCreate = func(context.Context) error {
		return apierrors.NewForbidden(corev1.Resource("configmaps"), "c", errors.New("no"))
	}
	for _, c := range []struct {
		name  string
		q     *registry.Request
		kind  types.PatchType
		by    string
		body  string
		force bool
		code  int32
	}{
		{"no manager", q, types.ApplyYAMLPatchType, "", configHead + "{}", false, 422},
		{"force of another patch", q, types.MergePatchType, "one", "{}", true, 422},
		{"manager too long", q, types.ApplyYAMLPatchType, strings.Repeat("x", 129), configHead + "{}", false, 422},
		{"CBOR", q, types.ApplyCBORPatchType, "one", "", false, 415},
		{"no YAML", q, types.ApplyYAMLPatchType, "one", "}", false, 400},
		{"another kind", q, types.ApplyYAMLPatchType, "one", "{apiVersion: v1, kind: Secret, metadata: {name: c}}", false, 400},
		{"another name", q, types.ApplyYAMLPatchType, "one", "{apiVersion: v1, kind: ConfigMap, metadata: {name: d}}", false, 400},
		{"unknown field", q, types.ApplyYAMLPatchType, "one", "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, dta: {}}", false, 400},
		{"uid of nothing", q, types.ApplyYAMLPatchType, "one", "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, uid: x}}", false, 409},
		{"nothing has a status", a.request("", "pods", "status", "p"), types.ApplyYAMLPatchType, "one", "{apiVersion: v1, kind: Pod, metadata: {name: p}}", false, 404},
		{"may not create", nobody, types.ApplyYAMLPatchType, "one", configHead + "{}", false, 403},
	} {
		_, err := a.patch(c.q, c.kind, c.by, c.body, c.force)
		var status apierrors.APIStatus
		if !errors.As(err, &status) || status.Status().Code != c.code {
			t.Errorf("%s: %v, want code %d", c.name, err, c.code)
		}
	}
}

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: 2
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}}
    spec: {containers: [{name: c, image: a}]}
`

func TestSubresourcesHaveEntriesOfTheirOwn(t *testing.T) {
	a := applier{registrytest.Start(t, nil, nil), t}
	a.apply(a.request("apps", "deployments", "", "d"), "kubectl", deployment)

	// A part's status is nobody's business yet.
	part := a.Request(registrytest.Admin, "apps", "deployments", "status", "default", "d")
	got, err := a.Get(context.Background(), part, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := got.Object.(*appsv1.Deployment).DeepCopy()
	d.Status.ObservedGeneration = 1
	if _, err := a.Registry.Registry.Update(context.Background(), part, d, &metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	out := a.apply(a.request("apps", "deployments", "status", "d"), "mine",
		`{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, status: {conditions: [{type: Mine, status: "True"}]}}`)
	if m := managersOf(out.Object); m != "kube-controller-manager/Update/status kubectl/Apply mine/Apply/status" {
		t.Error(m)
	}

	scaled, err := a.patch(a.request("apps", "deployments", "scale", "d"), types.MergePatchType, "", `{"spec":{"replicas":5}}`, false)
	if err != nil || scaled.Object.(*autoscalingv1.Scale).Spec.Replicas != 5 {
		t.Fatal(scaled, err)
	}
	_, err = a.patch(a.request("apps", "deployments", "", "d"), types.ApplyYAMLPatchType, "kubectl", deployment, false)
	if err == nil || !strings.HasPrefix(err.Error(), `Apply failed with 1 conflict: conflict with "kubectl" with subresource "scale" using apps/v1`) ||
		!strings.HasSuffix(err.Error(), ": .spec.replicas") {
		t.Errorf("replicas that were scaled are answered with %v", err)
	}
	out = a.apply(a.request("apps", "deployments", "", "d"), "kubectl", strings.Replace(deployment, "  replicas: 2\n", "", 1))
	if n := *out.Object.(*appsv1.Deployment).Spec.Replicas; n != 5 {
		t.Errorf("%d replicas", n)
	}
	out, err = a.patch(a.request("apps", "deployments", "scale", "d"), types.ApplyYAMLPatchType, "mine", `{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: d}, spec: {replicas: 3}}`, true)
	if err != nil || out.Object.(*autoscalingv1.Scale).Spec.Replicas != 3 {
		t.Errorf("%+v %v", out, err)
	}
	if got, err = a.Get(context.Background(), part, nil); err != nil || !strings.Contains(managersOf(got.Object), "mine/Apply/scale") {
		t.Errorf("%v %s", err, managersOf(got.Object))
	}
}

func TestOtherWritesKeepManagedFields(t *testing.T) {
	a := applier{registrytest.Start(t, nil, nil), t}
	ctx := context.Background()
	q := a.request("", "configmaps", "", "")
	out, err := a.Registry.Registry.Create(ctx, q, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Data: map[string]string{"a": "1"}}, &metav1.CreateOptions{})
	if err != nil || managersOf(out.Object) != "kubectl/Update" {
		t.Fatal(managersOf(out.Object), err)
	}
	q = a.request("", "configmaps", "", "c")
	out, err = a.patch(q, types.MergePatchType, "patcher", `{"data":{"b":"2"}}`, false)
	if err != nil || managersOf(out.Object) != "kubectl/Update patcher/Update" {
		t.Fatal(managersOf(out.Object), err)
	}
	c := out.Object.(*corev1.ConfigMap).DeepCopy()
	c.ManagedFields, c.Data["a"] = nil, "3"
	out, err = a.Registry.Registry.Update(ctx, q, c, &metav1.UpdateOptions{FieldManager: "editor"})
	if err != nil || managersOf(out.Object) != "editor/Update kubectl/Update patcher/Update" {
		t.Fatal(managersOf(out.Object), err)
	}
	dry, err := a.Patch(ctx, q, types.MergePatchType, []byte(`{"data":{"z":"2"}}`), &metav1.PatchOptions{FieldManager: "dry", DryRun: []string{"All"}})
	if err != nil || !strings.Contains(managersOf(dry.Object), "dry/Update") {
		t.Fatal(managersOf(dry.Object), err)
	}
	for i := range 12 {
		by := string(rune('a' + i))
		if out, err = a.patch(q, types.MergePatchType, by, `{"data":{"`+by+by+`":"2"}}`, false); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(out.Object.(*corev1.ConfigMap).ManagedFields); n != 10 || !strings.Contains(managersOf(out.Object), "ancient-changes/Update") {
		t.Errorf("%d managers: %s", n, managersOf(out.Object))
	}
	out, err = a.patch(q, types.JSONPatchType, "", `[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]`, false)
	if err != nil || managersOf(out.Object) != "" {
		t.Errorf("reset leaves %s, %v", managersOf(out.Object), err)
	}
}
