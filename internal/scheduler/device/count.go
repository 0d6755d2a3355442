package device

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"
)

// Count is how many devices that an extended resource stands for are in use on a node, and how many there are. Upstream counts those that somebody has, of
// whichever pool; what cannot be found out counts nothing.
func (b *Book) Count(name corev1.ResourceName, node *corev1.Node) (used, all int64) {
	class := b.classes[b.standsFor[name]]
	if class == nil {
		return 0, 0
	}
	for _, s := range b.offered(node.Name) {
		whole, err := matches(node, s.Spec.NodeName, s.Spec.AllNodes, s.Spec.NodeSelector)
		if err != nil {
			return 0, 0
		}
		each := s.Spec.PerDeviceNodeSelection != nil && *s.Spec.PerDeviceNodeSelection
		if !whole && !each {
			continue
		}
		of, err := b.ofClass(class, s)
		if err != nil {
			return 0, 0
		}
		for _, k := range of {
			d := &s.Spec.Devices[k]
			if each {
				switch here, err := matches(node, d.NodeName, d.AllNodes, d.NodeSelector); {
				case err != nil:
					return 0, 0
				case !here:
					continue
				}
			}
			all++
			if structured.IsDeviceAllocated(structured.MakeDeviceID(s.Spec.Driver, s.Spec.Pool.Name, d.Name), &b.held.state) {
				used++
			}
		}
	}
	return used, all
}

// matches says whether a slice's devices, or one of them, can be used on a node.
func matches(node *corev1.Node, name *string, everywhere *bool, selector *corev1.NodeSelector) (bool, error) {
	return structured.NodeMatches(features, node, value(name), everywhere != nil && *everywhere, selector)
}

// ofClass are the devices of a slice that a class selects. That is found out once, as long as neither changes: expressions cost more than all else here.
func (b *Book) ofClass(class *resourcev1.DeviceClass, s *resourcev1.ResourceSlice) (list []int, err error) {
	known := b.selected[class]
	if known == nil {
		known = map[*resourcev1.ResourceSlice][]int{}
		b.selected[class] = known
	}
	list, has := known[s]
	if has {
		return list, nil
	}
	for k := range s.Spec.Devices {
		d := &s.Spec.Devices[k]
		ok, err := b.selects(class, cel.Device{Driver: s.Spec.Driver, Attributes: d.Attributes, Capacity: d.Capacity})
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, k)
		}
	}
	known[s] = list
	return list, nil
}

// selects says whether a class is about a device.
func (b *Book) selects(class *resourcev1.DeviceClass, d cel.Device) (bool, error) {
	for _, selector := range class.Spec.Selectors {
		if selector.CEL == nil {
			continue
		}
		program := b.programs().GetOrCompile(selector.CEL.Expression)
		if program.Error != nil {
			return false, program.Error
		}
		if ok, _, err := program.DeviceMatches(context.Background(), d); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

// programs are expressions that were compiled.
func (b *Book) programs() *cel.Cache {
	if b.cache == nil {
		b.cache = cel.NewCache(compiled, cel.Features{EnableConsumableCapacity: features.ConsumableCapacity})
	}
	return b.cache
}
