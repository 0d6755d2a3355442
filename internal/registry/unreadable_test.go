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
	const key = "/registry/namespaces/kube-public"
	if _, err := r.Etcd.Delete(ctx, key); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Etcd.Put(ctx, key, "k8s\x00garbage"); err != nil {
		t.Fatal(err)
	}
	q := r.Request(registrytest.Admin, "", "namespaces", "", "", "kube-public")
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := r.Get(ctx, q, &metav1.GetOptions{})
		if apierrors.IsStoreReadError(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it can be read: %v", err)
		}
	}
	again, err := registry.New(registry.Config{Store: r.Store(), Table: r.Table(), ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, NodePortRange: "30000-32767"})
	if err != nil {
		t.Fatal(err)
	}
	registrytest.Run(t, again)
}
