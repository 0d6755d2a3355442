package network

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"skiff.dev/skiff/internal/proxy"
)

// backendType is an address and a port.
func (f family) backendType() nftables.SetDatatype {
	return nftables.MustConcatSetType(f.addrType(), nftables.TypeInetService)
}

// memory is the map in which a chain remembers where it sent whom.
func memory(t *nftables.Table, chain string, f family, keep time.Duration) *nftables.Set {
	return &nftables.Set{Table: t, Name: chain, IsMap: true, Dynamic: true, HasTimeout: true, Timeout: keep, Size: 65535,
		KeyType: f.addrType(), DataType: f.backendType()}
}

// leadsTo is the family of the addresses to which a chain that remembers leads.
func leadsTo(rules []proxy.Rule) family {
	for _, r := range rules {
		if len(r.To) > 0 {
			return familyOf(r.To[0].Addr())
		}
	}
	return v4
}

// addRule translates one rule of the table's model.
func (r *ruleset) addRule(c *nftables.Conn, chain string, rule proxy.Rule) error {
	var match []expr.Any
	if rule.From.IsValid() {
		match = append(match, from(rule.From)...)
	}
	if rule.FromHost {
		match = append(match, isLocal(true, false)...)
	}
	if rule.Masquerade {
		match = append(match, mark()...)
	}
	if rule.Goto != "" {
		r.base.rule(c, chain, match, gotoChain(rule.Goto))
		return nil
	}
	if len(rule.To) == 0 {
		return nil
	}
	if rule.Sticky > 0 {
		if err := r.addRecall(c, chain, match, rule); err != nil {
			return err
		}
	}
	return r.addBalance(c, chain, match, rule)
}

// addRecall sends a known sender where it went before, if that backend still is one.
func (r *ruleset) addRecall(c *nftables.Conn, chain string, match []expr.Any, rule proxy.Rule) error {
	f := leadsTo([]proxy.Rule{rule})
	backendAt := reg0 + f.width()
	for part := range chunks(rule.To) {
		still := &nftables.Set{Table: r.base.table, Anonymous: true, Constant: true, KeyType: f.backendType()}
		var elements []nftables.SetElement
		for _, b := range part {
			elements = append(elements, nftables.SetElement{Key: backend(b)})
		}
		if err := c.AddSet(still, elements); err != nil {
			return err
		}
		r.base.rule(c, chain, match, []expr.Any{
			f.loadSource(reg0),
			&expr.Lookup{SourceRegister: reg0, DestRegister: backendAt, IsDestRegSet: true, SetName: chain},
			&expr.Lookup{SourceRegister: backendAt, SetName: still.Name, SetID: still.ID},
			&expr.Dynset{SrcRegKey: reg0, SrcRegData: backendAt, SetName: chain, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: rule.Sticky},
		}, f.redirect(backendAt))
	}
	return nil
}

// dynsetDelete is the operation that takes an element out of a map (linux/netfilter/nf_tables.h; not in package unix).
const dynsetDelete = 2

// addBalance sends a packet to any backend, each with the same probability. More backends than one map can be created with are spread over
// several rules: each draws among those that are left.
func (r *ruleset) addBalance(c *nftables.Conn, chain string, match []expr.Any, rule proxy.Rule) error {
	f, left := leadsTo([]proxy.Rule{rule}), len(rule.To)
	addr, port, draw := reg0+f.width(), reg0+2*f.width(), reg1+2*f.width()
	for part := range chunks(rule.To) {
		choice := []expr.Any{&expr.Immediate{Register: addr, Data: rule.To[0].Addr().AsSlice()},
			&expr.Immediate{Register: port, Data: portBytes(rule.To[0])}}
		if len(rule.To) > 1 {
			choose := &nftables.Set{Table: r.base.table, Anonymous: true, Constant: true, IsMap: true, KeyType: nftables.TypeInteger, DataType: f.backendType()}
			var elements []nftables.SetElement
			for i, b := range part {
				elements = append(elements, nftables.SetElement{Key: number(uint32(i)), Val: backend(b)})
			}
			if err := c.AddSet(choose, elements); err != nil {
				return err
			}
			choice = []expr.Any{
				&expr.Numgen{Register: draw, Modulus: uint32(left), Type: unix.NFT_NG_RANDOM},
				&expr.Lookup{SourceRegister: draw, DestRegister: addr, IsDestRegSet: true, SetName: choose.Name, SetID: choose.ID},
			}
		}
		if rule.Sticky > 0 {
			// An update does not change what is remembered, so that goes first.
			choice = append(choice, f.loadSource(reg0),
				&expr.Dynset{SrcRegKey: reg0, SrcRegData: addr, SetName: chain, Operation: dynsetDelete},
				&expr.Dynset{SrcRegKey: reg0, SrcRegData: addr, SetName: chain, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: rule.Sticky})
		}
		r.base.rule(c, chain, match, choice, f.redirect(addr))
		left -= len(part)
	}
	return nil
}

// chunks cuts backends into lists that fit into one message.
func chunks(all []netip.AddrPort) iter.Seq[[]netip.AddrPort] { return slices.Chunk(all, 1000) }

func backend(b netip.AddrPort) []byte { return append(b.Addr().AsSlice(), portBytes(b)...) }

// portBytes is a port as a register holds it: two bytes, filled up to four.
func portBytes(b netip.AddrPort) []byte { return []byte{byte(b.Port() >> 8), byte(b.Port()), 0, 0} }
