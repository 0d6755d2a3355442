package apiserver_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"

	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/apiserver/admission/dynamic"
	"skiff.dev/skiff/internal/logtest"
)

// startManifests starts a server with webhooks and policies from folders, by plug-in.
func startManifests(t *testing.T, log *logtest.Log, folders map[string]string) *fixture {
	t.Helper()
	d := dynamic.New()
	for plugin, folder := range folders {
		kind := plugin + "Configuration"
		if strings.HasSuffix(plugin, "Webhook") {
			kind = "WebhookAdmissionConfiguration"
		}
		if err := d.Configure()[plugin](fmt.Appendf(nil, `{"apiVersion":"apiserver.config.k8s.io/v1","kind":%q,"staticManifestsDir":%q}`, kind, folder)); err != nil {
			t.Fatal(err)
		}
	}
	return startAsking(t, d, nil, func(c *apiserver.Config) {
		c.Log = slog.New(slog.NewTextHandler(log, nil))
		c.Follow = d.Follow(c.Metrics, c.Log)
	})
}

// staticPolicy is a policy from a file, and its binding; spec is what it decides or does, bound more of the binding, in YAML's flow style.
func staticPolicy(kind, name, rule, spec, bound string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: List
items:
- apiVersion: admissionregistration.k8s.io/v1
  kind: %[1]sAdmissionPolicy
  metadata: {name: %[2]s.static.k8s.io}
  spec: {matchConstraints: {resourceRules: [%[3]s]}, %[4]s}
- apiVersion: admissionregistration.k8s.io/v1
  kind: %[1]sAdmissionPolicyBinding
  metadata: {name: %[2]s-everywhere.static.k8s.io}
  spec: {policyName: %[2]s.static.k8s.io%[5]s}
`, kind, name, rule, spec, bound)
}

// admissionRule is everything that can be done to the API's webhooks and policies.
const admissionRule = `{operations: ["*"], apiGroups: [admissionregistration.k8s.io], apiVersions: ["*"], resources: ["*"]}`

func forbids(word string) string {
	return staticPolicy("Validating", "words", configMapRule, `validations: [{expression: "!('`+word+`' in object.data)", message: `+word+` is forbidden}]`, ", validationActions: [Deny]")
}

// What a folder holds is in force from the first request on, and when it changes; what is broken changes nothing, is told once and counted.
func TestManifestsAreReadAgain(t *testing.T) {
	folder, log := t.TempDir(), &logtest.Log{}
	path := filepath.Join(folder, "words.yaml")
	replace(t, path, forbids("red"))
	f := startManifests(t, log, map[string]string{"ValidatingAdmissionPolicy": folder})
	asks := func(word string) int {
		return f.ask("POST "+configMaps+"?dryRun=All", configMapText("one", word, "b")).code
	}
	f.ask("POST "+configMaps, configMapText("one", "red", "b")).mustSay(http.StatusUnprocessableEntity,
		`ValidatingAdmissionPolicy 'words.static.k8s.io' with binding 'words-everywhere.static.k8s.io' denied request: red is forbidden`)
	if got := asks("blue"); got != http.StatusCreated {
		t.Fatalf("what is not forbidden: %d", got)
	}
	for _, list := range []string{"validatingadmissionpolicies", "validatingadmissionpolicybindings"} {
		if got := f.ask("GET "+registration+list, "").ok(http.StatusOK); strings.Contains(string(got.body), "words") {
			t.Errorf("the API shows what comes from a file: %s", got.body)
		}
	}
	replace(t, path, forbids("blue"))
	soonTrue(t, "another content", func() bool {
		return asks("blue") == http.StatusUnprocessableEntity && asks("red") == http.StatusCreated
	})

	const metric, complaint = "apiserver_manifest_admission_config_controller", "cannot be used; what it held before stays in force"
	after := func(prefix string) string {
		for line := range strings.Lines(f.figures()) {
			if rest, is := strings.CutPrefix(line, metric+prefix); is {
				return rest
			}
		}
		return ""
	}
	const failures, inForce = `_automatic_reloads_total{plugin="ValidatingAdmissionPolicy",status="failure"} `, `_last_config_info{hash="sha256:`
	hash := after(inForce)
	if !strings.HasSuffix(hash, `",plugin="ValidatingAdmissionPolicy"} 1`+"\n") {
		t.Errorf("the hash of what is in force: %q", hash)
	}
	for _, broken := range []struct{ name, content, says string }{
		{"not YAML", "a: [", path},
		{"an expression", strings.Replace(forbids("red"), "object.data", "object.", 1), "spec.validations[0].expression"},
		{"another's kind", strings.ReplaceAll(forbids("red"), "Validating", "Mutating"), "files of ValidatingAdmissionPolicy hold ValidatingAdmissionPolicy and ValidatingAdmissionPolicyBinding"},
	} {
		before, told := after(failures), strings.Count(log.String(), complaint)
		replace(t, path, broken.content)
		soonTrue(t, broken.name+": counted", func() bool { return after(failures) != before })
		if n := strings.Count(log.String(), complaint) - told; n != 1 || !strings.Contains(log.String(), "staticManifestsDir of ValidatingAdmissionPolicy") || !strings.Contains(log.String(), broken.says) {
			t.Errorf("%s: told %d times: %s", broken.name, n, log)
		}
		if asks("blue") != http.StatusUnprocessableEntity || asks("red") != http.StatusCreated || after(inForce) != hash {
			t.Errorf("%s: what was there before is not in force", broken.name)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	soonTrue(t, "no file", func() bool { return asks("blue") == http.StatusCreated })
	soonTrue(t, "the hash of what is in force changes", func() bool { return after(inForce) != hash })
}

// Files guard the API's own webhooks and policies, which nothing of the API does; and their names are theirs alone.
func TestManifestsGuardAdmission(t *testing.T) {
	policies, hooks, log := t.TempDir(), t.TempDir(), &logtest.Log{}
	replace(t, filepath.Join(policies, "guard.yaml"), staticPolicy("Validating", "guard", admissionRule,
		`validations: [{expression: "!(request.name.startsWith('kept') && request.operation == 'DELETE')", message: it is kept}]`, ", validationActions: [Deny]"))
	f := startManifests(t, log, map[string]string{"ValidatingAdmissionPolicy": policies, "ValidatingAdmissionWebhook": hooks})
	h := hooksFor(f)
	h.on("/static", func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
		if strings.HasPrefix(r.Name, "never") {
			return denied("the file says no")
		}
		return &admissionv1.AdmissionResponse{Allowed: true}
	})
	replace(t, filepath.Join(hooks, "all.json"), fmt.Sprintf(`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingWebhookConfiguration",
		"metadata":{"name":"all.static.k8s.io"},"webhooks":[{"name":"all.example.com","admissionReviewVersions":["v1"],"sideEffects":"None",
		"clientConfig":{"url":"%s/static","caBundle":%q},"rules":[{"operations":["CREATE"],"apiGroups":["","admissionregistration.k8s.io"],"apiVersions":["*"],"resources":["*"]}]}]}`, h.url, h.bundle()))
	soonTrue(t, "a webhook from a file", func() bool {
		return f.ask("POST "+configMaps+"?dryRun=All", configMapText("never")).code == http.StatusForbidden
	})
	f.ask("POST "+configMaps, configMapText("never")).mustSay(http.StatusForbidden, `admission webhook \"all.example.com\" denied the request: the file says no`)

	h.configure("Validating", "kept", "/api", everythingRule, "")
	h.configure("Validating", "other", "/api", everythingRule, "")
	guarded := registration + "validatingwebhookconfigurations/"
	f.ask("DELETE "+guarded+"kept", "").mustSay(http.StatusUnprocessableEntity, "'guard.static.k8s.io'", "it is kept")
	f.ask("DELETE "+guarded+"other", "").ok(http.StatusOK)
	f.validating("of-api", "admissionregistration.k8s.io/'*'", `validations: [{expression: "false"}]`, ", validationActions: [Deny]")
	h.configure("Validating", "later", "/later", everythingRule, "") // which no policy of the API's refuses
	f.ask("POST "+configMaps, configMapText("one")).ok(http.StatusCreated)
	about := map[string]bool{}
	for _, path := range []string{"/static", "/api"} {
		for _, r := range h.requests(path) {
			about[path+" "+r.Resource.Resource] = true
		}
	}
	for what, want := range map[string]bool{"/static configmaps": true, "/static validatingwebhookconfigurations": true, "/static validatingadmissionpolicybindings": true,
		"/api configmaps": true, "/api validatingwebhookconfigurations": false, "/api validatingadmissionpolicybindings": false} {
		if about[what] != want {
			t.Errorf("asked about %s: %v", what, about[what])
		}
	}
	for _, half := range []string{"Validating", "Mutating"} {
		for plural, kind := range map[string]string{"webhookconfigurations": "WebhookConfiguration", "admissionpolicies": "AdmissionPolicy", "admissionpolicybindings": "AdmissionPolicyBinding"} {
			f.put(registration+strings.ToLower(half)+plural, "{apiVersion: admissionregistration.k8s.io/v1, kind: "+half+kind+", metadata: {name: mine.static.k8s.io}}").
				mustSay(http.StatusUnprocessableEntity, `metadata.name: Invalid value`, `reserved for static manifest-based configurations`)
		}
	}
}

// What files change comes before what the API's objects do; neither binds the other's policies.
func TestManifestsComeFirst(t *testing.T) {
	policies, hooks, log := t.TempDir(), t.TempDir(), &logtest.Log{}
	add := func(key, value string) string {
		return fmt.Sprintf(`reinvocationPolicy: Never, failurePolicy: Fail, mutations: [{patchType: JSONPatch, jsonPatch: {expression: '[JSONPatch{op: "add", path: "/data/%s", value: %s}]'}}]`, key, value)
	}
	replace(t, filepath.Join(policies, "z.yml"), staticPolicy("Mutating", "z", configMapRule, add("file", `"policy"`), ""))
	f := startManifests(t, log, map[string]string{"MutatingAdmissionPolicy": policies, "MutatingAdmissionWebhook": hooks})
	h := hooksFor(f)
	for _, from := range []string{"file", "api"} {
		h.on("/"+from, func(r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
			return patched(`[{"op":"add","path":"/data/` + from + `hook","value":"` + fmt.Sprint(strings.Count(string(r.Object.Raw), "hook")) + `"}]`)
		})
	}
	f.mutating("a", "/configmaps", add("api", `"after " + object.data["file"]`), "")
	h.configure("Mutating", "a", "/api", configMapRule, "")
	f.put(registration+"mutatingadmissionpolicybindings", "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingAdmissionPolicyBinding\nmetadata: {name: b}\nspec: {policyName: z.static.k8s.io}\n").ok(http.StatusCreated)
	replace(t, filepath.Join(hooks, "z.yaml"), fmt.Sprintf(`
# the first document is empty
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfigurationList
items:
- metadata: {name: z.static.k8s.io}
  webhooks: [{name: z.example.com, admissionReviewVersions: [v1], sideEffects: None, rules: [%s], clientConfig: {url: '%s/file', caBundle: %s}}]
`, configMapRule, h.url, h.bundle()))
	var got map[string]string
	soonTrue(t, "the webhook of the file", func() bool {
		got = dataOf(f.ask("POST "+configMaps+"?dryRun=All", configMapText("one", "a", "b")))
		return got["filehook"] != ""
	})
	if got["file"] != "policy" || got["api"] != "after policy" || got["filehook"] != "0" || got["apihook"] != "1" {
		t.Errorf("they came in another order: %v", got)
	}
}
