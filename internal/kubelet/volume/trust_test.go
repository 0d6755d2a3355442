package volume

import (
	"context"
	"encoding/pem"
	"strings"
	"testing"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// bundles is an API of trust bundles.
type bundles struct {
	Source
	list []certificatesv1.ClusterTrustBundle
}

func (b bundles) TrustBundle(_ context.Context, name string) (*certificatesv1.ClusterTrustBundle, error) {
	for i := range b.list {
		if b.list[i].Name == name {
			return &b.list[i], nil
		}
	}
	return nil, apierrors.NewNotFound(certificatesv1.Resource("clustertrustbundles"), name)
}

func (b bundles) TrustBundles(context.Context) ([]certificatesv1.ClusterTrustBundle, error) {
	return b.list, nil
}

func TestTrustBundles(t *testing.T) {
	anchor := func(text string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(text)}))
	}
	bundle := func(name, signer, label, text string) certificatesv1.ClusterTrustBundle {
		return certificatesv1.ClusterTrustBundle{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"l": label}},
			Spec: certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: text}}
	}
	m := New(t.TempDir(), bundles{list: []certificatesv1.ClusterTrustBundle{
		bundle("one", "", "", "words\n"+anchor("a")), bundle("s:x", "s", "x", anchor("c")+anchor("b")), bundle("s:y", "s", "y", anchor("b")),
	}}, nil)
	name, signer, yes := func(s string) *string { return &s }, func(s string) *string { return &s }, true
	for what, tt := range map[string]struct {
		s     corev1.ClusterTrustBundleProjection
		want  string
		fails string
	}{
		"by name":           {s: corev1.ClusterTrustBundleProjection{Name: name("one")}, want: anchor("a")},
		"missing":           {s: corev1.ClusterTrustBundleProjection{Name: name("two")}, fails: `clustertrustbundle "two" not found`},
		"missing, optional": {s: corev1.ClusterTrustBundleProjection{Name: name("two"), Optional: &yes}},
		"all of a signer":   {s: corev1.ClusterTrustBundleProjection{SignerName: signer("s"), LabelSelector: &metav1.LabelSelector{}}, want: anchor("b") + anchor("c")},
		"some of a signer": {s: corev1.ClusterTrustBundleProjection{SignerName: signer("s"),
			LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"l": "y"}}}, want: anchor("b")},
		"no selector":          {s: corev1.ClusterTrustBundleProjection{SignerName: signer("s")}, fails: "matched zero"},
		"no such, optional":    {s: corev1.ClusterTrustBundleProjection{SignerName: signer("z"), LabelSelector: &metav1.LabelSelector{}, Optional: &yes}},
		"neither name nor any": {fails: "by its name or its signer"},
	} {
		got, err := m.trust(context.Background(), &tt.s)
		if tt.fails != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%s: %v, want %q", what, err, tt.fails)
			}
			continue
		}
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}

// TestPrivateFiles: a token belongs to the user all containers run as, also when the pod has a group that may read it.
func TestPrivateFiles(t *testing.T) {
	id := func(n int64) *int64 { return &n }
	for name, c := range map[string]struct {
		user, group *int64
		mode        int32
	}{"nobody in particular": {nil, nil, 0o644}, "a user": {id(1000), nil, 0o600}, "a group": {nil, id(10000), 0o600}, "both": {id(1000), id(10000), 0o600}} {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{}}, SecurityContext: &corev1.PodSecurityContext{RunAsUser: c.user, FSGroup: c.group}}}
		if f := private(pod, nil, 0o644); f.mode != c.mode || f.uid != c.user {
			t.Errorf("%s: mode %o, user %v", name, f.mode, f.uid)
		}
	}
}
