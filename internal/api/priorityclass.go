package api

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Priorities of the system's classes. Whoever has the lesser of them, or more, is critical.
const (
	ClusterCriticalPriority int32 = 2_000_000_000
	NodeCriticalPriority    int32 = 2_000_001_000
)

const (
	highestUserPriority = 1_000_000_000
	// systemClassPrefix begins the names that only SystemPriorityClasses have.
	systemClassPrefix = "system-"
)

// SystemPriorityClasses are those of pods that a cluster cannot do without. They are there from the start, and stay.
func SystemPriorityClasses() []*schedulingv1.PriorityClass {
	class := func(name string, value int32, about string) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: systemClassPrefix + name}, Value: value, Description: about}
	}
	return []*schedulingv1.PriorityClass{
		class("node-critical", NodeCriticalPriority, "For pods that their node cannot do without."),
		class("cluster-critical", ClusterCriticalPriority, "For pods that the cluster cannot do without, on whichever node they run."),
	}
}

func systemPriorityClass(name string) *schedulingv1.PriorityClass {
	for _, c := range SystemPriorityClasses() {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func keepSystemPriorityClass(o Object) error {
	if systemPriorityClass(o.GetName()) != nil {
		return errors.New("this is a system priority class and cannot be deleted")
	}
	return nil
}

func validatePriorityClass(o Object) (errs field.ErrorList) {
	c := o.(*schedulingv1.PriorityClass)
	if strings.HasPrefix(c.Name, systemClassPrefix) {
		if err := likeTheSystems(c); err != nil {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"),
				fmt.Sprintf("priority class names with '%s' prefix are reserved for system use only. error: %v", systemClassPrefix, err)))
		}
	} else if c.Value > highestUserPriority {
		errs = append(errs, field.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", highestUserPriority)))
	}
	return append(errs, oneOf(value(c.PreemptionPolicy), field.NewPath("preemptionPolicy"), corev1.PreemptNever, corev1.PreemptLowerPriority)...)
}

// likeTheSystems says in what a class with a name of the system's is not the one of that name.
func likeTheSystems(c *schedulingv1.PriorityClass) error {
	switch is := systemPriorityClass(c.Name); {
	case is == nil:
		return fmt.Errorf("%v is not a known system priority class", c.Name)
	case c.Value != is.Value:
		return fmt.Errorf("value of %v PriorityClass must be %v", is.Name, is.Value)
	case c.GlobalDefault != is.GlobalDefault:
		return fmt.Errorf("globalDefault of %v PriorityClass must be %v", is.Name, is.GlobalDefault)
	}
	return nil
}

func validatePriorityClassUpdate(o, old Object) field.ErrorList {
	c, was := o.(*schedulingv1.PriorityClass), old.(*schedulingv1.PriorityClass)
	var errs field.ErrorList
	if c.Value != was.Value {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
	}
	return append(errs, immutable(c.PreemptionPolicy, was.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
}
