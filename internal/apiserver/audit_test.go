package apiserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/apiserver/audit"
	"skiff.dev/skiff/internal/apiserver/authz"
)

const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: [quiet]}
- {level: Metadata, resources: [{group: "", resources: [secrets]}]}
- {level: Request, verbs: [patch]}
- {level: RequestResponse, resources: [{group: "", resources: [configmaps]}]}
- {level: Metadata, omitStages: []}
`

// recorded is a server with an audit log, and what is in it once the server has ended.
func recorded(t *testing.T, s audit.Settings, change ...func(*apiserver.Config)) (*fixture, func() []auditv1.Event) {
	t.Helper()
	s.PolicyFile = file(t, "policy.yaml", auditPolicy)
	s.Path = filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(s)
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, append(change, func(c *apiserver.Config) { c.Audit = log })...)
	return f, func() (out []auditv1.Event) {
		t.Helper()
		f.stop()
		return readEvents(t, s.Path)
	}
}

func readEvents(t *testing.T, path string) (out []auditv1.Event) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(raw) {
		var e auditv1.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v in %.300s", err, line)
		}
		out = append(out, e)
	}
	return out
}

// of picks the events of a request, by its audit ID.
func of(events []auditv1.Event, a answer) (out []auditv1.Event) {
	for _, e := range events {
		if string(e.AuditID) == a.header.Get("Audit-Id") {
			out = append(out, e)
		}
	}
	return out
}

func TestAuditLog(t *testing.T) {
	f, events := recorded(t, audit.Settings{})
	const maps, secrets = "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/secrets"
	quiet := f.askAs(f.client("quiet", "system:masters"), "GET "+maps, "").ok(200)
	secret := f.ask("POST "+secrets, `{"metadata":{"name":"s"},"stringData":{"password":"correct horse"}}`).ok(201)
	created := f.ask("POST "+maps, `{"metadata":{"name":"c"},"data":{"a":"1"}}`).ok(201)
	patched := f.ask("PATCH "+maps+"/c", `{"data":{"a":"2"}}`, "Content-Type", "application/merge-patch+json").ok(200)
	listed := f.ask("GET "+maps, "").ok(200)
	as := f.ask("GET "+maps, "", "Impersonate-User", "alice").ok(403)
	nobody := f.askAs(f.client(""), "GET /version", "", "Authorization", "Bearer nonsense").ok(401)
	chosen := f.ask("GET "+maps+"/none", "", "Audit-Id", "my-own").ok(404)

	deleted := f.ask("DELETE "+maps+"/c", `{"gracePeriodSeconds":7}`).ok(200)

	watching, cancel := context.WithCancel(ctx)
	req, _ := http.NewRequestWithContext(watching, http.MethodGet, "https://"+f.host+secrets+"?watch=true", nil)
	resp, err := f.admin.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	watched := answer{t: t, header: resp.Header}
	cancel()
	_ = resp.Body.Close()

	all := events()
	if got := of(all, quiet); len(got) != 0 {
		t.Errorf("what the policy leaves out was recorded: %+v", got)
	}
	one := func(what string, a answer) auditv1.Event {
		t.Helper()
		got := of(all, a)
		if len(got) != 1 || got[0].Stage != auditv1.StageResponseComplete {
			t.Fatalf("%s: %+v", what, got)
		}
		return got[0]
	}
	if e := one("secret", secret); e.Level != auditv1.LevelMetadata || e.RequestObject != nil || e.ResponseObject != nil || e.ObjectRef.Resource != "secrets" ||
		e.User.Username != "admin" || e.Verb != "create" || e.ResponseStatus.Code != 201 || len(e.SourceIPs) != 1 || e.Annotations[decision] != "allow" {
		t.Errorf("%+v", e)
	}
	e := one("created", created)
	if e.ObjectRef.Name != "c" || !strings.Contains(string(e.RequestObject.Raw), `"a":"1"`) || !strings.Contains(string(e.ResponseObject.Raw), `"uid"`) ||
		strings.Contains(string(e.ResponseObject.Raw), "managedFields") {
		t.Errorf("%s\n%s", e.RequestObject.Raw, e.ResponseObject.Raw)
	}
	if e := one("patched", patched); string(e.RequestObject.Raw) != `{"data":{"a":"2"}}` || e.ResponseObject != nil {
		t.Errorf("%+v", e)
	}
	if e := one("deleted", deleted); e.RequestObject == nil || !strings.Contains(string(e.RequestObject.Raw), `"gracePeriodSeconds":7`) ||
		e.ResponseObject == nil || !strings.Contains(string(e.ResponseObject.Raw), `"status":"Success"`) {
		t.Errorf("%+v", e)
	}
	if e := one("listed", listed); !strings.Contains(string(e.ResponseObject.Raw), `"ConfigMapList"`) || !strings.Contains(string(e.ResponseObject.Raw), `"name":"c"`) {
		t.Errorf("%s", e.ResponseObject.Raw)
	}
	if e := one("impersonated", as); e.User.Username != "admin" || e.ImpersonatedUser == nil || e.ImpersonatedUser.Username != "alice" || e.ResponseStatus.Reason != metav1.StatusReasonForbidden ||
		e.Annotations[decision] != "forbid" {
		t.Errorf("%+v", e)
	}
	if e := one("without credentials", nobody); e.ResponseStatus.Code != 401 {
		t.Errorf("%+v", e)
	}
	if e := one("with an ID of its own", chosen); e.AuditID != "my-own" || e.ResponseStatus.Code != 404 {
		t.Errorf("%+v", e)
	}
	if got := of(all, watched); len(got) != 2 || got[0].Stage != auditv1.StageResponseStarted || got[1].Stage != auditv1.StageResponseComplete {
		t.Errorf("%+v", got)
	}
	for _, e := range all {
		if e.Stage == auditv1.StageRequestReceived {
			t.Errorf("a stage that the policy omits was recorded: %+v", e)
		}
	}
}

const decision, reason = "authorization.k8s.io/decision", "authorization.k8s.io/reason"

func TestAuditTellsWhatWasDecidedAndWhy(t *testing.T) {
	hook := kubeconfig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		switch review.Spec.User {
		case "carol":
			review.Status = authorizationv1.SubjectAccessReviewStatus{Allowed: true, Reason: "carol is known"}
		case "dora":
			http.Error(w, "not now", http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(&review)
	}))
	f, events := recorded(t, audit.Settings{}, func(c *apiserver.Config) {
		if err := c.Authorizer.Use(authz.Sources{WebhookConfig: hook}); err != nil {
			t.Fatal(err)
		}
	})
	f.Must(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "dangling"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "ghost"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: "bob"}}})
	f.allow("alice", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "patch"}})
	alice := f.client("alice")
	f.soon(alice, "GET "+maps+"/none", 404)
	byRole := `RBAC: allowed by ClusterRoleBinding "of-alice" of ClusterRole "of-alice" to User "alice"`
	want := map[string]struct {
		answer
		decision, reason string
	}{
		"an administrator":   {f.ask("GET "+maps, "").ok(200), "allow", ""},
		"a node":             {f.askAs(f.client("system:node:n", "system:nodes"), "GET /api/v1/nodes/n", "").ok(404), "allow", ""},
		"a user with a role": {f.askAs(alice, "GET "+maps+"/none", "").ok(404), "allow", byRole},
		"who may not create by an apply": {f.askAs(alice, "PATCH "+maps+"/none?fieldManager=a", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"none"}}`,
			"Content-Type", "application/apply-patch+yaml").ok(403), "allow", byRole},
		"a user without":             {f.askAs(alice, "DELETE "+maps+"/none", "").ok(403), "forbid", ""},
		"a path":                     {f.askAs(alice, "GET /metrics", "").ok(403), "forbid", ""},
		"a role that there is not":   {f.askAs(f.client("bob"), "GET "+maps, "").ok(403), "forbid", `RBAC: clusterrole.rbac.authorization.k8s.io "ghost" not found`},
		"a webhook":                  {f.askAs(f.client("carol"), "GET "+maps, "").ok(200), "allow", "carol is known"},
		"a webhook that cannot tell": {f.askAs(f.client("dora"), "GET "+maps, "").ok(500), "", "internal error"},
	}
	all := events()
	for who, w := range want {
		got := of(all, w.answer)
		if len(got) != 1 {
			t.Fatalf("%s: %+v", who, got)
		}
		why, told := got[0].Annotations[reason]
		if !told || got[0].Annotations[decision] != w.decision || why != w.reason {
			t.Errorf("%s: %v, want %q because of %q", who, got[0].Annotations, w.decision, w.reason)
		}
	}
}

// Whoever plans an upgrade finds in the log who still uses what is deprecated.
func TestAuditTellsOfDeprecatedVersions(t *testing.T) {
	f, events := recorded(t, audit.Settings{})
	old, current := f.ask("GET /api/v1/namespaces/default/endpoints", "").ok(200), f.ask("GET "+maps, "").ok(200)
	all := events()
	if got := of(all, old); len(got) != 1 || got[0].Annotations["k8s.io/deprecated"] != "true" {
		t.Errorf("%+v", got)
	}
	if got := of(all, current); len(got) != 1 || got[0].Annotations["k8s.io/deprecated"] != "" {
		t.Errorf("%+v", got)
	}
}

// The policy says which stages are recorded, for all requests and for those of one rule; a panic is one of them.
func TestAuditStages(t *testing.T) {
	policy := file(t, "policy.yaml", `apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- {level: Metadata, verbs: [create], omitStages: [RequestReceived]}
- {level: Metadata, verbs: [watch], omitStages: [ResponseStarted, ResponseComplete]}
- {level: Metadata, nonResourceURLs: ["/readyz/*"], omitStages: [Panic]}
- {level: Metadata}
`)
	path := filepath.Join(t.TempDir(), "audit.log")
	log, err := audit.Open(audit.Settings{PolicyFile: policy, Path: path})
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *apiserver.Config) {
		c.Audit = log
		c.Checks = []apiserver.Check{{Name: "broken", Run: func(context.Context) error { panic("broken on purpose") }}}
	})
	want := map[string]struct {
		answer
		stages string
	}{
		"list":   {f.ask("GET "+maps, "").ok(200), "RequestReceived ResponseComplete"},
		"create": {f.ask("POST "+maps, `{"metadata":{"name":"a"}}`).ok(201), "ResponseComplete"},
		"watch":  {f.ask("GET "+maps+"?watch=true&timeoutSeconds=1", "").ok(200), "RequestReceived"},
		"refuse": {f.askAs(f.client("nobody"), "GET "+maps, "").ok(403), "RequestReceived ResponseComplete"},
		"panic":  {f.ask("GET /livez/broken", "").ok(500), "RequestReceived Panic"},
		"hidden": {f.ask("GET /readyz/broken", "").ok(500), "RequestReceived"},
	}
	f.stop()
	all := readEvents(t, path)
	for what, w := range want {
		var stages []string
		for _, e := range of(all, w.answer) {
			stages = append(stages, string(e.Stage))
			if e.Stage == auditv1.StagePanic && (e.ResponseStatus == nil || e.ResponseStatus.Code != 500 || !strings.Contains(e.ResponseStatus.Message, "broken on purpose")) {
				t.Errorf("%s: %+v", what, e.ResponseStatus)
			}
		}
		if got := strings.Join(stages, " "); got != w.stages {
			t.Errorf("%s: %s, want %s", what, got, w.stages)
		}
	}
}

// The log is cut into files of the size that the settings say, of which as many are kept as they say; no event is cut.
func TestAuditLogIsRotated(t *testing.T) {
	policy := file(t, "policy.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Request, verbs: [create]}]\n")
	dir := t.TempDir()
	log, err := audit.Open(audit.Settings{PolicyFile: policy, Path: filepath.Join(dir, "audit.log"), MaxSize: 1, MaxBackups: 2})
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, func(c *apiserver.Config) { c.Audit = log })
	var last answer
	for i := range 12 { // 400 KB each, so that two fit
		last = f.ask("POST "+maps, configMapText(fmt.Sprint("m", i), "k", strings.Repeat("x", 400_000))).ok(201)
	}
	f.stop()
	soonTrue(t, "two old files and the present one", func() bool {
		files, err := os.ReadDir(dir)
		return err == nil && len(files) == 3
	})
	files, err := filepath.Glob(filepath.Join(dir, "audit*.log"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	events := 0
	for _, name := range files {
		if st, err := os.Stat(name); err != nil || st.Size() > 1<<20 || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, st, err)
		}
		events += len(readEvents(t, name))
	}
	if events != 6 || len(of(readEvents(t, filepath.Join(dir, "audit.log")), last)) != 1 {
		t.Errorf("%d events are in %v", events, files)
	}
}

// events of batches that a webhook was sent.
type hooked struct {
	mu      sync.Mutex
	batches [][]auditv1.Event
}

func (h *hooked) all() (batches [][]auditv1.Event, events []auditv1.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.batches), slices.Concat(h.batches...)
}

// The webhook gets what comes together in batches, and at the end what is left; what is too large it gets without its objects.
func TestAuditWebhook(t *testing.T) {
	var sent hooked
	hook := kubeconfig(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var list auditv1.EventList
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil || list.Kind != "EventList" || list.APIVersion != "audit.k8s.io/v1" {
			t.Errorf("%+v, %v", list.TypeMeta, err)
		}
		sent.mu.Lock()
		defer sent.mu.Unlock()
		sent.batches = append(sent.batches, list.Items)
	}))
	f, events := recorded(t, audit.Settings{WebhookConfig: hook})
	large := f.ask("POST "+maps, configMapText("large", "k", strings.Repeat("x", 200_000))).ok(201)
	const most = 400
	for range most {
		f.ask("GET /version", "").ok(200)
	}
	soonTrue(t, "a full batch", func() bool { batches, _ := sent.all(); return len(batches) > 0 })
	if batches, _ := sent.all(); len(batches) != 1 || len(batches[0]) != most {
		t.Errorf("%d batches, the first of %d events", len(batches), len(batches[0]))
	}
	last := f.ask("GET "+maps, "").ok(200)
	events() // the end of the server sends what is left
	soonTrue(t, "the rest", func() bool { _, all := sent.all(); return len(of(all, last)) == 1 })
	_, all := sent.all()
	if got := of(all, large); len(got) != 1 || got[0].Annotations["audit.k8s.io/truncated"] != "true" || got[0].RequestObject != nil || got[0].ResponseObject != nil {
		t.Errorf("%+v", got)
	}
}

func TestAuditSettings(t *testing.T) {
	if log, err := audit.Open(audit.Settings{}); log != nil || err != nil {
		t.Errorf("%v, %v", log, err)
	}
	policy := file(t, "policy.yaml", auditPolicy)
	for want, s := range map[string]audit.Settings{
		"audit-policy-file: is missing": {Path: "-"},
		"audit-log-path: is missing":    {PolicyFile: policy},
		"no such file":                  {PolicyFile: policy, Path: "/nowhere/audit.log"},
		"audit-policy-file:":            {PolicyFile: file(t, "bad.yaml", "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Loud}]\n"), Path: "-"},
		"audit-webhook-config-file":     {PolicyFile: policy, WebhookConfig: "/nowhere"},
	} {
		if _, err := audit.Open(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
