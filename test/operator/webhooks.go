package operator

import (
	"context"
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// A hive has usualBees unless it says otherwise, and room for mostBees.
const (
	usualBees = 100
	mostBees  = 1000
)

type defaulter struct{}

func (defaulter) Default(_ context.Context, h *Hive) error {
	if h.Spec.Bees == 0 {
		h.Spec.Bees = usualBees
	}
	return nil
}

type validator struct{}

func (validator) ValidateCreate(_ context.Context, h *Hive) (admission.Warnings, error) {
	if h.Spec.Bees > mostBees {
		return nil, fmt.Errorf("spec.bees: %d bees do not fit into a hive, at most %d do", h.Spec.Bees, mostBees)
	}
	if h.Spec.Bees > mostBees/2 {
		return admission.Warnings{"the hive is rather full"}, nil
	}
	return nil, nil
}

func (v validator) ValidateUpdate(ctx context.Context, _, h *Hive) (admission.Warnings, error) {
	return v.ValidateCreate(ctx, h)
}

func (validator) ValidateDelete(context.Context, *Hive) (admission.Warnings, error) { return nil, nil }

// register points the webhooks to this process.
func register(ctx context.Context, c client.Client, port int, bundle []byte) error {
	at := func(path string) admissionregistrationv1.WebhookClientConfig {
		return admissionregistrationv1.WebhookClientConfig{URL: ptr.To(fmt.Sprintf("https://127.0.0.1:%d%s", port, path)), CABundle: bundle}
	}
	rules := []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{"CREATE", "UPDATE"},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{groupVersion.Group}, APIVersions: []string{"v1"}, Resources: []string{"hives"}},
	}}
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "hives"}}
	_, err := controllerutil.CreateOrUpdate(ctx, c, mutating, func() error {
		mutating.Webhooks = []admissionregistrationv1.MutatingWebhook{{
			Name: "default.bees.example.com", ClientConfig: at("/mutate-bees-example-com-v1-hive"), Rules: rules,
			SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
		}}
		return nil
	})
	if err != nil {
		return err
	}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "hives"}}
	_, err = controllerutil.CreateOrUpdate(ctx, c, validating, func() error {
		validating.Webhooks = []admissionregistrationv1.ValidatingWebhook{{
			Name: "validate.bees.example.com", ClientConfig: at("/validate-bees-example-com-v1-hive"), Rules: rules,
			SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
		}}
		return nil
	})
	return err
}
