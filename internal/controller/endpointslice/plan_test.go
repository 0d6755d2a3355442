package endpointslice

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"skiff.dev/skiff/internal/controller/backend"
)

var service = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "s", Labels: map[string]string{"team": "a"}},
	Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("http")}}}}

func pod(i int, changes ...func(p *corev1.Pod)) *corev1.Pod {
	name := fmt.Sprintf("p%04d", i)
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name)},
		Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.244.%d.%d", i/250, i%250),
			Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}}
	for _, change := range changes {
		change(p)
	}
	return p
}

func pods(n int) []*corev1.Pod {
	list := make([]*corev1.Pod, n)
	for i := range list {
		list[i] = pod(i)
	}
	return list
}

func run(s *corev1.Service, pods []*corev1.Pod, have []*discoveryv1.EndpointSlice) plan {
	return decide(s, backend.Of(s, pods), have, func(string) string { return "z1" })
}

// carry applies a plan as an API would.
func carry(have []*discoveryv1.EndpointSlice, p plan) []*discoveryv1.EndpointSlice {
	have = slices.DeleteFunc(slices.Clone(have), func(s *discoveryv1.EndpointSlice) bool { return slices.Contains(p.remove, s) })
	for i, s := range have {
		for _, u := range p.update {
			if u.Name == s.Name {
				have[i] = u
			}
		}
	}
	for _, s := range p.create {
		s.Name = fmt.Sprintf("web-%d", len(have))
		have = append(have, s)
	}
	return have
}

func effort(p plan) string {
	return fmt.Sprintf("%d+ %d~ %d-", len(p.create), len(p.update), len(p.remove))
}

func sizes(have []*discoveryv1.EndpointSlice) (list []int) {
	for _, s := range have {
		list = append(list, len(s.Endpoints))
	}
	return list
}

// A Service's life: every step changes as few slices as possible, and doing nothing twice changes none.
func TestLife(t *testing.T) {
	var have []*discoveryv1.EndpointSlice
	for _, step := range []struct {
		name, effort string
		pods         []*corev1.Pod
		sizes        []int
	}{
		{"no pods: a slice says so", "1+ 0~ 0-", nil, []int{0}},
		{"the first pods fill it", "0+ 1~ 0-", pods(3), []int{3}},
		{"more than fit", "2+ 1~ 0-", pods(250), []int{100, 100, 50}},
		{"one more", "0+ 1~ 0-", pods(251), []int{100, 100, 51}},
		{"one goes", "0+ 1~ 0-", pods(251)[1:], []int{99, 100, 51}},
		{"it comes back", "0+ 1~ 0-", pods(251), []int{100, 100, 51}},
		{"a slice runs empty", "0+ 0~ 1-", slices.Delete(pods(251), 200, 251), []int{100, 100}},
		{"none left", "0+ 1~ 1-", nil, []int{0}},
	} {
		p := run(service, step.pods, have)
		if got := effort(p); got != step.effort {
			t.Fatalf("%s: %s, want %s", step.name, got, step.effort)
		}
		have = carry(have, p)
		if got := sizes(have); !slices.Equal(got, step.sizes) {
			t.Fatalf("%s: slices of %v, want %v", step.name, got, step.sizes)
		}
		if again := run(service, step.pods, have); effort(again) != "0+ 0~ 0-" {
			t.Fatalf("%s: once more costs %s", step.name, effort(again))
		}
	}
}

func TestEndpoint(t *testing.T) {
	notReady := func(p *corev1.Pod) { p.Status.Conditions = nil }
	ending := func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Now()} }
	for _, tt := range []struct {
		name   string
		pod    *corev1.Pod
		change func(s *corev1.Service)
		want   string
	}{
		{name: "ready", pod: pod(1), want: "10.244.0.1 true true false http:8080"},
		{name: "not ready", pod: pod(1, notReady), want: "10.244.0.1 false false false http:8080"},
		{name: "ending but serving", pod: pod(1, ending), want: "10.244.0.1 false true true http:8080"},
		{name: "published all the same", pod: pod(1, notReady), change: func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true },
			want: "10.244.0.1 true false false http:8080"},
		{name: "no address yet", pod: pod(1, func(p *corev1.Pod) { p.Status.PodIP = "" }), want: ""},
		{name: "ended", pod: pod(1, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), want: ""},
		{name: "without the named port", pod: pod(1, func(p *corev1.Pod) { p.Spec.Containers[0].Ports = nil }), want: ""},
		{name: "IPv6 only", pod: pod(1), change: func(s *corev1.Service) { s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }, want: ""},
		{name: "with a name of its own", pod: pod(1, func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "one", "web" }),
			want: "10.244.0.1 true true false http:8080 one"},
		{name: "with another's name", pod: pod(1, func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "one", "db" }),
			want: "10.244.0.1 true true false http:8080"},
		{name: "headless without ports", pod: pod(1), change: func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.Ports = "None", nil },
			want: "10.244.0.1 true true false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := service.DeepCopy()
			if tt.change != nil {
				tt.change(s)
			}
			slice := run(s, []*corev1.Pod{tt.pod}, nil).create[0]
			var got []string
			for _, e := range slice.Endpoints {
				c := e.Conditions
				got = append(got, e.Addresses[0], fmt.Sprint(*c.Ready), fmt.Sprint(*c.Serving), fmt.Sprint(*c.Terminating))
				for _, p := range slice.Ports {
					got = append(got, fmt.Sprintf("%s:%d", *p.Name, *p.Port))
				}
				if e.Hostname != nil {
					got = append(got, *e.Hostname)
				}
				if *e.NodeName != "n" || *e.Zone != "z1" || e.TargetRef.Name != tt.pod.Name {
					t.Errorf("endpoint %+v", e)
				}
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, " "), tt.want)
			}
			_, headless := slice.Labels[corev1.IsHeadlessService]
			if headless != (s.Spec.ClusterIP == "None") || slice.Labels["team"] != "a" || slice.Labels[discoveryv1.LabelServiceName] != "web" {
				t.Errorf("labels %v", slice.Labels)
			}
		})
	}
}

func TestASetOfSlicesForEachFamily(t *testing.T) {
	dual := service.DeepCopy()
	dual.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
	both := func(p *corev1.Pod) {
		p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}, {IP: "fd00::" + p.Name[1:]}}
	}
	behind := []*corev1.Pod{pod(1, both), pod(2, both), pod(3)}
	describe := func(have []*discoveryv1.EndpointSlice) string {
		var out []string
		for _, s := range have {
			line := string(s.AddressType)
			for _, e := range s.Endpoints {
				line += " " + strings.Join(e.Addresses, "+")
			}
			out = append(out, line)
		}
		slices.Sort(out)
		return strings.Join(out, "; ")
	}
	have := carry(nil, run(dual, behind, nil))
	if got, want := describe(have), "IPv4 10.244.0.1 10.244.0.2 10.244.0.3; IPv6 fd00::0001 fd00::0002"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if p := run(dual, behind, have); len(p.create)+len(p.update)+len(p.remove) > 0 {
		t.Errorf("once more changes it: %+v", p)
	}
	// Only the family that a pod's change concerns is written.
	if p := run(dual, behind[:2], have); len(p.create)+len(p.remove) > 0 || len(p.update) != 1 || p.update[0].AddressType != discoveryv1.AddressTypeIPv4 {
		t.Errorf("a pod of one family went: %+v", p)
	}
	dual.Spec.IPFamilies = dual.Spec.IPFamilies[:1]
	if got, want := describe(carry(have, run(dual, behind, have))), "IPv6 fd00::0001 fd00::0002"; got != want {
		t.Errorf("IPv6 alone: %s, want %s", got, want)
	}
}
