package network

import (
	"errors"
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
	for f, lead := range d.Frontends {
		s := b.side(familyOf(f.Addr))
		if s == nil {
			continue
		}
		if lead.Session.Keep > 0 {
			if err := s.addMemory(c); err != nil {
				return err
			}
		}
		b.addPick(c, s, pickFor(f, lead))
	}
	for _, of := range d.Ranges {
		if s := b.side(familyOf(of.Addr)); s != nil {
			b.addLength(c, s, of.From.Bits())
		}
	}
	for _, s := range b.sides {
		if err := errors.Join(s.applyPlaces(c, d), s.applySessions(c, d), s.applyRanges(c, d), s.applyFrontends(c, d), s.applyLoops(c, d)); err != nil {
			return err
		}
	}
	for f, lead := range d.Old {
		if s := b.side(familyOf(f.Addr)); s != nil {
			b.removePick(c, s, pickFor(f, lead))
		}
	}
	return nil
}

// carries tells that an address is of this side's family.
func (s *side) carries(a netip.Addr) bool { return familyOf(a) == s.family }

// applyFrontends leads packets to chains. Where only the backends changed, there is nothing to do.
func (s *side) applyFrontends(c *nftables.Conn, d *proxy.Delta) error {
	var gone, now [3][]nftables.SetElement // of frontends, nodePorts, outside
	put := func(list *[3][]nftables.SetElement, f proxy.Frontend, v *expr.Verdict) {
		which, key := 0, frontendKey(f)
		switch {
		case f.Outside:
			which = 2
		case f.OnNode():
			which, key = 1, portKey(f)
		}
		list[which] = append(list[which], nftables.SetElement{Key: key, VerdictData: v})
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
	for i, set := range []*nftables.Set{s.frontends, s.nodePorts, s.outside} {
		if err := errors.Join(deleteElements(c, set, gone[i]), addElements(c, set, now[i])); err != nil {
			return err
		}
	}
	return nil
}

// frontendKey has the unspecified address for a port of the node, for which no packet is sent.
func frontendKey(f proxy.Frontend) []byte { return append(f.Addr.AsSlice(), portKey(f)...) }

func portKey(f proxy.Frontend) []byte {
	return []byte{byte(f.Protocol), 0, 0, 0, byte(f.Port >> 8), byte(f.Port), 0, 0}
}

func placeKey(p proxy.Place) []byte {
	return append(frontendKey(p.Frontend), number(uint32(p.Index))...)
}

// applyPlaces puts backends into the places of their frontends.
func (s *side) applyPlaces(c *nftables.Conn, d *proxy.Delta) error {
	var errs []error
	for _, outside := range []bool{false, true} {
		gone := func(yield func(nftables.SetElement) bool) {
			for _, p := range d.GonePlaces {
				if s.carries(p.Addr) && p.Outside == outside && !yield(nftables.SetElement{Key: placeKey(p)}) {
					return
				}
			}
		}
		now := func(yield func(nftables.SetElement) bool) {
			for p, b := range d.Places() {
				if s.carries(p.Addr) && p.Outside == outside && !yield(nftables.SetElement{Key: placeKey(p), Val: backend(b)}) {
					return
				}
			}
		}
		endpoints := s.space(outside).endpoints
		errs = append(errs,
			inChunks(gone, func(e []nftables.SetElement) error { return c.SetDeleteElements(endpoints, e) }),
			inChunks(now, func(e []nftables.SetElement) error { return c.SetAddElements(endpoints, e) }))
	}
	return errors.Join(errs...)
}

// applySessions tells which session a frontend is of, and where sessions may lead.
func (s *side) applySessions(c *nftables.Conn, d *proxy.Delta) error {
	var gone, now [2][]nftables.SetElement // by space
	in := map[bool]int{true: 1}
	for f, was := range d.Old {
		if s.carries(f.Addr) && was.Session.Number != 0 && was.Session.Number != d.Frontends[f].Session.Number {
			gone[in[f.Outside]] = append(gone[in[f.Outside]], nftables.SetElement{Key: frontendKey(f)})
		}
	}
	for f, l := range d.Frontends {
		if s.carries(f.Addr) && l.Session.Number != 0 && l.Session.Number != d.Old[f].Session.Number {
			now[in[f.Outside]] = append(now[in[f.Outside]], nftables.SetElement{Key: frontendKey(f), Val: number(l.Session.Number)})
		}
	}
	errs := []error{deleteElements(c, s.members, s.elementsOf(d.GoneMembers)), addElements(c, s.members, s.elementsOf(d.Members))}
	for i, space := range s.spaces {
		errs = append(errs, deleteElements(c, space.sessions, gone[i]), addElements(c, space.sessions, now[i]))
	}
	return errors.Join(errs...)
}

func (s *side) elementsOf(members []proxy.Member) (out []nftables.SetElement) {
	for _, m := range members {
		if s.carries(m.Backend.Addr()) {
			out = append(out, nftables.SetElement{Key: append(number(m.Session), backend(m.Backend)...)})
		}
	}
	return out
}

// applyRanges tells from where a frontend may be reached. One of what comes from outside has the ranges of the one beside it.
func (s *side) applyRanges(c *nftables.Conn, d *proxy.Delta) error {
	elements := func(all []proxy.Range) (out []nftables.SetElement) {
		for _, r := range all {
			if s.carries(r.Addr) {
				out = append(out, nftables.SetElement{Key: rangeKey(r.Frontend, r.From)})
			}
		}
		return out
	}
	return errors.Join(deleteElements(c, s.ranges, elements(d.GoneRanges)), addElements(c, s.ranges, elements(d.Ranges)))
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
