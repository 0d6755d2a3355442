package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"skiff.dev/skiff/internal/policy"
	"skiff.dev/skiff/internal/proxy"
)

// reservation is what one interface of one container holds on this host. Its file is the record that outlives the agent.
type reservation struct {
	ContainerID string           `json:"containerID"`
	IfName      string           `json:"ifName"`
	Netns       string           `json:"netns"`
	Addrs       []netip.Addr     `json:"addrs"` // one, or one of each family, the primary first
	Pod         policy.Key       `json:"pod,omitzero"`
	Ports       []proxy.HostPort `json:"ports,omitempty"`
}

func (r *reservation) id() string { return r.ContainerID + "-" + r.IfName }

// readReservation reads what was written, also by versions that gave each pod one address; nil if it is no reservation.
func readReservation(data []byte) *reservation {
	var r struct {
		reservation
		Addr netip.Addr `json:"addr"`
	}
	if json.Unmarshal(data, &r) != nil {
		return nil
	}
	if len(r.Addrs) == 0 {
		r.Addrs = []netip.Addr{r.Addr}
	}
	if slices.ContainsFunc(r.Addrs, func(a netip.Addr) bool { return !a.IsValid() }) {
		return nil
	}
	return &r.reservation
}

// pool gives out the addresses of this node's share of the pods, one after the other, so that an address comes back as late as possible:
// who still knows the old pod's address would reach a stranger. Every reservation is a file in dir, written before its address is used.
type pool struct {
	dir string

	mu     sync.Mutex
	shares []share // one for each family; none until they are known
	held   map[string]*reservation
	byAddr map[netip.Addr]string
}

// openPool reads what was reserved before. A file that is no reservation was being written when the host went down; nobody uses its address.
func openPool(dir string) (*pool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the pods' addresses: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the pods' addresses: %w", err)
	}
	p := &pool{dir: dir, held: map[string]*reservation{}, byAddr: map[netip.Addr]string{}}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read a pod's address: %w", err)
		}
		r := readReservation(data)
		if r == nil || e.Name() != r.id()+".json" {
			if err := os.Remove(name); err != nil {
				return nil, fmt.Errorf("remove a broken reservation: %w", err)
			}
			continue
		}
		p.hold(r)
	}
	return p, nil
}

func (p *pool) hold(r *reservation) {
	p.held[r.id()] = r
	for _, a := range r.Addrs {
		p.byAddr[a] = r.id()
	}
}

func (p *pool) let(r *reservation) {
	delete(p.held, r.id())
	for _, a := range r.Addrs {
		delete(p.byAddr, a)
	}
}

// share is a range of this node's and the place in it from which the next address is looked for.
type share struct {
	pods netip.Prefix
	next netip.Addr
}

// setPods tells which addresses there are. The first is the gateway's, the last is a broadcast address to some programs.
func (p *pool) setPods(pods []netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shares = nil
	for _, one := range pods {
		s := share{one.Masked(), gatewayOf(one).Next()}
		for range rand.IntN(1 << min(one.Addr().BitLen()-one.Bits(), 12)) { // a restart must not begin at the addresses just given back
			s.next = s.after(s.next)
		}
		p.shares = append(p.shares, s)
	}
}

func gatewayOf(pods netip.Prefix) netip.Addr { return pods.Masked().Addr().Next() }

// after is the next address that pods may have.
func (s share) after(a netip.Addr) netip.Addr {
	a = a.Next()
	if !s.pods.Contains(a) || !s.pods.Contains(a.Next()) {
		return gatewayOf(s.pods).Next()
	}
	return a
}

// free is the next address that nobody has; zero if there is none.
func (s share) free(taken map[netip.Addr]string) netip.Addr {
	for a, first := s.next, true; first || a != s.next; a, first = s.after(a), false {
		if _, is := taken[a]; !is {
			return a
		}
	}
	return netip.Addr{}
}

// holds tells that addresses are those that a pod of this node has: one of each share.
func (p *pool) holds(addrs []netip.Addr) bool {
	return slices.EqualFunc(p.shares, addrs, func(s share, a netip.Addr) bool { return s.pods.Contains(a) })
}

// reserve returns the interface's reservation, making one if there is none: of all its addresses, or of none. It asks for an interface and a
// container that have names.
func (p *pool) reserve(r reservation) (*reservation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.held[r.id()]; old != nil && p.holds(old.Addrs) {
		r.Addrs = old.Addrs
		return p.keep(&r)
	}
	r.Addrs = nil
	for _, s := range p.shares {
		a := s.free(p.byAddr)
		if !a.IsValid() {
			return nil, fmt.Errorf("all addresses of %s are taken; delete pods on this node, or give nodes larger shares (node-cidr-mask-size)", s.pods)
		}
		r.Addrs = append(r.Addrs, a)
	}
	for i, a := range r.Addrs {
		p.shares[i].next = p.shares[i].after(a)
	}
	return p.keep(&r)
}

func (p *pool) keep(r *reservation) (*reservation, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write reservation %s: %w", r.id(), err)
	}
	name := filepath.Join(p.dir, r.id()+".json")
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return nil, fmt.Errorf("write reservation: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return nil, fmt.Errorf("write reservation: %w", err)
	}
	if old := p.held[r.id()]; old != nil {
		p.let(old)
	}
	p.hold(r)
	return r, nil
}

// release gives an interface's addresses back. One that has none is no error.
func (p *pool) release(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.held[id]
	if r == nil {
		return nil
	}
	if err := os.Remove(filepath.Join(p.dir, id+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release addresses %s: %w", r.Addrs, err)
	}
	p.let(r)
	return nil
}

func (p *pool) get(id string) *reservation {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[id]
}

// holder is who has an address, or nil.
func (p *pool) holder(a netip.Addr) *reservation {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[p.byAddr[a]]
}

// all lists the reservations; they are not changed afterwards.
func (p *pool) all() (out []*reservation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.held {
		out = append(out, r)
	}
	return out
}

// named tells whether a name from outside can be part of a file's name.
func named(s string) bool {
	return s != "" && len(s) < 128 && !strings.ContainsAny(s, "/\x00") && !strings.HasPrefix(s, ".")
}
