package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"skiff.dev/skiff/internal/registry"
)

const limitAnnotation = "kubernetes.io/limit-ranger"

// limitItems are the items of the namespace's LimitRanges that are about one type, in order.
func limitItems(ctx context.Context, a *registry.Attributes, types ...corev1.LimitType) ([]corev1.LimitRangeItem, error) {
	ranges, err := all[*corev1.LimitRange](ctx, a, "", "limitranges", a.Namespace)
	var items []corev1.LimitRangeItem
	for _, r := range ranges {
		for _, item := range r.Spec.Limits {
			if slices.Contains(types, item.Type) {
				items = append(items, completed(item))
			}
		}
	}
	return items, err
}

// completed fills what a container's item implies: the maximum is the default limit, the default limit or the minimum the default request.
func completed(item corev1.LimitRangeItem) corev1.LimitRangeItem {
	if item.Type != corev1.LimitTypeContainer {
		return item
	}
	item.Default = under(item.Default, item.Max)
	item.DefaultRequest = under(under(item.DefaultRequest, item.Default), item.Min)
	return item
}

// under is list with what it lacks taken from more; neither is changed.
func under(list, more corev1.ResourceList) corev1.ResourceList {
	out := make(corev1.ResourceList, len(list)+len(more))
	maps.Copy(out, more)
	maps.Copy(out, list)
	return out
}

// limitDefaults (LimitRanger) fills in the requests and limits that containers leave out.
func limitDefaults(ctx context.Context, a *registry.Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || !is(a, "", "pods") || a.Operation != create {
		return nil
	}
	items, err := limitItems(ctx, a, corev1.LimitTypeContainer)
	if err != nil {
		return err
	}
	var notes []string
	for _, item := range items {
		for i := range pod.Spec.Containers {
			notes = append(notes, fillResources("container", &pod.Spec.Containers[i], item)...)
		}
		for i := range pod.Spec.InitContainers {
			notes = append(notes, fillResources("init container", &pod.Spec.InitContainers[i], item)...)
		}
	}
	if len(notes) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[limitAnnotation] = "LimitRanger plugin set: " + strings.Join(notes, "; ")
	}
	return nil
}

// fillResources completes one container and says what it set, in the words of upstream's annotation.
func fillResources(what string, c *corev1.Container, item corev1.LimitRangeItem) []string {
	var notes []string
	fill := func(list *corev1.ResourceList, from corev1.ResourceList, kind string) {
		var set []string
		for name, q := range from {
			if _, there := (*list)[name]; !there {
				if *list == nil {
					*list = corev1.ResourceList{}
				}
				(*list)[name] = q.DeepCopy()
				set = append(set, string(name))
			}
		}
		if len(set) > 0 {
			slices.Sort(set)
			notes = append(notes, fmt.Sprintf("%s %s for %s %s", strings.Join(set, ", "), kind, what, c.Name))
		}
	}
	// A container that has a limit but no request asks for its limit (the pod's own defaults say so), not for the range's default.
	for name, limit := range c.Resources.Limits {
		if _, there := c.Resources.Requests[name]; !there {
			if c.Resources.Requests == nil {
				c.Resources.Requests = corev1.ResourceList{}
			}
			c.Resources.Requests[name] = limit.DeepCopy()
		}
	}
	fill(&c.Resources.Requests, item.DefaultRequest, "request")
	fill(&c.Resources.Limits, item.Default, "limit")
	return notes
}

// limits (LimitRanger) holds pods, containers and claims to the namespace's minima, maxima and ratios.
func limits(ctx context.Context, a *registry.Attributes) error {
	var errs []error
	switch obj := a.Object.(type) {
	case *corev1.Pod:
		if !(is(a, "", "pods") && a.Operation == create) && !isResize(a) {
			return nil
		}
		items, err := limitItems(ctx, a, corev1.LimitTypeContainer, corev1.LimitTypePod)
		if err != nil {
			return err
		}
		for _, item := range items {
			errs = append(errs, checkPod(&obj.Spec, &item)...)
		}
	case *corev1.PersistentVolumeClaim:
		if !is(a, "", "persistentvolumeclaims") || a.Operation == remove {
			return nil
		}
		items, err := limitItems(ctx, a, corev1.LimitTypePersistentVolumeClaim)
		if err != nil {
			return err
		}
		for _, item := range items {
			for name, low := range item.Min {
				errs = append(errs, atLeast(&item, name, low, obj.Spec.Resources.Requests, nil))
			}
			for name, high := range item.Max {
				errs = append(errs, atMost(&item, name, high, obj.Spec.Resources.Requests, obj.Spec.Resources.Requests))
			}
		}
	}
	if all := utilerrors.NewAggregate(errs); all != nil {
		return forbid(a, all)
	}
	return nil
}

func checkPod(spec *corev1.PodSpec, item *corev1.LimitRangeItem) []error {
	if item.Type == corev1.LimitTypePod {
		return checkResources(item, podResources(spec))
	}
	var errs []error
	for _, containers := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range containers {
			errs = append(errs, checkResources(item, containers[i].Resources)...)
		}
	}
	return errs
}

// podResources is what a pod needs at its hungriest: all containers together, or the largest init container. An absent limit makes the sum absent only
// where no container has one, as upstream counts.
func podResources(spec *corev1.PodSpec) corev1.ResourceRequirements {
	sum := corev1.ResourceRequirements{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	for i := range spec.Containers {
		add(sum.Requests, spec.Containers[i].Resources.Requests)
		add(sum.Limits, spec.Containers[i].Resources.Limits)
	}
	for i := range spec.InitContainers {
		c := &spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(sum.Requests, c.Resources.Requests)
			add(sum.Limits, c.Resources.Limits)
			continue
		}
		raise(sum.Requests, c.Resources.Requests)
		raise(sum.Limits, c.Resources.Limits)
	}
	return sum
}

func add(to, more corev1.ResourceList) {
	for name, q := range more {
		total := to[name]
		total.Add(q)
		to[name] = total
	}
}

func raise(to, least corev1.ResourceList) {
	for name, q := range least {
		if have, there := to[name]; !there || have.Cmp(q) < 0 {
			to[name] = q.DeepCopy()
		}
	}
}

func checkResources(item *corev1.LimitRangeItem, r corev1.ResourceRequirements) []error {
	var errs []error
	for name, q := range item.Min {
		errs = append(errs, atLeast(item, name, q, r.Requests, r.Limits))
	}
	for name, q := range item.Max {
		errs = append(errs, atMost(item, name, q, r.Requests, r.Limits))
	}
	for name, q := range item.MaxLimitRequestRatio {
		errs = append(errs, ratio(item, name, q, r.Requests, r.Limits))
	}
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func atLeast(item *corev1.LimitRangeItem, name corev1.ResourceName, low resource.Quantity, requests, limits corev1.ResourceList) error {
	request, asked := requests[name]
	limit, limited := limits[name]
	text := fmt.Sprintf("minimum %s usage per %s is %s", name, item.Type, low.String())
	switch {
	case !asked:
		return errors.New(text + ".  No request is specified")
	case request.Cmp(low) < 0:
		return fmt.Errorf("%s, but request is %s", text, request.String())
	case limited && limit.Cmp(low) < 0:
		return fmt.Errorf("%s, but limit is %s", text, limit.String())
	}
	return nil
}

func atMost(item *corev1.LimitRangeItem, name corev1.ResourceName, high resource.Quantity, requests, limits corev1.ResourceList) error {
	request, asked := requests[name]
	limit, limited := limits[name]
	text := fmt.Sprintf("maximum %s usage per %s is %s", name, item.Type, high.String())
	switch {
	case !limited:
		return errors.New(text + ".  No limit is specified")
	case limit.Cmp(high) > 0:
		return fmt.Errorf("%s, but limit is %s", text, limit.String())
	case asked && request.Cmp(high) > 0:
		return fmt.Errorf("%s, but request is %s", text, request.String())
	}
	return nil
}

func ratio(item *corev1.LimitRangeItem, name corev1.ResourceName, high resource.Quantity, requests, limits corev1.ResourceList) error {
	request, limit := requests[name], limits[name]
	text := fmt.Sprintf("%s max limit to request ratio per %s is %s", name, item.Type, high.String())
	switch {
	case request.IsZero():
		return errors.New(text + ", but no request is specified or request is 0")
	case limit.IsZero():
		return errors.New(text + ", but no limit is specified or limit is 0")
	}
	if got := limit.AsApproximateFloat64() / request.AsApproximateFloat64(); got > high.AsApproximateFloat64() {
		return fmt.Errorf("%s, but provided ratio is %f", text, got)
	}
	return nil
}
