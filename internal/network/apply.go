package network

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"skiff.dev/skiff/internal/proxy"
)

// apply orders a delta's steps so that everything a step names exists: what is new comes first, what is gone goes last.
func (r *ruleset) apply(c *nftables.Conn, d *proxy.Delta) error {
	b := r.base
	for _, name := range d.NewChains {
		c.AddChain(b.chain(name))
	}
	for _, lead := range d.Frontends {
		b.addPick(c, len(lead.To))
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
		if err := c.AddSet(memory(b.table, name, keep), nil); err != nil {
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
	if err := errors.Join(r.applyPlaces(c, d), r.applyFrontends(c, d)); err != nil {
		return err
	}
	if err := deleteElements(c, b.hairpin, hairpinElements(d.GoneLoops)); err != nil {
		return err
	}
	if err := addElements(c, b.hairpin, hairpinElements(d.Loops)); err != nil {
		return err
	}
	for _, name := range d.GoneChains {
		c.DelChain(b.chain(name))
	}
	return nil
}

// applyFrontends leads packets to chains. Where only the backends changed, there is nothing to do.
func (r *ruleset) applyFrontends(c *nftables.Conn, d *proxy.Delta) error {
	var gone, now [2][]nftables.SetElement // of frontends, of nodePorts
	put := func(list *[2][]nftables.SetElement, f proxy.Frontend, v *expr.Verdict) {
		which := 0
		if !f.Addr.IsValid() {
			which = 1
		}
		list[which] = append(list[which], nftables.SetElement{Key: frontendKey(f), VerdictData: v})
	}
	for _, f := range d.GoneFrontends {
		put(&gone, f, nil)
	}
	for f, lead := range d.Frontends {
		target := chainOf(lead)
		if was, held := d.Old[f]; held {
			if chainOf(was) == target {
				continue
			}
			put(&gone, f, nil)
		}
		put(&now, f, &expr.Verdict{Kind: expr.VerdictGoto, Chain: target})
	}
	for i, set := range []*nftables.Set{r.base.frontends, r.base.nodePorts} {
		if err := errors.Join(deleteElements(c, set, gone[i]), addElements(c, set, now[i])); err != nil {
			return err
		}
	}
	return nil
}

func frontendKey(f proxy.Frontend) []byte {
	return append(f.Addr.AsSlice(), byte(f.Protocol), 0, 0, 0, byte(f.Port>>8), byte(f.Port), 0, 0)
}

// applyPlaces puts backends into the places of their frontends.
func (r *ruleset) applyPlaces(c *nftables.Conn, d *proxy.Delta) error {
	key := func(p proxy.Place) []byte { return append(frontendKey(p.Frontend), number(uint32(p.Index))...) }
	gone := func(yield func(nftables.SetElement) bool) {
		for _, p := range d.GonePlaces {
			if !yield(nftables.SetElement{Key: key(p)}) {
				return
			}
		}
	}
	now := func(yield func(nftables.SetElement) bool) {
		for p, b := range d.Places() {
			if !yield(nftables.SetElement{Key: key(p), Val: backend(b)}) {
				return
			}
		}
	}
	return errors.Join(
		inChunks(gone, func(e []nftables.SetElement) error { return c.SetDeleteElements(r.base.endpoints, e) }),
		inChunks(now, func(e []nftables.SetElement) error { return c.SetAddElements(r.base.endpoints, e) }))
}

// pick is the name of the chain that draws one of n backends.
func pick(n int) string { return fmt.Sprintf("pick/%d", n) }

func chainOf(l proxy.Lead) string {
	if len(l.To) > 0 {
		return pick(len(l.To))
	}
	return l.Chain
}

// addPick adds the chain that leads to any of a frontend's n backends, each with the same probability, unless it is there. It serves all
// frontends that have so many, and stays: the kernel walks through the map of all endpoints when another chain refers to it.
func (b *base) addPick(c *nftables.Conn, n int) {
	if n == 0 || b.picks[n] {
		return
	}
	b.picks[n] = true
	c.AddChain(b.chain(pick(n)))
	b.rule(c, pick(n), ipv4(), loadFrontend(), []expr.Any{
		&expr.Numgen{Register: reg3, Modulus: uint32(n), Type: unix.NFT_NG_RANDOM},
		&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: b.endpoints.Name, SetID: b.endpoints.ID},
	}, redirect(reg0, reg1))
}

func hairpinElements(addrs []netip.Addr) (out []nftables.SetElement) {
	for _, a := range addrs {
		out = append(out, nftables.SetElement{Key: append(a.AsSlice(), a.AsSlice()...)})
	}
	return out
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
