// Package policystatus says in the status of every ValidatingAdmissionPolicy which of its expressions cannot work with the kinds that it matches.
//
// A generation is checked once: status.observedGeneration is the one that status.typeChecking is about. A warning changes nothing of what the policy
// does. What checks is the API server, which has the kinds' schemas.
package policystatus

import (
	"context"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

// Check finds what is wrong with the types in a policy's expressions. An error says that nobody can check yet.
type Check func(*admissionv1.ValidatingAdmissionPolicy) ([]admissionv1.ExpressionWarning, error)

// New returns the controller. Its keys are policies; without a check there is nothing to do.
func New(c client.Client, check Check) harness.Controller {
	if check == nil {
		return harness.Controller{Reconcile: func(context.Context, harness.Key) (time.Duration, error) { return 0, nil }}
	}
	return harness.Controller{
		Watches: []harness.Watch{harness.Self(&admissionv1.ValidatingAdmissionPolicy{})},
		Reconcile: func(ctx context.Context, key harness.Key) (time.Duration, error) {
			var p admissionv1.ValidatingAdmissionPolicy
			if err := c.Get(ctx, key, &p); err != nil {
				return 0, crclient.IgnoreNotFound(err)
			}
			if p.DeletionTimestamp != nil || p.Generation <= p.Status.ObservedGeneration {
				return 0, nil
			}
			warnings, err := check(&p)
			if err != nil {
				return 0, err
			}
			next := p.DeepCopy()
			next.Status.ObservedGeneration = p.Generation
			next.Status.TypeChecking = &admissionv1.TypeChecking{ExpressionWarnings: warnings}
			return 0, crclient.IgnoreNotFound(c.Status().Update(ctx, next))
		},
	}
}
