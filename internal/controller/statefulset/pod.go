package statefulset

import (
	"maps"
	"regexp"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/controller/owner"
)

var numbered = regexp.MustCompile(`^(.*)-([0-9]+)$`)

// ordinalOf is a pod's number in the set, -1 if its name is none of the set's.
func ordinalOf(s *appsv1.StatefulSet, p *corev1.Pod) int {
	parts := numbered.FindStringSubmatch(p.Name)
	if parts == nil || parts[1] != s.Name {
		return -1
	}
	n, err := strconv.ParseInt(parts[2], 10, 32)
	if err != nil {
		return -1
	}
	return int(n)
}

func podName(s *appsv1.StatefulSet, ordinal int) string { return s.Name + "-" + strconv.Itoa(ordinal) }

// newPod is the pod of an ordinal and a revision, with its identity and its storage.
func newPod(s *appsv1.StatefulSet, t *corev1.PodTemplateSpec, revision string, ordinal int) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: podName(s, ordinal), Labels: maps.Clone(t.Labels), Annotations: t.Annotations, Finalizers: t.Finalizers,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(s, gvk)},
		},
		Spec: t.Spec,
	}
	identify(p, ordinal)
	p.Labels[appsv1.StatefulSetRevisionLabel] = revision
	p.Spec.Hostname, p.Spec.Subdomain = p.Name, s.Spec.ServiceName
	var volumes []corev1.Volume
	for i := range s.Spec.VolumeClaimTemplates {
		claim := &s.Spec.VolumeClaimTemplates[i]
		volumes = append(volumes, corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(s, claim, ordinal)},
		}})
	}
	claimed := len(volumes)
	for _, v := range p.Spec.Volumes {
		if !slices.ContainsFunc(volumes[:claimed], func(c corev1.Volume) bool { return c.Name == v.Name }) {
			volumes = append(volumes, v)
		}
	}
	p.Spec.Volumes = volumes
	return p
}

func identify(p *corev1.Pod, ordinal int) {
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.StatefulSetPodNameLabel], p.Labels[appsv1.PodIndexLabel] = p.Name, strconv.Itoa(ordinal)
}

// relabelled is a copy of a pod with the labels of its identity, nil if it has them.
func relabelled(s *appsv1.StatefulSet, p *corev1.Pod) *corev1.Pod {
	ordinal := ordinalOf(s, p)
	if p.Labels[appsv1.StatefulSetPodNameLabel] == p.Name && p.Labels[appsv1.PodIndexLabel] == strconv.Itoa(ordinal) {
		return nil
	}
	changed := p.DeepCopy()
	identify(changed, ordinal)
	return changed
}

func claimName(s *appsv1.StatefulSet, template *corev1.PersistentVolumeClaim, ordinal int) string {
	return template.Name + "-" + podName(s, ordinal)
}

// claimsOf are the claims that a pod of the set is to have.
func claimsOf(s *appsv1.StatefulSet, p *corev1.Pod) []*corev1.PersistentVolumeClaim {
	ordinal := ordinalOf(s, p)
	var claims []*corev1.PersistentVolumeClaim
	for i := range s.Spec.VolumeClaimTemplates {
		template := &s.Spec.VolumeClaimTemplates[i]
		claim := &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: s.Namespace, Name: claimName(s, template, ordinal), Labels: maps.Clone(template.Labels), Annotations: maps.Clone(template.Annotations),
				Finalizers: slices.Clone(template.Finalizers),
			},
			Spec: *template.Spec.DeepCopy(),
		}
		if claim.Labels == nil {
			claim.Labels = map[string]string{}
		}
		if s.Spec.Selector != nil {
			maps.Copy(claim.Labels, s.Spec.Selector.MatchLabels)
		}
		if deletedWithSet(s) {
			claim.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(s, gvk)}
		}
		claims = append(claims, claim)
	}
	return claims
}

func deletedWithSet(s *appsv1.StatefulSet) bool {
	policy := s.Spec.PersistentVolumeClaimRetentionPolicy
	return policy != nil && policy.WhenDeleted == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
}

func deletedWhenScaled(s *appsv1.StatefulSet) bool {
	policy := s.Spec.PersistentVolumeClaimRetentionPolicy
	return policy != nil && policy.WhenScaled == appsv1.DeletePersistentVolumeClaimRetentionPolicyType
}

// stale says that a pod to be made cannot have its claims yet: they are going with the pod that had its name before.
func (p *pass) stale(pod *corev1.Pod) bool {
	for i := range p.set.Spec.VolumeClaimTemplates {
		claim := p.claims[claimName(p.set, &p.set.Spec.VolumeClaimTemplates[i], ordinalOf(p.set, pod))]
		if claim != nil && (claim.DeletionTimestamp != nil || slices.ContainsFunc(claim.OwnerReferences, func(ref metav1.OwnerReference) bool {
			return ofPod(ref, pod) && ref.UID != pod.UID
		})) {
			return true
		}
	}
	return false
}

func ofPod(ref metav1.OwnerReference, pod *corev1.Pod) bool {
	return ref.Kind == "Pod" && ref.APIVersion == "v1" && ref.Name == pod.Name
}

// retain makes the owners of a pod's claims say what the retention policy means: with the set, with the condemned pod, or with nobody.
func (p *pass) retain(pod *corev1.Pod, condemned bool) {
	withPod := condemned && deletedWhenScaled(p.set)
	withSet := deletedWithSet(p.set) && !withPod
	for i := range p.set.Spec.VolumeClaimTemplates {
		claim := p.claims[claimName(p.set, &p.set.Spec.VolumeClaimTemplates[i], ordinalOf(p.set, pod))]
		if claim == nil || claim.DeletionTimestamp != nil {
			continue
		}
		var others []metav1.OwnerReference
		hasSet, hasPod, idle := false, false, false
		for _, ref := range claim.OwnerReferences {
			switch {
			case ref.UID == p.set.UID:
				hasSet = true
			case ofPod(ref, pod):
				hasPod = true
			default:
				others = append(others, ref)
				continue
			}
			idle = idle || ref.Controller == nil || !*ref.Controller // somebody took the controller's mark from it
		}
		if hasSet == withSet && hasPod == withPod && !idle {
			continue
		}
		changed := claim.DeepCopy()
		changed.OwnerReferences = others
		if (withSet || withPod) && owner.Of(changed) != nil {
			p.plan.conflicts = append(p.plan.conflicts, claim.Name)
			continue
		}
		if withSet {
			changed.OwnerReferences = append(others, *metav1.NewControllerRef(p.set, gvk))
		}
		if withPod {
			changed.OwnerReferences = append(others, *metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod")))
		}
		p.plan.claims = append(p.plan.claims, changed)
	}
}
