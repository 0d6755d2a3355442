package storageversionmigrator

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	migrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// A migration stores every object anew and says so; one of a resource that isn't there fails, for good, once it is a minute old. Until then nothing is
// written of it, and its resource may come.
func TestMigration(t *testing.T) {
	r := registrytest.Start(t, nil, nil)
	log := slog.New(slog.DiscardHandler)
	c := client.Local(r.Registry, registrytest.Admin, log)
	ctx, cancel := context.WithCancel(context.Background())
	ran, worked := make(chan error, 1), make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	var later atomic.Int64 // how far the controller's clock is ahead
	m := &reconciler{
		client: c, kinds: r.Table(), rewrite: r.Rewrite, waiting: map[harness.Key]struct{}{},
		now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) },
	}
	loop := m.controller()
	loop.Name = "migrator"
	go func() { worked <- harness.Run(ctx, loop, c, harness.NewMetrics(nil), log, func() {}) }()
	t.Cleanup(func() { cancel(); <-worked; <-ran })

	r.Must(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}, Data: map[string]string{"k": "v"}})
	key, before, after := crclient.ObjectKey{Namespace: "default", Name: "a"}, corev1.ConfigMap{}, corev1.ConfigMap{}
	if err := c.Live().Get(ctx, key, &before); err != nil {
		t.Fatal(err)
	}
	ask := func(name, group, resource string) {
		m := &migrationv1.StorageVersionMigration{ObjectMeta: metav1.ObjectMeta{Name: name}}
		m.Spec.Resource.Group, m.Spec.Resource.Resource = group, resource
		r.Must(m) // it is the registry's from here on
	}
	read := func(name string) (m migrationv1.StorageVersionMigration) {
		if err := c.Live().Get(ctx, crclient.ObjectKey{Name: name}, &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	end := func(name string) migrationv1.StorageVersionMigrationStatus {
		clienttest.Eventually(t, "the migration's end", func() bool { return ended(read(name).Status.Conditions) })
		return read(name).Status
	}
	ask("good", "", "configmaps")
	status := end("good")
	if !meta.IsStatusConditionTrue(status.Conditions, "Succeeded") || !meta.IsStatusConditionFalse(status.Conditions, "Running") || status.ResourceVersion == "" {
		t.Errorf("%+v", status)
	}
	if err := c.Live().Get(ctx, key, &after); err != nil || after.ResourceVersion == before.ResourceVersion || after.UID != before.UID || after.Data["k"] != "v" {
		t.Errorf("%v: before %s, after %+v", err, before.ResourceVersion, after)
	}
	waits := func(name string) {
		clienttest.Eventually(t, name+" to wait", func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			_, waits := m.waiting[harness.Key{Name: name}]
			return waits
		})
		if m := read(name); len(m.Status.Conditions) > 0 || m.Status.ResourceVersion != "" {
			t.Errorf("%s, of a resource that may come: %+v", name, m.Status)
		}
	}
	ask("bad", "", "dragons")
	waits("bad")
	ask("early", "sea.example.com", "boats")
	waits("early")
	row := boats()
	r.Store().Collection(row)
	r.Table().Add(row)
	if status := end("early"); !meta.IsStatusConditionTrue(status.Conditions, "Succeeded") {
		t.Errorf("its resource has come: %+v", status)
	}
	later.Store(int64(patience))
	m.wake(harness.Key{Name: "bad"})
	if status := end("bad"); !meta.IsStatusConditionTrue(status.Conditions, "Failed") {
		t.Errorf("%+v", status)
	}
}

// boats is the row of a definition that comes later.
func boats() *api.Resource {
	return &api.Resource{
		Group: "sea.example.com", Version: "v1", Kind: "Boat", Plural: "boats", Singular: "boat", Key: "sea.example.com/boats", Verbs: []string{"get", "list"},
		New:     func() api.Object { return &unstructured.Unstructured{} },
		NewList: func() runtime.Object { return &unstructured.UnstructuredList{} },
		Custom:  &api.Custom{Definition: "d", Load: func(_ context.Context, stored []api.Object) ([]api.Object, error) { return stored, nil }},
	}
}
