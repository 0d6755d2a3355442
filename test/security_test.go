package test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skiff.dev/skiff/test/cluster"
)

// TestSecurity: with no settings secrets are encrypted on disk; with a policy requests are recorded; what API servers behind this one need is published.
func TestSecurity(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	policy, tokens, events := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "tokens.csv"), filepath.Join(dir, "audit.log")
	for name, text := range map[string]string{
		policy: "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata, resources: [{group: '', resources: [secrets]}]}]\n",
		tokens: "let-me-in,alice,u-1\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := cluster.New(t, "--no-agent", "--no-scheduler", "--audit-policy-file", policy, "--audit-log-path", events, "--token-auth-file", tokens)
	c.Server()
	c.Kubectl("create", "secret", "generic", "s", "--from-literal=password=correct-horse-battery")
	c.Kubectl("create", "configmap", "c", "--from-literal=plain=visible-on-disk")
	if out := c.Kubectl("get", "apiservices"); !strings.Contains(out, "v1.apps") || !strings.Contains(out, "Local") {
		t.Error(out)
	}
	if out := c.Kubectl("get", "flowschemas"); !strings.Contains(out, "catch-all") {
		t.Error(out)
	}
	if out := c.Kubectl("get", "configmap", "-n", "kube-system", "extension-apiserver-authentication", "-o", "yaml"); !strings.Contains(out, "front-proxy-client") {
		t.Error(out)
	}
	outsider := rest.AnonymousClientConfig(c.RESTConfig())
	outsider.BearerToken = "let-me-in"
	who, err := kubernetes.NewForConfigOrDie(outsider).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || who.Status.UserInfo.Username != "alice" {
		t.Errorf("%v, %v", who, err)
	}
	c.Stop()
	c.Server() // the key of the first start reads what it wrote
	if out := c.Kubectl("get", "secret", "s", "-o", "jsonpath={.data.password}"); out != "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5" {
		t.Errorf("the secret is %q after a restart", out)
	}
	c.Stop()
	if !onDisk(t, c.DataDir, "visible-on-disk") {
		t.Error("the ConfigMap is not found on disk: this test looks in the wrong place")
	}
	if onDisk(t, c.DataDir, "correct-horse-battery") {
		t.Error("the secret is on disk for everybody to read")
	}
	if st, err := os.Stat(filepath.Join(c.DataDir, "pki", "encryption.yaml")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", st, err)
	}
	raw, err := os.ReadFile(events)
	if err != nil || !bytes.Contains(raw, []byte(`"verb":"create"`)) || bytes.Contains(raw, []byte("correct-horse")) || bytes.Contains(raw, []byte(`"resource":"configmaps"`)) {
		t.Errorf("the audit log: %v\n%.2000s", err, raw)
	}
}

// onDisk looks for text in all files below etcd's folder.
func onDisk(t *testing.T, dir, text string) (found bool) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "etcd"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		found = found || bytes.Contains(raw, []byte(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
