package apiserver_test

import (
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
)

// A PUT of a Lease that there is not creates it, for who may do both.
func TestPutCreates(t *testing.T) {
	f := start(t)
	const leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
	const body = `{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"a","namespace":"default","resourceVersion":"7"},"spec":{"holderIdentity":"me"}}`
	f.allow("alice", rbacv1.PolicyRule{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "update"}})
	alice := f.client("alice")
	f.soon(alice, "GET "+leases+"/a", 404)
	if st := f.askAs(alice, "PUT "+leases+"/a", body).ok(403).status(); !strings.Contains(st.Message, `User "alice" cannot create resource "leases"`) {
		t.Error(st.Message)
	}
	f.ask("PUT "+leases+"/a", strings.Replace(body, `"name":"a"`, `"name":"a","uid":"gone"`, 1)).mustSay(409, "Precondition failed: UID in precondition: gone")
	f.ask("PUT "+leases+"/b", body).mustSay(400, "does not match the name on the URL")
	f.ask("PUT "+leases+"/a", body).mustSay(201, `"holderIdentity":"me"`, `"uid"`)
	f.ask("PUT "+leases+"/a", body).mustSay(409, "the object has been modified")
	f.askAs(alice, "PUT "+leases+"/a", strings.Replace(body, `,"resourceVersion":"7"`, "", 1)).ok(200)
	f.ask("PUT "+maps+"/a", `{"metadata":{"name":"a"}}`).ok(404)
}
