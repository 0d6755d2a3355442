// Package service reaches the pods behind a service from the API server, which needs no proxy beside it for that: webhooks and API servers behind this
// one are called through it. It reads the store's services and slices.
package service

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// Ref names a service's port.
type Ref struct {
	Namespace, Name string
	Port            int32
}

func (r Ref) String() string { return r.Namespace + "/" + r.Name }

// ServerName is what the service's certificate must be for.
func (r Ref) ServerName() string { return r.Name + "." + r.Namespace + ".svc" }

// Fault says why a service can't be reached, by APIService's reasons.
type Fault struct{ Reason, Message string }

func (f *Fault) Error() string { return f.Message }

// Dialer connects to a ready endpoint of a service; it has the shape of http.Transport.DialContext.
func Dialer(reg *registry.Registry, r Ref) func(ctx context.Context, network, _ string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		addrs, err := Endpoints(ctx, reg, r)
		if err != nil {
			return nil, err
		}
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, addrs[rand.IntN(len(addrs))])
	}
}

// Endpoints lists the addresses behind the service's port. There is one at least, or an error: a *Fault where the service is to blame.
func Endpoints(ctx context.Context, reg *registry.Registry, r Ref) ([]string, error) {
	table := reg.Table()
	e, err := reg.Store().Collection(table.ByResource(schema.GroupResource{Resource: "services"})).Get(ctx, r.String(), store.Read{})
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, &Fault{"ServiceNotFound", fmt.Sprintf("service/%s in %q is not present", r.Name, r.Namespace)}
	}
	svc := e.Object().(*corev1.Service)
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return []string{net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(r.Port)))}, nil
	}
	at := slices.IndexFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == r.Port })
	if at < 0 {
		return nil, &Fault{"ServicePortError", fmt.Sprintf("service/%s in %q is not listening on port %d", r.Name, r.Namespace, r.Port)}
	}
	page, err := reg.Store().Collection(table.ByResource(schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"})).List(ctx,
		store.ListOptions{Predicate: store.Predicate{Index: "service", Value: r.String()}})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range page.Entries {
		out = append(out, ready(e.Object(), svc.Spec.Ports[at].Name)...)
	}
	if len(out) == 0 {
		return nil, &Fault{"MissingEndpoints", fmt.Sprintf("endpoints for service/%s in %q have no addresses with port name %q", r.Name, r.Namespace, svc.Spec.Ports[at].Name)}
	}
	return out, nil
}

func ready(o api.Object, portName string) (out []string) {
	slice := o.(*discoveryv1.EndpointSlice)
	for _, p := range slice.Ports {
		if p.Port == nil || p.Name != nil && *p.Name != portName || p.Name == nil && portName != "" {
			continue
		}
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, a := range e.Addresses {
				out = append(out, net.JoinHostPort(a, strconv.Itoa(int(*p.Port))))
			}
		}
	}
	return out
}
