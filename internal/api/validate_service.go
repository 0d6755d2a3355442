package api

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func validateService(o Object) field.ErrorList {
	s, spec := &o.(*corev1.Service).Spec, field.NewPath("spec")
	headless := s.ClusterIP == corev1.ClusterIPNone
	errs := oneOf(s.Type, spec.Child("type"), corev1.ServiceTypeClusterIP, corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)
	errs = append(errs, oneOf(s.SessionAffinity, spec.Child("sessionAffinity"), corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)...)
	if len(s.Ports) == 0 && !headless && s.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(spec.Child("ports"), ""))
	}
	switch s.Type {
	case corev1.ServiceTypeExternalName:
		if s.ExternalName == "" {
			errs = append(errs, field.Required(spec.Child("externalName"), ""))
		} else {
			errs = append(errs, each(spec.Child("externalName"), s.ExternalName, validation.IsDNS1123Subdomain(strings.TrimSuffix(s.ExternalName, ".")))...)
		}
	case corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		if headless {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(0), s.ClusterIP, fmt.Sprintf("may not be set to 'None' for %s services", s.Type)))
		}
	}
	errs = append(errs, ValidateServiceFamilies(s)...)
	errs = append(errs, trafficErrors(s, spec)...)
	for k, v := range s.Selector {
		errs = append(errs, each(spec.Child("selector"), k, validation.IsQualifiedName(k))...)
		errs = append(errs, each(spec.Child("selector"), v, validation.IsValidLabelValue(v))...)
	}
	for i, ip := range s.ExternalIPs {
		errs = append(errs, endpointAddress(ip, spec.Child("externalIPs").Index(i))...)
	}
	if c := s.SessionAffinityConfig; c != nil && c.ClientIP != nil {
		if n := value(c.ClientIP.TimeoutSeconds); n <= 0 || n > 86400 {
			errs = append(errs, field.Invalid(spec.Child("sessionAffinityConfig", "clientIP", "timeoutSeconds"), n, "must be greater than 0 and less than or equal to 86400"))
		}
	}
	return append(errs, servicePortErrors(s, spec.Child("ports"))...)
}

// externallyReached says whether a Service takes traffic from outside the cluster.
func externallyReached(s *corev1.ServiceSpec) bool {
	return s.Type == corev1.ServiceTypeNodePort || s.Type == corev1.ServiceTypeLoadBalancer || len(s.ExternalIPs) > 0
}

// trafficErrors checks where a Service takes traffic from and to.
func trafficErrors(s *corev1.ServiceSpec, spec *field.Path) (errs field.ErrorList) {
	if external := s.ExternalTrafficPolicy; external != "" {
		p := spec.Child("externalTrafficPolicy")
		if !externallyReached(s) {
			errs = append(errs, field.Invalid(p, external, "may only be set for externally-accessible services"))
		}
		errs = append(errs, oneOf(external, p, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)...)
	}
	if within := s.InternalTrafficPolicy; within != nil {
		errs = append(errs, oneOf(*within, spec.Child("internalTrafficPolicy"), corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)...)
	}
	if s.LoadBalancerClass != nil {
		if p := spec.Child("loadBalancerClass"); s.Type != corev1.ServiceTypeLoadBalancer {
			errs = append(errs, field.Forbidden(p, "may only be used when `type` is 'LoadBalancer'"))
		} else {
			errs = append(errs, each(p, *s.LoadBalancerClass, validation.IsQualifiedName(*s.LoadBalancerClass))...)
		}
	}
	errs = append(errs, onlyForLoadBalancers(s, spec)...)
	if d := s.TrafficDistribution; d != nil {
		errs = append(errs, oneOf(*d, spec.Child("trafficDistribution"), corev1.ServiceTrafficDistributionPreferClose,
			corev1.ServiceTrafficDistributionPreferSameNode, corev1.ServiceTrafficDistributionPreferSameZone)...)
	}
	for i, c := range s.LoadBalancerSourceRanges {
		errs = append(errs, cidr(strings.TrimSpace(c), spec.Child("loadBalancerSourceRanges").Index(i))...)
	}
	return errs
}

// onlyForLoadBalancers refuses what other types of Service have no use for.
func onlyForLoadBalancers(s *corev1.ServiceSpec, spec *field.Path) (errs field.ErrorList) {
	balanced := s.Type == corev1.ServiceTypeLoadBalancer
	if s.HealthCheckNodePort != 0 && !(balanced && s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal) {
		errs = append(errs, field.Invalid(spec.Child("healthCheckNodePort"), s.HealthCheckNodePort,
			"may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"))
	}
	if balanced {
		return errs
	}
	if s.AllocateLoadBalancerNodePorts != nil {
		errs = append(errs, field.Forbidden(spec.Child("allocateLoadBalancerNodePorts"), "may only be used when `type` is 'LoadBalancer'"))
	}
	if len(s.LoadBalancerSourceRanges) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("loadBalancerSourceRanges"), "may only be used when `type` is 'LoadBalancer'"))
	}
	return errs
}

func servicePortErrors(s *corev1.ServiceSpec, at *field.Path) (errs field.ErrorList) {
	names, ports, nodePorts := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i := range s.Ports {
		sp, p := &s.Ports[i], at.Index(i)
		switch {
		case sp.Name == "" && len(s.Ports) > 1:
			errs = append(errs, field.Required(p.Child("name"), ""))
		case sp.Name != "":
			errs = append(errs, dnsLabel(sp.Name, p.Child("name"))...)
			if names[sp.Name] {
				errs = append(errs, field.Duplicate(p.Child("name"), sp.Name))
			}
			names[sp.Name] = true
		}
		errs = append(errs, port(sp.Port, p.Child("port"))...)
		errs = append(errs, protocol(sp.Protocol, p.Child("protocol"))...)
		if sp.AppProtocol != nil {
			errs = append(errs, each(p.Child("appProtocol"), *sp.AppProtocol, validation.IsQualifiedName(*sp.AppProtocol))...)
		}
		if sp.TargetPort.IntVal != 0 || sp.TargetPort.StrVal != "" {
			errs = append(errs, portOrName(sp.TargetPort, p.Child("targetPort"))...)
		}
		if sp.NodePort != 0 {
			if s.Type != corev1.ServiceTypeNodePort && s.Type != corev1.ServiceTypeLoadBalancer {
				errs = append(errs, field.Forbidden(p.Child("nodePort"), fmt.Sprintf("may not be used when `type` is '%s'", s.Type)))
			}
			id := fmt.Sprint(sp.NodePort, sp.Protocol)
			if nodePorts[id] {
				errs = append(errs, field.Duplicate(p.Child("nodePort"), sp.NodePort))
			}
			nodePorts[id] = true
		}
		id := fmt.Sprint(sp.Port, sp.Protocol)
		if ports[id] {
			errs = append(errs, field.Duplicate(p, sp))
		}
		ports[id] = true
	}
	return errs
}

// prepareServiceUpdate drops what the Service's type no longer has, where the client did not mean to change it.
func prepareServiceUpdate(o, old Object) {
	s, was := &o.(*corev1.Service).Spec, &old.(*corev1.Service).Spec
	if externallyReached(was) && !externallyReached(s) && s.ExternalTrafficPolicy == was.ExternalTrafficPolicy {
		s.ExternalTrafficPolicy = ""
	}
	if was.HealthCheckNodePort != 0 && s.HealthCheckNodePort == was.HealthCheckNodePort &&
		(s.Type != corev1.ServiceTypeLoadBalancer || s.ExternalTrafficPolicy != corev1.ServiceExternalTrafficPolicyLocal) {
		s.HealthCheckNodePort = 0
	}
	if was.Type == corev1.ServiceTypeLoadBalancer && s.Type != corev1.ServiceTypeLoadBalancer {
		if equal(s.AllocateLoadBalancerNodePorts, was.AllocateLoadBalancerNodePorts) {
			s.AllocateLoadBalancerNodePorts = nil
		}
		if equal(s.LoadBalancerClass, was.LoadBalancerClass) {
			s.LoadBalancerClass = nil
		}
	}
}

func validateServiceUpdate(o, old Object) field.ErrorList {
	s, was := &o.(*corev1.Service).Spec, &old.(*corev1.Service).Spec
	errs := validateService(o)
	if both := s.Type == corev1.ServiceTypeLoadBalancer && was.Type == s.Type; both {
		if !equal(s.LoadBalancerClass, was.LoadBalancerClass) {
			errs = append(errs, field.Invalid(field.NewPath("spec", "loadBalancerClass"), s.LoadBalancerClass, "may not change once set"))
		}
		if was.HealthCheckNodePort != 0 && s.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
			errs = append(errs, immutable(s.HealthCheckNodePort, was.HealthCheckNodePort, field.NewPath("spec", "healthCheckNodePort"))...)
		}
	}
	return append(errs, keptFamilies(s, was)...)
}
