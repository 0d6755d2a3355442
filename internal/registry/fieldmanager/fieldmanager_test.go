package fieldmanager

import (
	"context"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/api"
)

var (
	table    = api.NewTable()
	managers = New(table)
)

func row(t testing.TB, kind string) *api.Resource {
	t.Helper()
	for _, group := range []string{"", "apps", "events.k8s.io", "apiextensions.k8s.io"} {
		if r := table.ByKind(schema.GroupKind{Group: group, Kind: kind}); r != nil {
			return r
		}
	}
	t.Fatalf("no kind %s", kind)
	return nil
}

func outside(t testing.TB, kind, by, sub string) Write {
	return Write{Resource: row(t, kind), Manager: by, Subresource: sub}
}

func inside(t testing.TB, kind, by, sub string) Write {
	return Write{Resource: row(t, kind), Manager: by, Subresource: sub, Inside: true}
}

func update(t testing.TB, w Write, old, obj api.Object) {
	t.Helper()
	if err := managers.Update(w, old, obj); err != nil {
		t.Fatal(err)
	}
	if obj.GetUID() == "" {
		obj.SetUID(types.UID("1"))
	}
}

func parse(t testing.TB, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	return u
}

// entries is "manager/operation/subresource: fields", a line each.
func entries(obj metav1.Object) string {
	var out []string
	for _, e := range obj.GetManagedFields() {
		out = append(out, e.Manager+"/"+string(e.Operation)+"/"+e.Subresource+": "+e.FieldsV1.GetRawString()+"\n")
	}
	slices.Sort(out)
	return strings.Join(out, "")
}

func expect(t testing.TB, obj metav1.Object, want ...string) {
	t.Helper()
	text := strings.Join(want, "\n")
	if text != "" {
		text += "\n"
	}
	if got := entries(obj); got != text {
		t.Errorf("entries\n%swant\n%s", got, text)
	}
}

func config(data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}, Data: data}
}

func TestUpdateTracksWritersFromOutside(t *testing.T) {
	a := config(map[string]string{"a": "1", "b": "2"})
	update(t, outside(t, "ConfigMap", "kubectl-create", ""), nil, a)
	expect(t, a, `kubectl-create/Update/: {"f:data":{".":{},"f:a":{},"f:b":{}}}`)

	b := a.DeepCopy()
	b.Data["b"] = "3"
	update(t, outside(t, "ConfigMap", "kubectl-edit", ""), a, b)
	expect(t, b, `kubectl-create/Update/: {"f:data":{".":{},"f:a":{}}}`, `kubectl-edit/Update/: {"f:data":{"f:b":{}}}`)

	// A part's write is tracked once the object is.
	c := b.DeepCopy()
	c.Data["a"] = "9"
	update(t, inside(t, "ConfigMap", "kube-controller-manager", ""), b, c)
	expect(t, c, `kube-controller-manager/Update/: {"f:data":{"f:a":{}}}`, `kubectl-create/Update/: {"f:data":{}}`,
		`kubectl-edit/Update/: {"f:data":{"f:b":{}}}`)

	// A client that knows nothing of entries keeps them; one that empties them resets.
	d := c.DeepCopy()
	d.ManagedFields = nil
	update(t, outside(t, "ConfigMap", "old", ""), c, d)
	if entries(c) != entries(d) {
		t.Errorf("a write without entries changed them to\n%s", entries(d))
	}
	for _, reset := range [][]metav1.ManagedFieldsEntry{{}, {{}}} {
		d = c.DeepCopy()
		d.ManagedFields = reset
		update(t, outside(t, "ConfigMap", "old", ""), c, d)
		expect(t, d)
	}
}

func TestApply(t *testing.T) {
	apply := func(live api.Object, by, text string, force bool) (api.Object, error) {
		return managers.Apply(outside(t, "ConfigMap", by, ""), live, parse(t, text), force)
	}
	head := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: default}\n"
	must := func(live api.Object, by, data string, force bool) *corev1.ConfigMap {
		t.Helper()
		out, err := apply(live, by, head+"data: "+data, force)
		if err != nil {
			t.Fatal(err)
		}
		out.SetUID("1")
		return out.(*corev1.ConfigMap)
	}
	live := must(empty(row(t, "ConfigMap")), "one", `{a: "1", b: "2"}`, false)
	expect(t, live, `one/Apply/: {"f:data":{"f:a":{},"f:b":{}}}`)

	live = must(live, "two", `{b: "2", c: "3"}`, false) // the same value is owned together
	expect(t, live, `one/Apply/: {"f:data":{"f:a":{},"f:b":{}}}`, `two/Apply/: {"f:data":{"f:b":{},"f:c":{}}}`)

	_, err := apply(live, "two", head+`data: {b: "9", a: "9"}`, false)
	status, ok := err.(apierrors.APIStatus)
	if !ok || !apierrors.IsConflict(err) {
		t.Fatalf("a conflict is answered with %v", err)
	}
	if want := "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b"; err.Error() != want {
		t.Errorf("%q, want %q", err.Error(), want)
	}
	causes := status.Status().Details.Causes
	if len(causes) != 2 || causes[0].Type != metav1.CauseTypeFieldManagerConflict || causes[0].Field != ".data.a" || causes[0].Message != `conflict with "one"` {
		t.Errorf("causes: %+v", causes)
	}

	forced := must(live, "two", `{b: "9"}`, true) // takes b, gives up c, which nobody else wants
	expect(t, forced, `one/Apply/: {"f:data":{"f:a":{}}}`, `two/Apply/: {"f:data":{"f:b":{}}}`)
	if len(forced.Data) != 2 || forced.Data["b"] != "9" {
		t.Errorf("data: %v", forced.Data)
	}

	shared := must(live, "one", `{a: "1"}`, false) // gives up b, which two still has
	if shared.Data["b"] != "2" {
		t.Errorf("a field somebody else owns is gone: %v", shared.Data)
	}
	if _, err := apply(live, "one", head+"dta: {}", false); err == nil || !strings.Contains(err.Error(), ".dta: field not declared in schema") {
		t.Errorf("an unknown field is answered with %v", err)
	}
	if _, err := apply(live, "one", strings.Replace(head, "v1", "v2", 1), false); !apierrors.IsBadRequest(err) {
		t.Errorf("a wrong version is answered with %v", err)
	}
	if _, err := apply(live, "one", strings.Replace(head, "{", "{managedFields: [], ", 1), false); !apierrors.IsBadRequest(err) {
		t.Errorf("managedFields in what is applied are answered with %v", err)
	}
}

const applied = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: d, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: d}}
  template:
    metadata: {labels: {app: d}}
    spec:
      containers:
      - name: c
        image: a
        ports: [{containerPort: 80}]
status: {replicas: 7}
`

func TestApplyOwnsNoStatusAndMergesLists(t *testing.T) {
	w := outside(t, "Deployment", "kubectl", "")
	out, err := managers.Apply(w, empty(w.Resource), parse(t, applied), false)
	if err != nil {
		t.Fatal(err)
	}
	d := out.(*appsv1.Deployment)
	d.UID, d.Status = "1", appsv1.DeploymentStatus{}
	expect(t, d, `kubectl/Apply/: {"f:spec":{"f:replicas":{},"f:selector":{},"f:template":{"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:containers":`+
		`{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{},"f:ports":{"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}}`)

	// Somebody else adds a container and the first manager drops its port.
	side, err := managers.Apply(outside(t, "Deployment", "mesh", ""), d, parse(t, `{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, namespace: default},
		spec: {template: {spec: {containers: [{name: side, image: b}]}}}}`), false)
	if err != nil {
		t.Fatal(err)
	}
	less, err := managers.Apply(w, side, parse(t, strings.Replace(applied, "ports: [{containerPort: 80}]", "", 1)), false)
	if err != nil {
		t.Fatal(err)
	}
	got := less.(*appsv1.Deployment).Spec.Template.Spec.Containers
	if len(got) != 2 || got[0].Name != "c" || len(got[0].Ports) != 0 || got[1].Name != "side" {
		t.Errorf("containers: %+v", got)
	}
}

func TestPartsAreTrackedWhenSomebodyOutsideWrites(t *testing.T) {
	yes := true
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "p", CreationTimestamp: metav1.Unix(1000, 0), Labels: map[string]string{"a": "1"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "r", UID: "2", Controller: &yes}},
	}}
	update(t, inside(t, "Pod", "kube-controller-manager", ""), nil, pod)
	expect(t, pod)
	running := pod.DeepCopy()
	running.Status.Phase = corev1.PodRunning
	update(t, inside(t, "Pod", "kubelet", "status"), pod, running)
	expect(t, running)

	labelled := running.DeepCopy()
	labelled.Labels["b"] = "2"
	update(t, outside(t, "Pod", "kubectl-label", ""), running, labelled)
	owned := `kube-controller-manager/Update/: {"f:metadata":{"f:labels":{".":{},"f:a":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"2\"}":{}}}}`
	expect(t, labelled, owned, `kubectl-label/Update/: {"f:metadata":{"f:labels":{"f:b":{}}}}`)
	if at := labelled.ManagedFields[0].Time; at == nil || at.Unix() != 1000 {
		t.Errorf("the part wrote at %v, not when the object was made", at)
	}
	failed := labelled.DeepCopy() // status still is nobody's business
	failed.Status.Phase = corev1.PodFailed
	update(t, inside(t, "Pod", "kubelet", "status"), labelled, failed)
	if entries(failed) != entries(labelled) {
		t.Errorf("status of a part is tracked already:\n%s", entries(failed))
	}

	gated := failed.DeepCopy()
	gated.Status.Conditions = []corev1.PodCondition{{Type: "gate", Status: "True"}}
	update(t, outside(t, "Pod", "gate", "status"), failed, gated)
	gate := `gate/Update/status: {"f:status":{"f:conditions":{".":{},"k:{\"type\":\"gate\"}":{".":{},"f:lastProbeTime":{},"f:lastTransitionTime":{},"f:status":{},"f:type":{}}}}}`
	got := entries(gated)
	if !strings.Contains(got, gate) || !strings.Contains(got, `kubelet/Update/status: {"f:status":{"f:phase":{}}}`) {
		t.Errorf("entries\n%swant among them\n%s", got, gate)
	}
	done := gated.DeepCopy() // and now it is
	done.Status.Conditions[0].Status = "False"
	update(t, inside(t, "Pod", "kubelet", "status"), gated, done)
	if got := entries(done); !strings.Contains(got, `kubelet/Update/status: {"f:status":{"f:conditions":{"k:{\"type\":\"gate\"}":{"f:status":{}}},"f:phase":{}}}`) {
		t.Errorf("entries\n%s", got)
	}
}

func TestApplyToWhatNobodyTracked(t *testing.T) {
	live := config(map[string]string{"a": "1"})
	live.UID = "1"
	live.SetGroupVersionKind(row(t, "ConfigMap").GVK())
	w := outside(t, "ConfigMap", "one", "")
	_, err := managers.Apply(w, live, parse(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: default}, data: {a: "2"}}`), false)
	if err == nil || !strings.HasPrefix(err.Error(), `Apply failed with 1 conflict: conflict with "before-first-apply" using v1`) {
		t.Errorf("got %v", err)
	}
	node := &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "node", UID: "1", Labels: map[string]string{"a": "1"}}}
	_, err = managers.Apply(outside(t, "Node", "one", ""), node, parse(t, `{apiVersion: v1, kind: Node, metadata: {name: node, labels: {a: "2"}}}`), false)
	if err == nil || !strings.HasPrefix(err.Error(), `Apply failed with 1 conflict: conflict with "kubelet" using v1`) {
		t.Errorf("got %v", err)
	}
}

func TestMigrationFromClientSideApply(t *testing.T) {
	last := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"annotations":{},"name":"c","namespace":"default"},"data":{"a":"1"}}`
	live := config(map[string]string{"a": "1"})
	live.Annotations = map[string]string{corev1.LastAppliedConfigAnnotation: last}
	update(t, outside(t, "ConfigMap", "kubectl-client-side-apply", ""), nil, live)
	out, err := managers.Apply(outside(t, "ConfigMap", "kubectl", ""), live,
		parse(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: default}, data: {a: "2"}}`), false)
	if err != nil {
		t.Fatalf("what kubectl applied from the client is not its own: %v", err)
	}
	c := out.(*corev1.ConfigMap)
	if c.Data["a"] != "2" || !strings.Contains(c.Annotations[corev1.LastAppliedConfigAnnotation], `"a":"2"`) {
		t.Errorf("data %v, annotations %v", c.Data, c.Annotations)
	}
}

func TestScale(t *testing.T) {
	w := outside(t, "Deployment", "kubectl", "")
	out, err := managers.Apply(w, empty(w.Resource), parse(t, applied), false)
	if err != nil {
		t.Fatal(err)
	}
	out.SetUID("1")
	scale := func(n int32) *autoscalingv1.Scale {
		s := &autoscalingv1.Scale{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "d", UID: "1"}, Spec: autoscalingv1.ScaleSpec{Replicas: n}}
		s.SetGroupVersionKind(scaleKind)
		return s
	}
	got, err := managers.Scale(inside(t, "Deployment", "kube-controller-manager", "scale"), out, scale(2), scale(5))
	if err != nil {
		t.Fatal(err)
	}
	out.SetManagedFields(got)
	text := entries(out)
	if !strings.Contains(text, `kube-controller-manager/Update/scale: {"f:spec":{"f:replicas":{}}}`) || strings.Contains(text, `kubectl/Apply/: {"f:spec":{"f:replicas"`) {
		t.Errorf("entries\n%s", text)
	}
	_, _, err = managers.ApplyScale(outside(t, "Deployment", "other", "scale"), out, scale(5),
		parse(t, `{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: d, namespace: default}, spec: {replicas: 6}}`), false)
	if !apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict) {
		t.Errorf("a conflict is answered with %v", err)
	}
	after, got, err := managers.ApplyScale(outside(t, "Deployment", "other", "scale"), out, scale(5),
		parse(t, `{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: d, namespace: default}, spec: {replicas: 6}}`), true)
	if err != nil || after.Spec.Replicas != 6 {
		t.Fatalf("%v, %v", after, err)
	}
	out.SetManagedFields(got)
	if text := entries(out); !strings.Contains(text, `other/Apply/scale: {"f:spec":{"f:replicas":{}}}`) || strings.Contains(text, "kube-controller-manager") {
		t.Errorf("entries\n%s", text)
	}
}

func TestVersionsOfOneObject(t *testing.T) {
	r := row(t, "Event")
	ev := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "e"}, Message: "m", Reason: "r"}
	update(t, Write{Resource: r, Served: &r.Also[0], Manager: "new"}, nil, ev)
	expect(t, ev, `new/Update/: {"f:note":{},"f:reason":{}}`)
	next := ev.DeepCopy()
	next.Message = "n"
	update(t, Write{Resource: r, Manager: "old"}, ev, next)
	expect(t, next, `new/Update/: {"f:reason":{}}`, `old/Update/: {"f:message":{}}`)
}

// TestEveryKind makes sure that each has a schema.
func TestEveryKind(t *testing.T) {
	for _, r := range table.All() {
		if r.Key == "" {
			continue
		}
		subs := []string{""}
		if r.Status {
			subs = append(subs, "status")
		}
		for _, sub := range subs {
			w := Write{Resource: r, Manager: "m", Subresource: sub}
			obj := empty(r)
			obj.SetName("x")
			obj.SetLabels(map[string]string{"a": "b"})
			if err := managers.Update(w, nil, obj); err != nil {
				t.Errorf("%s: %v", r.Kind, err)
			}
			if sub == "" && !strings.Contains(entries(obj), `"f:labels":{".":{},"f:a":{}}`) {
				t.Errorf("%s: entries\n%s", r.Kind, entries(obj))
			}
		}
	}
}

func TestCustomResources(t *testing.T) {
	custom := &api.Resource{Group: "example.com", Version: "v1", Kind: "Thing", Plural: "things", Key: "example.com/things", Status: true, Custom: &api.Custom{},
		New: func() api.Object { return &unstructured.Unstructured{} }}
	w := Write{Resource: custom, Manager: "one"}
	out, err := managers.Apply(w, empty(custom), parse(t, `{apiVersion: example.com/v1, kind: Thing, metadata: {name: x}, spec: {a: 1, list: [1, 2]}, status: {b: 1}}`), false)
	if err != nil {
		t.Fatal(err)
	}
	out.SetUID("1")
	expect(t, out, `one/Apply/: {"f:spec":{".":{},"f:a":{},"f:list":{}}}`)
	next := out.DeepCopyObject().(*unstructured.Unstructured)
	next.Object["spec"].(map[string]any)["a"] = int64(2)
	update(t, Write{Resource: custom, Manager: "two"}, out, next)
	expect(t, next, `one/Apply/: {"f:spec":{".":{},"f:list":{}}}`, `two/Update/: {"f:spec":{"f:a":{}}}`)
}

// thing is a custom resource: what v1 calls size, v2 calls length. v1 is stored.
func thing() (v1, v2 *api.Resource) {
	row := func(version string) *api.Resource {
		return &api.Resource{
			Group: "two.example.com", Version: version, Kind: "Thing", Plural: "things", Key: "two.example.com/things",
			New: func() api.Object { return &unstructured.Unstructured{} },
			Scale: &api.Scale{Set: func(o api.Object, n int32) {
				_ = unstructured.SetNestedField(o.(*unstructured.Unstructured).Object, int64(n), "spec", "count", "wanted")
			}},
		}
	}
	convert := func(o api.Object, version, from, to string) api.Object {
		u := o.DeepCopyObject().(*unstructured.Unstructured)
		spec, _ := u.Object["spec"].(map[string]any)
		if v, ok := spec[from]; ok {
			delete(spec, from)
			spec[to] = v
		}
		u.SetAPIVersion("two.example.com/" + version)
		return u
	}
	v1, v2 = row("v1"), row("v2")
	v1.Custom = &api.Custom{
		Load: func(_ context.Context, objs []api.Object) ([]api.Object, error) { return objs, nil },
		Save: func(_ context.Context, o api.Object) (api.Object, error) { return o, nil },
	}
	v2.Custom = &api.Custom{
		Load: func(_ context.Context, objs []api.Object) ([]api.Object, error) {
			return []api.Object{convert(objs[0], "v2", "size", "length")}, nil
		},
		Save: func(_ context.Context, o api.Object) (api.Object, error) {
			return convert(o, "v1", "length", "size"), nil
		},
	}
	v1.Also = []api.Served{{Group: v1.Group, Version: "v2", Kind: "Thing", New: v2.New, Own: v2}}
	return v1, v2
}

func TestVersionsOfCustomResources(t *testing.T) {
	v1, v2 := thing()
	table.Add(v1)
	first, err := managers.Apply(Write{Resource: v1, Manager: "one"}, empty(v1), parse(t, `{apiVersion: two.example.com/v1, kind: Thing, metadata: {name: x}, spec: {size: 1, a: 1}}`), false)
	if err != nil {
		t.Fatal(err)
	}
	first.SetUID("1")
	seen, err := v2.Custom.Load(context.Background(), []api.Object{first})
	if err != nil {
		t.Fatal(err)
	}
	change := parse(t, `{apiVersion: two.example.com/v2, kind: Thing, metadata: {name: x}, spec: {length: 2}}`)
	if _, err := managers.Apply(Write{Resource: v2, Manager: "two"}, seen[0], change, false); !apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict) {
		t.Errorf("a conflict with another version's field is answered with %v", err)
	}
	second, err := managers.Apply(Write{Resource: v2, Manager: "two"}, seen[0], change, true)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, second, `one/Apply/: {"f:spec":{".":{},"f:a":{}}}`, `two/Apply/: {"f:spec":{".":{},"f:length":{}}}`)
	if path := replicasPath(v1).String(); path != ".spec.count.wanted" {
		t.Errorf("replicas are at %s", path)
	}
}

// Every stored kind has a schema that its fields can be tracked by.
func TestEveryKindIsTracked(t *testing.T) {
	for _, row := range api.NewTable().All() {
		if row.Key == "" {
			continue
		}
		obj := row.New()
		obj.GetObjectKind().SetGroupVersionKind(row.GVK())
		obj.SetName("a")
		obj.SetLabels(map[string]string{"a": "b"})
		if _, err := Types(row).ObjectToTyped(obj); err != nil {
			t.Errorf("%s: %v", row.Kind, err)
		}
	}
}
