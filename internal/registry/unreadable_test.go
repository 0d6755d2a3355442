package registry_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// A server starts although what every cluster has cannot be read.
func TestStartOverUnreadable(t *testing.T) {
	r, ctx := registrytest.Start(t, nil, nil), context.Background()
	for _, one := range []struct{ key, group, plural, namespace, name string }{
		{"namespaces/kube-public", "", "namespaces", "", "kube-public"},
		{"priorityclasses/system-node-critical", "scheduling.k8s.io", "priorityclasses", "", "system-node-critical"},
		{"servicecidrs/kubernetes", "networking.k8s.io", "servicecidrs", "", "kubernetes"},
		{"services/specs/default/kubernetes", "", "services", "default", "kubernetes"},
	} {
		if gone, err := r.Etcd.Delete(ctx, "/registry/"+one.key); err != nil || gone.Deleted != 1 {
			t.Fatalf("%s: %v, %v", one.key, gone, err)
		}
		if _, err := r.Etcd.Put(ctx, "/registry/"+one.key, "k8s\x00garbage"); err != nil {
			t.Fatal(err)
		}
		q := r.Request(registrytest.Admin, one.group, one.plural, "", one.namespace, one.name)
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			_, err := r.Get(ctx, q, &metav1.GetOptions{})
			if apierrors.IsStoreReadError(err) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s can be read: %v", one.key, err)
			}
		}
	}
	again, err := registry.New(registry.Config{Store: r.Store(), Table: r.Table(), ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, NodePortRange: "30000-32767"})
	if err != nil {
		t.Fatal(err)
	}
	registrytest.Run(t, again)
}
