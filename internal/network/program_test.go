package network

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/network/announce"
	"skiff.dev/skiff/internal/proxy"
)

// kind makes the i-th service of a crowd one of a type.
type kind func(i int, s *corev1.Service)

var (
	clusterIP kind = func(int, *corev1.Service) {}
	nodePort  kind = func(i int, s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.Ports[0].NodePort = int32(20000 + i) // of a cluster that has set aside enough
	}
	loadBalancer kind = func(i int, s *corev1.Service) {
		nodePort(i, s)
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: netip.AddrFrom4([4]byte{198, 18, byte(i / 250), byte(1 + i%250)}).String()}}
	}
	policyLocal kind = func(i int, s *corev1.Service) {
		loadBalancer(i, s)
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}
	sourceRanges kind = func(i int, s *corev1.Service) {
		loadBalancer(i, s)
		s.Spec.LoadBalancerSourceRanges = []string{"198.51.100.0/24", "203.0.113.9/32"}
	}
	affinity kind = func(_ int, s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }
)

// crowd is a follower that has been told of many services, each with so many endpoints, and has written none.
func crowd(b *testing.B, of kind, services, each int) *follower {
	b.Helper()
	f := newFacts("w", []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16")}, []netip.Prefix{netip.MustParsePrefix("10.43.0.0/16")}, netip.Addr{})
	log := slog.New(slog.NewTextHandler(testWriter{b}, nil))
	rules := newRuleset(f, log)
	b.Cleanup(func() {
		if err := rules.Delete(); err != nil {
			b.Error(err)
		}
	})
	fo := newFollower(rules, proxy.Node{Name: nodeName, Pods: []netip.Prefix{f.ranges[0].pods}}, announce.New(nodeName, nil, log), newProxyHealth(time.Now), log)
	for i := range services {
		name := fmt.Sprintf("s%d", i)
		key := types.NamespacedName{Namespace: "default", Name: name}
		s := service(name, netip.AddrFrom4([4]byte{10, 43, byte(i / 250), byte(1 + i%250)}).String(), func(s *corev1.Service) {
			s.Spec.Ports = s.Spec.Ports[:1]
			of(i, s)
		})
		fo.services[key] = s
		fo.slices[key] = map[string]*discoveryv1.EndpointSlice{"1": spreadOut(endpoints(name, backends(i, each)...), i)}
		fo.dirty[key] = struct{}{}
	}
	return fo
}

// spreadOut puts one of a hundred endpoints on this node, and the others elsewhere.
func spreadOut(s *discoveryv1.EndpointSlice, service int) *discoveryv1.EndpointSlice {
	elsewhere := "elsewhere"
	for j := range s.Endpoints {
		if (service*len(s.Endpoints)+j)%100 != 0 {
			s.Endpoints[j].NodeName = &elsewhere
		}
	}
	return s
}

func backends(service, n int) (out []netip.Addr) {
	for j := range n {
		at := service*n + j
		out = append(out, netip.AddrFrom4([4]byte{10, 42, byte(at / 250), byte(1 + at%250)}))
	}
	return out
}

// BenchmarkProgram writes all services of a cluster at once, as a node does that starts.
func BenchmarkProgram(b *testing.B) {
	for _, of := range []struct {
		name           string
		kind           kind
		services, each int
	}{
		{"ClusterIP", clusterIP, 1000, 5}, {"ClusterIP", clusterIP, 10000, 5}, {"ClusterIP", clusterIP, 5000, 50},
		{"NodePort", nodePort, 1000, 5}, {"NodePort", nodePort, 5000, 5},
		{"LoadBalancer", loadBalancer, 1000, 5}, {"LoadBalancer", loadBalancer, 5000, 5},
		{"Local", policyLocal, 1000, 5}, {"Local", policyLocal, 5000, 5},
		{"SourceRanges", sourceRanges, 1000, 5}, {"SourceRanges", sourceRanges, 5000, 5},
		{"Affinity", affinity, 1000, 5}, {"Affinity", affinity, 5000, 5},
	} {
		b.Run(fmt.Sprintf("%s/%dx%d", of.name, of.services, of.each), func(b *testing.B) {
			var used time.Duration
			for range b.N {
				b.StopTimer()
				f := crowd(b, of.kind, of.services, of.each)
				runtime.GC()
				before := processorTime(b)
				b.StartTimer()
				if err := f.write(); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				used += processorTime(b) - before
				if err := f.rules.Delete(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/op") // of this process: a machine that others use too says more by it
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkChange changes one service's endpoints among many.
func BenchmarkChange(b *testing.B) {
	for _, of := range []struct {
		name     string
		kind     kind
		services int
	}{
		{"ClusterIP", clusterIP, 1000}, {"ClusterIP", clusterIP, 10000},
		{"NodePort", nodePort, 1000}, {"NodePort", nodePort, 5000},
		{"LoadBalancer", loadBalancer, 1000}, {"LoadBalancer", loadBalancer, 5000},
		{"Local", policyLocal, 1000}, {"Local", policyLocal, 5000},
		{"SourceRanges", sourceRanges, 1000}, {"SourceRanges", sourceRanges, 5000},
		{"Affinity", affinity, 1000}, {"Affinity", affinity, 5000},
	} {
		b.Run(fmt.Sprintf("%s/%d", of.name, of.services), func(b *testing.B) {
			f := crowd(b, of.kind, of.services, 5)
			if err := f.write(); err != nil {
				b.Fatal(err)
			}
			key := types.NamespacedName{Namespace: "default", Name: "s7"}
			took, before := make([]time.Duration, 0, b.N), processorTime(b)
			b.ResetTimer()
			for i := range b.N {
				begin := time.Now()
				f.slices[key]["1"] = spreadOut(endpoints("s7", backends(7, 4+i%2)...), 7)
				f.dirty[key] = struct{}{}
				if err := f.write(); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begin))
			}
			b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "median-ns")
		})
	}
}

// BenchmarkConnect opens connections to one service among few and among many, and closes them at once.
func BenchmarkConnect(b *testing.B) {
	for _, services := range []int{10, 10000} {
		b.Run(fmt.Sprint(services), func(b *testing.B) {
			f := crowd(b, clusterIP, services, 5)
			share, gateway := netip.MustParsePrefix("10.42.0.0/24"), netip.MustParseAddr("10.42.0.1")
			if err := setUpHost("w", []netip.Prefix{share}, []netip.Prefix{f.rules.facts.ranges[0].services}); err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() {
				if err := deleteLink(anchor("w")); err != nil {
					b.Error(err)
				}
			})
			newHost(b).serve("here", 8080)
			key := types.NamespacedName{Namespace: "default", Name: "s7"}
			f.slices[key]["1"] = endpoints("s7", gateway)
			if err := f.write(); err != nil {
				b.Fatal(err)
			}
			took := make([]time.Duration, 0, b.N)
			for b.Loop() {
				begin := time.Now()
				c, err := net.Dial("tcp4", "10.43.0.8:80")
				if err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begin))
				_ = c.(*net.TCPConn).SetLinger(0) // so that neither end keeps it in mind
				c.Close()
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "median-ns")
		})
	}
}
