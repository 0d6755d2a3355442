package apiserver_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"

	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/logtest"
)

// reread is a file that a running server reads again.
type reread struct {
	setting, metric string
	first, second   string // what it may hold
	use             func(t *testing.T, c *apiserver.Config, path string)
	inForce         func(f *fixture) string // "first" or "second"
}

func rereads(t *testing.T) []reread {
	hook := kubeconfig(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		review.Status.Allowed = review.Spec.User == "alice"
		_ = json.NewEncoder(w).Encode(&review)
	}))
	anonymous := func(path string) string {
		return `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthenticationConfiguration","anonymous":{"enabled":true,"conditions":[{"path":"` + path + `"}]}}`
	}
	authorizers := func(list string) string {
		return `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthorizationConfiguration","authorizers":[` + list + `]}`
	}
	webhook := fmt.Sprintf(`{"type":"Webhook","name":"hook","webhook":{"timeout":"3s","subjectAccessReviewVersion":"v1","matchConditionSubjectAccessReviewVersion":"v1",`+
		`"failurePolicy":"Deny","connectionInfo":{"type":"KubeConfigFile","kubeConfigFile":%q}}}`, hook)
	return []reread{{
		setting: "authentication-config", metric: "apiserver_authentication_config_controller",
		first: anonymous("/version"), second: anonymous("/livez"),
		use: func(_ *testing.T, c *apiserver.Config, path string) { c.Sources.ConfigFile = path },
		inForce: func(f *fixture) string {
			nobody := f.client("")
			switch version, live := f.askAs(nobody, "GET /version", "").code, f.askAs(nobody, "GET /livez", "").code; {
			case version == http.StatusOK && live == http.StatusUnauthorized:
				return "first"
			case version == http.StatusUnauthorized && live != http.StatusUnauthorized:
				return "second"
			default:
				return fmt.Sprint(version, live)
			}
		},
	}, {
		setting: "authorization-config", metric: "apiserver_authorization_config_controller",
		first: authorizers(`{"type":"Node","name":"node"},{"type":"RBAC","name":"rbac"}`), second: authorizers(webhook),
		use: func(t *testing.T, c *apiserver.Config, path string) {
			if err := c.Authorizer.Use(authz.Sources{ConfigFile: path}); err != nil {
				t.Fatal(err)
			}
		},
		inForce: func(f *fixture) string {
			if f.askAs(f.client("alice"), "GET /api/v1/namespaces/default/secrets", "").code == http.StatusOK {
				return "second"
			}
			return "first"
		},
	}}
}

// reads is how often a file was read again, by the metric, with success or failure.
func (f *fixture) reads(metric, status string) int {
	f.Helper()
	found := regexp.MustCompile(metric + `_automatic_reloads_total\{status="` + status + `"\} (\d+)`).FindSubmatch(f.ask("GET /metrics", "").ok(http.StatusOK).body)
	if found == nil {
		return 0
	}
	n, err := strconv.Atoi(string(found[1]))
	if err != nil {
		f.Fatal(err)
	}
	return n
}

// soonTrue waits for a server to notice.
func soonTrue(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

// replace puts content into a file's place at once, as tools do that know better.
func replace(t *testing.T, path, content string) {
	t.Helper()
	next := filepath.Join(filepath.Dir(path), ".next")
	if err := errors.Join(os.WriteFile(next, []byte(content), 0o600), os.Rename(next, path)); err != nil {
		t.Fatal(err)
	}
}

// A file that cannot be used changes nothing: what it held before stays in force, one line of the log says why, a metric counts it; and the next good
// content counts.
func TestFilesAreReadAgain(t *testing.T) {
	for _, r := range rereads(t) {
		t.Run(r.setting, func(t *testing.T) {
			path, log := file(t, "config.json", r.first), &logtest.Log{}
			f := start(t, func(c *apiserver.Config) {
				c.Log = slog.New(slog.NewTextHandler(log, nil))
				r.use(t, c, path)
			})
			await := func(what, want string) {
				t.Helper()
				soonTrue(t, what+": "+want, func() bool { return r.inForce(f) == want })
			}
			await("at the start", "first")
			write := func(content string) {
				t.Helper()
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			faults := []struct {
				name   string
				damage func()
				says   string
			}{
				{"empty", func() { write("") }, path},
				{"cut off", func() { write(r.second[:len(r.second)/2]) }, path},
				{"noise", func() { write("\x00\xff\xfe") }, path},
				{"another kind", func() { write(`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AdmissionConfiguration"}`) }, "holds a AdmissionConfiguration"},
				{"an unknown field", func() { write(strings.Replace(r.second, `"kind"`, `"colour":"red","kind"`, 1)) }, `unknown field "colour"`},
				{"an unknown version", func() { write(strings.Replace(r.second, "k8s.io/v1", "k8s.io/v9", 1)) }, "v9"},
				{"gone", func() {
					if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
						t.Fatal(err)
					}
				}, "no such file"},
				{"a folder", func() {
					if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o755)); err != nil {
						t.Fatal(err)
					}
				}, "is a directory"},
			}
			const complaint = "cannot be used; what it held before stays in force"
			for _, fault := range faults {
				failed, told := f.reads(r.metric, "failure"), strings.Count(log.String(), complaint)
				fault.damage()
				soonTrue(t, fault.name+": counted", func() bool { return f.reads(r.metric, "failure") > failed })
				if got := r.inForce(f); got != "first" {
					t.Errorf("%s: in force is %s", fault.name, got)
				}
				lines := log.String()
				last, _, _ := strings.Cut(lines[strings.LastIndex(lines[:max(strings.LastIndex(lines, complaint), 0)], "\n")+1:], "\n")
				if n := strings.Count(lines, complaint) - told; n != 1 || !strings.Contains(last, "setting="+r.setting) || !strings.Contains(last, path) || !strings.Contains(last, strings.ReplaceAll(fault.says, `"`, `\"`)) {
					t.Errorf("%s: told %d times: %s", fault.name, n, last)
				}
				_ = os.Remove(path) // if it is a folder
				for _, good := range []string{"second", "first"} {
					content := map[string]string{"first": r.first, "second": r.second}[good]
					replace(t, path, content)
					await("after "+fault.name, good)
				}
			}

			failed, before := f.reads(r.metric, "failure"), f.reads(r.metric, "success")
			w, err := os.Create(path) // in pieces, as an editor or a copy does
			if err != nil {
				t.Fatal(err)
			}
			for i := range r.second {
				if _, err := w.WriteString(r.second[i : i+1]); err != nil {
					t.Fatal(err)
				}
				if i%(len(r.second)/4) == 0 {
					time.Sleep(20 * time.Millisecond)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			await("written in pieces", "second")
			if got := f.reads(r.metric, "failure"); got != failed || f.reads(r.metric, "success") != before+1 {
				t.Errorf("written in pieces it was read %d times with success and %d without", f.reads(r.metric, "success")-before, got-failed)
			}
		})
	}
}

// Issuers that come with a change of the file count once their keys are known, and those that go with one count no more.
func TestIssuersComeAndGo(t *testing.T) {
	url, ca, sign := issuer(t)
	const none = `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AuthenticationConfiguration"}`
	one, err := json.Marshal(map[string]any{
		"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": []any{map[string]any{
			"issuer":        map[string]any{"url": url, "certificateAuthority": ca, "audiences": []string{"skiff"}},
			"claimMappings": map[string]any{"username": map[string]any{"claim": "sub", "prefix": "idp:"}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := file(t, "authentication.json", none)
	f := start(t, func(c *apiserver.Config) { c.Sources.ConfigFile = path })
	nobody, token := f.client(""), sign(claims(url))
	for range 2 {
		if got := f.whoami(nobody, bearer(token)...); got.Username != "" {
			t.Fatalf("an issuer that isn't there vouches for %s", got.Username)
		}
		replace(t, path, string(one))
		soonTrue(t, "the issuer", func() bool { return f.whoami(nobody, bearer(token)...).Username == "idp:bob" })
		replace(t, path, none)
		soonTrue(t, "no issuer", func() bool { return f.whoami(nobody, bearer(token)...).Username == "" })
	}
}
