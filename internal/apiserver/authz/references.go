package authz

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

// This file knows where a pod names other objects.

// claimsOf are the claims a pod mounts. An ephemeral volume's claim is named after its pod and itself.
func claimsOf(p *corev1.Pod) []string {
	var out []string
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		switch {
		case v.PersistentVolumeClaim != nil:
			out = append(out, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			out = append(out, p.Name+"-"+v.Name)
		}
	}
	return out
}

func podUsesClaim(p *corev1.Pod, name string) bool { return slices.Contains(claimsOf(p), name) }

// podUsesResourceClaim: by name, or by the one that was made for it.
func podUsesResourceClaim(p *corev1.Pod, name string) bool {
	for claim := range resourceclaim.PodClaims(p) {
		if claim == name {
			return true
		}
	}
	return false
}

// anyEnv says whether a container's environment comes from what the two functions look for.
func anyEnv(p *corev1.Pod, one func(*corev1.EnvVarSource) bool, all func(*corev1.EnvFromSource) bool) bool {
	within := func(env []corev1.EnvVar, from []corev1.EnvFromSource) bool {
		for i := range env {
			if env[i].ValueFrom != nil && one(env[i].ValueFrom) {
				return true
			}
		}
		for i := range from {
			if all(&from[i]) {
				return true
			}
		}
		return false
	}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			if within(list[i].Env, list[i].EnvFrom) {
				return true
			}
		}
	}
	for i := range p.Spec.EphemeralContainers {
		c := &p.Spec.EphemeralContainers[i]
		if within(c.Env, c.EnvFrom) {
			return true
		}
	}
	return false
}

func podUsesSecret(p *corev1.Pod, name string) bool {
	for _, s := range p.Spec.ImagePullSecrets {
		if s.Name == name {
			return true
		}
	}
	for i := range p.Spec.Volumes {
		if volumeNamesSecret(&p.Spec.Volumes[i].VolumeSource, name) {
			return true
		}
	}
	return anyEnv(p,
		func(s *corev1.EnvVarSource) bool { return s.SecretKeyRef != nil && s.SecretKeyRef.Name == name },
		func(s *corev1.EnvFromSource) bool { return s.SecretRef != nil && s.SecretRef.Name == name })
}

func volumeNamesSecret(v *corev1.VolumeSource, name string) bool {
	local := func(r *corev1.LocalObjectReference) bool { return r != nil && r.Name == name }
	switch {
	case v.Secret != nil:
		return v.Secret.SecretName == name
	case v.Projected != nil:
		return slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.Secret != nil && s.Secret.Name == name })
	case v.CSI != nil:
		return local(v.CSI.NodePublishSecretRef)
	case v.ISCSI != nil:
		return local(v.ISCSI.SecretRef)
	case v.CephFS != nil:
		return local(v.CephFS.SecretRef)
	case v.RBD != nil:
		return local(v.RBD.SecretRef)
	case v.FlexVolume != nil:
		return local(v.FlexVolume.SecretRef)
	case v.AzureFile != nil:
		return v.AzureFile.SecretName == name
	}
	return false
}

func podUsesConfigMap(p *corev1.Pod, name string) bool {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		if v.ConfigMap != nil && v.ConfigMap.Name == name {
			return true
		}
		projected := func(s corev1.VolumeProjection) bool { return s.ConfigMap != nil && s.ConfigMap.Name == name }
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, projected) {
			return true
		}
	}
	return anyEnv(p,
		func(s *corev1.EnvVarSource) bool { return s.ConfigMapKeyRef != nil && s.ConfigMapKeyRef.Name == name },
		func(s *corev1.EnvFromSource) bool { return s.ConfigMapRef != nil && s.ConfigMapRef.Name == name })
}

// volumeUsesSecret: the secrets with which a storage driver stages, publishes and expands on the node.
func volumeUsesSecret(pv *corev1.PersistentVolume, namespace, name string) bool {
	csi := pv.Spec.CSI
	if csi == nil {
		return false
	}
	for _, r := range []*corev1.SecretReference{csi.NodePublishSecretRef, csi.NodeStageSecretRef, csi.NodeExpandSecretRef} {
		if r != nil && r.Namespace == namespace && r.Name == name {
			return true
		}
	}
	return false
}
