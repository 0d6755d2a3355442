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
	Addr        netip.Addr       `json:"addr"`
	Pod         policy.Key       `json:"pod,omitzero"`
	Ports       []proxy.HostPort `json:"ports,omitempty"`
}

func (r *reservation) id() string { return r.ContainerID + "-" + r.IfName }

// pool gives out the addresses of this node's share of the pods, one after the other, so that an address comes back as late as possible:
// who still knows the old pod's address would reach a stranger. Every reservation is a file in dir, written before its address is used.
type pool struct {
	dir string

	mu     sync.Mutex
	pods   netip.Prefix // zero until it is known
	next   netip.Addr
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
		r := &reservation{}
		if json.Unmarshal(data, r) != nil || !r.Addr.IsValid() || e.Name() != r.id()+".json" {
			if err := os.Remove(name); err != nil {
				return nil, fmt.Errorf("remove a broken reservation: %w", err)
			}
			continue
		}
		p.held[r.id()], p.byAddr[r.Addr] = r, r.id()
	}
	return p, nil
}

// setPods tells which addresses there are. The first is the gateway's, the last is a broadcast address to some programs.
func (p *pool) setPods(pods netip.Prefix) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pods = pods.Masked()
	p.next = gatewayOf(p.pods).Next()
	for range rand.IntN(min(1<<(pods.Addr().BitLen()-pods.Bits()), 4096)) { // a restart must not begin at the addresses just given back
		p.next = p.after(p.next)
	}
}

func gatewayOf(pods netip.Prefix) netip.Addr { return pods.Masked().Addr().Next() }

// after is the next address that pods may have.
func (p *pool) after(a netip.Addr) netip.Addr {
	a = a.Next()
	if !p.pods.Contains(a) || !p.pods.Contains(a.Next()) {
		return gatewayOf(p.pods).Next()
	}
	return a
}

// reserve returns the interface's reservation, making one if there is none. It asks for an interface and a container that have names.
func (p *pool) reserve(r reservation) (*reservation, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.held[r.id()]; old != nil && p.pods.Contains(old.Addr) {
		r.Addr = old.Addr
		return p.keep(&r)
	}
	for a, first := p.next, true; first || a != p.next; a, first = p.after(a), false {
		if _, taken := p.byAddr[a]; !taken {
			r.Addr = a
			p.next = p.after(a)
			return p.keep(&r)
		}
	}
	return nil, fmt.Errorf("all addresses of %s are taken; delete pods on this node, or give nodes larger shares (node-cidr-mask-size)", p.pods)
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
		delete(p.byAddr, old.Addr)
	}
	p.held[r.id()], p.byAddr[r.Addr] = r, r.id()
	return r, nil
}

// release gives an interface's address back. One that has none is no error.
func (p *pool) release(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.held[id]
	if r == nil {
		return nil
	}
	if err := os.Remove(filepath.Join(p.dir, id+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release address %s: %w", r.Addr, err)
	}
	delete(p.held, id)
	delete(p.byAddr, r.Addr)
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
