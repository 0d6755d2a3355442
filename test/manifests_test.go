package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skiff.dev/skiff/test/cluster"
)

// forbidding is a policy from a file: nobody has an object of that name in these resources.
const forbidding = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: names.static.k8s.io}
spec:
  matchConstraints: {resourceRules: [{operations: [CREATE, DELETE], apiGroups: ["*"], apiVersions: ["*"], resources: [configmaps, validatingadmissionpolicies]}]}
  validations: [{expression: "request.name != '%[1]s'", message: nothing is called %[1]s}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: names.static.k8s.io}
spec: {policyName: names.static.k8s.io, validationActions: [Deny]}
`

// TestAdmissionManifests: policies from a folder hold from the first request on and when the folder changes, also over the API's own policies; a server does
// not start with what it cannot use, and keeps what it had when that comes later.
func TestAdmissionManifests(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	folder, conf := filepath.Join(dir, "policies"), filepath.Join(dir, "admission.yaml")
	put := func(text string) { // at once, as tools do that know better
		t.Helper()
		next := filepath.Join(dir, "next")
		if err := errors.Join(os.WriteFile(next, []byte(text), 0o600), os.Rename(next, filepath.Join(folder, "names.yaml"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(conf, fmt.Appendf(nil, `
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ValidatingAdmissionPolicy
  configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: ValidatingAdmissionPolicyConfiguration, staticManifestsDir: %q}
`, folder), 0o600)); err != nil {
		t.Fatal(err)
	}
	c := cluster.New(t, "--no-agent", "--no-scheduler", "--admission-control-config-file", conf)

	put(strings.Replace(fmt.Sprintf(forbidding, "red"), "request.name", "request.nam", 1))
	c.BeginServer()
	if err := c.Ended(); err == nil || !strings.Contains(c.Output(), "ValidatingAdmissionPolicy: staticManifestsDir: "+filepath.Join(folder, "names.yaml")+", document 1: ") ||
		!strings.Contains(c.Output(), "spec.validations[0].expression: Invalid value") {
		t.Fatalf("with a broken policy: %v\n%s", err, c.Output())
	}

	put(fmt.Sprintf(forbidding, "red"))
	c.Server()
	create := func(name string) (string, error) {
		return c.TryKubectl("create", "configmap", name, "--dry-run=server")
	}
	says := func(name, want string) error {
		if out, err := create(name); (err == nil) != (want == "") || !strings.Contains(out, want) {
			return fmt.Errorf("%s: %v, %s, want %q", name, err, out, want)
		}
		return nil
	}
	const denied = "ValidatingAdmissionPolicy 'names.static.k8s.io' with binding 'names.static.k8s.io' denied request: nothing is called "
	if err := errors.Join(says("red", denied+"red"), says("blue", "")); err != nil {
		t.Error(err)
	}
	if out := c.Kubectl("get", "validatingadmissionpolicies,validatingadmissionpolicybindings", "-A", "-o", "name"); strings.Contains(out, "names") {
		t.Errorf("the API shows %s", out)
	}
	ofAPI := strings.ReplaceAll(fmt.Sprintf(forbidding, "red"), "names.static.k8s.io", "red")
	if out, err := c.TryKubectl("create", "-f", write(t, ofAPI)); err == nil || !strings.Contains(out, denied+"red") {
		t.Errorf("a policy of the API's that the file forbids: %v, %s", err, out)
	}
	if out, err := c.TryKubectl("create", "-f", write(t, fmt.Sprintf(forbidding, "red"))); err == nil || !strings.Contains(out, "reserved for static manifest-based configurations") {
		t.Errorf("a name of the files': %v, %s", err, out)
	}

	put(fmt.Sprintf(forbidding, "blue"))
	cluster.Eventually(t, func() error { return errors.Join(says("blue", denied+"blue"), says("red", "")) })
	put("kind: [")
	cluster.Eventually(t, func() error {
		if out := c.Output(); !strings.Contains(out, "cannot be used; what it held before stays in force") || !strings.Contains(out, "names.yaml") {
			return errors.New("a broken manifest is not told of")
		}
		return nil
	})
	if err := errors.Join(says("blue", denied+"blue"), says("red", "")); err != nil {
		t.Error(err)
	}
}
