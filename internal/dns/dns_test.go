package dns

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin/forward"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
)

// memoryClient is a client whose cache tells of fixed objects, and of those that a test adds later.
type memoryClient struct {
	client.Client
	informers map[string]*memoryInformer
}

func newMemoryClient(objs ...crclient.Object) *memoryClient {
	c := &memoryClient{informers: map[string]*memoryInformer{}}
	for _, kind := range []crclient.Object{&corev1.Service{}, &discoveryv1.EndpointSlice{}} {
		c.informers[fmt.Sprintf("%T", kind)] = &memoryInformer{}
	}
	for _, o := range objs {
		i := c.informers[fmt.Sprintf("%T", o)]
		i.objects = append(i.objects, o)
	}
	return c
}

func (c *memoryClient) Cache() cache.Cache { return memoryCache{c: c} }

type memoryCache struct {
	cache.Cache
	c *memoryClient
}

func (m memoryCache) GetInformer(_ context.Context, obj crclient.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	return m.c.informers[fmt.Sprintf("%T", obj)], nil
}

type memoryInformer struct {
	cache.Informer
	objects []crclient.Object
	handler toolscache.ResourceEventHandler
}

func (i *memoryInformer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	for _, o := range i.objects {
		h.OnAdd(o, true)
	}
	i.handler = h
	return synced{}, nil
}

func (i *memoryInformer) RemoveEventHandler(toolscache.ResourceEventHandlerRegistration) error {
	return nil
}

type synced struct{}

func (synced) HasSynced() bool                          { return true }
func (synced) HasSyncedChecker() toolscache.DoneChecker { return synced{} }
func (synced) Name() string                             { return "memory" }
func (synced) Done() <-chan struct{}                    { c := make(chan struct{}); close(c); return c }

func ptr[T any](v T) *T { return &v }

func service(name string, ips ...string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: ips[0], ClusterIPs: ips, Ports: []corev1.ServicePort{
			{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}, {Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}},
	}
}

func slice(service string, family discoveryv1.AddressType, eps ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: service + "-" + string(family), Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: family, Endpoints: eps,
		Ports: []discoveryv1.EndpointPort{{Name: ptr("http"), Port: ptr[int32](8080), Protocol: ptr(corev1.ProtocolTCP)}},
	}
}

func cast() []crclient.Object {
	alias := service("alias", "")
	alias.Spec.Type, alias.Spec.ExternalName = corev1.ServiceTypeExternalName, "www.example.com"
	inner := service("inner", "")
	inner.Spec.Type, inner.Spec.ExternalName = corev1.ServiceTypeExternalName, "web.shop.svc.cluster.local"
	loop := service("loop", "")
	loop.Spec.Type, loop.Spec.ExternalName = corev1.ServiceTypeExternalName, "loop.shop.svc.cluster.local"
	eager := service("eager", "None")
	eager.Spec.PublishNotReadyAddresses = true
	notReady := discoveryv1.EndpointConditions{Ready: ptr(false)}
	big := make([]discoveryv1.Endpoint, 200)
	for i := range big {
		big[i].Addresses = []string{fmt.Sprintf("10.42.9.%d", i)}
	}
	metrics := slice("hand", discoveryv1.AddressTypeIPv4, discoveryv1.Endpoint{Addresses: []string{"10.42.0.9"}})
	metrics.Ports[0] = discoveryv1.EndpointPort{Name: ptr("metrics"), Port: ptr[int32](9100), Protocol: ptr(corev1.ProtocolTCP)}
	return []crclient.Object{
		service("hand", "None"), metrics,
		service("web", "10.43.0.5"), service("dual", "10.43.0.6", "fd00::6"), service("db", "None"), service("empty", "None"), service("big", "None"),
		alias, inner, loop, eager,
		slice("web", discoveryv1.AddressTypeIPv4, discoveryv1.Endpoint{Addresses: []string{"10.42.0.3"}}),
		slice("db", discoveryv1.AddressTypeIPv4,
			discoveryv1.Endpoint{Addresses: []string{"10.42.0.5"}, Hostname: ptr("db-0")},
			discoveryv1.Endpoint{Addresses: []string{"10.42.0.6"}},
			discoveryv1.Endpoint{Addresses: []string{"10.42.0.7"}, Conditions: notReady}),
		slice("db", discoveryv1.AddressTypeIPv6, discoveryv1.Endpoint{Addresses: []string{"fd00:42::5"}, Hostname: ptr("db-0")}),
		slice("eager", discoveryv1.AddressTypeIPv4, discoveryv1.Endpoint{Addresses: []string{"10.42.0.8"}, Conditions: notReady}),
		slice("big", discoveryv1.AddressTypeIPv4, big...),
	}
}

const self = "10.43.0.10"

// run starts the DNS, with a resolv.conf of the given lines.
func run(t *testing.T, cl client.Client, resolvConf ...string) *DNS {
	t.Helper()
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte(strings.Join(resolvConf, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := New(Config{Addr: netip.MustParseAddr(self), Domain: "cluster.local", ResolvConf: file, Client: cl, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("Run does not end")
		}
	})
	select {
	case <-d.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return d
}

func ask(t *testing.T, network, name string, kind uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, kind)
	c := dns.Client{Net: network, Timeout: 3 * time.Second}
	r, _, err := c.Exchange(m, self+":53")
	if err != nil {
		t.Fatalf("%s %s: %v", name, dns.TypeToString[kind], err)
	}
	r.Compress = true // as it came
	return r
}

// text is an answer as the table below has it: its code if it is not NOERROR, then its records, sorted.
func text(m *dns.Msg) string {
	var out []string
	for _, rr := range m.Answer {
		out = append(out, strings.TrimPrefix(strings.Join(strings.Fields(strings.TrimPrefix(rr.String(), rr.Header().Name)), " "), "5 IN "))
	}
	slices.Sort(out)
	if m.Rcode != dns.RcodeSuccess {
		out = append([]string{dns.RcodeToString[m.Rcode]}, out...)
	}
	return strings.Join(out, ", ")
}

func TestAnswers(t *testing.T) {
	run(t, newMemoryClient(cast()...))
	const nx = "NXDOMAIN"
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"web.shop.svc.cluster.local.", dns.TypeA, "A 10.43.0.5"},
		{"WEB.shop.SVC.cluster.LOCAL.", dns.TypeA, "A 10.43.0.5"},
		{"web.shop.svc.cluster.local.", dns.TypeAAAA, ""},
		{"web.shop.svc.cluster.local.", dns.TypeMX, ""},
		{"web.shop.svc.cluster.local.", dns.TypeSRV, "SRV 0 100 53 web.shop.svc.cluster.local., SRV 0 100 80 web.shop.svc.cluster.local."},
		{"dual.shop.svc.cluster.local.", dns.TypeA, "A 10.43.0.6"},
		{"dual.shop.svc.cluster.local.", dns.TypeAAAA, "AAAA fd00::6"},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeSRV, "SRV 0 100 80 web.shop.svc.cluster.local."},
		{"_http._tcp.web.shop.svc.cluster.local.", dns.TypeA, ""},
		{"_http._udp.web.shop.svc.cluster.local.", dns.TypeSRV, nx},
		{"_tcp.web.shop.svc.cluster.local.", dns.TypeA, ""},
		{"10-42-0-3.web.shop.svc.cluster.local.", dns.TypeA, "A 10.42.0.3"},

		{"db.shop.svc.cluster.local.", dns.TypeA, "A 10.42.0.5, A 10.42.0.6"},
		{"db.shop.svc.cluster.local.", dns.TypeAAAA, "AAAA fd00:42::5"},
		{"db-0.db.shop.svc.cluster.local.", dns.TypeA, "A 10.42.0.5"},
		{"db-0.db.shop.svc.cluster.local.", dns.TypeAAAA, "AAAA fd00:42::5"},
		{"10-42-0-6.db.shop.svc.cluster.local.", dns.TypeA, "A 10.42.0.6"},
		{"10-42-0-6.db.shop.svc.cluster.local.", dns.TypeAAAA, ""},
		{"10-42-0-7.db.shop.svc.cluster.local.", dns.TypeA, nx},
		{"db-9.db.shop.svc.cluster.local.", dns.TypeA, nx},
		{"_http._tcp.db.shop.svc.cluster.local.", dns.TypeSRV,
			"SRV 0 100 8080 10-42-0-6.db.shop.svc.cluster.local., SRV 0 100 8080 db-0.db.shop.svc.cluster.local."},
		{"_metrics._tcp.hand.shop.svc.cluster.local.", dns.TypeSRV, "SRV 0 100 9100 10-42-0-9.hand.shop.svc.cluster.local."},
		{"_http._tcp.hand.shop.svc.cluster.local.", dns.TypeSRV, ""},
		{"_metrics._tcp.db.shop.svc.cluster.local.", dns.TypeSRV, nx},
		{"empty.shop.svc.cluster.local.", dns.TypeA, ""},
		{"eager.shop.svc.cluster.local.", dns.TypeA, "A 10.42.0.8"},

		{"inner.shop.svc.cluster.local.", dns.TypeA, "A 10.43.0.5, CNAME web.shop.svc.cluster.local."},
		{"alias.shop.svc.cluster.local.", dns.TypeA, "CNAME www.example.com."},
		{"alias.shop.svc.cluster.local.", dns.TypeCNAME, "CNAME www.example.com."},

		{"10-42-0-5.shop.pod.cluster.local.", dns.TypeA, "A 10.42.0.5"},
		{"fd00-42--5.shop.pod.cluster.local.", dns.TypeAAAA, "AAAA fd00:42::5"},
		{"10-42-0-5.shop.pod.cluster.local.", dns.TypeAAAA, ""},
		{"nonsense.shop.pod.cluster.local.", dns.TypeA, nx},

		{"5.0.43.10.in-addr.arpa.", dns.TypePTR, "PTR web.shop.svc.cluster.local."},
		{"5.0.42.10.in-addr.arpa.", dns.TypePTR, "PTR db-0.db.shop.svc.cluster.local."},
		{"6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.", dns.TypePTR, "PTR dual.shop.svc.cluster.local."},

		{"dns-version.cluster.local.", dns.TypeTXT, `TXT "1.1.0"`},
		{"cluster.local.", dns.TypeA, ""},
		{"svc.cluster.local.", dns.TypeA, ""},
		{"shop.svc.cluster.local.", dns.TypeA, ""},
		{"pod.cluster.local.", dns.TypeA, ""},
		{"nowhere.svc.cluster.local.", dns.TypeA, nx},
		{"nobody.shop.svc.cluster.local.", dns.TypeA, nx},
		{"web.nowhere.svc.cluster.local.", dns.TypeA, nx},
		{"www.example.com.shop.svc.cluster.local.", dns.TypeA, nx},
		{"www.example.com.svc.cluster.local.", dns.TypeA, nx},
		{"www.example.com.cluster.local.", dns.TypeA, nx},

		{"www.example.com.", dns.TypeA, "SERVFAIL"}, // nobody to ask
		{"99.0.42.10.in-addr.arpa.", dns.TypePTR, "SERVFAIL"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			m := ask(t, network, c.name, c.kind)
			if got := text(m); got != c.want {
				t.Errorf("%s %s over %s: got %q, want %q", c.name, dns.TypeToString[c.kind], network, got, c.want)
			}
			negative := len(m.Answer) == 0 && m.Rcode != dns.RcodeServerFailure
			if negative && (len(m.Ns) != 1 || m.Ns[0].Header().Rrtype != dns.TypeSOA) {
				t.Errorf("%s %s: a negative answer without SOA: %v", c.name, dns.TypeToString[c.kind], m.Ns)
			}
			if len(m.Answer) > 0 && m.Answer[0].Header().Name != c.name {
				t.Errorf("asked for %s, answered for %s", c.name, m.Answer[0].Header().Name)
			}
		}
	}
	if m := ask(t, "udp", "_http._tcp.db.shop.svc.cluster.local.", dns.TypeSRV); len(m.Extra) != 3 {
		t.Errorf("want the addresses of both endpoints along with their SRV records, got %v", m.Extra)
	}
	if m := ask(t, "udp", "loop.shop.svc.cluster.local.", dns.TypeA); len(m.Answer) == 0 || len(m.Answer) > 2*maxAliases {
		t.Errorf("a name that stands for itself: %v", m.Answer)
	}
}

func TestLargeAnswers(t *testing.T) {
	run(t, newMemoryClient(cast()...))
	const name = "big.shop.svc.cluster.local."
	if m := ask(t, "udp", name, dns.TypeA); !m.Truncated || m.Len() > 512 {
		t.Errorf("UDP without EDNS: truncated %t, %d bytes", m.Truncated, m.Len())
	}
	if m := ask(t, "tcp", name, dns.TypeA); m.Truncated || len(m.Answer) != 200 {
		t.Errorf("TCP: truncated %t, %d addresses", m.Truncated, len(m.Answer))
	}
	q := new(dns.Msg)
	q.SetQuestion(name, dns.TypeA)
	q.SetEdns0(1232, false)
	c := dns.Client{UDPSize: 1232}
	m, _, err := c.Exchange(q, self+":53")
	m.Compress = true
	if err != nil || !m.Truncated || m.Len() <= 512 || m.Len() > 1232 || m.IsEdns0() == nil {
		t.Errorf("UDP with EDNS: %v, truncated %t, %d bytes", err, m.Truncated, m.Len())
	}
}

func TestChangesAreAnsweredAtOnce(t *testing.T) {
	cl := newMemoryClient(cast()...)
	run(t, cl)
	svc, eps := cl.informers["*v1.Service"], cl.informers["*v1.EndpointSlice"]
	svc.handler.OnAdd(service("late", "10.43.0.9"), false)
	if got := text(ask(t, "udp", "late.shop.svc.cluster.local.", dns.TypeA)); got != "A 10.43.0.9" {
		t.Errorf("added: %q", got)
	}
	svc.handler.OnDelete(toolscache.DeletedFinalStateUnknown{Key: "shop/late", Obj: service("late", "10.43.0.9")})
	if got := text(ask(t, "udp", "late.shop.svc.cluster.local.", dns.TypeA)); got != "NXDOMAIN" {
		t.Errorf("deleted: %q", got)
	}
	old := slice("eager", discoveryv1.AddressTypeIPv4)
	eps.handler.OnUpdate(old, slice("eager", discoveryv1.AddressTypeIPv4, discoveryv1.Endpoint{Addresses: []string{"10.42.0.99"}}))
	if got := text(ask(t, "udp", "eager.shop.svc.cluster.local.", dns.TypeA)); got != "A 10.42.0.99" {
		t.Errorf("updated: %q", got)
	}
	eps.handler.OnDelete(old)
	if got := text(ask(t, "udp", "eager.shop.svc.cluster.local.", dns.TypeA)); got != "" {
		t.Errorf("no endpoints: %q", got)
	}
}

// resolver is a host's resolver that knows www.example.com.
func resolver(t *testing.T, at, answer string) *atomic.Int32 {
	t.Helper()
	asked := &atomic.Int32{}
	started := make(chan struct{})
	s := &dns.Server{Addr: at + ":53", Net: "udp", NotifyStartedFunc: func() { close(started) }, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, r *dns.Msg) {
		if r.Question[0].Name == "." { // the forwarder asks whether it lives
			refuse(w, r, dns.RcodeSuccess)
			return
		}
		asked.Add(1)
		m := new(dns.Msg)
		m.SetReply(r)
		if r.Question[0].Name != "www.example.com." {
			m.Rcode = dns.RcodeNameError
		} else if rr, err := dns.NewRR("www.example.com. 300 IN A " + answer); err == nil && r.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{rr}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ListenAndServe() }()
	<-started
	t.Cleanup(func() { _ = s.Shutdown() })
	return asked
}

func TestEverythingElse(t *testing.T) {
	asked := resolver(t, "127.0.0.5", "192.0.2.1")
	d := run(t, newMemoryClient(cast()...), "nameserver "+self, "nameserver 127.0.0.5")
	for range 3 {
		if m := ask(t, "udp", "www.example.com.", dns.TypeA); len(m.Answer) != 1 || !strings.HasSuffix(text(m), "A 192.0.2.1") {
			t.Fatalf("got %v", m)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the resolver was asked %d times, want once: answers are remembered", n)
	}
	if got := text(ask(t, "tcp", "nobody.example.com.", dns.TypeA)); got != "NXDOMAIN" {
		t.Errorf("got %q", got)
	}
	m := ask(t, "udp", "alias.shop.svc.cluster.local.", dns.TypeA)
	if len(m.Answer) != 2 || m.Answer[1].(*dns.A).A.String() != "192.0.2.1" {
		t.Errorf("an external name is not resolved: %v", m.Answer)
	}

	resolver(t, "127.0.0.6", "192.0.2.2")
	if err := os.WriteFile(d.cfg.ResolvConf, []byte("nameserver 127.0.0.6\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	time.Sleep(lookEvery)
	if got := text(ask(t, "udp", "www.example.com.", dns.TypeA)); !strings.HasSuffix(got, "A 192.0.2.2") {
		t.Errorf("the host's resolver changed, but the answer is still %q", got)
	}
}

// A file of resolvers that is broken, cut off or gone leaves the resolvers what they were, is told of once, and one that is good again counts.
func TestResolversOutliveABrokenFile(t *testing.T) {
	var log bytes.Buffer
	file := filepath.Join(t.TempDir(), "resolv.conf")
	u := newUpstream(file, netip.MustParseAddr("127.0.0.53"), slog.New(slog.NewTextHandler(&log, nil)))
	defer u.close()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	look := func() string { // as a query does that comes later
		again := *u.current.Load()
		again.read = time.Time{}
		u.current.Store(&again)
		chain := u.look().chain
		if chain == nil {
			return ""
		}
		var out []string
		for _, p := range chain.Next.(*forward.Forward).List() {
			out = append(out, p.Addr())
		}
		return strings.Join(out, ",")
	}
	const first, second = "127.0.0.7:53", "127.0.0.8:53"
	if got := look(); got != "" || strings.Count(log.String(), "names outside the cluster are not resolved") != 1 {
		t.Fatalf("without a file: %q\n%s", got, &log)
	}
	write("nameserver 127.0.0.7\n")
	if got := look(); got != first {
		t.Fatalf("the resolvers are %q", got)
	}
	for name, text := range map[string]string{"empty": "", "cut off": "nameser", "half an address": "nameserver 127.0.", "noise": "\x00\xff\n\n", "itself": "nameserver 127.0.0.53\n", "no resolver": "search a\n"} {
		log.Reset()
		write(text)
		for range 2 {
			if got := look(); got != first {
				t.Errorf("%s: the resolvers are %q", name, got)
			}
		}
		if n := strings.Count(log.String(), "those known before are asked"); n != 1 || !strings.Contains(log.String(), file) {
			t.Errorf("%s: told %d times: %s", name, n, &log)
		}
		write("nameserver 127.0.0.8\n")
		if got := look(); got != second {
			t.Errorf("after %s: the resolvers are %q", name, got)
		}
		write("nameserver 127.0.0.7\n# again\n")
		if got := look(); got != first {
			t.Errorf("after %s: the resolvers are %q", name, got)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if got := look(); got != first {
		t.Errorf("without the file the resolvers are %q", got)
	}
}

func BenchmarkQuery(b *testing.B) {
	z := newZone("cluster.local.")
	for i := range 10000 {
		s := service(fmt.Sprintf("s%d", i), netip.AddrFrom4([4]byte{10, 43, byte(i / 250), byte(1 + i%250)}).String())
		z.setService(s, false)
	}
	q := dns.Question{Name: "s77.shop.svc.cluster.local.", Qtype: dns.TypeA, Qclass: dns.ClassINET}
	for b.Loop() {
		labels, _ := within(canonical(q.Name), z.domain)
		if a := z.lookup(labels, q); len(a.records) != 1 {
			b.Fatal(a)
		}
	}
}
