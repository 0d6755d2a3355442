package api

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
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
	for i, a := range n.Status.Addresses {
		if slices.Contains(n.Status.Addresses[:i], a) {
			errs = append(errs, field.Duplicate(field.NewPath("status", "addresses").Index(i), a))
		}
	}
	errs = append(errs, declaredFeatures(n.Status.DeclaredFeatures, field.NewPath("status", "declaredFeatures"))...)
	for name, q := range n.Status.Allocatable {
		errs = append(errs, quantity(name, q, field.NewPath("status", "allocatable").Key(string(name)))...)
	}
	for name, q := range n.Status.Capacity {
		errs = append(errs, quantity(name, q, field.NewPath("status", "capacity").Key(string(name)))...)
	}
	return errs
}

var featureName = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*(/[A-Za-z][A-Za-z0-9]*)*$`)

// declaredFeatures (KEP-5328) are compared with what pods need as sorted lists.
func declaredFeatures(list []string, p *field.Path) (errs field.ErrorList) {
	for i, name := range list {
		switch {
		case len(name) > validation.DNS1123SubdomainMaxLength:
			errs = append(errs, field.Invalid(p.Index(i), name, fmt.Sprintf("invalid feature name %q: must be no more than %d characters", name, validation.DNS1123SubdomainMaxLength)))
		case !featureName.MatchString(name):
			errs = append(errs, field.Invalid(p.Index(i), name, fmt.Sprintf("invalid feature name %q: must start with an UpperCamelCase segment, with subsequent segments separated by '/' "+
				"(e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes", name)))
		}
		switch {
		case i == 0 || list[i-1] < name:
		case list[i-1] == name:
			errs = append(errs, field.Duplicate(p.Index(i), name))
		default:
			errs = append(errs, field.Invalid(p.Index(i), name, "list must be sorted alphabetically"))
		}
	}
	return errs
}

func validateNodeUpdate(o, old Object) field.ErrorList {
	n, was, errs := o.(*corev1.Node), old.(*corev1.Node), validateNode(o)
	if len(was.Spec.PodCIDRs) > 0 && !equal(n.Spec.PodCIDRs, was.Spec.PodCIDRs) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "podCIDRs"), "node updates may not change podCIDR except from \"\" to valid"))
	}
	if was.Spec.ProviderID != "" && n.Spec.ProviderID != was.Spec.ProviderID {
		why := "field cannot be modified once set"
		if n.Spec.ProviderID == "" {
			why = "field cannot be cleared once set"
		}
		errs = append(errs, field.Invalid(field.NewPath("spec", "providerID"), nil, why))
	}
	if n.Spec.DoNotUseExternalID != was.Spec.DoNotUseExternalID {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "externalID"), "may not be updated"))
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
				if h := list[j].Hostname; h != "" {
					errs = append(errs, dnsLabel(h, p.Child(at).Index(j).Child("hostname"))...)
				}
				if n := list[j].NodeName; n != nil {
					errs = append(errs, dnsSubdomain(*n, p.Child(at).Index(j).Child("nodeName"))...)
				}
			}
		}
		for j := range s.Ports {
			at := p.Child("ports").Index(j)
			errs = append(errs, port(s.Ports[j].Port, at.Child("port"))...)
			if name := s.Ports[j].Name; name != "" {
				errs = append(errs, dnsLabel(name, at.Child("name"))...)
			} else if len(s.Ports) > 1 {
				errs = append(errs, field.Required(at.Child("name"), ""))
			}
			if app := s.Ports[j].AppProtocol; app != nil {
				errs = append(errs, qualifiedName(*app, at.Child("appProtocol"))...)
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
		errs = append(errs, validateEndpoint(&s.Endpoints[i], s.AddressType, field.NewPath("endpoints").Index(i))...)
	}
	return append(errs, slicePorts(s.Ports, field.NewPath("ports"))...)
}

// Upstream's limits of a slice.
const (
	mostAddresses      = 100
	mostSlicePorts     = 20_000
	mostHints          = 8
	mostTopologyLabels = 16
)

func validateEndpoint(e *discoveryv1.Endpoint, t discoveryv1.AddressType, p *field.Path) (errs field.ErrorList) {
	at := p.Child("addresses")
	if len(e.Addresses) == 0 {
		errs = append(errs, field.Required(at, "must contain at least 1 address"))
	}
	errs = append(errs, atMost(len(e.Addresses), mostAddresses, at)...)
	for j, a := range e.Addresses {
		if t == discoveryv1.AddressTypeFQDN {
			errs = append(errs, validation.IsFullyQualifiedDomainName(at.Index(j), a)...)
			continue
		}
		errs = append(errs, endpointAddress(a, at.Index(j))...)
		errs = append(errs, ofFamily(a, t, at.Index(j))...)
	}
	if e.NodeName != nil {
		errs = append(errs, dnsSubdomain(*e.NodeName, p.Child("nodeName"))...)
	}
	if e.Hostname != nil {
		errs = append(errs, dnsLabel(*e.Hostname, p.Child("hostname"))...)
	}
	if len(e.DeprecatedTopology) > 0 {
		errs = append(errs, atMost(len(e.DeprecatedTopology), mostTopologyLabels, p.Child("deprecatedTopology"))...)
		errs = append(errs, metavalidation.ValidateLabels(e.DeprecatedTopology, p.Child("deprecatedTopology"))...)
	}
	if e.Hints == nil {
		return errs
	}
	hints := p.Child("hints")
	errs = append(errs, hintNames(e.Hints.ForZones, func(z discoveryv1.ForZone) string { return z.Name }, validation.IsValidLabelValue, hints.Child("forZones"))...)
	return append(errs, hintNames(e.Hints.ForNodes, func(n discoveryv1.ForNode) string { return n.Name }, validation.IsDNS1123Subdomain, hints.Child("forNodes"))...)
}

// hintNames are whom an endpoint is best for, each once.
func hintNames[H any](list []H, name func(H) string, rule func(string) []string, p *field.Path) (errs field.ErrorList) {
	if errs = atMost(len(list), mostHints, p); len(errs) > 0 {
		return errs
	}
	seen := map[string]bool{}
	for i := range list {
		n, at := name(list[i]), p.Index(i).Child("name")
		if seen[n] {
			errs = append(errs, field.Duplicate(at, n))
		}
		seen[n] = true
		errs = append(errs, each(at, n, rule(n))...)
	}
	return errs
}

// slicePorts checks names and protocols; a port without a number is all of them.
func slicePorts(list []discoveryv1.EndpointPort, p *field.Path) (errs field.ErrorList) {
	if errs = atMost(len(list), mostSlicePorts, p); len(errs) > 0 {
		return errs
	}
	names := map[string]bool{}
	for i := range list {
		sp, at := &list[i], p.Index(i)
		name := value(sp.Name)
		if name != "" {
			errs = append(errs, dnsLabel(name, at.Child("name"))...)
		}
		if names[name] {
			errs = append(errs, field.Duplicate(at.Child("name"), name))
		}
		names[name] = true
		errs = append(errs, protocol(value(sp.Protocol), at.Child("protocol"))...)
		if sp.AppProtocol != nil {
			errs = append(errs, qualifiedName(*sp.AppProtocol, at.Child("appProtocol"))...)
		}
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

// Upstream's limits of an event that has a time of its own.
const (
	longestEventWord = 128
	longestEventNote = 1024
)

// validateEvent: an event is in the namespace of what it is about. Those in the newer form, which say when, must say more.
func validateEvent(o Object) (errs field.ErrorList) {
	e := o.(*corev1.Event)
	about, at := e.InvolvedObject.Namespace, field.NewPath("involvedObject", "namespace")
	const differs = "does not match event.namespace"
	if e.EventTime.IsZero() {
		if about == "" && e.Namespace != "" && e.Namespace != corev1.NamespaceDefault || about != "" && about != e.Namespace {
			errs = append(errs, field.Invalid(at, about, differs))
		}
		return errs
	}
	if about == "" && e.Namespace != corev1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem {
		errs = append(errs, field.Invalid(at, about, differs))
	}
	for _, word := range [...]struct{ name, value string }{
		{"reportingComponent", e.ReportingController}, {"reportingInstance", e.ReportingInstance}, {"action", e.Action}, {"reason", e.Reason},
	} {
		errs = append(errs, required(word.value, field.NewPath(word.name))...)
		if len(word.value) > longestEventWord && word.name != "reportingComponent" {
			errs = append(errs, field.Invalid(field.NewPath(word.name), "", fmt.Sprintf("can have at most %d characters", longestEventWord)))
		}
	}
	if e.ReportingController != "" {
		errs = append(errs, qualifiedName(e.ReportingController, field.NewPath("reportingComponent"))...)
	}
	if len(e.Message) > longestEventNote {
		errs = append(errs, field.Invalid(field.NewPath("message"), "", fmt.Sprintf("can have at most %d characters", longestEventNote)))
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
	if strategy := value(s.Strategy); s.Strategy != nil && strings.Contains(string(strategy), "/") {
		errs = append(errs, qualifiedName(string(strategy), p.Child("strategy"))...)
	} else if s.Strategy != nil && strategy != coordinationv1.OldestEmulationVersion {
		errs = append(errs, field.NotSupported(p.Child("strategy"), strategy, []coordinationv1.CoordinatedLeaseStrategy{coordinationv1.OldestEmulationVersion}))
	}
	if value(s.PreferredHolder) != "" && value(s.Strategy) == "" {
		errs = append(errs, field.Forbidden(p.Child("preferredHolder"), "may only be specified if `strategy` is defined"))
	}
	return errs
}
