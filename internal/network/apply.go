package network

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"skiff.dev/skiff/internal/proxy"
)

// apply orders a delta's steps so that everything a step names exists: what is new comes first, what is gone goes last.
func (r *ruleset) apply(c *nftables.Conn, d *proxy.Delta) error {
	b := r.base
	for _, name := range d.NewChains {
		c.AddChain(b.chain(name))
	}
	for f, lead := range d.Frontends {
		b.addPick(c, b.side(familyOf(f.Addr)), pickFor(f, lead))
	}
	// A chain that changes its memory is emptied before the old memory can go.
	for name := range d.Chains {
		c.FlushChain(b.chain(name))
	}
	for _, name := range d.GoneChains {
		c.FlushChain(b.chain(name))
	}
	for _, name := range d.GoneMemory {
		c.DelSet(&nftables.Set{Table: b.table, Name: name})
	}
	for name, keep := range d.Memory {
		if err := c.AddSet(memory(b.table, name, leadsTo(d.Chains[name]), keep), nil); err != nil {
			return err
		}
	}
	for name, rules := range d.Chains {
		for _, rule := range rules {
			if err := r.addRule(c, name, rule); err != nil {
				return fmt.Errorf("chain %s: %w", name, err)
			}
		}
	}
	for _, s := range b.sides {
		if err := errors.Join(s.applyPlaces(c, d), s.applyFrontends(c, d), s.applyLoops(c, d)); err != nil {
			return err
		}
	}
	for _, name := range d.GoneChains {
		c.DelChain(b.chain(name))
	}
	return nil
}

// carries tells that an address is of this side's family.
func (s *side) carries(a netip.Addr) bool { return familyOf(a) == s.family }

// applyFrontends leads packets to chains. Where only the backends changed, there is nothing to do.
func (s *side) applyFrontends(c *nftables.Conn, d *proxy.Delta) error {
	var gone, now [2][]nftables.SetElement // of frontends, of nodePorts
	put := func(list *[2][]nftables.SetElement, f proxy.Frontend, v *expr.Verdict) {
		which := 0
		if f.OnNode() {
			which = 1
		}
		list[which] = append(list[which], nftables.SetElement{Key: frontendKey(f), VerdictData: v})
	}
	for _, f := range d.GoneFrontends {
		if s.carries(f.Addr) {
			put(&gone, f, nil)
		}
	}
	for f, lead := range d.Frontends {
		if !s.carries(f.Addr) {
			continue
		}
		target := s.chainOf(f, lead)
		if was, held := d.Old[f]; held {
			if s.chainOf(f, was) == target {
				continue
			}
			put(&gone, f, nil)
		}
		put(&now, f, &expr.Verdict{Kind: expr.VerdictGoto, Chain: target})
	}
	for i, set := range []*nftables.Set{s.frontends, s.nodePorts} {
		if err := errors.Join(deleteElements(c, set, gone[i]), addElements(c, set, now[i])); err != nil {
			return err
		}
	}
	return nil
}

func frontendKey(f proxy.Frontend) []byte {
	if f.OnNode() {
		return portKey(f)
	}
	return append(f.Addr.AsSlice(), portKey(f)...)
}

func portKey(f proxy.Frontend) []byte {
	return []byte{byte(f.Protocol), 0, 0, 0, byte(f.Port >> 8), byte(f.Port), 0, 0}
}

// placeKey has the unspecified address for a port of the node, for which no packet is sent.
func placeKey(p proxy.Place) []byte {
	return slices.Concat(p.Addr.AsSlice(), portKey(p.Frontend), number(uint32(p.Index)))
}

// applyPlaces puts backends into the places of their frontends.
func (s *side) applyPlaces(c *nftables.Conn, d *proxy.Delta) error {
	gone := func(yield func(nftables.SetElement) bool) {
		for _, p := range d.GonePlaces {
			if s.carries(p.Addr) && !yield(nftables.SetElement{Key: placeKey(p)}) {
				return
			}
		}
	}
	now := func(yield func(nftables.SetElement) bool) {
		for p, b := range d.Places() {
			if s.carries(p.Addr) && !yield(nftables.SetElement{Key: placeKey(p), Val: backend(b)}) {
				return
			}
		}
	}
	return errors.Join(
		inChunks(gone, func(e []nftables.SetElement) error { return c.SetDeleteElements(s.endpoints, e) }),
		inChunks(now, func(e []nftables.SetElement) error { return c.SetAddElements(s.endpoints, e) }))
}

func (s *side) applyLoops(c *nftables.Conn, d *proxy.Delta) error {
	pairs := func(addrs []netip.Addr) (out []nftables.SetElement) {
		for _, a := range addrs {
			if s.carries(a) {
				out = append(out, nftables.SetElement{Key: append(a.AsSlice(), a.AsSlice()...)})
			}
		}
		return out
	}
	return errors.Join(deleteElements(c, s.hairpin, pairs(d.GoneLoops)), addElements(c, s.hairpin, pairs(d.Loops)))
}

// elementsPerMessage keeps a list of elements below the 64 KiB that a netlink attribute can hold, with the longest chain names.
const elementsPerMessage = 180

func addElements(c *nftables.Conn, s *nftables.Set, all []nftables.SetElement) error {
	return inChunks(slices.Values(all), func(e []nftables.SetElement) error { return c.SetAddElements(s, e) })
}

func deleteElements(c *nftables.Conn, s *nftables.Set, all []nftables.SetElement) error {
	return inChunks(slices.Values(all), func(e []nftables.SetElement) error { return c.SetDeleteElements(s, e) })
}

func inChunks(all iter.Seq[nftables.SetElement], do func([]nftables.SetElement) error) error {
	var part []nftables.SetElement
	for e := range all {
		if part = append(part, e); len(part) < elementsPerMessage {
			continue
		}
		if err := do(part); err != nil {
			return err
		}
		part = part[:0]
	}
	if len(part) == 0 {
		return nil
	}
	return do(part)
}
