package apiserver_test

import (
	"net/http"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"

	"skiff.dev/skiff/internal/apiserver/audit"
)

// What is stored and cannot be read is told of, and goes only if somebody who may says that it must (KEP-3926).
func TestUnreadableObjects(t *testing.T) {
	f, events := recorded(t, audit.Settings{})
	const stored, unsafely = "/registry/configmaps/default/", "?ignoreStoreReadErrorWithClusterBreakingPotential=true"
	const bad, good = configMaps + "/bad", configMaps + "/good"
	garble := func(name string) {
		t.Helper()
		if _, err := f.Etcd.Put(ctx, stored+name, "k8s\x00garbage"); err != nil {
			t.Fatal(err)
		}
	}
	f.ask("POST "+configMaps, configMapText("good")).ok(http.StatusCreated)
	garble("bad")
	soonTrue(t, "the unreadable one is known", func() bool { return f.ask("GET "+bad, "").code == http.StatusInternalServerError })
	for _, verb := range []string{"GET ", "DELETE ", "PUT "} {
		f.ask(verb+bad, configMapText("bad")).mustSay(http.StatusInternalServerError, `"reason":"StorageReadError"`, `configmaps \"bad\" is stored and cannot be read`)
	}
	f.ask("POST "+configMaps, configMapText("bad")).ok(http.StatusConflict)
	list := f.ask("GET "+configMaps, "").ok(http.StatusOK)
	if !strings.Contains(string(list.body), `"good"`) || list.header.Get("Warning") != `299 - "left out, because what is stored of them cannot be read: default/bad"` {
		t.Errorf("the list: %s, warned of %q", list.body, list.header.Get("Warning"))
	}
	if other := f.ask("GET /api/v1/namespaces/kube-system/configmaps", "").ok(http.StatusOK); other.header.Get("Warning") != "" {
		t.Errorf("another namespace's list warns of %q", other.header.Get("Warning"))
	}

	f.allow("alice", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"delete", "get"}})
	alice := f.client("alice")
	f.soon(alice, "GET "+good, http.StatusOK)
	f.askAs(alice, "DELETE "+bad+unsafely, "").mustSay(http.StatusForbidden, `not permitted to do \"unsafe-delete-ignore-read-errors\"`)
	f.ask("DELETE "+good+unsafely, "").mustSay(http.StatusConflict, "it can be read")
	f.ask("DELETE "+configMaps+"/none"+unsafely, "").ok(http.StatusNotFound)
	f.ask("DELETE "+bad+unsafely+"&gracePeriodSeconds=0", "").mustSay(http.StatusUnprocessableEntity, "cannot be set together with .gracePeriodSeconds")
	f.ask("DELETE "+configMaps+unsafely, "").mustSay(http.StatusUnprocessableEntity, "is not allowed with DELETECOLLECTION")
	f.ask("DELETE "+bad+unsafely+"&dryRun=All", "").ok(http.StatusOK)
	f.ask("GET "+bad, "").ok(http.StatusInternalServerError)

	f.allow("bob", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"delete", "get", "unsafe-delete-ignore-read-errors"}})
	bob := f.client("bob")
	f.soon(bob, "GET "+good, http.StatusOK)
	gone := f.askAs(bob, "DELETE "+bad, `{"apiVersion":"v1","kind":"DeleteOptions","ignoreStoreReadErrorWithClusterBreakingPotential":true}`)
	gone.mustSay(http.StatusOK, `"status":"Success"`, `"name":"bad"`)
	f.ask("GET "+bad, "").ok(http.StatusNotFound)
	if left, err := f.Etcd.Get(ctx, stored+"bad"); err != nil || len(left.Kvs) != 0 {
		t.Errorf("etcd has %v, %v", left, err)
	}
	f.ask("POST "+configMaps, configMapText("bad")).ok(http.StatusCreated)

	// One that memory still has as it was before.
	garble("good")
	soonTrue(t, "it is unreadable", func() bool { return f.ask("DELETE "+good+unsafely+"&dryRun=All", "").code == http.StatusOK })
	f.ask("DELETE "+good+unsafely, "").ok(http.StatusOK)
	f.ask("GET "+good, "").ok(http.StatusNotFound)

	of := of(events(), gone)
	if len(of) == 0 {
		t.Fatal("the deletion is not in the audit log")
	}
	for _, e := range of {
		if _, is := e.Annotations["apiserver.k8s.io/unsafe-delete-ignore-read-error"]; !is {
			t.Errorf("the audit log says %v", e.Annotations)
		}
	}
}
