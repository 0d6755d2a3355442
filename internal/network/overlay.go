package network

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Overlay says how pods on different nodes reach one another. The zero value is for a cluster of one node.
type Overlay struct {
	Number uint32 // of the vxlan (VNI): all nodes of a cluster know it; zero: there are no other nodes
	Port   int    // UDP
	Direct bool   // nodes on this node's own link are reached without vxlan
}

// overhead is what vxlan adds to a packet: outer Ethernet, IP, UDP and vxlan headers.
const overhead = 50

// leastMTU is the smallest packet that every IPv6 link must carry; a pod's link that cannot do so is of no use to many programs.
const leastMTU = 1280

func (o Overlay) on() bool { return o.Number != 0 }

// peer is another node: where it is, and which pods are there.
type peer struct {
	node   string
	addr   netip.Addr
	pods   netip.Prefix
	direct bool
}

// peerOf reads a Node; ok is false while the node's place or its pods' is not known.
func peerOf(node *corev1.Node, link netip.Prefix, direct bool) (p peer, ok bool) {
	p.node = node.Name
	for _, a := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && ip.Is4() && a.Type == corev1.NodeInternalIP {
			p.addr = ip
			break
		}
	}
	for _, c := range append(append([]string{}, node.Spec.PodCIDRs...), node.Spec.PodCIDR) {
		if r, err := netip.ParsePrefix(c); err == nil && r.Addr().Is4() {
			p.pods = r.Masked()
			break
		}
	}
	p.direct = direct && link.IsValid() && link.Contains(p.addr)
	return p, p.addr.IsValid() && !p.addr.IsLoopback() && p.pods.IsValid()
}

// hardware is the address of a node's end of the vxlan. It follows from the node's name, so nobody has to be told.
func hardware(node string) net.HardwareAddr {
	sum := sha256.Sum256([]byte("skiff/" + node))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&0xfe | 0x02 // one machine's, not given by a manufacturer
	return mac
}

// tunnel is what the kernel does for the overlay; vxlan is one.
type tunnel interface {
	set(p peer) error
	remove(p peer) error
	// keep removes what leads to nodes other than these.
	keep(peers []peer) error
}

// overlay keeps the tunnel in step with the Node objects.
type overlay struct {
	self   string
	own    netip.Prefix // this node's pods
	link   netip.Prefix // addresses on this node's own link
	direct bool
	tunnel tunnel
	warn   func(msg string, args ...any)

	mu    sync.Mutex
	want  map[string]peer
	have  map[string]peer
	dirty map[string]struct{}
	wake  chan struct{}
}

func newOverlay(self string, own, link netip.Prefix, direct bool, t tunnel, warn func(string, ...any)) *overlay {
	return &overlay{
		self: self, own: own, link: link, direct: direct, tunnel: t, warn: warn,
		want: map[string]peer{}, have: map[string]peer{}, dirty: map[string]struct{}{}, wake: make(chan struct{}, 1),
	}
}

func (o *overlay) see(node *corev1.Node) {
	if node.Name == o.self {
		return
	}
	p, ok := peerOf(node, o.link, o.direct)
	if ok && p.pods.Overlaps(o.own) {
		o.warn("another node has pods' addresses that are this node's; its pods cannot be reached: delete one of the two nodes", "node", node.Name, "addresses", p.pods, "own", o.own)
		ok = false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if ok {
		o.want[node.Name] = p
	} else {
		delete(o.want, node.Name)
	}
	o.touch(node.Name)
}

func (o *overlay) gone(node *corev1.Node) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.want, node.Name)
	o.touch(node.Name)
}

func (o *overlay) touch(node string) {
	o.dirty[node] = struct{}{}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// begin forgets what an earlier agent set up for nodes that are no more. The rest was never interrupted.
func (o *overlay) begin() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var all []peer
	for name, p := range o.want {
		all = append(all, p)
		o.touch(name)
	}
	return o.tunnel.keep(all)
}

// run carries changes out until ctx ends. What fails is tried again.
func (o *overlay) run(ctx context.Context) error {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-o.wake:
		case <-again:
		}
		again = nil
		if err := o.apply(); err != nil {
			o.warn("pods on other nodes cannot be reached; trying again", "err", err)
			again = time.After(retryAfter)
		}
	}
}

func (o *overlay) apply() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	for name := range o.dirty {
		want, is := o.want[name]
		have, was := o.have[name]
		if is && was && want == have {
			delete(o.dirty, name)
			continue
		}
		var err error
		if was {
			err = o.tunnel.remove(have)
		}
		if err == nil {
			delete(o.have, name)
			if is {
				if err = o.tunnel.set(want); err == nil {
					o.have[name] = want
				}
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", name, err))
			continue
		}
		delete(o.dirty, name)
	}
	return errors.Join(errs...)
}
