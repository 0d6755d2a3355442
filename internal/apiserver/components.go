package apiserver

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// components answers reads of ComponentStatuses, which old tools still make: each of the server's checks, as it is now.
func (s *Server) components(ctx context.Context, p store.Predicate) (out []api.Object, err error) {
	for _, c := range s.cfg.Checks {
		if p.Name != "" && p.Name != c.Name {
			continue
		}
		health := corev1.ComponentCondition{Type: corev1.ComponentHealthy, Status: corev1.ConditionTrue, Message: "ok"} //nolint:staticcheck
		if err := c.Run(ctx); err != nil {
			health.Status, health.Message, health.Error = corev1.ConditionFalse, "", err.Error()
		}
		out = append(out, &corev1.ComponentStatus{ //nolint:staticcheck
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ComponentStatus"}, ObjectMeta: metav1.ObjectMeta{Name: c.Name},
			Conditions: []corev1.ComponentCondition{health}, //nolint:staticcheck
		})
	}
	return out, nil
}
