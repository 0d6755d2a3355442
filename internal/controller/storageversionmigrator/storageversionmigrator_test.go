package storageversionmigrator_test

import (
	"context"
	"log/slog"
	"testing"

	corev1 "k8s.io/api/core/v1"
	migrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/storageversionmigrator"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// A migration stores every object anew and says so; one of a resource that isn't there fails, for good.
func TestMigration(t *testing.T) {
	r := registrytest.Start(t, nil, nil)
	log := slog.New(slog.DiscardHandler)
	c := client.Local(r.Registry, registrytest.Admin, log)
	ctx, cancel := context.WithCancel(context.Background())
	ran, worked := make(chan error, 1), make(chan error, 1)
	go func() { ran <- c.Run(ctx) }()
	loop := storageversionmigrator.New(c, r.Rewrite)
	loop.Name = "migrator"
	go func() { worked <- harness.Run(ctx, loop, c, harness.NewMetrics(nil), log, func() {}) }()
	t.Cleanup(func() { cancel(); <-worked; <-ran })

	r.Must(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}, Data: map[string]string{"k": "v"}})
	key, before, after := crclient.ObjectKey{Namespace: "default", Name: "a"}, corev1.ConfigMap{}, corev1.ConfigMap{}
	if err := c.Live().Get(ctx, key, &before); err != nil {
		t.Fatal(err)
	}
	ask := func(name, resource string) migrationv1.StorageVersionMigrationStatus {
		m := &migrationv1.StorageVersionMigration{ObjectMeta: metav1.ObjectMeta{Name: name}}
		m.Spec.Resource.Resource = resource
		r.Must(m) // it is the registry's from here on
		m = &migrationv1.StorageVersionMigration{}
		clienttest.Eventually(t, "the migration's end", func() bool {
			return c.Live().Get(ctx, crclient.ObjectKey{Name: name}, m) == nil && (meta.IsStatusConditionTrue(m.Status.Conditions, "Succeeded") ||
				meta.IsStatusConditionTrue(m.Status.Conditions, "Failed"))
		})
		return m.Status
	}
	status := ask("good", "configmaps")
	if !meta.IsStatusConditionTrue(status.Conditions, "Succeeded") || !meta.IsStatusConditionFalse(status.Conditions, "Running") || status.ResourceVersion == "" {
		t.Errorf("%+v", status)
	}
	if err := c.Live().Get(ctx, key, &after); err != nil || after.ResourceVersion == before.ResourceVersion || after.UID != before.UID || after.Data["k"] != "v" {
		t.Errorf("%v: before %s, after %+v", err, before.ResourceVersion, after)
	}
	if status := ask("bad", "dragons"); !meta.IsStatusConditionTrue(status.Conditions, "Failed") {
		t.Errorf("%+v", status)
	}
}
