package apiserver_test

import (
	"crypto/tls"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"skiff.dev/skiff/internal/apiserver/audit"
	"skiff.dev/skiff/internal/pki"
	"skiff.dev/skiff/internal/registry/registrytest"
)

func TestAnonymousSeesHealthOnly(t *testing.T) {
	f := start(t)
	f.healthy()
	nobody := f.client("")
	for path, code := range map[string]int{
		"/healthz": 200, "/livez": 200, "/readyz": 200, "/readyz?verbose": 200, "/version": 200,
		"/": 403, "/api": 403, "/apis": 403, "/metrics": 403, "/openapi/v3": 403, "/debug/pprof/": 403, "/api/v1/nodes": 403,
		"/api/v1/namespaces/kube-system/secrets": 403, "/nothing": 403,
	} {
		got := f.askAs(nobody, "GET "+path, "")
		if got.code != code {
			t.Errorf("%s: %d, want %d", path, got.code, code)
		}
		if code == 403 {
			if st := got.status(); st.Reason != metav1.StatusReasonForbidden || !strings.Contains(st.Message, `User "system:anonymous" cannot`) {
				t.Errorf("%s: %s", path, st.Message)
			}
		}
	}
	if st := f.askAs(nobody, "GET /api", "").status(); st.Message != `forbidden: User "system:anonymous" cannot get path "/api"` {
		t.Error(st.Message)
	}
}

func TestUnauthenticated(t *testing.T) {
	f := start(t)
	foreign, err := pki.OpenAuthority(t.TempDir(), "ca", "test-ca", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := foreign.Issue(pki.Leaf{CommonName: "admin", Organizations: []string{"system:masters"}, Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: f.ca.Pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return leaf, nil }}}
	defer transport.CloseIdleConnections()
	for what, got := range map[string]answer{
		"a certificate of another authority": f.askAs(&http.Client{Transport: transport}, "GET /version", ""),
		"a token that is none":               f.askAs(f.client(""), "GET /version", "", "Authorization", "Bearer nonsense"),
		"half a token":                       f.askAs(f.client(""), "GET /version", "", "Authorization", "Bearer a.b.c"),
	} {
		st := got.ok(401).status()
		if st.Reason != metav1.StatusReasonUnauthorized || st.Message != "Unauthorized" || got.header.Get("Www-Authenticate") == "" {
			t.Errorf("%s: %+v", what, st)
		}
	}
}

// allow gives a user verbs of resources, cluster-wide.
func (f *fixture) allow(user string, rules ...rbacv1.PolicyRule) {
	f.Helper()
	f.Must(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "of-" + user}, Rules: rules},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "of-" + user}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "of-" + user},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, Name: user}}})
}

// soon asks until the answer has the code: grants and revocations take a moment.
func (f *fixture) soon(c *http.Client, request string, code int, headers ...string) {
	f.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		got := f.askAs(c, request, "", headers...)
		if got.code == code {
			return
		}
		if time.Now().After(deadline) {
			f.Fatalf("%s: %d %s", request, got.code, got.body)
		}
	}
}

func TestForbidden(t *testing.T) {
	f := start(t)
	alice := f.client("alice", "staff")
	for request, want := range map[string]string{
		"GET " + maps:        `configmaps is forbidden: User "alice" cannot list resource "configmaps" in API group "" in the namespace "default"`,
		"GET " + maps + "/a": `configmaps "a" is forbidden: User "alice" cannot get resource "configmaps" in API group "" in the namespace "default"`,
		"GET /api/v1/nodes":  `nodes is forbidden: User "alice" cannot list resource "nodes" in API group "" at the cluster scope`,
		"DELETE /apis/apps/v1/namespaces/default/deployments/a": `deployments.apps "a" is forbidden: User "alice" cannot delete resource "deployments" in API group "apps" in the namespace "default"`,
		"GET " + maps + "?watch=true":                           `configmaps is forbidden: User "alice" cannot watch resource "configmaps" in API group "" in the namespace "default"`,
		"GET /metrics":                                          `forbidden: User "alice" cannot get path "/metrics"`,
		"PUT /api/v1/namespaces/a/pods/p/status":                `pods "p" is forbidden: User "alice" cannot update resource "pods/status" in API group "" in the namespace "a"`,
	} {
		if st := f.askAs(alice, request, "").ok(403).status(); st.Message != want || st.Reason != metav1.StatusReasonForbidden {
			t.Errorf("%s: %s\nwant %s", request, st.Message, want)
		}
	}
	f.askAs(alice, "GET /apis", "").ok(200) // every authenticated user may discover
	f.allow("alice", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}})
	f.soon(alice, "GET "+maps, 200)
	f.askAs(alice, "GET "+maps+"/a", "").ok(403)
	if err := f.Delete(registrytest.Admin, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "of-alice"}}); err != nil {
		t.Fatal(err)
	}
	f.soon(alice, "GET "+maps, 403)
}

func TestImpersonation(t *testing.T) {
	f := start(t)
	f.Must(configMap("a"))
	st := f.ask("GET "+maps+"/a", "", "Impersonate-User", "bob").ok(403).status()
	if !strings.Contains(st.Message, `User "bob" cannot get resource "configmaps"`) {
		t.Error(st.Message)
	}
	f.ask("GET "+maps+"/a", "", "Impersonate-User", "bob", "Impersonate-Group", "system:masters").ok(200)
	f.ask("GET "+maps+"/a", "", "Impersonate-Group", "system:masters").ok(400)
	alice := f.client("alice")
	st = f.askAs(alice, "GET "+maps+"/a", "", "Impersonate-User", "bob").ok(403).status()
	if st.Message != `configmaps "a" is forbidden: User "alice" cannot impersonate-on:user-info:get resource "configmaps" in API group "" in the namespace "default"` {
		t.Error(st.Message)
	}
	f.allow("alice", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"users"}, ResourceNames: []string{"bob"}, Verbs: []string{"impersonate"}})
	f.allow("bob", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get"}})
	f.soon(alice, "GET "+maps+"/a", 200, "Impersonate-User", "bob")
	f.askAs(alice, "GET "+maps+"/a", "", "Impersonate-User", "carol").ok(403)
	f.askAs(alice, "GET "+maps+"/a", "", "Impersonate-User", "bob", "Impersonate-Group", "system:masters").ok(403)
}

// Who may impersonate for some requests only may do so for no others, and what allowed it is in the audit log.
func TestConstrainedImpersonation(t *testing.T) {
	f, events := recorded(t, audit.Settings{})
	f.Must(configMap("a"))
	f.allow("alice", rbacv1.PolicyRule{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"users"}, ResourceNames: []string{"bob"}, Verbs: []string{"impersonate:user-info"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"impersonate-on:user-info:get"}})
	f.allow("bob", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"get", "delete"}})
	alice := f.client("alice")
	f.soon(alice, "GET "+maps+"/a", 200, "Impersonate-User", "bob")
	got := f.askAs(alice, "GET "+maps+"/a", "", "Impersonate-User", "bob").ok(200)
	f.askAs(alice, "DELETE "+maps+"/a", "", "Impersonate-User", "bob").ok(403)
	f.askAs(alice, "GET "+maps+"/a", "", "Impersonate-User", "carol").ok(403)
	f.askAs(alice, "GET "+maps+"/a", "").ok(403)
	log := of(events(), got)
	if len(log) != 1 || log[0].ImpersonatedUser.Username != "bob" || log[0].AuthenticationMetadata == nil || log[0].AuthenticationMetadata.ImpersonationConstraint != "impersonate:user-info" {
		t.Errorf("%+v", log)
	}
}

func TestWhoAmI(t *testing.T) {
	f := start(t)
	c, err := kubernetes.NewForConfig(f.configOf("alice", "staff"))
	if err != nil {
		t.Fatal(err)
	}
	me, err := c.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || me.Status.UserInfo.Username != "alice" || !slices.Contains(me.Status.UserInfo.Groups, "staff") || !slices.Contains(me.Status.UserInfo.Groups, "system:authenticated") {
		t.Errorf("%+v, %v", me, err)
	}
	may, err := c.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods"}},
	}, metav1.CreateOptions{})
	if err != nil || may.Status.Allowed {
		t.Errorf("%+v, %v", may, err)
	}
}

func TestTokensOfServiceAccounts(t *testing.T) {
	f := start(t)
	f.Must(registrytest.Account("robot"))
	token, err := f.clientset().CoreV1().ServiceAccounts("default").CreateToken(ctx, "robot", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil || token.Status.Token == "" {
		t.Fatalf("%+v, %v", token, err)
	}
	as := []string{"Authorization", "Bearer " + token.Status.Token}
	st := f.askAs(f.client(""), "GET "+maps, "", as...).ok(403).status()
	if !strings.Contains(st.Message, `User "system:serviceaccount:default:robot" cannot list`) {
		t.Error(st.Message)
	}
	f.allow("system:serviceaccount:default:robot", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}})
	f.soon(f.client(""), "GET "+maps, 200, as...)
	if err := f.Delete(registrytest.Admin, registrytest.Account("robot")); err != nil {
		t.Fatal(err)
	}
	f.soon(f.client(""), "GET "+maps, 401, as...)
}
