package device

import (
	"fmt"
	"time"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Awaits says whether any of these allocations has devices that must get ready before a pod is bound (KEP-5007), and when the first of those was made.
func Awaits(list []*resourcev1.AllocationResult, now time.Time) (since time.Time, waits bool) {
	for _, a := range list {
		if !conditional(a) {
			continue
		}
		at := now
		if a.AllocationTimestamp != nil {
			at = a.AllocationTimestamp.Time
		}
		if !waits || at.Before(since) {
			since = at
		}
		waits = true
	}
	return since, waits
}

func conditional(a *resourcev1.AllocationResult) bool {
	for k := range a.Devices.Results {
		if len(a.Devices.Results[k].BindingConditions) > 0 {
			return true
		}
	}
	return false
}

// Ready says whether a claim has devices, and all conditions that a pod's binding waits for are true of them. An error says that one won't be.
func Ready(c *resourcev1.ResourceClaim) (ready bool, err error) {
	if c.Status.Allocation == nil {
		return false, nil
	}
	ready = true
	for k := range c.Status.Allocation.Devices.Results {
		r := &c.Status.Allocation.Devices.Results[k]
		if len(r.BindingConditions) == 0 {
			continue
		}
		conditions := conditionsOf(c, r)
		for _, name := range r.BindingFailureConditions {
			if failed := meta.FindStatusCondition(conditions, name); failed != nil && failed.Status == metav1.ConditionTrue {
				return false, fmt.Errorf("device binding failed: claim=%s, reason=%s, message=%q", c.Name, failed.Reason, failed.Message)
			}
		}
		for _, name := range r.BindingConditions {
			ready = ready && meta.IsStatusConditionTrue(conditions, name)
		}
	}
	return ready, nil
}

// conditionsOf are what a driver reports of a device, or of a claim's share of it.
func conditionsOf(c *resourcev1.ResourceClaim, r *resourcev1.DeviceRequestAllocationResult) []metav1.Condition {
	for k := range c.Status.Devices {
		d := &c.Status.Devices[k]
		if d.Driver == r.Driver && d.Pool == r.Pool && d.Device == r.Device && share(r) == value(d.ShareID) {
			return d.Conditions
		}
	}
	return nil
}

func share(r *resourcev1.DeviceRequestAllocationResult) string {
	if r.ShareID == nil {
		return ""
	}
	return string(*r.ShareID)
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// unready says that a claim's devices failed to get ready, or have not in time.
func unready(c *resourcev1.ResourceClaim, expired time.Time) bool {
	a := c.Status.Allocation
	if a == nil || !conditional(a) {
		return false
	}
	ready, err := Ready(c)
	return err != nil || !ready && a.AllocationTimestamp != nil && !a.AllocationTimestamp.After(expired)
}

// Awaited are the conditions that a claim's devices lack, for people.
func Awaited(c *resourcev1.ResourceClaim) (list []string) {
	if c.Status.Allocation == nil {
		return nil
	}
	for k := range c.Status.Allocation.Devices.Results {
		r := &c.Status.Allocation.Devices.Results[k]
		conditions := conditionsOf(c, r)
		for _, name := range r.BindingConditions {
			if !meta.IsStatusConditionTrue(conditions, name) {
				list = append(list, fmt.Sprintf("%s of device %s/%s/%s", name, r.Driver, r.Pool, r.Device))
			}
		}
		for _, name := range r.BindingFailureConditions {
			if failed := meta.FindStatusCondition(conditions, name); failed != nil && failed.Status == metav1.ConditionTrue {
				list = append(list, fmt.Sprintf("%s (%s) of device %s/%s/%s", name, failed.Message, r.Driver, r.Pool, r.Device))
			}
		}
	}
	return list
}
