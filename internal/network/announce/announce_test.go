package announce

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/api/loadbalancer"
)

// wire makes two ends of a cable in a network of this goroutine's own.
func wire(t *testing.T) (here, there *net.Interface) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, for a network of its own")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	own, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close() })
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "here"}, PeerName: "there"}); err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]**net.Interface{"here": &here, "there": &there} {
		link, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(link)
		}
		if err == nil {
			*at, err = net.InterfaceByName(name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return here, there
}

func service(node string, addrs ...netip.Addr) *corev1.Service {
	s := &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
	for _, a := range addrs {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a.String()})
	}
	meta.SetStatusCondition(&s.Status.Conditions, loadbalancer.Elected(node, 1))
	return s
}

// listener is the other end of the cable.
type listener struct {
	t    *testing.T
	sock *os.File
}

func (l listener) next(within time.Duration) (p packet, ok bool) {
	l.t.Helper()
	buf := make([]byte, 256)
	if err := l.sock.SetReadDeadline(time.Now().Add(within)); err != nil {
		l.t.Fatal(err)
	}
	n, err := l.sock.Read(buf)
	if err != nil {
		return p, false
	}
	return parse(buf[:n])
}

// answered asks for an address, and says who replied to that.
func (l listener) answered(a netip.Addr, within time.Duration) (by net.HardwareAddr) {
	l.t.Helper()
	if _, err := l.sock.Write(ask(a).frame()); err != nil {
		l.t.Fatal(err)
	}
	for end := time.Now().Add(within); time.Now().Before(end); {
		if p, ok := l.next(time.Until(end)); ok && p.op == reply && p.sender == a && p.target == client {
			return p.senderMAC
		}
	}
	return nil
}

func TestAnnouncer(t *testing.T) {
	here, there := wire(t)
	sock, err := listen(there.Index)
	if err == nil {
		err = bind(sock, there.Index, arp.etherType)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	l := listener{t, sock}
	a := New("a", func(netip.Addr) (int, error) { return here.Index, nil }, slog.New(slog.DiscardHandler))
	defer a.Close()
	a.Alive(time.Now().Add(time.Hour))
	web, db := types.NamespacedName{Name: "web"}, types.NamespacedName{Name: "db"}
	says := func(key types.NamespacedName, s *corev1.Service) {
		a.Follow(map[types.NamespacedName]*corev1.Service{key: s})
	}

	says(web, service("b", addr))
	if len(a.links) != 0 {
		t.Error("a socket is open for another node's address")
	}
	says(web, service("a", addr))
	for _, op := range []uint16{request, reply} {
		if p, ok := l.next(5 * time.Second); !ok || p.op != op || p.sender != addr || p.target != addr || p.senderMAC.String() != here.HardwareAddr.String() {
			t.Errorf("the link was told %+v", p)
		}
	}
	if by := l.answered(addr, 5*time.Second); by.String() != here.HardwareAddr.String() {
		t.Errorf("%s answered for the address", by)
	}
	a.Alive(time.Now()) // it may have a successor
	if by := l.answered(addr, 200*time.Millisecond); by != nil {
		t.Errorf("%s answers, and is not sure to be alive", by)
	}
	a.Alive(time.Now().Add(time.Hour))
	if p, ok := l.next(5 * time.Second); !ok || p.sender != addr || p.target != addr {
		t.Errorf("back again, it tells the link %+v", p)
	}
	says(db, service("a", addr.Next().Next()))
	if by := l.answered(addr.Next().Next(), 5*time.Second); by == nil {
		t.Error("nobody answered for the second address")
	}
	if by := l.answered(addr.Next(), 200*time.Millisecond); by != nil {
		t.Errorf("%s answered for an address between", by)
	}
	says(web, nil)
	if by := l.answered(addr, 200*time.Millisecond); by != nil {
		t.Errorf("%s answers for the address of a service that is gone", by)
	}
	says(db, service("b", addr.Next().Next()))
	if len(a.links) != 0 || len(a.held) != 0 {
		t.Errorf("left open: %v, %v", a.links, a.held)
	}
}
