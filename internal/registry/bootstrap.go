package registry

import (
	"context"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

var self = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup}}

// bootstrap creates what every cluster has: four namespaces, two priority classes and the Service kubernetes, which leads to this API server.
func (r *Registry) bootstrap(ctx context.Context) error {
	for _, name := range []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease} {
		if err := r.ensure(ctx, "", "namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, nil); err != nil {
			return err
		}
	}
	for _, class := range api.SystemPriorityClasses() {
		if err := r.ensure(ctx, schedulingv1.GroupName, "priorityclasses", class, nil); err != nil {
			return err
		}
	}
	if err := r.keepDefaultCIDR(ctx); err != nil { // services get their addresses of it
		return err
	}
	ip := r.cfg.ServiceCIDRs[0].Masked().Addr().Next()
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "kubernetes", Labels: map[string]string{"component": "apiserver", "provider": "kubernetes"}},
		Spec: corev1.ServiceSpec{
			ClusterIP: ip.String(), ClusterIPs: []string{ip.String()}, Type: corev1.ServiceTypeClusterIP,
			Ports: []corev1.ServicePort{{Name: "https", Protocol: corev1.ProtocolTCP, Port: 443, TargetPort: intstr.FromInt32(int32(r.cfg.Advertise.Port()))}},
		},
	}
	if err := r.ensure(ctx, "", "services", svc, nil); err != nil {
		return err
	}
	if !r.cfg.Advertise.IsValid() {
		return nil
	}
	return r.advertise(ctx, r.cfg.Advertise)
}

// advertise points the Service kubernetes at the API server's address.
func (r *Registry) advertise(ctx context.Context, to netip.AddrPort) error {
	name, number := "https", int32(to.Port())
	endpoints := &corev1.Endpoints{ //nolint:staticcheck // old clients read it
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "kubernetes", Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}},
		Subsets: []corev1.EndpointSubset{{ //nolint:staticcheck
			Addresses: []corev1.EndpointAddress{{IP: to.Addr().String()}},
			Ports:     []corev1.EndpointPort{{Name: name, Port: number, Protocol: corev1.ProtocolTCP}}, //nolint:staticcheck
		}},
	}
	err := r.ensure(ctx, "", "endpoints", endpoints, func(old api.Object) {
		old.(*corev1.Endpoints).Subsets = endpoints.DeepCopy().Subsets //nolint:staticcheck
	})
	if err != nil {
		return err
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "kubernetes", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressType(familyOf(to.Addr())),
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{to.Addr().String()}, Conditions: discoveryv1.EndpointConditions{Ready: pointTo(true)}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &number, Protocol: pointTo(corev1.ProtocolTCP)}},
	}
	return r.ensure(ctx, "discovery.k8s.io", "endpointslices", slice, func(old api.Object) {
		s := old.(*discoveryv1.EndpointSlice)
		s.Endpoints, s.Ports = slice.DeepCopy().Endpoints, slice.DeepCopy().Ports
	})
}

// ensure creates an object that is not there, or brings one that is up to date.
func (r *Registry) ensure(ctx context.Context, group, plural string, obj api.Object, change func(old api.Object)) error {
	q := &Request{
		Resource:  r.cfg.Table.ByResource(schema.GroupResource{Group: group, Resource: plural}),
		Namespace: obj.GetNamespace(), Name: obj.GetName(), User: self,
	}
	prev, err := r.get(ctx, q, store.Read{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = r.Create(ctx, q, obj.DeepCopyObject(), &metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	case apierrors.IsStoreReadError(err):
		return nil // the store has said so; the cluster is there for who is to repair it
	case err != nil || change == nil:
		return err
	}
	next := prev.Object().DeepCopyObject().(api.Object)
	change(next)
	_, err = r.update(ctx, q, prev, next, false)
	return err
}
