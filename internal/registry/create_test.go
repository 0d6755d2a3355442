package registry_test

import (
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry/registrytest"
)

func TestCreateGivesSystemMetadata(t *testing.T) {
	f := start(t)
	past := metav1.NewTime(time.Now().Add(-time.Hour))
	n := int64(9)
	p := registrytest.Pod("p", func(p *corev1.Pod) {
		p.UID, p.CreationTimestamp, p.DeletionTimestamp, p.DeletionGracePeriodSeconds, p.Generation, p.SelfLink = "mine", past, &past, &n, 9, "/p"
		p.Status.Phase = corev1.PodRunning
	})
	got := create(f, p)
	switch {
	case got.UID == "" || got.UID == types.UID("mine"), got.CreationTimestamp.Equal(&past), time.Since(got.CreationTimestamp.Time) > time.Minute:
		t.Errorf("identity: %+v", got.ObjectMeta)
	case got.DeletionTimestamp != nil, got.DeletionGracePeriodSeconds != nil, got.SelfLink != "":
		t.Errorf("what a client may not say was taken over: %+v", got.ObjectMeta)
	case got.Generation != 1, got.Status.Phase != corev1.PodPending, got.Status.QOSClass != corev1.PodQOSBestEffort:
		t.Errorf("generation %d, status %+v", got.Generation, got.Status)
	case got.ResourceVersion == "", got.Kind != "Pod", got.APIVersion != "v1", got.Spec.RestartPolicy != "Always":
		t.Errorf("%+v", got)
	}
	if stored, _ := read(f, p); stored.ResourceVersion != got.ResourceVersion || stored.UID != got.UID {
		t.Error("what was returned is not what was stored")
	}
	// A node comes with its status.
	node := create(f, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{KubeletVersion: "v1"}}})
	if node.Status.NodeInfo.KubeletVersion != "v1" {
		t.Error("a node's status was dropped")
	}
}

func TestCreateRefuses(t *testing.T) {
	f := start(t)
	f.Must(configMap("there"))
	long := make([]byte, 300)
	for i := range long {
		long[i] = 'x'
	}
	cases := map[string]struct {
		obj  api.Object
		code int32
		text string
	}{
		"what is there":                         {configMap("there"), 409, `configmaps "there" already exists`},
		"a name of nothing":                     {configMap(""), 422, `ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required`},
		"a bad name":                            {configMap("A_b"), 422, "metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain"},
		"a long name":                           {configMap(string(long)), 422, "must be no more than 253"},
		"a way out":                             {configMap("../a"), 422, "metadata.name"},
		"a dot":                                 {configMap("."), 422, "metadata.name"},
		"a namespaced kind's name with a slash": {configMap("a/b"), 422, "metadata.name"},
		"a bad label": {&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", Labels: map[string]string{"a b": "c"}}}, 422,
			"metadata.labels: Invalid value: \"a b\""},
		"a bad annotation": {&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", Annotations: map[string]string{"a b": "c"}}}, 422,
			"metadata.annotations: Invalid value: \"a b\""},
		"an owner without a name": {&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", OwnerReferences: []metav1.OwnerReference{{}}}}, 422,
			"metadata.ownerReferences"},
		"a resourceVersion":   {&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", ResourceVersion: "7"}}, 400, "resourceVersion should not be set"},
		"a namespaced node":   {&corev1.Node{ObjectMeta: meta("n")}, 422, "metadata.namespace: Forbidden: not allowed on this type"},
		"a namespace's label": {&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a.b"}}, 422, "must not contain dots"},
		"a service's label": {&corev1.Service{ObjectMeta: meta("a.b"), Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}, 422,
			"must not contain dots"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := f.Create(registrytest.Admin, c.obj)
			refused(t, err, c.code, c.text)
		})
	}
	t.Run("another namespace", func(t *testing.T) {
		q := f.Request(registrytest.Admin, "", "configmaps", "", "kube-system", "")
		_, err := f.Registry.Registry.Create(ctx, q, configMap("a"), &metav1.CreateOptions{})
		refused(t, err, 400, "the namespace of the provided object does not match the namespace sent on the request")
	})
}

func TestGenerateName(t *testing.T) {
	f := start(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	names := map[string]bool{}
	for range 40 {
		wg.Go(func() {
			out, err := f.Create(registrytest.Admin, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", GenerateName: "web-"}})
			mu.Lock()
			defer mu.Unlock()
			if err != nil || names[out.GetName()] || len(out.GetName()) != len("web-")+5 || out.GetGenerateName() != "web-" {
				t.Errorf("%v, %v", out, err)
				return
			}
			names[out.GetName()] = true
		})
	}
	wg.Wait()
	long := "a23456789-123456789-123456789-123456789-123456789-123456789-123456789-"
	if got := create(f, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", GenerateName: long}}); got.Name[:58] != long[:58] || len(got.Name) != 63 {
		t.Errorf("a long base became %s", got.Name)
	}
	_, err := f.Create(registrytest.Admin, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", GenerateName: "A_"}})
	refused(t, err, 422, "metadata.generateName")
}

func TestDryRunChangesNothing(t *testing.T) {
	f := start(t)
	all := []string{metav1.DryRunAll}
	there := create(f, configMap("there", "a", "1"))
	q := f.Request(registrytest.Admin, "", "configmaps", "", "default", "")

	res, err := f.Registry.Registry.Create(ctx, q, configMap("new"), &metav1.CreateOptions{DryRun: all})
	if err != nil || res.Object.(*corev1.ConfigMap).UID == "" {
		t.Errorf("create: %v", err)
	}
	if _, found := read(f, configMap("new")); found {
		t.Error("a dry run created")
	}
	_, err = f.Registry.Registry.Create(ctx, q, configMap("there"), &metav1.CreateOptions{DryRun: all})
	refused(t, err, 409, "already exists")
	_, err = f.Registry.Registry.Create(ctx, q, configMap("new"), &metav1.CreateOptions{DryRun: []string{"Some"}})
	refused(t, err, 422, `dryRun: Unsupported value: ["Some"]: supported values: "All"`)

	q = f.About(registrytest.Admin, there, "")
	next := there.DeepCopy()
	next.Data["a"] = "2"
	res, err = f.Registry.Registry.Update(ctx, q, next, &metav1.UpdateOptions{DryRun: all})
	if err != nil || res.Object.(*corev1.ConfigMap).Data["a"] != "2" {
		t.Errorf("update: %v, %v", res, err)
	}
	res, err = f.Patch(ctx, q, types.MergePatchType, []byte(`{"data":{"a":"3"}}`), &metav1.PatchOptions{DryRun: all})
	if err != nil || res.Object.(*corev1.ConfigMap).Data["a"] != "3" {
		t.Errorf("patch: %v, %v", res, err)
	}
	if res, err = f.Registry.Registry.Delete(ctx, q, &metav1.DeleteOptions{DryRun: all}); err != nil || !res.Deleted {
		t.Errorf("delete: %v, %v", res, err)
	}
	if now, found := read(f, there); !found || now.Data["a"] != "1" || now.ResourceVersion != there.ResourceVersion {
		t.Errorf("dry runs changed it: %v, %+v", found, now)
	}
}
