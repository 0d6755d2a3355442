package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"

	"skiff.dev/skiff/internal/registry"
)

// nodeSlice: a node publishes its own devices, and no others'.
func nodeSlice(a *registry.Attributes, node string) error {
	own := func(o any) bool {
		s, ok := o.(*resourcev1.ResourceSlice)
		return ok && s.Spec.NodeName != nil && *s.Spec.NodeName == node
	}
	switch {
	case a.Operation == create && !own(a.Object):
		return forbid(a, errors.New("can only create ResourceSlice with the same NodeName as the requesting node"))
	case a.Operation == remove && a.Old != nil && !own(a.Old):
		return forbid(a, errors.New("can only delete ResourceSlice with the same NodeName as the requesting node"))
	}
	return nil
}

// nodePodCertificate: a node asks for certificates only for a pod that runs on it and mounts one of that signer.
func nodePodCertificate(ctx context.Context, a *registry.Attributes, node string) error {
	if a.Operation != create || a.Subresource != "" {
		return forbid(a, fmt.Errorf("unexpected operation %v", a.Operation))
	}
	r, ok := a.Object.(*certificatesv1.PodCertificateRequest)
	if !ok {
		return nil
	}
	if string(r.Spec.NodeName) != node {
		return forbid(a, fmt.Errorf("PodCertificateRequest.Spec.NodeName=%q, which is not the requesting node %q", r.Spec.NodeName, node))
	}
	name := a.Namespace + "/" + r.Spec.PodName
	self, err := find[*corev1.Node](ctx, a, "", "nodes", node)
	if err != nil {
		return err
	}
	pod, err := find[*corev1.Pod](ctx, a, "", "pods", name)
	if err != nil {
		return err
	}
	account, err := find[*corev1.ServiceAccount](ctx, a, "", "serviceaccounts", a.Namespace+"/"+r.Spec.ServiceAccountName)
	switch {
	case err != nil:
		return err
	case self == nil || self.UID != r.Spec.NodeUID:
		return forbid(a, fmt.Errorf("PodCertificateRequest for pod %q names node UID %q, inconsistent with the running node", name, r.Spec.NodeUID))
	case pod == nil || pod.UID != r.Spec.PodUID:
		return forbid(a, fmt.Errorf("PodCertificateRequest for pod %q contains pod UID (%q) which differs from running pod", name, r.Spec.PodUID))
	case pod.Spec.NodeName != node:
		return forbid(a, fmt.Errorf("pod %q is not running on node %q named in the PodCertificateRequest", name, node))
	case pod.Annotations[corev1.MirrorPodAnnotationKey] != "":
		return forbid(a, fmt.Errorf("pod %q is a mirror pod", name))
	case pod.Spec.ServiceAccountName != r.Spec.ServiceAccountName:
		return forbid(a, fmt.Errorf("PodCertificateRequest for pod %q contains serviceAccountName (%q) that differs from running pod (%q)",
			name, r.Spec.ServiceAccountName, pod.Spec.ServiceAccountName))
	case account == nil || account.UID != r.Spec.ServiceAccountUID:
		return forbid(a, fmt.Errorf("PodCertificateRequest for pod %q names service account UID %q, which differs from the running service account", name, r.Spec.ServiceAccountUID))
	case !mountsCertificate(pod, r.Spec.SignerName):
		return forbid(a, fmt.Errorf("pod %q does not mount a podCertificate projected volume for signer %q", name, r.Spec.SignerName))
	}
	return nil
}

func mountsCertificate(pod *corev1.Pod, signer string) bool {
	for _, v := range pod.Spec.Volumes {
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool {
			return s.PodCertificate != nil && s.PodCertificate.SignerName == signer
		}) {
			return true
		}
	}
	return false
}
