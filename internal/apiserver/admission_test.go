package apiserver_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/registry"
)

// Who gives an object an owner must be allowed to delete it; who holds an owner's deletion up, to set the owner's finalizers.
func TestOwnerReferencesNeedPermission(t *testing.T) {
	f := startOver(t, func(c *registry.Config, a func() *authz.Authorizer) {
		c.Validate = append(c.Validate, func(ctx context.Context, at *registry.Attributes) error { return a().OwnerReferences(ctx, at) })
	})
	owner, err := f.clientset().CoreV1().ConfigMaps("default").Create(ctx, configMap("owner", "k", "v"), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	maps := func(user string, verbs ...string) (make func(name string, block *bool) error) {
		f.allow(user, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: verbs})
		f.soon(f.client(user), "GET "+configMaps, http.StatusOK)
		c, err := kubernetes.NewForConfig(f.configOf(user))
		if err != nil {
			t.Fatal(err)
		}
		return func(name string, block *bool) error {
			owned := configMap(name, "k", "v")
			owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID, BlockOwnerDeletion: block}}
			_, err := c.CoreV1().ConfigMaps("default").Create(ctx, owned, metav1.CreateOptions{})
			return err
		}
	}
	yes := true
	if err := maps("maker", "list", "create")("a", nil); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "cannot set an ownerRef on a resource you can't delete") {
		t.Errorf("who may not delete: %v", err)
	}
	deleter := maps("deleter", "list", "create", "delete")
	if err := deleter("b", nil); err != nil {
		t.Errorf("who may delete: %v", err)
	}
	if err := deleter("c", &yes); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on") {
		t.Errorf("who may not set finalizers: %v", err)
	}
	if _, err := f.clientset().CoreV1().ConfigMaps("default").Patch(ctx, "b", types.MergePatchType,
		[]byte(`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"owner","uid":"`+string(owner.UID)+`","blockOwnerDeletion":true}]}}`), metav1.PatchOptions{}); err != nil {
		t.Errorf("who may everything: %v", err)
	}
}

func TestFiguresOfWebhooks(t *testing.T) {
	f := start(t, func(c *apiserver.Config) { c.Metrics = prometheus.NewRegistry() })
	h := hooksFor(f)
	h.configure("Validating", "figures", "/hang", configMapRule, ", timeoutSeconds: 1, failurePolicy: Ignore")
	f.ask("POST "+configMaps, configMapText("one")).ok(http.StatusCreated)
	body := f.ask("GET /metrics", "").ok(http.StatusOK).body
	for _, want := range []string{"apiserver_admission_webhook_fail_open_count{", "apiserver_admission_webhook_admission_duration_seconds_count{"} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %s in /metrics", want)
		}
	}
}

func TestApplyNamesUnknownFields(t *testing.T) {
	c := start(t).clientset()
	_, err := c.CoreV1().ConfigMaps("default").Patch(ctx, "a", types.ApplyPatchType, []byte("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, dta: {}}"),
		metav1.PatchOptions{FieldManager: "me"})
	if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), ".dta: field not declared in schema") {
		t.Fatalf("got %v", err)
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, cause := range status.Status().Details.Causes {
		named[cause.Field] = true
	}
	if !named["dta"] {
		t.Errorf("%v; causes: %+v", err, status.Status().Details.Causes)
	}
}
