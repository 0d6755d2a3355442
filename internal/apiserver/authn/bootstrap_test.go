package authn

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry/registrytest"
)

func TestBootstrapTokens(t *testing.T) {
	r := registrytest.Start(t, nil, nil)
	a := newAuthenticator(t, r)
	secret := func(id string, change func(*corev1.Secret)) {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-" + id}, Type: bootstrapSecretType, Data: map[string][]byte{
			"token-id": []byte(id), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"),
			"expiration": []byte(time.Now().Add(time.Hour).UTC().Format(time.RFC3339)), "auth-extra-groups": []byte("system:bootstrappers:rack"),
		}}
		if change != nil {
			change(s)
		}
		r.Must(s)
	}
	secret("goodaa", nil)
	secret("expire", func(s *corev1.Secret) { s.Data["expiration"] = []byte("2020-01-01T00:00:00Z") })
	secret("noises", func(s *corev1.Secret) { s.Data["expiration"] = []byte("soon") })
	secret("unused", func(s *corev1.Secret) { delete(s.Data, "usage-bootstrap-authentication") })
	secret("groups", func(s *corev1.Secret) { s.Data["auth-extra-groups"] = []byte("system:masters") })
	secret("typeof", func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque })
	secret("others", func(s *corev1.Secret) { s.Data["token-id"] = []byte("goodaa") })
	for token, want := range map[string]bool{
		"goodaa.0123456789abcdef": true, "goodaa.0123456789abcdeg": false, "absent.0123456789abcdef": false, "expire.0123456789abcdef": false,
		"noises.0123456789abcdef": false, "unused.0123456789abcdef": false, "groups.0123456789abcdef": false, "typeof.0123456789abcdef": false,
		"others.0123456789abcdef": false, "goodaa.0123456789ABCDEF": false,
	} {
		u, err := a.Authenticate(withToken(token))
		if (err == nil) != want {
			t.Errorf("%s: %v, %v", token, u, err)
		}
		if !want || err != nil {
			continue
		}
		groups := []string{"system:bootstrappers", "system:bootstrappers:rack", "system:authenticated"}
		if u.GetName() != "system:bootstrap:goodaa" || !slices.Equal(u.GetGroups(), groups) {
			t.Errorf("%s is %s of %v", token, u.GetName(), u.GetGroups())
		}
	}
	gone := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-goodaa"}}
	if err := r.Delete(registrytest.Admin, gone); err != nil {
		t.Fatal(err)
	}
	if u, err := a.Authenticate(withToken("goodaa.0123456789abcdef")); err == nil {
		t.Errorf("a deleted token is still %v", u)
	}
}
