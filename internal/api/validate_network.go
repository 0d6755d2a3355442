package api

import (
	"net/netip"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateNetworkPolicy(o Object) field.ErrorList {
	s, spec := &o.(*networkingv1.NetworkPolicy).Spec, field.NewPath("spec")
	errs := labelSelector(&s.PodSelector, spec.Child("podSelector"))
	for i := range s.Ingress {
		p := spec.Child("ingress").Index(i)
		errs = append(errs, policyPorts(s.Ingress[i].Ports, p.Child("ports"))...)
		errs = append(errs, policyPeers(s.Ingress[i].From, p.Child("from"))...)
	}
	for i := range s.Egress {
		p := spec.Child("egress").Index(i)
		errs = append(errs, policyPorts(s.Egress[i].Ports, p.Child("ports"))...)
		errs = append(errs, policyPeers(s.Egress[i].To, p.Child("to"))...)
	}
	if len(s.PolicyTypes) > 2 {
		return append(errs, field.Invalid(spec.Child("policyTypes"), &s.PolicyTypes, "may not specify more than two policyTypes"))
	}
	for i, t := range s.PolicyTypes {
		errs = append(errs, oneOf(t, spec.Child("policyTypes").Index(i), networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress)...)
	}
	return errs
}

func policyPorts(list []networkingv1.NetworkPolicyPort, p *field.Path) (errs field.ErrorList) {
	for i := range list {
		pp, at := &list[i], p.Index(i)
		errs = append(errs, protocol(value(pp.Protocol), at.Child("protocol"))...)
		if pp.Port != nil {
			errs = append(errs, portOrName(*pp.Port, at.Child("port"))...)
		}
		if pp.EndPort == nil {
			continue
		}
		end := at.Child("endPort")
		switch {
		case pp.Port == nil:
			errs = append(errs, field.Invalid(end, *pp.EndPort, "may not be specified when `port` is not specified"))
		case pp.Port.Type == intstr.String:
			errs = append(errs, field.Invalid(end, *pp.EndPort, "may not be specified when `port` is non-numeric"))
		case *pp.EndPort < pp.Port.IntVal:
			errs = append(errs, field.Invalid(end, pp.Port.IntVal, "must be greater than or equal to `port`"))
			fallthrough
		default:
			errs = append(errs, port(*pp.EndPort, end)...)
		}
	}
	return errs
}

func policyPeers(list []networkingv1.NetworkPolicyPeer, p *field.Path) (errs field.ErrorList) {
	for i := range list {
		peer, at := &list[i], p.Index(i)
		if peer.PodSelector != nil {
			errs = append(errs, labelSelector(peer.PodSelector, at.Child("podSelector"))...)
		}
		if peer.NamespaceSelector != nil {
			errs = append(errs, labelSelector(peer.NamespaceSelector, at.Child("namespaceSelector"))...)
		}
		selects := peer.PodSelector != nil || peer.NamespaceSelector != nil
		switch {
		case peer.IPBlock != nil && selects:
			errs = append(errs, field.Forbidden(at, "may not specify both ipBlock and another peer"))
		case peer.IPBlock != nil:
			errs = append(errs, ipBlock(peer.IPBlock, at.Child("ipBlock"))...)
		case !selects:
			errs = append(errs, field.Required(at, "must specify a peer"))
		}
	}
	return errs
}

func ipBlock(b *networkingv1.IPBlock, p *field.Path) (errs field.ErrorList) {
	if b.CIDR == "" {
		return field.ErrorList{field.Required(p.Child("cidr"), "")}
	}
	whole, err := netip.ParsePrefix(b.CIDR)
	if errs = cidr(b.CIDR, p.Child("cidr")); err != nil {
		return errs
	}
	for i, s := range b.Except {
		at := p.Child("except").Index(i)
		errs = append(errs, cidr(s, at)...)
		part, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
		case !whole.Contains(part.Addr()) || part.Bits() <= whole.Bits():
			errs = append(errs, field.Invalid(at, s, "must be a strict subset of `cidr`"))
		}
	}
	return errs
}

// validateNewIngress also refuses what names its class twice, differently.
func validateNewIngress(o Object) field.ErrorList {
	i, errs := o.(*networkingv1.Ingress), validateIngress(o)
	if class, found := i.Annotations[ingressClassAnnotation]; found && i.Spec.IngressClassName != nil && class != *i.Spec.IngressClassName {
		errs = append(errs, field.Invalid(field.NewPath("annotations", ingressClassAnnotation), class, "must match `ingressClassName` when both are specified"))
	}
	return errs
}

func validateIngress(o Object) (errs field.ErrorList) {
	s, spec := &o.(*networkingv1.Ingress).Spec, field.NewPath("spec")
	if len(s.Rules) == 0 && s.DefaultBackend == nil {
		errs = append(errs, field.Invalid(spec, s.Rules, "either `defaultBackend` or `rules` must be specified"))
	}
	if s.DefaultBackend != nil {
		errs = append(errs, ingressBackend(s.DefaultBackend, spec.Child("defaultBackend"))...)
	}
	if s.IngressClassName != nil {
		errs = append(errs, dnsSubdomain(*s.IngressClassName, spec.Child("ingressClassName"))...)
	}
	for i := range s.TLS {
		for j, h := range s.TLS[i].Hosts {
			errs = append(errs, hostOrWildcard(h, spec.Child("tls").Index(i).Child("hosts").Index(j))...)
		}
		if name := s.TLS[i].SecretName; name != "" {
			errs = append(errs, dnsSubdomain(name, spec.Child("tls").Index(i).Child("secretName"))...)
		}
	}
	for i := range s.Rules {
		r, p := &s.Rules[i], spec.Child("rules").Index(i)
		if r.Host != "" {
			if _, err := netip.ParseAddr(r.Host); err == nil {
				errs = append(errs, field.Invalid(p.Child("host"), r.Host, "must be a DNS name, not an IP address"))
			} else {
				errs = append(errs, hostOrWildcard(r.Host, p.Child("host"))...)
			}
		}
		if r.HTTP == nil {
			continue
		}
		at := p.Child("http", "paths")
		if len(r.HTTP.Paths) == 0 {
			errs = append(errs, field.Required(at, ""))
		}
		for j := range r.HTTP.Paths {
			errs = append(errs, ingressPath(&r.HTTP.Paths[j], at.Index(j))...)
		}
	}
	return errs
}

func hostOrWildcard(h string, p *field.Path) field.ErrorList {
	if strings.Contains(h, "*") {
		return each(p, h, validation.IsWildcardDNS1123Subdomain(h))
	}
	return dnsSubdomain(h, p)
}

func ingressPath(h *networkingv1.HTTPIngressPath, p *field.Path) (errs field.ErrorList) {
	if h.PathType == nil {
		return field.ErrorList{field.Required(p.Child("pathType"), "pathType must be specified")}
	}
	at := p.Child("path")
	switch *h.PathType {
	case networkingv1.PathTypeExact, networkingv1.PathTypePrefix:
		if !strings.HasPrefix(h.Path, "/") {
			errs = append(errs, field.Invalid(at, h.Path, "must be an absolute path"))
		}
		for _, s := range []string{"//", "/./", "/../", "%2f", "%2F"} {
			if strings.Contains(h.Path, s) {
				errs = append(errs, field.Invalid(at, h.Path, "must not contain '"+s+"'"))
			}
		}
		for _, s := range []string{"/..", "/."} {
			if strings.HasSuffix(h.Path, s) {
				errs = append(errs, field.Invalid(at, h.Path, "cannot end with '"+s+"'"))
			}
		}
	case networkingv1.PathTypeImplementationSpecific:
		if h.Path != "" && !strings.HasPrefix(h.Path, "/") {
			errs = append(errs, field.Invalid(at, h.Path, "must be an absolute path"))
		}
	default:
		errs = append(errs, field.NotSupported(p.Child("pathType"), *h.PathType,
			[]networkingv1.PathType{networkingv1.PathTypeExact, networkingv1.PathTypeImplementationSpecific, networkingv1.PathTypePrefix}))
	}
	return append(errs, ingressBackend(&h.Backend, p.Child("backend"))...)
}

func ingressBackend(b *networkingv1.IngressBackend, p *field.Path) (errs field.ErrorList) {
	switch {
	case b.Resource != nil && b.Service != nil:
		return field.ErrorList{field.Invalid(p, "", "cannot set both resource and service backends")}
	case b.Resource != nil:
		return localReference(b.Resource.APIGroup, b.Resource.Kind, b.Resource.Name, p.Child("resource"))
	case b.Service == nil:
		return field.ErrorList{field.Invalid(p, "", "resource or service backend is required")}
	}
	at := p.Child("service")
	if b.Service.Name == "" {
		errs = append(errs, field.Required(at.Child("name"), ""))
	} else {
		errs = append(errs, each(at.Child("name"), b.Service.Name, serviceName(b.Service.Name, false))...)
	}
	switch number, name := b.Service.Port.Number, b.Service.Port.Name; {
	case name != "" && number != 0:
		errs = append(errs, field.Invalid(p, "", "cannot set both port name & port number"))
	case name != "":
		errs = append(errs, each(at.Child("port", "name"), name, validation.IsValidPortName(name))...)
	case number != 0:
		errs = append(errs, port(number, at.Child("port", "number"))...)
	default:
		errs = append(errs, field.Required(p, "port name or number is required"))
	}
	return errs
}

// localReference is of an object of whatever kind in the same namespace.
func localReference(group *string, kind, name string, p *field.Path) (errs field.ErrorList) {
	if group != nil {
		errs = append(errs, each(p.Child("apiGroup"), *group, validation.IsDNS1123Subdomain(*group))...)
	}
	for _, part := range [...]struct{ name, value string }{{"kind", kind}, {"name", name}} {
		if part.value == "" {
			errs = append(errs, field.Required(p.Child(part.name), part.name+" is required"))
		} else {
			errs = append(errs, each(p.Child(part.name), part.value, pathSegment(part.value, false))...)
		}
	}
	return errs
}

func validateIngressStatus(o, _ Object) (errs field.ErrorList) {
	for i, in := range o.(*networkingv1.Ingress).Status.LoadBalancer.Ingress {
		at := field.NewPath("status", "loadBalancer", "ingress").Index(i)
		if in.IP != "" {
			errs = append(errs, address(in.IP, at.Child("ip"))...)
		}
		if in.Hostname == "" {
			continue
		}
		errs = append(errs, dnsSubdomain(in.Hostname, at.Child("hostname"))...)
		if _, err := netip.ParseAddr(in.Hostname); err == nil {
			errs = append(errs, field.Invalid(at.Child("hostname"), in.Hostname, "must be a DNS name, not an IP address"))
		}
	}
	return errs
}
