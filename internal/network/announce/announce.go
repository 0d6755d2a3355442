// Package announce answers for services' own addresses on the link: to who asks, by ARP or by neighbour discovery, for an address that the service
// controller has given to this node it replies with the node's own hardware address, and it tells the whole link when it begins to.
//
// Addresses are on no interface: the nft table of each node leads their packets on before the kernel would ask whether an address is its own. The
// invariants: a link has one socket and one goroutine a family while there is an address to answer for on it, and none otherwise; a node that the cluster may
// hold to be dead does not answer, for another may.
package announce

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/api/loadbalancer"
)

// Announcer is one node's.
type Announcer struct {
	node   string
	linkOf func(netip.Addr) (int, error)
	log    *slog.Logger
	begun  time.Time
	until  atomic.Int64 // when the cluster may hold this node to be dead, in nanoseconds since begun: clocks of the day can be set

	mu    sync.Mutex
	held  map[types.NamespacedName][]holding
	links map[place]*speaker
}

// holding is an address and where it is announced.
type holding struct {
	addr netip.Addr
	place
}

// place is a link, and how its hosts ask.
type place struct {
	link int
	by   *protocol
}

// New returns the announcer of a node. linkOf says on which of the host's links an address belongs, by index.
func New(node string, linkOf func(netip.Addr) (int, error), log *slog.Logger) *Announcer {
	return &Announcer{node: node, linkOf: linkOf, log: log, begun: time.Now(), held: map[types.NamespacedName][]holding{}, links: map[place]*speaker{}}
}

// Alive tells that the cluster holds this node to be alive until then. Nobody is answered before it is called.
func (a *Announcer) Alive(until time.Time) {
	was := a.alive()
	a.until.Store(int64(until.Sub(a.begun)))
	if was {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.links {
		s.tellAll()
	}
}

func (a *Announcer) alive() bool { return int64(time.Since(a.begun)) < a.until.Load() }

// Follow learns how services have changed; nil is a service that is gone.
func (a *Announcer) Follow(services map[types.NamespacedName]*corev1.Service) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, s := range services {
		var want []netip.Addr
		if s != nil && loadbalancer.Announcer(s) == a.node {
			want = loadbalancer.Addresses(s)
		}
		if len(want) > 0 || len(a.held[key]) > 0 {
			a.set(key, want)
		}
	}
}

func (a *Announcer) set(key types.NamespacedName, want []netip.Addr) {
	var now []holding
	keep := map[netip.Addr]bool{}
	for _, h := range a.held[key] {
		if keep[h.addr] = slices.Contains(want, h.addr); keep[h.addr] {
			now = append(now, h)
			continue
		}
		a.log.Info("no longer answering for a service's address", "service", key, "address", h.addr)
		if s := a.links[h.place]; s.drop(h.addr) == 0 {
			s.close()
			delete(a.links, h.place)
		}
	}
	for _, addr := range want {
		if keep[addr] {
			continue
		}
		link, err := a.linkOf(addr)
		if err != nil {
			a.log.Error("cannot answer for a service's address on this node", "service", key, "address", addr, "err", err)
			continue
		}
		at := place{link, protocolOf(addr)}
		if a.links[at] == nil {
			a.links[at] = speak(at.link, at.by, a.alive, a.log)
		}
		a.log.Info("answering for a service's address", "service", key, "address", addr)
		a.links[at].add(addr)
		now = append(now, holding{addr, at})
	}
	if a.held[key] = now; len(now) == 0 {
		delete(a.held, key)
	}
}

// Close stops answering.
func (a *Announcer) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.links {
		s.close()
	}
	clear(a.links)
	clear(a.held)
}
