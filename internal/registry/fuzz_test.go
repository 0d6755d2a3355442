package registry_test

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// FuzzList feeds tokens, revisions and selectors to lists. Whatever they say, the answer is a page or the client's fault.
func FuzzList(f *testing.F) {
	r := registrytest.Start(f, nil, nil)
	r.Must(configMap("a"), configMap("b"), registrytest.Pod("p", func(p *corev1.Pod) { p.Spec.NodeName = "n" }))
	page, err := r.List(ctx, r.Request(registrytest.Admin, "", "configmaps", "", "default", ""), &metainternalversion.ListOptions{Limit: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(page.Continue, "", "", "", int64(1))
	f.Add("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiLi4vIn0", "", "", "", int64(1))
	f.Add("", "0", "metadata.name=a,metadata.namespace!=b", "a in (b,c),!d", int64(0))
	f.Add("", "1", "spec.nodeName=n", "", int64(2))
	f.Add("", "-1", `a\=b=c\,`, "a", int64(-1))
	f.Fuzz(func(t *testing.T, token, revision, field, label string, limit int64) {
		o := &metainternalversion.ListOptions{Continue: token, Limit: limit}
		if len(revision) < 2 { // later ones are waited for
			o.ResourceVersion = revision
		}
		var err error
		if o.FieldSelector, err = fields.ParseSelector(field); err != nil {
			return
		}
		if o.LabelSelector, err = labels.Parse(label); err != nil {
			return
		}
		for _, plural := range []string{"configmaps", "pods"} {
			page, err := r.List(ctx, r.Request(registrytest.Admin, "", plural, "", "default", ""), o)
			switch {
			case err == nil && page == nil:
				t.Fatal("neither a page nor an error")
			case err != nil && !apierrors.IsBadRequest(err) && !apierrors.IsInvalid(err) && !apierrors.IsResourceExpired(err) && !apierrors.IsTimeout(err):
				t.Fatal(err)
			case err == nil && limit > 0 && int64(len(page.Entries)) > limit:
				t.Fatalf("%d entries where %d were asked for", len(page.Entries), limit)
			}
		}
	})
}

var patchTypes = []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyYAMLPatchType}

// FuzzPatch feeds patches of each type to objects. An outcome is what a client did wrong, or an object that its rules allow.
func FuzzPatch(f *testing.F) {
	r := registrytest.Start(f, nil, nil)
	deployment := workload("d")
	deployment.Spec.Template.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "2"}}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	objects := []api.Object{configMap("a", "k", "v"), deployment, registrytest.Pod("p"), service}
	r.Must(objects...)
	for i, kind := range []string{"v1 ConfigMap a", "apps/v1 Deployment d", "v1 Pod p", "v1 Service s"} {
		which := uint8(i)
		var version, name string
		_, _ = fmt.Sscanf(kind, "%s %s %s", &version, &kind, &name)
		f.Add(which, uint8(0), []byte(`[{"op":"add","path":"/metadata/labels","value":{"a":"b"}},{"op":"copy","from":"/metadata","path":"/metadata/labels/~1x"}]`))
		f.Add(which, uint8(0), []byte(`[{"op":"move","from":"/spec/ports/0","path":"/spec/ports/-"},{"op":"test","path":"","value":null},{"op":"remove","path":"/data/k"}]`))
		f.Add(which, uint8(0), []byte(`[{"op":"test","path":"/spec/ports","value":[null]}]`))
		f.Add(which, uint8(1), []byte(`{"metadata":{"labels":{"a":null},"finalizers":["x/y"]},"data":{"k":null},"spec":null}`))
		f.Add(which, uint8(2), []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"A","$patch":"delete"},{"$retainKeys":["x"]}],"$setElementOrder/env":[{"name":"B"}]}]}}}}`))
		f.Add(which, uint8(2), []byte(`{"$patch":"replace","metadata":{"$deleteFromPrimitiveList/finalizers":["x"]},"spec":{"ports":[{"$patch":"merge"}]}}`))
		f.Add(which, uint8(3), fmt.Appendf(nil, "apiVersion: %s\nkind: %s\nmetadata: {name: %s, labels: {a: b}}\nspec: {ports: [{port: 80}, {port: 80}]}\n", version, kind, name))
	}
	yes := true
	about := make([]*registry.Request, len(objects))
	for i, o := range objects {
		about[i] = r.About(registrytest.Admin, o, "")
	}
	f.Fuzz(func(t *testing.T, which, how uint8, body []byte) {
		kind := patchTypes[int(how)%len(patchTypes)]
		o := &metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}, FieldManager: "m"}
		if kind == types.ApplyYAMLPatchType {
			o.Force = &yes
		}
		q := *about[int(which)%len(about)]
		_, err := r.Patch(ctx, &q, kind, body, o)
		if err != nil && strings.HasPrefix(err.Error(), "failed to create typed patch object") {
			return // upstream has no reason for it, and neither has Skiff (fieldmanager)
		}
		registrytest.ClientsFault(t, err)
	})
}

// FuzzManagedFields feeds sets of field paths to an object that is then applied to.
func FuzzManagedFields(f *testing.F) {
	r := registrytest.Start(f, nil, nil)
	r.Must(workload("d"))
	for _, s := range []string{
		`{"f:spec":{"f:replicas":{}}}`, `{"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{}}}}}}}`, `{"v:1":{}}`, `{"i:0":{}}`, `{"k:{":{}}`,
		`{"x:":{}}`, `{".":{}}`, `{}`, `null`, `[]`, `{"f:metadata":{"f:finalizers":{"v:\"a\"":{}}}}`, `{"f:":{"f:":{}}}`,
	} {
		f.Add([]byte(s), "m", "apps/v1", "Apply", "")
	}
	f.Add([]byte(`{"f:spec":{}}`), "m", "nonsense/v9", "Update", "status")
	about := r.About(registrytest.Admin, workload("d"), "")
	const applied = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 2}\n"
	f.Fuzz(func(t *testing.T, set []byte, manager, version, operation, sub string) {
		var any map[string]any
		if json.Unmarshal(set, &any) != nil {
			return // a body with such an entry isn't decoded
		}
		q := *about
		e, err := r.Get(ctx, &q, &metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		d := e.Object.DeepCopyObject().(*appsv1.Deployment)
		d.ManagedFields = []metav1.ManagedFieldsEntry{{
			Manager: manager, APIVersion: version, Operation: metav1.ManagedFieldsOperationType(operation), Subresource: sub, FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: set},
		}}
		err = r.Update(registrytest.Admin, d, "")
		registrytest.ClientsFault(t, err)
		_, err = r.Patch(ctx, &q, types.ApplyYAMLPatchType, []byte(applied), &metav1.PatchOptions{FieldManager: "m", DryRun: []string{metav1.DryRunAll}})
		registrytest.ClientsFault(t, err)
	})
}
