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

// overheadOver is what vxlan adds to a packet: outer Ethernet, IP, UDP and vxlan headers.
func overheadOver(f family) int {
	if f == v4 {
		return 50
	}
	return 70
}

// leastMTU is the smallest packet that every IPv6 link must carry; a pod's link that cannot do so is of no use to many programs.
const leastMTU = 1280

func (o Overlay) on() bool { return o.Number != 0 }

// peer is what another node has of one family: which pods are there, and which of its addresses leads to them.
type peer struct {
	node   string
	addr   netip.Addr
	pods   netip.Prefix
	direct bool // addr is on a link of this node's, and of the pods' family
}

// peersOf reads a Node: there is a peer for each family of pods that it has. The tunnel is between addresses of the family under; links are
// this node's own, on which others are reached without it.
func peersOf(node *corev1.Node, cluster []netip.Prefix, under family, links []netip.Prefix) (out []peer) {
	var addrs []netip.Addr
	for _, a := range node.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP && !ip.IsLoopback() {
			addrs = append(addrs, ip)
		}
	}
	for _, pods := range podsOf(node, cluster) {
		p := peer{node: node.Name, pods: pods}
		for _, a := range addrs {
			if familyOf(a) == under && !p.addr.IsValid() {
				p.addr = a
			}
			if link := ofFamily(links, familyOf(pods.Addr())); link.IsValid() && link.Contains(a) {
				p.addr, p.direct = a, true
				break
			}
		}
		if p.addr.IsValid() {
			out = append(out, p)
		}
	}
	return out
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
	own    []netip.Prefix // this node's pods
	under  family         // of the tunnel's ends
	links  []netip.Prefix // addresses on this node's own links that are reached directly
	tunnel tunnel
	warn   func(msg string, args ...any)

	mu    sync.Mutex
	want  map[place]peer
	have  map[place]peer
	dirty map[place]struct{}
	wake  chan struct{}
}

// place is a node's pods of one family.
type place struct {
	node string
	family
}

func newOverlay(self string, own []netip.Prefix, under family, links []netip.Prefix, t tunnel, warn func(string, ...any)) *overlay {
	return &overlay{
		self: self, own: own, under: under, links: links, tunnel: t, warn: warn,
		want: map[place]peer{}, have: map[place]peer{}, dirty: map[place]struct{}{}, wake: make(chan struct{}, 1),
	}
}

func (o *overlay) see(node *corev1.Node) {
	if node.Name == o.self {
		return
	}
	now := map[place]peer{}
	for _, p := range peersOf(node, o.own, o.under, o.links) {
		f := familyOf(p.pods.Addr())
		if own := ofFamily(o.own, f); p.pods.Overlaps(own) {
			o.warn("another node has pods' addresses that are this node's; its pods cannot be reached: delete one of the two nodes", "node", node.Name, "addresses", p.pods, "own", own)
			continue
		}
		now[place{node.Name, f}] = p
	}
	o.become(node.Name, now)
}

func (o *overlay) gone(node *corev1.Node) { o.become(node.Name, nil) }

// become takes over what a node has now.
func (o *overlay) become(node string, now map[place]peer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range families {
		at := place{node, f}
		if p, is := now[at]; is {
			o.want[at] = p
		} else {
			delete(o.want, at)
		}
		o.touch(at)
	}
}

func (o *overlay) touch(at place) {
	o.dirty[at] = struct{}{}
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
	for at, p := range o.want {
		all = append(all, p)
		o.touch(at)
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
	for at := range o.dirty {
		want, is := o.want[at]
		have, was := o.have[at]
		if is && was && want == have {
			delete(o.dirty, at)
			continue
		}
		var err error
		if was {
			err = o.tunnel.remove(have)
		}
		if err == nil {
			delete(o.have, at)
			if is {
				if err = o.tunnel.set(want); err == nil {
					o.have[at] = want
				}
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("node %s: %w", at.node, err))
			continue
		}
		delete(o.dirty, at)
	}
	return errors.Join(errs...)
}
