package endpointslicemirroring

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// leader is the annotation of Endpoints that an election keeps its record in.
const leader = "control-plane.alpha.kubernetes.io/leader"

// most is how many addresses of a subset are mirrored, as upstream.
const most = 1000

func mirrored(e *corev1.Endpoints, s *corev1.Service) bool {
	_, elected := e.Annotations[leader]
	return len(s.Spec.Selector) == 0 && s.Spec.Type != corev1.ServiceTypeExternalName && s.DeletionTimestamp == nil && e.DeletionTimestamp == nil &&
		!elected && e.Labels[discoveryv1.LabelSkipMirror] != "true"
}

// mirror makes a slice of each subset and family.
func mirror(e *corev1.Endpoints) (out []*discoveryv1.EndpointSlice) {
	for i := range e.Subsets {
		set := &e.Subsets[i]
		for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
			found := append(of(family, set.Addresses, true), of(family, set.NotReadyAddresses, false)...)
			if len(found) > 0 {
				out = append(out, slice(e, family, ports(set.Ports), found[:min(len(found), most)]))
			}
		}
	}
	return out
}

func of(family discoveryv1.AddressType, addresses []corev1.EndpointAddress, ready bool) (out []discoveryv1.Endpoint) {
	for i := range addresses {
		a := &addresses[i]
		ip, err := netip.ParseAddr(a.IP)
		if err != nil || ip.Is4() != (family == discoveryv1.AddressTypeIPv4) {
			continue
		}
		e := discoveryv1.Endpoint{
			Addresses: []string{a.IP}, NodeName: a.NodeName, TargetRef: a.TargetRef, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		}
		if a.Hostname != "" {
			e.Hostname = &a.Hostname
		}
		out = append(out, e)
	}
	return out
}

func ports(list []corev1.EndpointPort) (out []discoveryv1.EndpointPort) {
	for i := range list {
		p := &list[i]
		out = append(out, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &p.Port, AppProtocol: p.AppProtocol})
	}
	return out
}

func slice(e *corev1.Endpoints, family discoveryv1.AddressType, ports []discoveryv1.EndpointPort, found []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	labels := maps.Clone(e.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[discoveryv1.LabelServiceName], labels[discoveryv1.LabelManagedBy] = e.Name, manager
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: e.Namespace, GenerateName: e.Name + "-", Labels: labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(e, corev1.SchemeGroupVersion.WithKind("Endpoints"))},
		},
		AddressType: family, Ports: ports, Endpoints: found,
	}
}

type plan struct {
	create, update, remove []*discoveryv1.EndpointSlice
}

// decide changes slices of the same family and ports, and replaces the others.
func decide(want, have []*discoveryv1.EndpointSlice) (p plan) {
	left := slices.Clone(have)
	for _, w := range want {
		i := slices.IndexFunc(left, func(h *discoveryv1.EndpointSlice) bool {
			return h.AddressType == w.AddressType && equality.Semantic.DeepEqual(h.Ports, w.Ports)
		})
		if i < 0 {
			p.create = append(p.create, w)
			continue
		}
		h := left[i]
		left = slices.Delete(left, i, i+1)
		if maps.Equal(h.Labels, w.Labels) && equality.Semantic.DeepEqual(h.Endpoints, w.Endpoints) && equality.Semantic.DeepEqual(h.OwnerReferences, w.OwnerReferences) {
			continue
		}
		changed := h.DeepCopy()
		changed.Labels, changed.OwnerReferences, changed.Endpoints = w.Labels, w.OwnerReferences, w.Endpoints
		p.update = append(p.update, changed)
	}
	p.remove = left
	return p
}
