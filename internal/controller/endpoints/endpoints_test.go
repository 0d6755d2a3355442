package endpoints

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"skiff.dev/skiff/internal/controller/backend"
)

func pod(ip string, port int32, ready bool) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p" + ip, UID: types.UID(ip)},
		Spec:   corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: port, Protocol: corev1.ProtocolTCP}}}}},
		Status: corev1.PodStatus{PodIP: ip, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}}}}
	if ready {
		p.Status.Conditions[0].Status = corev1.ConditionTrue
	}
	return p
}

func describe(subsets []corev1.EndpointSubset) string {
	var parts []string
	for _, s := range subsets {
		part := ""
		for _, a := range s.Addresses {
			part += a.IP + " "
		}
		for _, a := range s.NotReadyAddresses {
			part += "!" + a.IP + " "
		}
		for _, p := range s.Ports {
			part += fmt.Sprintf(":%d", p.Port)
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

func TestSubsets(t *testing.T) {
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("http")}}}}
	ending := pod("10.0.0.9", 80, true)
	ending.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	for _, tt := range []struct {
		name string
		pods []*corev1.Pod
		want string
	}{
		{name: "none"},
		{name: "sorted, one subset", pods: []*corev1.Pod{pod("10.0.0.2", 80, true), pod("10.0.0.1", 80, true), pod("10.0.0.3", 80, false)}, want: "10.0.0.1 10.0.0.2 !10.0.0.3 :80"},
		{name: "a subset a set of ports", pods: []*corev1.Pod{pod("10.0.0.1", 90, true), pod("10.0.0.2", 80, true)}, want: "10.0.0.2 :80, 10.0.0.1 :90"},
		{name: "what ends is left out", pods: []*corev1.Pod{ending, pod("10.0.0.1", 80, true)}, want: "10.0.0.1 :80"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := decide(service, backend.Of(service, tt.pods), nil)
			if got := describe(e.Subsets); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if again := decide(service, backend.Of(service, tt.pods), e); again != nil {
				t.Errorf("once more changes it to %+v", again)
			}
		})
	}
	var many []*corev1.Pod
	for i := range capacity + 5 {
		many = append(many, pod(fmt.Sprintf("10.0.%d.%d", i/250, i%250), 80, true))
	}
	if e := decide(service, backend.Of(service, many), nil); len(e.Subsets[0].Addresses) != capacity || e.Annotations[corev1.EndpointsOverCapacity] != "truncated" {
		t.Errorf("%d addresses, annotations %v", len(e.Subsets[0].Addresses), e.Annotations)
	}
}

func TestEndpointsHoldThePrimaryFamily(t *testing.T) {
	p := pod("10.0.0.1", 80, true)
	p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}
	for want, families := range map[string][]corev1.IPFamily{
		"10.0.0.1 :80": {corev1.IPv4Protocol, corev1.IPv6Protocol}, "fd00::1 :80": {corev1.IPv6Protocol, corev1.IPv4Protocol},
	} {
		service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.ServiceSpec{IPFamilies: families,
			Ports: []corev1.ServicePort{{Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(80)}}}}
		if got := describe(decide(service, backend.Of(service, []*corev1.Pod{p, pod("10.0.0.2", 80, true)}), nil).Subsets); !strings.HasPrefix(got, strings.TrimSuffix(want, ":80")) {
			t.Errorf("%v: %s, want %s", families, got, want)
		}
	}
}
