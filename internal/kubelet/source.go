package kubelet

import (
	"context"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
