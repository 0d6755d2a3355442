package main

import (
	"fmt"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/test/cluster"
)

const (
	endpointsEach  = 5
	serviceSamples = 300
)

// benchServices measures how soon the kernel has the rules of services: the network package alone, and then a node of a real cluster, from the write over
// HTTPS to the first connection that is led by it.
func benchServices(b *bench) {
	const pkg = "./internal/network"
	cpu := quantity{"cpu-ns/op", "CPU", "ms", 1e-6}
	b.own(pkg, "Program", "1x", quantity{"ns/op", "", "ms", 1e-6}, cpu)
	b.own(pkg, "Change|Connect", "500x", quantity{"median-ns", "", "ms", 1e-6}, cpu)

	c := cluster.Start(b)
	t := &server{b: b, c: c, cfg: quick(c.RESTConfig()), pids: []int{c.PID()}}
	s := &served{load: newLoad(t)}
	s.listen()
	for _, n := range []int{10, 1000, 10000} {
		s.grow(n)
		s.change(n)
		s.connect(n)
	}
}

// served are services of a cluster. The first has one endpoint on the host, which changes between two ports; the others' endpoints are nowhere.
type served struct {
	*load
	services int
	ports    [2]int32 // which answer with their index
	at       int      // the index of the one that is the endpoint
	addr     string   // of the first service
	slice    *discoveryv1.EndpointSlice
}

// listen answers at two ports of the host.
func (s *served) listen() {
	for i := range s.ports {
		var l net.Listener
		err := s.c.Host().Do(func() (err error) {
			l, err = net.Listen("tcp4", s.c.Host().IP()+":0")
			return err
		})
		if err != nil {
			s.b.Fatal(err)
		}
		s.b.Cleanup(func() { l.Close() })
		s.ports[i] = int32(l.Addr().(*net.TCPAddr).Port)
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte{byte(i)}) // who has gone needs no answer
				c.Close()
			}
		}()
	}
}

// grow makes services until there are n, and waits until the last is in force.
func (s *served) grow(n int) {
	s.measure(fmt.Sprintf("create services up to %d", n), n-s.services, min(len(s.callers), n-s.services), func(caller, i int) error {
		return s.create(caller, s.services+i)
	})
	s.services = n
	if s.addr == "" {
		svc, err := s.callers[0].CoreV1().Services("default").Get(s.ctx, "bench-0", metav1.GetOptions{})
		if err != nil {
			s.b.Fatal(err)
		}
		s.addr = net.JoinHostPort(svc.Spec.ClusterIP, "80")
	}
	s.move()
	s.led(time.Minute) // it was written last, so the others are in force too
}

func (s *served) create(caller, i int) error {
	name := fmt.Sprintf("bench-%d", i)
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	if _, err := s.callers[caller].CoreV1().Services("default").Create(s.ctx, svc, metav1.CreateOptions{}); err != nil {
		return err
	}
	var addrs []string
	for j := range endpointsEach {
		at := i*endpointsEach + j
		addrs = append(addrs, fmt.Sprintf("198.18.%d.%d", at/250, 1+at%250)) // for benchmarks of networks, RFC 2544
	}
	port := int32(8080)
	if i == 0 {
		addrs, port = []string{s.c.Host().IP()}, s.ports[0]
	}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: &port}},
	}
	for _, a := range addrs {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	made, err := s.callers[caller].DiscoveryV1().EndpointSlices("default").Create(s.ctx, slice, metav1.CreateOptions{})
	if i == 0 {
		s.slice = made
	}
	return err
}

// move has the first service lead to the other port.
func (s *served) move() {
	s.at = 1 - s.at
	s.slice.Ports[0].Port = &s.ports[s.at]
	made, err := s.callers[0].DiscoveryV1().EndpointSlices("default").Update(s.ctx, s.slice, metav1.UpdateOptions{})
	if err != nil {
		s.b.Fatalf("change endpoints: %v", err)
	}
	s.slice = made
}

// led connects until the first service leads to where it shall.
func (s *served) led(patience time.Duration) {
	for began := time.Now(); time.Since(began) < patience; {
		if who, _, err := s.ask(); err == nil && who == s.at {
			return
		}
	}
	s.b.Fatalf("the service does not lead to its new endpoint after %s", patience)
}

// ask connects to the first service; it tells who answers, and how long it took to connect.
func (s *served) ask() (who int, took time.Duration, err error) {
	err = s.c.Host().Do(func() error {
		began := time.Now()
		// A port that was used a moment ago may be taken for the connection before: then the first packet is lost, and sent again after a second.
		c, err := net.DialTimeout("tcp4", s.addr, 3*time.Second)
		if err != nil {
			return err
		}
		took = time.Since(began)
		defer c.Close()
		_ = c.(*net.TCPConn).SetLinger(0) // so that neither end keeps it in mind
		var answer [1]byte
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		_, err = c.Read(answer[:])
		who = int(answer[0])
		return err
	})
	return who, took, err
}

func (s *served) change(n int) {
	var writes, all []float64
	for range serviceSamples {
		began := time.Now()
		s.move()
		writes = append(writes, milliseconds(time.Since(began)))
		s.led(10 * time.Second)
		all = append(all, milliseconds(time.Since(began)))
	}
	late := make([]float64, len(all))
	for i := range all {
		late[i] = all[i] - writes[i]
	}
	reportQuantiles(fmt.Sprintf("%d services: endpoints written to in force", n), "ms", all)
	reportQuantiles("of it from the write's answer on", "ms", late)
}

func (s *served) connect(n int) {
	var took []float64
	for range serviceSamples {
		_, t, err := s.ask()
		if err != nil {
			s.b.Fatalf("connect to %s: %v", s.addr, err)
		}
		took = append(took, 1000*milliseconds(t))
	}
	reportQuantiles(fmt.Sprintf("%d services: a new connection", n), "µs", took)
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
