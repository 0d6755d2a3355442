package kubelet

import (
	"context"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
)

type resourceList = corev1.ResourceList

// source is what volumes and environments are made of.
type source struct{ client client.Client }

func (s source) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	var out corev1.ConfigMap
	return &out, s.client.Get(ctx, crclient.ObjectKey{Namespace: namespace, Name: name}, &out)
}

func (s source) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	var out corev1.Secret
	return &out, s.client.Get(ctx, crclient.ObjectKey{Namespace: namespace, Name: name}, &out)
}

func (s source) Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	var out corev1.PersistentVolumeClaim
	return &out, s.client.Get(ctx, crclient.ObjectKey{Namespace: namespace, Name: name}, &out)
}

func (s source) TrustBundle(ctx context.Context, name string) (*certificatesv1.ClusterTrustBundle, error) {
	var out certificatesv1.ClusterTrustBundle
	return &out, s.client.Get(ctx, crclient.ObjectKey{Name: name}, &out)
}

func (s source) TrustBundles(ctx context.Context) ([]certificatesv1.ClusterTrustBundle, error) {
	var list certificatesv1.ClusterTrustBundleList
	err := s.client.List(ctx, &list, crclient.UnsafeDisableDeepCopy)
	return list.Items, err
}

// RequestCertificate asks for a certificate for a pod in its service account's name. The request goes when the pod does.
func (s source) RequestCertificate(ctx context.Context, pod *corev1.Pod, p *corev1.PodCertificateProjection, proof []byte) (string, error) {
	var account corev1.ServiceAccount
	if err := s.client.Live().Get(ctx, crclient.ObjectKey{Namespace: pod.Namespace, Name: pod.Spec.ServiceAccountName}, &account); err != nil {
		return "", err
	}
	var node corev1.Node
	if err := s.client.Live().Get(ctx, crclient.ObjectKey{Name: pod.Spec.NodeName}, &node); err != nil {
		return "", err
	}
	r := &certificatesv1.PodCertificateRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: pod.Namespace, GenerateName: "req-",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}},
		},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: p.SignerName, PodName: pod.Name, PodUID: pod.UID, ServiceAccountName: account.Name, ServiceAccountUID: account.UID,
			NodeName: types.NodeName(node.Name), NodeUID: node.UID, MaxExpirationSeconds: p.MaxExpirationSeconds,
			StubPKCS10Request: proof, UnverifiedUserAnnotations: p.UserAnnotations,
		},
	}
	err := s.client.Create(ctx, r)
	return r.Name, err
}

func (s source) Certificate(ctx context.Context, namespace, name string) (*certificatesv1.PodCertificateRequest, error) {
	var out certificatesv1.PodCertificateRequest
	return &out, s.client.Live().Get(ctx, crclient.ObjectKey{Namespace: namespace, Name: name}, &out)
}

func (s source) Volume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	var out corev1.PersistentVolume
	return &out, s.client.Get(ctx, crclient.ObjectKey{Name: name}, &out)
}

func (s source) Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (string, time.Time, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	name := pod.Spec.ServiceAccountName
	if name == "" {
		name = "default"
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: name}}
	if err := s.client.SubResource("token").Create(ctx, account, request); err != nil {
		return "", time.Time{}, err
	}
	return request.Status.Token, request.Status.ExpirationTimestamp.Time, nil
}

func (s source) services(ctx context.Context, namespace string) ([]corev1.Service, error) {
	var list corev1.ServiceList
	err := s.client.List(ctx, &list, crclient.InNamespace(namespace))
	return list.Items, err
}
