package api

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What the writers of other kinds than pods are warned of.

func warnService(obj, old Object) (out []string) {
	s := obj.(*corev1.Service)
	if _, found := s.Annotations["service.kubernetes.io/topology-aware-hints"]; found {
		out = append(out, "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead")
	}
	if s.Spec.ClusterIP == corev1.ClusterIPNone {
		if s.Spec.LoadBalancerIP != "" {
			out = append(out, "spec.loadBalancerIP is ignored for headless services")
		}
		if len(s.Spec.ExternalIPs) > 0 {
			out = append(out, "spec.externalIPs is ignored for headless services")
		}
		if s.Spec.SessionAffinity != corev1.ServiceAffinityNone {
			out = append(out, "spec.SessionAffinity is ignored for headless services")
		}
	}
	if s.Spec.ExternalName != "" && s.Spec.Type != corev1.ServiceTypeExternalName {
		out = append(out, `spec.externalName is ignored when spec.type is not "ExternalName"`)
	}
	return out
}

func warnIngress(obj, old Object) []string {
	if _, found := obj.GetAnnotations()[ingressClassAnnotation]; found && old == nil && obj.(*networkingv1.Ingress).Spec.IngressClassName == nil {
		return []string{"annotation \"" + ingressClassAnnotation + "\" is deprecated, please use 'spec.ingressClassName' instead"}
	}
	return nil
}

// ingressClassAnnotation named an Ingress's class before there was a field.
const ingressClassAnnotation = "kubernetes.io/ingress.class"

// NamesIngressClass says whether an Ingress names its class, by field or in the old way.
func NamesIngressClass(i *networkingv1.Ingress) bool {
	_, old := i.Annotations[ingressClassAnnotation]
	return old || i.Spec.IngressClassName != nil
}

func warnNode(obj, old Object) (out []string) {
	n := obj.(*corev1.Node)
	if old != nil && equal(n.Spec, old.(*corev1.Node).Spec) {
		return nil
	}
	if n.Spec.ConfigSource != nil {
		out = append(out, "spec.configSource: the feature is no longer supported")
	}
	if n.Spec.DoNotUseExternalID != "" {
		out = append(out, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
	}
	return out
}

// oldVolumeAnnotations became fields.
var oldVolumeAnnotations = map[string]string{
	"volume.beta.kubernetes.io/storage-class": `deprecated since v1.8; use "storageClassName" attribute instead`,
	"volume.beta.kubernetes.io/mount-options": `deprecated since v1.31; use "mountOptions" attribute instead`,
}

func annotationWarnings(annotations map[string]string, old map[string]string) (out []string) {
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if text := old[key]; text != "" {
			out = append(out, fmt.Sprintf("%s: %s", field.NewPath("metadata", "annotations").Key(key), text))
		}
	}
	return out
}

func warnVolume(obj, _ Object) []string {
	v := obj.(*corev1.PersistentVolume)
	out := annotationWarnings(v.Annotations, oldVolumeAnnotations)
	if v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		out = append(out, "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	if q, found := v.Spec.Capacity[corev1.ResourceStorage]; found && fractional(q) {
		out = append(out, fractionWarning(field.NewPath("spec", "capacity").Key("storage"), q))
	}
	if a := v.Spec.NodeAffinity; a != nil && a.Required != nil {
		for i := range a.Required.NodeSelectorTerms {
			out = append(out, termWarnings(&a.Required.NodeSelectorTerms[i], field.NewPath("spec", "nodeAffinity", "required", "nodeSelectorTerms").Index(i))...)
		}
	}
	return out
}

func warnClaim(obj, _ Object) []string {
	c := obj.(*corev1.PersistentVolumeClaim)
	out := annotationWarnings(c.Annotations, oldVolumeAnnotations)
	if q, found := c.Spec.Resources.Requests[corev1.ResourceStorage]; found && fractional(q) {
		out = append(out, fractionWarning(field.NewPath("spec", "resources", "requests").Key("storage"), q))
	}
	return out
}

// warnNetworkPolicy tells of ranges that are written in another way than they are meant.
func warnNetworkPolicy(obj, _ Object) (out []string) {
	s, spec := &obj.(*networkingv1.NetworkPolicy).Spec, field.NewPath("spec")
	peers := func(list []networkingv1.NetworkPolicyPeer, p *field.Path) {
		for i := range list {
			block, at := list[i].IPBlock, p.Index(i).Child("ipBlock")
			if block == nil {
				continue
			}
			out = append(out, validation.GetWarningsForCIDR(at.Child("cidr"), block.CIDR)...)
			for j, except := range block.Except {
				out = append(out, validation.GetWarningsForCIDR(at.Child("except").Index(j), except)...)
			}
		}
	}
	for i := range s.Ingress {
		peers(s.Ingress[i].From, spec.Child("ingress").Index(i).Child("from"))
	}
	for i := range s.Egress {
		peers(s.Egress[i].To, spec.Child("egress").Index(i).Child("to"))
	}
	return out
}

// warnRuntimeClass tells of a selector by labels that nodes no longer carry.
func warnRuntimeClass(obj, _ Object) (out []string) {
	c := obj.(*nodev1.RuntimeClass)
	if c.Scheduling == nil {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(c.Scheduling.NodeSelector)) {
		if text := oldNodeLabels[key]; text != "" {
			out = append(out, fmt.Sprintf("%s: %s", field.NewPath("scheduling", "nodeSelector"), text))
		}
	}
	return out
}
