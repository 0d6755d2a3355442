package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry"
)

// The annotations of a namespace that PodTolerationRestriction heeds: JSON lists of tolerations.
const (
	defaultTolerationsOf = "scheduler.alpha.kubernetes.io/defaultTolerations"
	allowedTolerationsOf = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
)

// tolerations is PodTolerationRestriction's configuration, in upstream's format: what holds for namespaces without annotations.
type tolerations struct {
	metav1.TypeMeta `json:",inline"`
	Default         []corev1.Toleration `json:"default,omitempty"`
	Allowed         []corev1.Toleration `json:"whitelist,omitempty"`
}

// podTolerations (PodTolerationRestriction) makes namespaces say what their pods tolerate.
func podTolerations(raw []byte) (made, error) {
	var t tolerations
	if raw != nil {
		var err error
		if t, err = parse[tolerations](raw, "podtolerationrestriction.admission.k8s.io/v1alpha1 Configuration"); err != nil {
			return made{}, err
		}
	}
	return made{admit: t.namespaceTolerations, validate: t.tolerationsAllowed}, nil
}

func tolerationsOf(ctx context.Context, a *registry.Attributes, annotation string, without []corev1.Toleration) ([]corev1.Toleration, error) {
	ns, err := find[*corev1.Namespace](ctx, a, "", "namespaces", a.Namespace)
	if err != nil || ns == nil || ns.Annotations[annotation] == "" {
		return without, err
	}
	var out []corev1.Toleration
	if err := json.Unmarshal([]byte(ns.Annotations[annotation]), &out); err != nil {
		return nil, forbid(a, fmt.Errorf("the namespace's annotation %s is no list of tolerations: %w", annotation, err))
	}
	return out, nil
}

// namespaceTolerations gives new pods the tolerations of their namespace.
func (t *tolerations) namespaceTolerations(ctx context.Context, a *registry.Attributes) error {
	pod := newPod(a, false)
	if pod == nil {
		return nil
	}
	more, err := tolerationsOf(ctx, a, defaultTolerationsOf, t.Default)
	if err != nil {
		return err
	}
	for _, t := range more {
		switch i := slices.IndexFunc(pod.Spec.Tolerations, func(has corev1.Toleration) bool { return has.MatchToleration(&t) }); {
		case i < 0:
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, t)
		case !sameSeconds(pod.Spec.Tolerations[i].TolerationSeconds, t.TolerationSeconds):
			return forbid(a, errors.New("namespace tolerations and pod tolerations conflict"))
		}
	}
	return nil
}

// tolerationsAllowed lets pods tolerate only what their namespace lists, if it lists anything.
func (t *tolerations) tolerationsAllowed(ctx context.Context, a *registry.Attributes) error {
	pod := newPod(a, true)
	if pod == nil {
		return nil
	}
	allowed, err := tolerationsOf(ctx, a, allowedTolerationsOf, t.Allowed)
	if err != nil || len(allowed) == 0 {
		return err
	}
	for i := range pod.Spec.Tolerations {
		if !slices.ContainsFunc(allowed, func(may corev1.Toleration) bool { return covers(&may, &pod.Spec.Tolerations[i]) }) {
			return forbid(a, errors.New("pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist"))
		}
	}
	return nil
}

// covers: whatever t tolerates, may tolerates too.
func covers(may, t *corev1.Toleration) bool {
	switch {
	case may.Key != t.Key && (may.Key != "" || may.Operator != corev1.TolerationOpExists), may.Effect != "" && may.Effect != t.Effect:
		return false
	case may.Operator != corev1.TolerationOpExists && (t.Operator == corev1.TolerationOpExists || may.Value != t.Value):
		return false
	}
	return may.TolerationSeconds == nil || t.TolerationSeconds != nil && *t.TolerationSeconds <= *may.TolerationSeconds
}

func sameSeconds(a, b *int64) bool { return a == b || a != nil && b != nil && *a == *b }
