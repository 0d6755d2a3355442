package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
)

// memoryClient is a client whose cache holds what a test puts there.
type memoryClient struct {
	client.Client

	mu    sync.Mutex
	kinds map[string]*memoryInformer

	events record.FakeRecorder
}

func (c *memoryClient) Recorder(string) record.EventRecorder { return &c.events }

func (c *memoryClient) Cache() cache.Cache { return memoryCache{c: c} }

type memoryCache struct {
	cache.Cache
	c *memoryClient
}

func (m memoryCache) GetInformer(_ context.Context, obj crclient.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	return m.c.informer(obj), nil
}

func (c *memoryClient) informer(obj crclient.Object) *memoryInformer {
	c.mu.Lock()
	defer c.mu.Unlock()
	kind := fmt.Sprintf("%T", obj)
	if c.kinds[kind] == nil {
		c.kinds[kind] = &memoryInformer{objects: map[crclient.ObjectKey]crclient.Object{}}
	}
	return c.kinds[kind]
}

func (c *memoryClient) put(objs ...crclient.Object) {
	for _, o := range objs {
		c.informer(o).put(o)
	}
}

func (c *memoryClient) remove(objs ...crclient.Object) {
	for _, o := range objs {
		c.informer(o).remove(o)
	}
}

// intact tells whether the kernel has taken every change.
func (w *world) intact() bool {
	w.net.rules.mu.Lock()
	defer w.net.rules.mu.Unlock()
	return w.net.rules.intact
}

type memoryInformer struct {
	cache.Informer
	mu       sync.Mutex
	objects  map[crclient.ObjectKey]crclient.Object
	handlers []toolscache.ResourceEventHandler
}

func (i *memoryInformer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, o := range i.objects {
		h.OnAdd(o, true)
	}
	i.handlers = append(i.handlers, h)
	return synced{}, nil
}

func (i *memoryInformer) RemoveEventHandler(toolscache.ResourceEventHandlerRegistration) error {
	return nil
}

func (i *memoryInformer) put(o crclient.Object) {
	i.mu.Lock()
	defer i.mu.Unlock()
	key := crclient.ObjectKeyFromObject(o)
	old, had := i.objects[key]
	i.objects[key] = o
	for _, h := range i.handlers {
		if had {
			h.OnUpdate(old, o)
		} else {
			h.OnAdd(o, false)
		}
	}
}

func (i *memoryInformer) remove(o crclient.Object) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.objects, crclient.ObjectKeyFromObject(o))
	for _, h := range i.handlers {
		h.OnDelete(o)
	}
}

type synced struct{}

func (synced) HasSynced() bool                          { return true }
func (synced) HasSyncedChecker() toolscache.DoneChecker { return synced{} }
func (synced) Name() string                             { return "memory" }
func (synced) Done() <-chan struct{}                    { c := make(chan struct{}); close(c); return c }

// world is one node with its network running, and what a test puts around it.
type world struct {
	testing.TB
	cfg    Config
	client *memoryClient
	net    *Network
	plugin string
	stop   func()
}

const nodeName = "here"

// newWorld starts a network for cluster w in the test's network namespace. It is removed, and must leave nothing, when the test ends.
func newWorld(t testing.TB, withPodCIDR bool) *world {
	t.Helper()
	return newWorldOf(t, withPodCIDR, v4)
}

var (
	testPods     = map[family]netip.Prefix{v4: netip.MustParsePrefix("10.42.0.0/16"), v6: netip.MustParsePrefix("fd42::/56")}
	testServices = map[family]netip.Prefix{v4: netip.MustParsePrefix("10.43.0.0/16"), v6: netip.MustParsePrefix("fd43::/112")}
)

// newWorldOf is newWorld for a cluster of these families, the primary first.
func newWorldOf(t testing.TB, withPodCIDR bool, of ...family) *world {
	t.Helper()
	dir := t.TempDir()
	cl := &memoryClient{kinds: map[string]*memoryInformer{}, events: record.FakeRecorder{Events: make(chan string, 10)}}
	w := &world{TB: t, client: cl, cfg: Config{
		Cluster: "w", NodeName: nodeName,
		StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), CNIConfDir: filepath.Join(dir, "conf"),
		Client: cl, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}}
	for _, f := range of {
		w.cfg.PodCIDRs, w.cfg.ServiceCIDRs = append(w.cfg.PodCIDRs, testPods[f]), append(w.cfg.ServiceCIDRs, testServices[f])
	}
	if withPodCIDR {
		cl.put(w.node())
	}
	w.start()
	t.Cleanup(func() {
		w.stop()
		for range 2 { // the second finds nothing, and that is no error
			if err := Remove(context.Background(), w.cfg, func(string) {}); err != nil {
				t.Error(err)
			}
		}
		w.checkClean()
	})
	return w
}

func (w *world) node() *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName}}
	for _, p := range w.cfg.PodCIDRs {
		share := netip.PrefixFrom(p.Addr(), p.Bits()+8)
		n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, share.String())
	}
	n.Spec.PodCIDR = n.Spec.PodCIDRs[0]
	return n
}

func (w *world) start() {
	w.Helper()
	n, err := New(w.cfg)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	w.net = n
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Errorf("Run: %v", err)
		}
	})
	select {
	case <-n.Ready():
	case <-time.After(time.Minute):
		w.stop()
		w.Fatal("the network did not become ready")
	}
}

// checkClean looks for leftovers on the host.
func (w *world) checkClean() {
	links, _ := netlink.LinkList()
	for _, l := range links {
		if l.Attrs().Name != "lo" && l.Attrs().Name != "outside" {
			w.Errorf("link %s is left", l.Attrs().Name)
		}
	}
	if out := w.nft("list", "tables"); strings.TrimSpace(out) != "" {
		w.Errorf("tables are left: %s", out)
	}
	if _, err := os.Stat(w.cfg.conflistPath()); !errors.Is(err, os.ErrNotExist) {
		w.Errorf("the conflist is left: %v", err)
	}
}

func (w *world) nft(args ...string) string {
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		w.Errorf("nft %v: %v: %s", args, err, out)
	}
	return string(out)
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// namespace is a place to send packets from and to: a pod, or the world outside; nil is the host itself.
type namespace struct {
	t      testing.TB
	ns     netns.NsHandle
	path   string
	id     string
	addr   netip.Addr   // the primary one
	addrs  []netip.Addr // of both families
	closed sync.WaitGroup
	open   []io.Closer
}

func newNamespace(t testing.TB) *namespace {
	t.Helper()
	n := &namespace{t: t}
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine, for it is in another namespace
		var err error
		n.ns, err = netns.New()
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	n.path = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.ns))
	t.Cleanup(n.close)
	return n
}

// newHost is the host itself, to serve on.
func newHost(t testing.TB) *namespace {
	t.Helper()
	ns, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	n := &namespace{t: t, ns: ns}
	t.Cleanup(n.close)
	return n
}

func (n *namespace) close() {
	for _, c := range n.open {
		c.Close()
	}
	n.closed.Wait()
	n.ns.Close()
}

// in runs do with the thread inside the namespace.
func (n *namespace) in(do func()) {
	if n == nil {
		do()
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := netns.Set(n.ns); err != nil {
			n.t.Error(err)
			return
		}
		do()
	}()
	<-done
}

// cni runs the plug-in as a runtime would.
func (w *world) cni(command, id, netnsPath, conf string) (map[string]any, error) {
	w.Helper()
	if w.plugin == "" {
		w.plugin = filepath.Join(w.TempDir(), "skiff-cni")
		if out, err := exec.Command("go", "build", "-o", w.plugin, "skiff.dev/skiff/cmd/skiff-cni").CombinedOutput(); err != nil {
			w.Fatalf("build the plug-in: %v: %s", err, out)
		}
	}
	if conf == "" {
		conf = "{}"
	}
	var c map[string]any
	if err := json.Unmarshal([]byte(conf), &c); err != nil {
		w.Fatal(err)
	}
	c["cniVersion"], c["name"], c["type"], c["socket"] = "1.1.0", w.cfg.Cluster, "skiff-cni", w.cfg.socketPath()
	in, _ := json.Marshal(c)
	cmd := exec.Command(w.plugin)
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_NETNS=" + netnsPath, "CNI_IFNAME=eth0", "CNI_PATH=/x",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + id}
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	var result map[string]any
	if len(out) > 0 {
		if err := json.Unmarshal(out, &result); err != nil {
			w.Fatalf("CNI %s printed %q: %v", command, out, err)
		}
	}
	if err != nil {
		return result, fmt.Errorf("CNI %s: %v", command, result["msg"])
	}
	return result, nil
}

// pod makes a network namespace and connects it.
func (w *world) pod(id, conf string) *namespace {
	w.Helper()
	n := newNamespace(w.TB)
	n.id = id
	result, err := w.cni("ADD", id, n.path, conf)
	if err != nil {
		w.Fatal(err)
	}
	n.addrs = podAddrs(w.TB, result)
	if n.addr = n.addrs[0]; len(n.addrs) != len(w.cfg.PodCIDRs) {
		w.Fatalf("want an address for each of %v, got %v", w.cfg.PodCIDRs, n.addrs)
	}
	return n
}

func podAddr(t testing.TB, result map[string]any) netip.Addr { return podAddrs(t, result)[0] }

func podAddrs(t testing.TB, result map[string]any) (out []netip.Addr) {
	t.Helper()
	ips, _ := result["ips"].([]any)
	for _, ip := range ips {
		p, err := netip.ParsePrefix(ip.(map[string]any)["address"].(string))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p.Addr())
	}
	if len(out) == 0 {
		t.Fatalf("no address: %v", result)
	}
	return out
}

// outside makes a neighbour of the host on a link of its own: 198.51.100.1 and 2001:db8::1 are the host, those with 2 the neighbour.
func (w *world) outside() *namespace {
	w.Helper()
	n := newNamespace(w.TB)
	n.addr = netip.MustParseAddr("198.51.100.2")
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "outside"
	must := func(err error) {
		w.Helper()
		if err != nil {
			w.Fatal(err)
		}
	}
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(n.ns))}))
	link, err := netlink.LinkByName("outside")
	must(err)
	w.Cleanup(func() { _ = netlink.LinkDel(link) })
	host, err := netlink.ParseAddr("198.51.100.1/24")
	must(err)
	must(netlink.AddrAdd(link, host))
	must(netlink.LinkSetUp(link))
	h, err := netlink.NewHandleAt(n.ns)
	must(err)
	defer h.Close()
	inside, err := h.LinkByName("eth0")
	must(err)
	peer, err := netlink.ParseAddr("198.51.100.2/24")
	must(err)
	must(h.AddrAdd(inside, peer))
	must(h.LinkSetUp(inside))
	must(h.RouteAdd(&netlink.Route{LinkIndex: inside.Attrs().Index, Gw: net.IPv4(198, 51, 100, 1)}))
	if !has6(w.cfg.PodCIDRs) {
		return n
	}
	for _, at := range []struct {
		add  func(netlink.Link, *netlink.Addr) error
		link netlink.Link
		addr string
	}{{netlink.AddrAdd, link, "2001:db8::1/64"}, {h.AddrAdd, inside, "2001:db8::2/64"}} {
		a, err := netlink.ParseAddr(at.addr)
		must(err)
		a.Flags = unix.IFA_F_NODAD
		must(at.add(at.link, a))
	}
	must(h.RouteAdd(&netlink.Route{LinkIndex: inside.Attrs().Index, Gw: net.ParseIP("2001:db8::1")}))
	return n
}

// serve answers every TCP connection and every UDP packet at a port with the server's name and the client's address as the server sees it.
func (n *namespace) serve(name string, port int) {
	n.t.Helper()
	n.in(func() {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			n.t.Error(err)
			return
		}
		u, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if err != nil {
			n.t.Error(err)
			return
		}
		n.open = append(n.open, l, u)
		n.closed.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s %s", name, c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		})
		n.closed.Go(func() {
			buf := make([]byte, 100)
			for {
				_, from, err := u.ReadFrom(buf)
				if err != nil {
					return
				}
				_, _ = u.WriteTo(fmt.Appendf(nil, "%s %s", name, from.(*net.UDPAddr).IP), from)
			}
		})
	})
}

// ask connects over TCP and returns the server's name and the address it saw.
func (n *namespace) ask(to string) (server, saw string, err error) {
	n.in(func() {
		var c net.Conn
		if c, err = net.DialTimeout("tcp", to, 2*time.Second); err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		var data []byte
		data, err = io.ReadAll(c)
		server, saw, _ = strings.Cut(string(data), " ")
	})
	return server, saw, err
}

// udp opens a UDP socket whose every question can be asked with talk.
func (n *namespace) udp(t testing.TB, to string) (c net.Conn) {
	t.Helper()
	var err error
	n.in(func() { c, err = net.Dial("udp", to) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func talk(c net.Conn) (server string, err error) {
	if _, err := c.Write([]byte("?")); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 100)
	k, err := c.Read(buf)
	server, _, _ = strings.Cut(string(buf[:k]), " ")
	return server, err
}

// eventually waits for what the network does on its own after a change.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("did not happen: %s", what)
}

func service(name, ip string, change func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: ip, ClusterIPs: []string{ip},
		Ports: []corev1.ServicePort{
			{Name: "tcp", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(8080)},
			{Name: "udp", Protocol: corev1.ProtocolUDP, Port: 80, TargetPort: intstr.FromInt32(8080)},
		},
	}}
	if change != nil {
		change(s)
	}
	return s
}

func endpoints(name string, to ...netip.Addr) *discoveryv1.EndpointSlice {
	return endpointsAt(name, 8080, to...)
}

func endpointsAt(name string, port int32, to ...netip.Addr) *discoveryv1.EndpointSlice {
	tcp, udp, here, tcpName, udpName := corev1.ProtocolTCP, corev1.ProtocolUDP, nodeName, "tcp", "udp"
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name + "-1", Labels: map[string]string{discoveryv1.LabelServiceName: name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &tcpName, Protocol: &tcp, Port: &port}, {Name: &udpName, Protocol: &udp, Port: &port}},
	}
	if len(to) > 0 && to[0].Is6() {
		s.AddressType, s.Name = discoveryv1.AddressTypeIPv6, name+"-6"
	}
	for _, a := range to {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a.String()}, NodeName: &here})
	}
	return s
}
