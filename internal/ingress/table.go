// Package ingress decides where requests go that reach the cluster from outside: Ingresses, Services, EndpointSlices and Secrets in, a routing table out.
// Handler is the thin shell around it that carries requests; the program skiff-ingress watches the objects and serves.
//
// Its invariants: a Table never changes once it is built, so that it is read without locks; and of two Ingresses that want the same host and path, or
// certificates for the same host, the older has it, so that nobody takes over what is somebody else's.
package ingress

import (
	"cmp"
	"crypto/tls"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Names that Ingresses and their classes use.
const (
	// Controller is what an IngressClass names to be served here.
	Controller = "skiff.dev/ingress"
	// RedirectAnnotation on an Ingress with TLS says "false" where plain HTTP is to be answered and not redirected.
	RedirectAnnotation = "ingress.skiff.dev/redirect-to-https"

	classAnnotation = "kubernetes.io/ingress.class" // of before spec.ingressClassName
)

// Objects is all that a table is made of.
type Objects struct {
	Ingresses []*networkingv1.Ingress
	Classes   []*networkingv1.IngressClass
	Services  []*corev1.Service
	Slices    []*discoveryv1.EndpointSlice
	Secrets   []*corev1.Secret
}

// Table says for each host and path who answers.
type Table struct {
	hosts        map[string]*host            // by name in lower case; "*.example.com" for one more label; "" for every host
	fallback     *Route                      // of what no rule is for; nil if there is none
	certificates map[string]*tls.Certificate // by the same names
	backends     map[target]*Backend
	pairs        map[types.NamespacedName]pair

	Problems []string // what is wrong with the objects, a line each
}

// Route is where a request goes.
type Route struct {
	Backend  *Backend
	Redirect bool // to HTTPS, where there is a certificate for the host
}

type host struct {
	paths    []path // the one that wins comes first
	fallback *Route
}

// Build makes the table. before is the one until now, or nil: what has not changed is taken from it.
func Build(o Objects, before *Table) *Table {
	if before == nil {
		before = &Table{}
	}
	b := newBuilder(o, before)
	for _, i := range Ours(o) {
		b.add(i)
	}
	for _, h := range b.hosts {
		slices.SortStableFunc(h.paths, path.compare)
	}
	return b.Table
}

// Ours are the Ingresses that are served here, the oldest first.
func Ours(o Objects) []*networkingv1.Ingress {
	ours, byDefault := map[string]bool{}, false
	for _, c := range o.Classes {
		if c.Spec.Controller == Controller {
			ours[c.Name] = true
			byDefault = byDefault || c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
		}
	}
	var out []*networkingv1.Ingress
	for _, i := range o.Ingresses {
		class, named := i.Annotations[classAnnotation]
		if i.Spec.IngressClassName != nil {
			class, named = *i.Spec.IngressClassName, true
		}
		if ours[class] || !named && byDefault {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b *networkingv1.Ingress) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return out
}

// builder is a table in the making, and the objects by their names.
type builder struct {
	*Table
	before   *Table
	services map[types.NamespacedName]*corev1.Service
	slices   map[types.NamespacedName][]*discoveryv1.EndpointSlice // by service
	secrets  map[types.NamespacedName]*corev1.Secret
}

func newBuilder(o Objects, before *Table) *builder {
	b := &builder{
		Table: &Table{
			hosts: map[string]*host{}, certificates: map[string]*tls.Certificate{},
			backends: map[target]*Backend{}, pairs: map[types.NamespacedName]pair{},
		},
		before:   before,
		services: map[types.NamespacedName]*corev1.Service{}, secrets: map[types.NamespacedName]*corev1.Secret{},
		slices: map[types.NamespacedName][]*discoveryv1.EndpointSlice{},
	}
	for _, s := range o.Services {
		b.services[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = s
	}
	for _, s := range o.Slices {
		of := types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
		b.slices[of] = append(b.slices[of], s)
	}
	for _, s := range o.Secrets {
		b.secrets[nameOf(s)] = s
	}
	return b
}

// add takes in one Ingress. What older ones have stays theirs.
func (b *builder) add(i *networkingv1.Ingress) {
	b.addCertificates(i)
	redirect := len(i.Spec.TLS) > 0 && i.Annotations[RedirectAnnotation] != "false"
	var fallback *Route
	if i.Spec.DefaultBackend != nil {
		fallback = &Route{Backend: b.backend(i.Namespace, i.Spec.DefaultBackend), Redirect: redirect}
		if b.fallback == nil {
			b.fallback = fallback
		}
	}
	for _, rule := range i.Spec.Rules {
		name := strings.ToLower(rule.Host)
		h := b.hosts[name]
		if h == nil {
			h = &host{}
			b.hosts[name] = h
		}
		if h.fallback == nil {
			h.fallback = fallback
		}
		if rule.HTTP == nil {
			continue
		}
		for _, p := range rule.HTTP.Paths {
			h.paths = append(h.paths, newPath(p, Route{Backend: b.backend(i.Namespace, &p.Backend), Redirect: redirect}))
		}
	}
}
