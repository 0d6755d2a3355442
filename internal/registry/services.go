package registry

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// services knows which cluster IPs and node ports are taken. Addresses are taken by IPAddress objects; flying are those that a request under way
// has chosen and not yet written.
type services struct {
	families    []corev1.IPFamily // of the cluster, the primary first
	first, last int32             // node ports
	stored      *store.Collection
	book        addressBook
	cidrs       cidrs

	mu     sync.Mutex
	flying map[netip.Addr]int
	ports  map[int32]types.UID
}

func newServices(cfg Config) (*services, error) {
	s := &services{flying: map[netip.Addr]int{}, ports: map[int32]types.UID{}}
	for _, p := range cfg.ServiceCIDRs {
		s.families = append(s.families, familyOf(p.Addr()))
	}
	if n := len(s.families); n == 0 || n > 2 || n == 2 && s.families[0] == s.families[1] {
		return nil, fmt.Errorf("service-cidr: one range is needed, or one of each family, got %v", cfg.ServiceCIDRs)
	}
	s.stored = cfg.Store.Collection(cfg.Table.ByResource(schema.GroupResource{Resource: "services"}))
	s.book, s.cidrs.objects = newAddressBook(cfg), cfg.Store.Collection(cfg.Table.ByResource(schema.GroupResource{Group: networkingv1.GroupName, Resource: "servicecidrs"}))
	ports := cfg.NodePortRange
	low, high, ok := strings.Cut(ports, "-")
	a, err1 := strconv.ParseUint(low, 10, 16)
	b, err2 := strconv.ParseUint(high, 10, 16)
	if !ok || err1 != nil || err2 != nil || a == 0 || a > b {
		return nil, fmt.Errorf("node-ports: %q is not a range like 30000-32767", ports)
	}
	s.first, s.last = int32(a), int32(b)
	return s, nil
}

// takeStock claims the ports of the stored services, and puts the records of their addresses right.
func (r *Registry) takeStock(ctx context.Context) error {
	page, err := r.services.stored.List(ctx, store.ListOptions{Read: store.Read{Consistent: true}})
	if err != nil {
		return fmt.Errorf("list the services for their addresses: %w", err)
	}
	r.services.cidrs.follow()
	stored := make([]*corev1.Service, len(page.Entries))
	for i, e := range page.Entries {
		stored[i] = e.Object().(*corev1.Service)
		for _, n := range nodePorts(stored[i]) {
			r.services.ports[n] = stored[i].UID
		}
	}
	return r.repairAddresses(ctx, stored)
}

// release gives back the ports of a removed Service. Its addresses went with it.
func (r *Registry) release(obj api.Object) {
	if svc, ok := obj.(*corev1.Service); ok {
		r.services.mu.Lock()
		defer r.services.mu.Unlock()
		r.services.give(svc.UID, nodePorts(svc))
	}
}

func (s *services) give(of types.UID, ports []int32) {
	for _, n := range ports {
		if s.ports[n] == of {
			delete(s.ports, n)
		}
	}
}

// nodePorts are all ports of the nodes that a Service holds.
func nodePorts(svc *corev1.Service) (out []int32) {
	for _, p := range svc.Spec.Ports {
		if p.NodePort != 0 {
			out = append(out, p.NodePort)
		}
	}
	if n := svc.Spec.HealthCheckNodePort; n != 0 {
		out = append(out, n)
	}
	return out
}

// healthChecked: a load balancer asks each node whether it has an endpoint.
func healthChecked(svc *corev1.Service) bool {
	return svc.Spec.Type == corev1.ServiceTypeLoadBalancer && svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// allocate gives a Service the addresses and ports that it needs and has not. The caller ends what it returns: kept once the Service is stored,
// undone otherwise.
func (r *Registry) allocate(q *Request, obj, old api.Object) (*taking, error) {
	svc, ok := obj.(*corev1.Service)
	if !ok || q.Subresource != "" {
		return nil, nil
	}
	t := &taking{s: r.services, svc: svc}
	if old != nil {
		t.was = old.(*corev1.Service)
		inherit(svc, t.was)
	} else if svc.Spec.ClusterIP != "" && len(svc.Spec.ClusterIPs) == 0 {
		svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP} // a client that knows only the one field
	}
	t.s.mu.Lock()
	errs := t.take()
	t.s.mu.Unlock()
	if len(errs) > 0 {
		t.undo(nil)
		return nil, invalid(q, svc, errs...)
	}
	return t, nil
}

// inherit keeps addresses and ports that an update does not mention, and drops those that its type no longer has.
func inherit(svc, was *corev1.Service) {
	inheritAddresses(&svc.Spec, &was.Spec)
	if healthChecked(svc) && svc.Spec.HealthCheckNodePort == 0 {
		svc.Spec.HealthCheckNodePort = was.Spec.HealthCheckNodePort
	}
	had := map[string]int32{}
	for _, p := range was.Spec.Ports {
		had[fmt.Sprint(p.Port, p.Protocol)] = p.NodePort
	}
	for i := range svc.Spec.Ports {
		p := &svc.Spec.Ports[i]
		before := had[fmt.Sprint(p.Port, p.Protocol)]
		switch {
		case usesNodePorts(svc) && p.NodePort == 0:
			p.NodePort = before
		case !usesNodePorts(svc) && usesNodePorts(was) && p.NodePort == before:
			p.NodePort = 0
		}
	}
}

// inheritAddresses guesses what a client means by the fields that go together, of which old ones know clusterIP alone.
func inheritAddresses(s, was *corev1.ServiceSpec) {
	same := slices.Equal(s.ClusterIPs, was.ClusterIPs)
	switch {
	case len(s.ClusterIPs) == 0 && s.ClusterIP == was.ClusterIP:
		s.ClusterIPs = was.ClusterIPs
	case s.ClusterIP == "" && same:
		s.ClusterIPs = nil
	case s.ClusterIP != was.ClusterIP && (same || len(s.ClusterIPs) == 0):
		s.ClusterIPs = []string{s.ClusterIP}
		if s.ClusterIP == "" {
			s.ClusterIPs = nil
		}
	}
	switch {
	case s.Type != corev1.ServiceTypeExternalName && was.Type != corev1.ServiceTypeExternalName:
		if s.ClusterIP == "" && len(s.ClusterIPs) == 0 {
			s.ClusterIP, s.ClusterIPs = was.ClusterIP, was.ClusterIPs
		}
	case s.Type == corev1.ServiceTypeExternalName && was.Type != corev1.ServiceTypeExternalName:
		if slices.Equal(s.ClusterIPs, was.ClusterIPs) {
			s.ClusterIP, s.ClusterIPs = "", nil
		}
		if slices.Equal(s.IPFamilies, was.IPFamilies) {
			s.IPFamilies = nil
		}
		if s.IPFamilyPolicy != nil && was.IPFamilyPolicy != nil && *s.IPFamilyPolicy == *was.IPFamilyPolicy {
			s.IPFamilyPolicy = nil
		}
	}
}

func usesNodePorts(svc *corev1.Service) bool {
	switch svc.Spec.Type {
	case corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeLoadBalancer:
		return svc.Spec.AllocateLoadBalancerNodePorts == nil || *svc.Spec.AllocateLoadBalancerNodePorts
	}
	return false
}

// taking is one Service's allocation: nil for what has none. The lock of s is held around take.
type taking struct {
	s        *services
	svc, was *corev1.Service
	ips      []netip.Addr
	ports    []int32
}

func (t *taking) take() (errs field.ErrorList) {
	spec := &t.svc.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var before *corev1.ServiceSpec
	if t.was != nil {
		before = &t.was.Spec
	}
	if errs := settleFamilies(spec, before, t.s.families); len(errs) > 0 {
		return errs
	}
	at := field.NewPath("spec")
	errs = t.takeIPs(at.Child("clusterIPs"))
	if usesNodePorts(t.svc) {
		errs = append(errs, t.takePorts(at.Child("ports"))...)
	}
	if healthChecked(t.svc) {
		errs = append(errs, t.takePort(&spec.HealthCheckNodePort, at.Child("healthCheckNodePort"))...)
	}
	return errs
}

// takeIPs claims an address of each of the Service's families: the one that it asks for, or a free one.
func (t *taking) takeIPs(at *field.Path) (errs field.ErrorList) {
	spec := &t.svc.Spec
	if spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	ips := slices.Clone(spec.ClusterIPs)
	for i, f := range spec.IPFamilies {
		if i < len(ips) {
			errs = append(errs, t.takeIP(ips[i], at)...)
			continue
		}
		a, ok := t.s.freeIP(f)
		if !ok {
			return append(errs, field.InternalError(at.Index(i), fmt.Errorf("failed to allocate a serviceIP: %s", t.s.full(f))))
		}
		t.claimIP(a)
		ips = append(ips, a.String())
	}
	if len(ips) > 0 {
		spec.ClusterIP, spec.ClusterIPs = ips[0], ips
	}
	return errs
}

func (t *taking) takeIP(ip string, at *field.Path) field.ErrorList {
	a, err := netip.ParseAddr(ip)
	why := ""
	switch {
	case err != nil:
		return nil // validation says so
	case t.was != nil && slices.Contains(heldBy(t.was), a), t.s.book.of(a, t.svc) && t.s.flying[a] == 0:
		return nil
	case t.s.taken(a):
		why = "provided IP is already allocated"
	case !slices.ContainsFunc(t.s.cidrs.of(familyOf(a)), func(r addresses) bool { return r.gives(a) }):
		why = fmt.Sprintf("the provided IP (%s) is not in the valid range. The range of valid IPs is %s", a, t.s.valid(familyOf(a)))
	default:
		t.claimIP(a)
		return nil
	}
	return field.ErrorList{field.Invalid(at, t.svc.Spec.ClusterIPs, "failed to allocate IP "+ip+": "+why)}
}

func (t *taking) claimIP(a netip.Addr) {
	t.s.flying[a]++
	t.ips = append(t.ips, a)
}

func (t *taking) takePorts(at *field.Path) (errs field.ErrorList) {
	for i := range t.svc.Spec.Ports {
		errs = append(errs, t.takePort(&t.svc.Spec.Ports[i].NodePort, at.Index(i).Child("nodePort"))...)
	}
	return errs
}

// takePort claims the port that the Service asks for, or gives it a free one.
func (t *taking) takePort(n *int32, at *field.Path) field.ErrorList {
	if *n == 0 {
		free, ok := t.s.freePort()
		if !ok {
			return field.ErrorList{field.InternalError(at, fmt.Errorf("failed to allocate a nodePort: range is full"))}
		}
		*n = free
		t.claimPort(free)
		return nil
	}
	switch owner, taken := t.s.ports[*n]; {
	case taken && owner != t.svc.UID:
		return field.ErrorList{field.Invalid(at, *n, "provided port is already allocated")}
	case taken:
	case *n < t.s.first || *n > t.s.last:
		return field.ErrorList{field.Invalid(at, *n,
			fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %d-%d", t.s.first, t.s.last))}
	default:
		t.claimPort(*n)
	}
	return nil
}

func (t *taking) claimPort(n int32) {
	t.s.ports[n] = t.svc.UID
	t.ports = append(t.ports, n)
}

// keep ends an allocation of a Service that is stored: what it held before and holds no more is free.
func (t *taking) keep() {
	if t == nil {
		return
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.land()
	if t.was != nil {
		kept := nodePorts(t.svc)
		t.s.give(t.was.UID, slices.DeleteFunc(nodePorts(t.was), func(n int32) bool { return slices.Contains(kept, n) }))
	}
}

// undo gives back what this call took, except what the Service that is stored now has: somebody else may have given it the same.
func (t *taking) undo(stored *corev1.Service) {
	var ports []int32
	if stored != nil && stored.UID == t.svc.UID {
		ports = nodePorts(stored)
	}
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.land()
	for _, n := range t.ports {
		if !slices.Contains(ports, n) {
			delete(t.s.ports, n)
		}
	}
}

// land: the addresses are written by now, or never will be.
func (t *taking) land() {
	for _, a := range t.ips {
		if t.s.flying[a]--; t.s.flying[a] == 0 {
			delete(t.s.flying, a)
		}
	}
}

// undone ends an allocation of a Service that was not stored.
func (r *Registry) undone(ctx context.Context, q *Request, t *taking) {
	if t == nil {
		return
	}
	var stored *corev1.Service
	if t.was != nil {
		if e, err := r.get(ctx, q, store.Read{}); err == nil {
			stored, _ = e.Object().(*corev1.Service)
		}
	}
	t.undo(stored)
}

func (s *services) taken(a netip.Addr) bool { return s.flying[a] > 0 || s.book.taken(a) }

func (s *services) freeIP(f corev1.IPFamily) (netip.Addr, bool) {
	for _, r := range s.cidrs.of(f) {
		if a, ok := r.free(s.taken); ok {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// valid names the ranges of a family; full says why it has no address to give.
func (s *services) valid(f corev1.IPFamily) string {
	var all []string
	for _, r := range s.cidrs.of(f) {
		all = append(all, r.prefix.String())
	}
	return strings.Join(all, ", ")
}

func (s *services) full(f corev1.IPFamily) string {
	switch all := s.valid(f); {
	case all == "":
		return fmt.Sprintf("no ServiceCIDR has %s addresses and is ready", f)
	case strings.Contains(all, ","):
		return fmt.Sprintf("ranges %s are full", all)
	default:
		return fmt.Sprintf("range %s is full", all)
	}
}

// freePort picks a port at random above the band that is left to people (KEP-3668).
func (s *services) freePort() (int32, bool) {
	size := s.last - s.first + 1
	band := min(max(16, size/32), 128)
	if size <= band {
		band = 0
	}
	span := size - band
	offset := rand.Int32N(span)
	for i := range span {
		n := s.first + band + (offset+i)%span
		if _, taken := s.ports[n]; !taken {
			return n, true
		}
	}
	for n := s.first; n < s.first+band; n++ {
		if _, taken := s.ports[n]; !taken {
			return n, true
		}
	}
	return 0, false
}
