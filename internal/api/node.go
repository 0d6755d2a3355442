package api

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// A RuntimeClass names a way to run containers, and what pods that want it cost and where they may go (KEP-585, KEP-688).
func nodeRows() []*Resource {
	return []*Resource{of[nodev1.RuntimeClass, nodev1.RuntimeClassList](Resource{
		Group: "node.k8s.io", Version: "v1", Kind: "RuntimeClass", Plural: "runtimeclasses", Key: "runtimeclasses", CreateOnUpdate: true,
		Warn: warnRuntimeClass, Validate: validateRuntimeClass, ValidateUpdate: validateRuntimeClassUpdate,
		Columns: columns(text("Handler", func(c *nodev1.RuntimeClass) string { return c.Handler })),
	})}
}

func validateRuntimeClass(o Object) (errs field.ErrorList) {
	c := o.(*nodev1.RuntimeClass)
	if c.Handler == "" {
		errs = append(errs, field.Required(field.NewPath("handler"), ""))
	} else {
		errs = append(errs, dnsLabel(c.Handler, field.NewPath("handler"))...)
	}
	if c.Overhead != nil {
		r := &corev1.ResourceRequirements{Limits: c.Overhead.PodFixed}
		errs = append(errs, resources(r, nil, field.NewPath("overhead", "podFixed"))...)
	}
	if c.Scheduling == nil {
		return errs
	}
	at := field.NewPath("scheduling")
	errs = append(errs, metavalidation.ValidateLabels(c.Scheduling.NodeSelector, at.Child("nodeSelector"))...)
	for i := range c.Scheduling.Tolerations {
		t, at := &c.Scheduling.Tolerations[i], at.Child("tolerations").Index(i)
		errs = append(errs, validateToleration(t, at)...)
		for j := range i {
			if equal(t, &c.Scheduling.Tolerations[j]) {
				errs = append(errs, field.Duplicate(at, fmt.Sprintf("%v", *t)))
				break
			}
		}
	}
	return errs
}

func validateRuntimeClassUpdate(o, old Object) field.ErrorList {
	c, was := o.(*nodev1.RuntimeClass), old.(*nodev1.RuntimeClass)
	return append(validateRuntimeClass(o), immutable(c.Handler, was.Handler, field.NewPath("handler"))...)
}
