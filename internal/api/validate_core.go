package api

import (
	"fmt"
	"net/netip"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxDataBytes is how much a ConfigMap or Secret may hold.
const maxDataBytes = 1 << 20

func validateNode(o Object) field.ErrorList {
	n, spec := o.(*corev1.Node), field.NewPath("spec")
	var errs field.ErrorList
	for i, c := range n.Spec.PodCIDRs {
		if _, err := netip.ParsePrefix(c); err != nil {
			errs = append(errs, field.Invalid(spec.Child("podCIDRs").Index(i), c, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"))
		}
	}
	if len(n.Spec.PodCIDRs) > 2 || len(n.Spec.PodCIDRs) > 0 && n.Spec.PodCIDR != "" && n.Spec.PodCIDRs[0] != n.Spec.PodCIDR {
		errs = append(errs, field.Invalid(spec.Child("podCIDRs"), n.Spec.PodCIDRs, "may hold one range of each IP family, and the first must be podCIDR"))
	}
	seen := map[string]bool{}
	for i := range n.Spec.Taints {
		t, p := &n.Spec.Taints[i], spec.Child("taints").Index(i)
		errs = append(errs, each(p.Child("key"), t.Key, validation.IsQualifiedName(t.Key))...)
		errs = append(errs, each(p.Child("value"), t.Value, validation.IsValidLabelValue(t.Value))...)
		errs = append(errs, oneOf(t.Effect, p.Child("effect"), corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute)...)
		id := t.Key + ":" + string(t.Effect)
		if seen[id] {
			errs = append(errs, field.Duplicate(p, fmt.Sprintf("taints must be unique by key and effect pair: %s", id)))
		}
		seen[id] = true
	}
	for name, q := range n.Status.Capacity {
		errs = append(errs, quantity(name, q, field.NewPath("status", "capacity").Key(string(name)))...)
	}
	return errs
}

func validateNodeUpdate(o, old Object) field.ErrorList {
	n, was, errs := o.(*corev1.Node), old.(*corev1.Node), validateNode(o)
	if len(was.Spec.PodCIDRs) > 0 && !equal(n.Spec.PodCIDRs, was.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "podCIDRs"), "node updates may not change podCIDR except from \"\" to valid"))
	}
	if was.Spec.ProviderID != "" && n.Spec.ProviderID != was.Spec.ProviderID {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "providerID"), "node updates may not change providerID except from \"\" to valid"))
	}
	return errs
}

func validateConfigMap(o Object) (errs field.ErrorList) {
	c, total := o.(*corev1.ConfigMap), 0
	for k, v := range c.Data {
		errs = append(errs, dataKey(k, field.NewPath("data").Key(k))...)
		if _, twice := c.BinaryData[k]; twice {
			errs = append(errs, field.Invalid(field.NewPath("data").Key(k), k, "duplicate of key present in binaryData"))
		}
		total += len(v)
	}
	for k, v := range c.BinaryData {
		errs = append(errs, dataKey(k, field.NewPath("binaryData").Key(k))...)
		total += len(v)
	}
	if total > maxDataBytes {
		errs = append(errs, field.TooLong(field.NewPath(""), "", maxDataBytes))
	}
	return errs
}

// keptImmutable says what changed of something that was marked immutable.
func keptImmutable(was, is *bool, changed map[string]bool) (errs field.ErrorList) {
	if !value(was) {
		return nil
	}
	const why = "field is immutable when `immutable` is set"
	if !value(is) {
		errs = append(errs, field.Forbidden(field.NewPath("immutable"), why))
	}
	for name, did := range changed {
		if did {
			errs = append(errs, field.Forbidden(field.NewPath(name), why))
		}
	}
	return errs
}

func validateConfigMapUpdate(o, old Object) field.ErrorList {
	c, was := o.(*corev1.ConfigMap), old.(*corev1.ConfigMap)
	return append(keptImmutable(was.Immutable, c.Immutable, map[string]bool{
		"data": !equal(c.Data, was.Data), "binaryData": !equal(c.BinaryData, was.BinaryData),
	}), validateConfigMap(o)...)
}

// secretKeys are what a typed Secret must hold.
var secretKeys = map[corev1.SecretType][]string{
	corev1.SecretTypeDockercfg: {corev1.DockerConfigKey}, corev1.SecretTypeDockerConfigJson: {corev1.DockerConfigJsonKey},
	corev1.SecretTypeSSHAuth: {corev1.SSHAuthPrivateKey}, corev1.SecretTypeTLS: {corev1.TLSCertKey, corev1.TLSPrivateKeyKey},
}

func validateSecret(o Object) (errs field.ErrorList) {
	s, data, total := o.(*corev1.Secret), field.NewPath("data"), 0
	for k, v := range s.Data {
		errs = append(errs, dataKey(k, data.Key(k))...)
		total += len(v)
	}
	if total > maxDataBytes {
		errs = append(errs, field.TooLong(data, "", maxDataBytes))
	}
	for _, k := range secretKeys[s.Type] {
		if _, found := s.Data[k]; !found {
			errs = append(errs, field.Required(data.Key(k), ""))
		}
	}
	if s.Type == corev1.SecretTypeBasicAuth && s.Data[corev1.BasicAuthUsernameKey] == nil && s.Data[corev1.BasicAuthPasswordKey] == nil {
		errs = append(errs, field.Required(data.Key(corev1.BasicAuthUsernameKey), ""), field.Required(data.Key(corev1.BasicAuthPasswordKey), ""))
	}
	if s.Type == corev1.SecretTypeServiceAccountToken && s.Annotations[corev1.ServiceAccountNameKey] == "" {
		errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), ""))
	}
	return errs
}

func validateSecretUpdate(o, old Object) field.ErrorList {
	s, was := o.(*corev1.Secret), old.(*corev1.Secret)
	errs := keptImmutable(was.Immutable, s.Immutable, map[string]bool{"data": !equal(s.Data, was.Data)})
	errs = append(errs, immutable(s.Type, was.Type, field.NewPath("type"))...)
	return append(errs, validateSecret(o)...)
}

func validateEndpoints(o Object) (errs field.ErrorList) {
	for i := range o.(*corev1.Endpoints).Subsets {
		s, p := &o.(*corev1.Endpoints).Subsets[i], field.NewPath("subsets").Index(i)
		if len(s.Addresses) == 0 && len(s.NotReadyAddresses) == 0 {
			errs = append(errs, field.Required(p, "must specify `addresses` or `notReadyAddresses`"))
		}
		for at, list := range map[string][]corev1.EndpointAddress{"addresses": s.Addresses, "notReadyAddresses": s.NotReadyAddresses} {
			for j := range list {
				errs = append(errs, endpointAddress(list[j].IP, p.Child(at).Index(j).Child("ip"))...)
			}
		}
		for j := range s.Ports {
			at := p.Child("ports").Index(j)
			errs = append(errs, port(s.Ports[j].Port, at.Child("port"))...)
			if s.Ports[j].Name == "" && len(s.Ports) > 1 {
				errs = append(errs, field.Required(at.Child("name"), ""))
			}
			errs = append(errs, protocol(s.Ports[j].Protocol, at.Child("protocol"))...)
		}
	}
	return errs
}

// endpointAddress refuses addresses that would turn a Service into a way to the node itself.
func endpointAddress(s string, p *field.Path) field.ErrorList {
	a, err := netip.ParseAddr(s)
	why := ""
	switch {
	case err != nil:
		return address(s, p)
	case a.IsUnspecified():
		why = "may not be unspecified (0.0.0.0 or ::)"
	case a.IsLoopback():
		why = "may not be in the loopback range (127.0.0.0/8, ::1/128)"
	case a.IsLinkLocalUnicast():
		why = "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
	case a.IsLinkLocalMulticast():
		why = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
	default:
		return nil
	}
	return field.ErrorList{field.Invalid(p, s, why)}
}

func protocol(v corev1.Protocol, p *field.Path) field.ErrorList {
	return oneOf(v, p, corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)
}

func validateEndpointSlice(o Object) field.ErrorList {
	s := o.(*discoveryv1.EndpointSlice)
	errs := oneOf(s.AddressType, field.NewPath("addressType"), discoveryv1.AddressTypeFQDN, discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6)
	if len(s.Endpoints) > 1000 {
		errs = append(errs, field.TooMany(field.NewPath("endpoints"), len(s.Endpoints), 1000))
	}
	for i := range s.Endpoints {
		p := field.NewPath("endpoints").Index(i).Child("addresses")
		list := s.Endpoints[i].Addresses
		if len(list) == 0 {
			errs = append(errs, field.Required(p, "must contain at least 1 address"))
		}
		if len(list) > 100 {
			errs = append(errs, field.TooMany(p, len(list), 100))
		}
		for j, a := range list {
			if s.AddressType == discoveryv1.AddressTypeFQDN {
				errs = append(errs, validation.IsFullyQualifiedDomainName(p.Index(j), a)...)
			} else {
				errs = append(errs, endpointAddress(a, p.Index(j))...)
				errs = append(errs, ofFamily(a, s.AddressType, p.Index(j))...)
			}
		}
	}
	names := map[string]bool{}
	for i := range s.Ports {
		p, sp := field.NewPath("ports").Index(i), &s.Ports[i]
		name := value(sp.Name)
		if names[name] {
			errs = append(errs, field.Duplicate(p.Child("name"), name))
		}
		names[name] = true
		if name != "" {
			errs = append(errs, dnsLabel(name, p.Child("name"))...)
		}
		if sp.Port != nil {
			errs = append(errs, port(*sp.Port, p.Child("port"))...)
		}
		errs = append(errs, protocol(value(sp.Protocol), p.Child("protocol"))...)
	}
	return errs
}

// ofFamily: a slice holds addresses of one IP family.
func ofFamily(s string, t discoveryv1.AddressType, p *field.Path) field.ErrorList {
	a, err := netip.ParseAddr(s)
	switch {
	case err != nil: // said already
	case t == discoveryv1.AddressTypeIPv4 && !a.Is4():
		return field.ErrorList{field.Invalid(p, s, "must be an IPv4 address")}
	case t == discoveryv1.AddressTypeIPv6 && !a.Is6():
		return field.ErrorList{field.Invalid(p, s, "must be an IPv6 address")}
	}
	return nil
}

func validateEndpointSliceUpdate(o, old Object) field.ErrorList {
	return append(validateEndpointSlice(o),
		immutable(o.(*discoveryv1.EndpointSlice).AddressType, old.(*discoveryv1.EndpointSlice).AddressType, field.NewPath("addressType"))...)
}

func validateEvent(o Object) (errs field.ErrorList) {
	e := o.(*corev1.Event)
	namespace := e.InvolvedObject.Namespace
	if namespace == "" && e.Namespace != corev1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem {
		errs = append(errs, field.Invalid(field.NewPath("involvedObject", "namespace"), namespace, "does not match event.namespace"))
	}
	if namespace != "" && namespace != e.Namespace {
		errs = append(errs, field.Invalid(field.NewPath("involvedObject", "namespace"), namespace, "does not match event.namespace"))
	}
	if len(e.Message) > 1024 && !e.EventTime.IsZero() {
		errs = append(errs, field.TooLong(field.NewPath("message"), "", 1024))
	}
	return errs
}

func validateLease(o Object) (errs field.ErrorList) {
	s, p := o.(*coordinationv1.Lease).Spec, field.NewPath("spec")
	if s.LeaseDurationSeconds != nil && *s.LeaseDurationSeconds <= 0 {
		errs = append(errs, field.Invalid(p.Child("leaseDurationSeconds"), *s.LeaseDurationSeconds, "must be greater than 0"))
	}
	if s.LeaseTransitions != nil {
		errs = append(errs, nonNegative(int64(*s.LeaseTransitions), p.Child("leaseTransitions"))...)
	}
	return errs
}
