package quota

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A claim is in the scope of each attributes class that it has, wants or is on its way to.
func TestAttributesClassScope(t *testing.T) {
	claim := func(wants, has, target string) *corev1.PersistentVolumeClaim {
		c := &corev1.PersistentVolumeClaim{}
		if wants != "" {
			c.Spec.VolumeAttributesClassName = &wants
		}
		if has != "" {
			c.Status.CurrentVolumeAttributesClassName = &has
		}
		if target != "" {
			c.Status.ModifyVolumeStatus = &corev1.ModifyVolumeStatus{TargetVolumeAttributesClassName: target}
		}
		return c
	}
	none, gold, changing, target := claim("", "", ""), claim("gold", "gold", ""), claim("silver", "gold", ""), claim("", "", "gold")
	for _, c := range []struct {
		operator corev1.ScopeSelectorOperator
		values   []string
		want     [4]bool // of none, gold, changing, target
	}{
		{corev1.ScopeSelectorOpIn, []string{"gold"}, [4]bool{false, true, true, true}},
		{corev1.ScopeSelectorOpIn, []string{"silver"}, [4]bool{false, false, true, false}},
		{corev1.ScopeSelectorOpNotIn, []string{"gold"}, [4]bool{true, false, true, false}},
		{corev1.ScopeSelectorOpExists, nil, [4]bool{false, true, true, true}},
		{corev1.ScopeSelectorOpDoesNotExist, nil, [4]bool{true, false, false, false}},
	} {
		q := &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{ScopeSelector: &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
			{ScopeName: corev1.ResourceQuotaScopeVolumeAttributesClass, Operator: c.operator, Values: c.values},
		}}}}
		for i, o := range []*corev1.PersistentVolumeClaim{none, gold, changing, target} {
			if got := Matches(q, o); got != c.want[i] {
				t.Errorf("%s %v of claim %d: %v", c.operator, c.values, i, got)
			}
		}
	}
}
