package dynamic

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// manifest is one in YAML's flow style.
func manifest(kind, name, more string) string {
	return fmt.Sprintf("{apiVersion: admissionregistration.k8s.io/v1, kind: %s, metadata: {name: %s}, %s}\n", kind, name, more)
}

const (
	policySpec  = `spec: {matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]}, validations: [{expression: "true"}]`
	bindingSpec = `spec: {policyName: a.static.k8s.io, validationActions: [Deny]`
	hook        = `webhooks: [{name: a.example.com, admissionReviewVersions: [v1], sideEffects: None, clientConfig: `
)

// TestManifestsAreRefused: the server does not start with what it cannot use, and says which field of which file that is.
func TestManifestsAreRefused(t *testing.T) {
	policy, binding, hooks := "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ValidatingWebhookConfiguration"
	good := manifest(policy, "a.static.k8s.io", policySpec+"}") + "---\n" + manifest(binding, "b.static.k8s.io", bindingSpec+"}")
	for _, c := range []struct{ name, plugin, content, want string }{
		{"a good one", policy, good, ""},
		{"nothing", policy, "# nothing\n---\n", ""},
		{"not YAML", policy, "a: [", "a.yaml, document 1: "},
		{"a field given twice", policy, "kind: a\nkind: b\n", `key "kind" already set`},
		{"another kind", policy, "apiVersion: v1\nkind: Pod\n", `a.yaml: it is a "Pod" of "v1"; files of ValidatingAdmissionPolicy hold ValidatingAdmissionPolicy and ValidatingAdmissionPolicyBinding of admissionregistration.k8s.io/v1`},
		{"another plug-in's kind", policy, manifest(hooks, "a.static.k8s.io", hook+"{url: 'https://a'}}]"), `it is a "ValidatingWebhookConfiguration"`},
		{"another version", policy, strings.ReplaceAll(good, "io/v1", "io/v1beta1"), `of "admissionregistration.k8s.io/v1beta1"`},
		{"a list's item", policy, "apiVersion: v1\nkind: List\nitems: [{}]\n", `items[0]: it is a "" of ""`},
		{"an unknown field", policy, manifest(policy, "a.static.k8s.io", policySpec+", colour: red}"), `ValidatingAdmissionPolicy a.static.k8s.io: unknown field "spec.colour"`},
		{"a field of another case", policy, manifest(policy, "a.static.k8s.io", strings.Replace(policySpec, "validations", "Validations", 1)+"}"), `unknown field "spec.Validations"`},
		{"no name", policy, manifest(policy, "''", policySpec+"}"), `metadata.name: Required value`},
		{"a name of the API's", policy, manifest(policy, "a", policySpec+"}"), `metadata.name: Invalid value: "a": must end with ".static.k8s.io"`},
		{"an expression", policy, manifest(policy, "a.static.k8s.io", strings.Replace(policySpec, `"true"`, `"tru"`, 1)+"}"), `spec.validations[0].expression: Invalid value: "tru"`},
		{"parameters", policy, manifest(policy, "a.static.k8s.io", policySpec+", paramKind: {apiVersion: v1, kind: ConfigMap}}"), `spec.paramKind: Forbidden`},
		{"a binding's parameters", policy, good + "---\n" + manifest(binding, "c.static.k8s.io", bindingSpec+", paramRef: {name: a, parameterNotFoundAction: Deny}}"), `a.yaml, document 3: ValidatingAdmissionPolicyBinding c.static.k8s.io: spec.paramRef: Forbidden`},
		{"a binding of nothing", policy, manifest(binding, "b.static.k8s.io", bindingSpec+"}"), `a.yaml: ValidatingAdmissionPolicyBinding b.static.k8s.io: spec.policyName: there is no ValidatingAdmissionPolicy "a.static.k8s.io" in this folder`},
		{"a name given twice", policy, good + "---\n" + good, `a.yaml, document 3: ValidatingAdmissionPolicy a.static.k8s.io is in ` + "%s" + `, document 1 already`},
		{"a webhook", "ValidatingAdmissionWebhook", manifest(hooks, "a.static.k8s.io", hook+"{url: 'https://a'}}]"), ""},
		{"a service", "ValidatingAdmissionWebhook", manifest(hooks, "a.static.k8s.io", hook+"{service: {namespace: a, name: b}}}]"), `webhooks[0].clientConfig.service: Forbidden`},
		{"a mutating webhook's service", "MutatingAdmissionWebhook", manifest("MutatingWebhookConfiguration", "a.static.k8s.io", hook+"{service: {namespace: a, name: b}}}]"), `webhooks[0].clientConfig.service: Forbidden`},
		{"a webhook without an address", "ValidatingAdmissionWebhook", manifest(hooks, "a.static.k8s.io", hook+"{}}]"), `webhooks[0].clientConfig: Required value: exactly one of url or service`},
		{"a mutating policy's parameters", "MutatingAdmissionPolicy", manifest("MutatingAdmissionPolicy", "a.static.k8s.io", "spec: {paramKind: {apiVersion: v1, kind: ConfigMap}}"), `spec.paramKind: Forbidden`},
	} {
		t.Run(c.name, func(t *testing.T) {
			folder := t.TempDir()
			for name, text := range map[string]string{"a.yaml": c.content, "notes.txt": "no manifest", "empty.json": ""} {
				if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Mkdir(filepath.Join(folder, "b.yaml"), 0o755); err != nil {
				t.Fatal(err)
			}
			err := New().openFolder(c.plugin, folder)
			want := strings.Replace(c.want, "%s", filepath.Join(folder, "a.yaml"), 1)
			switch {
			case want == "" && err != nil:
				t.Error(err)
			case want != "" && (err == nil || !strings.HasPrefix(err.Error(), "staticManifestsDir: ") || !strings.Contains(err.Error(), want)):
				t.Errorf("%v, want %s", err, want)
			}
		})
	}
}
