package registry

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// services knows which cluster IPs and node ports are taken, and by which Service.
type services struct {
	cidr        netip.Prefix
	first, last int32 // node ports

	mu    sync.Mutex
	ips   map[netip.Addr]types.UID
	ports map[int32]types.UID
}

func newServices(cidrs []netip.Prefix, ports string) (*services, error) {
	s := &services{ips: map[netip.Addr]types.UID{}, ports: map[int32]types.UID{}}
	if len(cidrs) == 0 || !cidrs[0].Addr().Is4() {
		return nil, fmt.Errorf("service-cidr: one IPv4 range is needed, got %v", cidrs)
	}
	s.cidr = cidrs[0].Masked()
	low, high, ok := strings.Cut(ports, "-")
	a, err1 := strconv.ParseUint(low, 10, 16)
	b, err2 := strconv.ParseUint(high, 10, 16)
	if !ok || err1 != nil || err2 != nil || a == 0 || a > b {
		return nil, fmt.Errorf("node-ports: %q is not a range like 30000-32767", ports)
	}
	s.first, s.last = int32(a), int32(b)
	return s, nil
}

// takeStock claims what the stored services hold.
func (r *Registry) takeStock(ctx context.Context) error {
	page, err := r.cfg.Store.Collection(r.cfg.Table.ByResource(schema.GroupResource{Resource: "services"})).
		List(ctx, store.ListOptions{Read: store.Read{Consistent: true}})
	if err != nil {
		return fmt.Errorf("list the services for their addresses: %w", err)
	}
	for _, e := range page.Entries {
		svc := e.Object().(*corev1.Service)
		for _, ip := range svc.Spec.ClusterIPs {
			if a, err := netip.ParseAddr(ip); err == nil {
				r.services.ips[a] = svc.UID
			}
		}
		for _, n := range nodePorts(svc) {
			r.services.ports[n] = svc.UID
		}
	}
	return nil
}

// release gives back what a removed Service held.
func (r *Registry) release(obj api.Object) {
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return
	}
	s := r.services
	s.mu.Lock()
	defer s.mu.Unlock()
	s.give(svc)
}

func (s *services) give(svc *corev1.Service) {
	for _, ip := range svc.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil && s.ips[a] == svc.UID {
			delete(s.ips, a)
		}
	}
	for _, n := range nodePorts(svc) {
		if s.ports[n] == svc.UID {
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

// allocate gives a Service the addresses and ports that it needs and has not. undo gives back what this call took.
func (r *Registry) allocate(q *Request, obj, old api.Object) (undo func(), err error) {
	nothing := func() {}
	svc, ok := obj.(*corev1.Service)
	if !ok || q.Subresource != "" {
		return nothing, nil
	}
	var was *corev1.Service
	if old != nil {
		was = old.(*corev1.Service)
		inherit(svc, was)
	}
	s := r.services
	s.mu.Lock()
	defer s.mu.Unlock()
	t := taking{s: s, svc: svc}
	if errs := t.take(); len(errs) > 0 {
		t.undo()
		return nothing, invalid(q, svc, errs...)
	}
	if was != nil {
		t.drop(was)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		t.undo()
	}, nil
}

// inherit keeps addresses and ports that an update does not mention, and drops those that its type no longer has.
func inherit(svc, was *corev1.Service) {
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		if svc.Spec.ClusterIP == was.Spec.ClusterIP {
			svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.IPFamilies, svc.Spec.IPFamilyPolicy = "", nil, nil, nil
		}
	} else if svc.Spec.ClusterIP == "" && was.Spec.Type != corev1.ServiceTypeExternalName {
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs = was.Spec.ClusterIP, was.Spec.ClusterIPs
	}
	if len(svc.Spec.ClusterIPs) == 0 && svc.Spec.ClusterIP != "" {
		svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
	}
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

func usesNodePorts(svc *corev1.Service) bool {
	switch svc.Spec.Type {
	case corev1.ServiceTypeNodePort:
		return true
	case corev1.ServiceTypeLoadBalancer:
		return svc.Spec.AllocateLoadBalancerNodePorts == nil || *svc.Spec.AllocateLoadBalancerNodePorts
	}
	return false
}

// taking is one Service's allocation. The lock of s is held around its methods.
type taking struct {
	s       *services
	svc     *corev1.Service
	ips     []netip.Addr
	ports   []int32
	dropped *corev1.Service
}

func (t *taking) take() (errs field.ErrorList) {
	spec := &t.svc.Spec
	if spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	if len(spec.IPFamilies) == 0 {
		spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	if spec.IPFamilyPolicy == nil {
		spec.IPFamilyPolicy = pointTo(corev1.IPFamilyPolicySingleStack)
	}
	at := field.NewPath("spec")
	if *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack {
		errs = append(errs, field.Invalid(at.Child("ipFamilyPolicy"), *spec.IPFamilyPolicy, "this cluster is not configured for dual-stack services"))
	}
	for i, f := range spec.IPFamilies {
		if f != corev1.IPv4Protocol {
			errs = append(errs, field.Invalid(at.Child("ipFamilies").Index(i), f, "not configured on this cluster"))
		}
	}
	errs = append(errs, t.takeIP(at)...)
	if usesNodePorts(t.svc) {
		errs = append(errs, t.takePorts(at.Child("ports"))...)
	}
	if healthChecked(t.svc) {
		errs = append(errs, t.takePort(&spec.HealthCheckNodePort, at.Child("healthCheckNodePort"))...)
	}
	return errs
}

func (t *taking) takeIP(at *field.Path) field.ErrorList {
	spec := &t.svc.Spec
	if len(spec.ClusterIPs) == 0 && spec.ClusterIP != "" {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
	if spec.ClusterIP == "" && len(spec.ClusterIPs) > 0 {
		spec.ClusterIP = spec.ClusterIPs[0]
	}
	switch spec.ClusterIP {
	case corev1.ClusterIPNone:
		return nil
	case "":
		a, ok := t.s.freeIP()
		if !ok {
			return field.ErrorList{field.InternalError(at.Child("clusterIPs").Index(0), fmt.Errorf("failed to allocate a serviceIP: range %s is full", t.s.cidr))}
		}
		t.claimIP(a)
		spec.ClusterIP, spec.ClusterIPs = a.String(), []string{a.String()}
		return nil
	}
	a, err := netip.ParseAddr(spec.ClusterIP)
	why := ""
	switch owner, taken := t.s.ips[a]; {
	case err != nil:
		return nil // validation says so
	case taken && owner == t.svc.UID:
		return nil
	case taken:
		why = "failed to allocate IP " + a.String() + ": provided IP is already allocated"
	case !t.s.cidr.Contains(a):
		why = fmt.Sprintf("failed to allocate IP %s: the provided IP (%s) is not in the valid range. The range of valid IPs is %s", a, a, t.s.cidr)
	default:
		t.claimIP(a)
		return nil
	}
	return field.ErrorList{field.Invalid(at.Child("clusterIPs"), spec.ClusterIPs, why)}
}

func (t *taking) claimIP(a netip.Addr) {
	t.s.ips[a] = t.svc.UID
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

// drop gives back what the Service held before and holds no more. Undoing takes it again.
func (t *taking) drop(was *corev1.Service) {
	gone := was.DeepCopy()
	gone.Spec.ClusterIPs, gone.Spec.Ports = nil, nil
	for _, ip := range was.Spec.ClusterIPs {
		if ip != t.svc.Spec.ClusterIP {
			gone.Spec.ClusterIPs = append(gone.Spec.ClusterIPs, ip)
		}
	}
	kept := map[int32]bool{}
	for _, n := range nodePorts(t.svc) {
		kept[n] = true
	}
	if kept[was.Spec.HealthCheckNodePort] {
		gone.Spec.HealthCheckNodePort = 0
	}
	for _, p := range was.Spec.Ports {
		if !kept[p.NodePort] {
			gone.Spec.Ports = append(gone.Spec.Ports, p)
		}
	}
	t.dropped = gone
	t.s.give(gone)
}

func (t *taking) undo() {
	for _, a := range t.ips {
		delete(t.s.ips, a)
	}
	for _, n := range t.ports {
		delete(t.s.ports, n)
	}
	if t.dropped == nil {
		return
	}
	for _, ip := range t.dropped.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(ip); err == nil {
			t.s.ips[a] = t.dropped.UID
		}
	}
	for _, n := range nodePorts(t.dropped) {
		t.s.ports[n] = t.dropped.UID
	}
}

// freeIP picks an address at random above the band that is left to people who choose their own (KEP-3070).
func (s *services) freeIP() (netip.Addr, bool) {
	base := s.cidr.Addr().As4()
	start := binary.BigEndian.Uint32(base[:])
	size := uint32(1)<<(32-s.cidr.Bits()) - 1 // without the broadcast address
	band := min(max(16, size/16), 256)
	if size <= band+1 {
		band = 0
	}
	at := func(i uint32) netip.Addr {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], start+i)
		return netip.AddrFrom4(b)
	}
	span := size - band - 1
	offset := rand.Uint32N(max(span, 1))
	for i := range span {
		a := at(band + 1 + (offset+i)%span)
		if _, taken := s.ips[a]; !taken {
			return a, true
		}
	}
	for i := uint32(1); i <= band; i++ {
		if a := at(i); s.free(a) {
			return a, true
		}
	}
	return netip.Addr{}, false
}

func (s *services) free(a netip.Addr) bool {
	_, taken := s.ips[a]
	return !taken
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
