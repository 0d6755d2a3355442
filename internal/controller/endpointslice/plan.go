package endpointslice

import (
	"cmp"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/controller/backend"
)

// perSlice is how many endpoints a slice holds at most, as upstream.
const perSlice = 100

type plan struct {
	create []*discoveryv1.EndpointSlice
	update []*discoveryv1.EndpointSlice // copies, changed
	remove []*discoveryv1.EndpointSlice
}

// group is what slices of the same family and the same ports should hold together.
type group struct {
	family    discoveryv1.AddressType
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint
}

// decide compares what there should be with what there is.
func decide(service *corev1.Service, backends []backend.Backend, existing []*discoveryv1.EndpointSlice, zone func(node string) string) plan {
	d := decision{service: service, labels: labelsOf(service), trigger: backend.Triggered(service, backends)}
	var leftover []*discoveryv1.EndpointSlice
	groups := desired(service, backends, zone)
	mine := make([][]*discoveryv1.EndpointSlice, len(groups))
	for _, s := range existing {
		i := slices.IndexFunc(groups, func(g group) bool {
			return g.family == s.AddressType && equality.Semantic.DeepEqual(g.ports, portsOf(s))
		})
		if i < 0 {
			leftover = append(leftover, s)
			continue
		}
		mine[i] = append(mine[i], s)
	}
	for i, g := range groups {
		// A slice with other ports is rewritten rather than replaced when the group has none: watchers see one change, not two.
		if len(mine[i]) == 0 {
			if j := slices.IndexFunc(leftover, func(s *discoveryv1.EndpointSlice) bool { return s.AddressType == g.family }); j >= 0 {
				mine[i] = append(mine[i], leftover[j])
				leftover = slices.Delete(leftover, j, j+1)
			}
		}
		d.fit(g, mine[i])
	}
	d.plan.remove = append(d.plan.remove, leftover...)
	return d.plan
}

// desired groups the backends by family and ports. A family without any backend still gets an empty slice, so that it is seen to exist.
func desired(service *corev1.Service, backends []backend.Backend, zone func(string) string) []group {
	var groups []group
	for _, family := range backend.Families(service) {
		byPorts, any := map[string]int{}, false
		for i := range backends {
			b := &backends[i]
			addresses := b.Addresses(family)
			if len(addresses) == 0 || len(b.Ports) == 0 && len(service.Spec.Ports) > 0 {
				continue
			}
			at, known := byPorts[b.PortsKey()]
			if !known {
				at = len(groups)
				byPorts[b.PortsKey()] = at
				groups = append(groups, group{family: discoveryv1.AddressType(family), ports: slicePorts(b.Ports)})
			}
			groups[at].endpoints = append(groups[at].endpoints, endpoint(b, addresses, zone))
			any = true
		}
		for i := range groups {
			if groups[i].family == discoveryv1.AddressType(family) {
				hint(service, groups[i].endpoints)
			}
		}
		if !any {
			groups = append(groups, group{family: discoveryv1.AddressType(family)})
		}
	}
	return groups
}

func endpoint(b *backend.Backend, addresses []string, zone func(string) string) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{
		Addresses:  addresses,
		Conditions: discoveryv1.EndpointConditions{Ready: &b.Ready, Serving: &b.Serving, Terminating: &b.Terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: b.Pod.Namespace, Name: b.Pod.Name, UID: b.Pod.UID},
	}
	if name := b.Pod.Spec.NodeName; name != "" {
		e.NodeName = &name
	}
	if z := zone(b.Pod.Spec.NodeName); z != "" {
		e.Zone = &z
	}
	if b.Hostname != "" {
		e.Hostname = &b.Hostname
	}
	return e
}

func slicePorts(ports []backend.Port) []discoveryv1.EndpointPort {
	var list []discoveryv1.EndpointPort
	for _, p := range ports {
		list = append(list, discoveryv1.EndpointPort{Name: &p.Name, Protocol: &p.Protocol, Port: &p.Number, AppProtocol: p.App})
	}
	return list
}

// portsOf reads a slice's ports as this package writes them: none at all is nil.
func portsOf(s *discoveryv1.EndpointSlice) []discoveryv1.EndpointPort {
	if len(s.Ports) == 0 {
		return nil
	}
	return s.Ports
}

func labelsOf(service *corev1.Service) map[string]string {
	return backend.Labels(service, map[string]string{
		discoveryv1.LabelServiceName: service.Name,
		discoveryv1.LabelManagedBy:   manager,
	})
}

// decision is a plan in the making.
type decision struct {
	service *corev1.Service
	labels  map[string]string
	trigger string
	plan    plan
}

// fit changes have until they hold exactly what g says: endpoints stay where they are, gaps are filled, then new slices are made, and
// slices left empty go.
func (d *decision) fit(g group, have []*discoveryv1.EndpointSlice) {
	type identity struct {
		uid     types.UID
		address string
	}
	of := func(e *discoveryv1.Endpoint) identity {
		if e.TargetRef == nil {
			return identity{address: e.Addresses[0]}
		}
		return identity{uid: e.TargetRef.UID, address: e.Addresses[0]}
	}
	want := map[identity]*discoveryv1.Endpoint{}
	for i := range g.endpoints {
		want[of(&g.endpoints[i])] = &g.endpoints[i]
	}
	kept := make([][]discoveryv1.Endpoint, len(have))
	for i, s := range have {
		for j := range s.Endpoints {
			if e, ok := want[of(&s.Endpoints[j])]; ok {
				kept[i] = append(kept[i], *e)
				delete(want, of(&s.Endpoints[j]))
			}
		}
	}
	var missing []discoveryv1.Endpoint
	for i := range g.endpoints {
		if _, ok := want[of(&g.endpoints[i])]; ok {
			missing = append(missing, g.endpoints[i])
		}
	}
	for i := range d.fullestFirst(kept) {
		n := min(len(missing), max(0, perSlice-len(kept[i])))
		kept[i] = append(kept[i], missing[:n]...)
		missing = missing[n:]
	}
	spare := len(have) > 1 && len(g.endpoints) > 0
	for i, s := range have {
		if len(kept[i]) == 0 && (spare || i > 0) {
			d.plan.remove = append(d.plan.remove, s)
			continue
		}
		d.update(s, g, kept[i])
	}
	for chunk := range slices.Chunk(missing, perSlice) {
		d.create(g, chunk)
	}
	if len(have) == 0 && len(g.endpoints) == 0 {
		d.create(g, nil)
	}
}

// fullestFirst orders slices so that gaps in nearly full ones are filled first, which keeps their number small.
func (d *decision) fullestFirst(kept [][]discoveryv1.Endpoint) func(yield func(int) bool) {
	order := make([]int, len(kept))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(len(kept[b]), len(kept[a])) })
	return slices.Values(order)
}

// update plans a change of s unless it is already right.
func (d *decision) update(s *discoveryv1.EndpointSlice, g group, endpoints []discoveryv1.Endpoint) {
	owners := []metav1.OwnerReference{*metav1.NewControllerRef(d.service, corev1.SchemeGroupVersion.WithKind("Service"))}
	if maps.Equal(s.Labels, d.labels) && equality.Semantic.DeepEqual(s.Endpoints, endpoints) && equality.Semantic.DeepEqual(portsOf(s), g.ports) &&
		equality.Semantic.DeepEqual(s.OwnerReferences, owners) {
		return
	}
	changed := s.DeepCopy()
	changed.Labels, changed.OwnerReferences, changed.Ports, changed.Endpoints = d.labels, owners, g.ports, endpoints
	d.stamp(changed)
	d.plan.update = append(d.plan.update, changed)
}

func (d *decision) create(g group, endpoints []discoveryv1.Endpoint) {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.service.Namespace, GenerateName: d.service.Name + "-", Labels: d.labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d.service, corev1.SchemeGroupVersion.WithKind("Service"))},
		},
		AddressType: g.family, Ports: g.ports, Endpoints: slices.Clone(endpoints),
	}
	d.stamp(s)
	d.plan.create = append(d.plan.create, s)
}

func (d *decision) stamp(s *discoveryv1.EndpointSlice) {
	if d.trigger == "" {
		return
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[corev1.EndpointsLastChangeTriggerTime] = d.trigger
}
