package ingress

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Addresses are those of the nodes where one of the pods that serve Ingresses is ready.
func Addresses(pods []*corev1.Pod) (out []string) {
	for _, p := range pods {
		ready := slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
			return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
		})
		if ready && p.DeletionTimestamp == nil && p.Status.HostIP != "" {
			out = append(out, p.Status.HostIP)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Statuses are the Ingresses whose status does not say yet that they are reached at these addresses, as they are to be written.
func Statuses(o Objects, addresses []string) (out []*networkingv1.Ingress) {
	var want []networkingv1.IngressLoadBalancerIngress
	for _, a := range addresses {
		want = append(want, networkingv1.IngressLoadBalancerIngress{IP: a})
	}
	for _, i := range Ours(o) {
		if !equality.Semantic.DeepEqual(i.Status.LoadBalancer.Ingress, want) {
			i = i.DeepCopy()
			i.Status.LoadBalancer.Ingress = want
			out = append(out, i)
		}
	}
	return out
}
