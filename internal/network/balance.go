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

var typeBackend = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)

// memory is the map in which a chain remembers where it sent whom.
func memory(t *nftables.Table, chain string, keep time.Duration) *nftables.Set {
	return &nftables.Set{Table: t, Name: chain, IsMap: true, Dynamic: true, HasTimeout: true, Timeout: keep, Size: 65535,
		KeyType: nftables.TypeIPAddr, DataType: typeBackend}
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
	if rule.Sticky > 0 {
		if err := r.addRecall(c, chain, match, rule); err != nil {
			return err
		}
	}
	return r.addBalance(c, chain, match, rule)
}

// addRecall sends a known sender where it went before, if that backend still is one.
func (r *ruleset) addRecall(c *nftables.Conn, chain string, match []expr.Any, rule proxy.Rule) error {
	for part := range chunks(rule.To) {
		still := &nftables.Set{Table: r.base.table, Anonymous: true, Constant: true, KeyType: typeBackend}
		var elements []nftables.SetElement
		for _, b := range part {
			elements = append(elements, nftables.SetElement{Key: backend(b)})
		}
		if err := c.AddSet(still, elements); err != nil {
			return err
		}
		r.base.rule(c, chain, match, []expr.Any{
			loadSource(reg0),
			&expr.Lookup{SourceRegister: reg0, DestRegister: reg1, IsDestRegSet: true, SetName: chain},
			&expr.Lookup{SourceRegister: reg1, SetName: still.Name, SetID: still.ID},
			&expr.Dynset{SrcRegKey: reg0, SrcRegData: reg1, SetName: chain, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: rule.Sticky},
		}, redirect(reg1, reg2))
	}
	return nil
}

// dynsetDelete is the operation that takes an element out of a map (linux/netfilter/nf_tables.h; not in package unix).
const dynsetDelete = 2

// addBalance sends a packet to any backend, each with the same probability. More backends than one map can be created with are spread over
// several rules: each draws among those that are left.
func (r *ruleset) addBalance(c *nftables.Conn, chain string, match []expr.Any, rule proxy.Rule) error {
	left := len(rule.To)
	for part := range chunks(rule.To) {
		choice := []expr.Any{&expr.Immediate{Register: reg1, Data: rule.To[0].Addr().AsSlice()},
			&expr.Immediate{Register: reg2, Data: portBytes(rule.To[0])}}
		if len(rule.To) > 1 {
			choose := &nftables.Set{Table: r.base.table, Anonymous: true, Constant: true, IsMap: true, KeyType: nftables.TypeInteger, DataType: typeBackend}
			var elements []nftables.SetElement
			for i, b := range part {
				elements = append(elements, nftables.SetElement{Key: number(uint32(i)), Val: backend(b)})
			}
			if err := c.AddSet(choose, elements); err != nil {
				return err
			}
			choice = []expr.Any{
				&expr.Numgen{Register: reg3, Modulus: uint32(left), Type: unix.NFT_NG_RANDOM},
				&expr.Lookup{SourceRegister: reg3, DestRegister: reg1, IsDestRegSet: true, SetName: choose.Name, SetID: choose.ID},
			}
		}
		if rule.Sticky > 0 {
			// An update does not change what is remembered, so that goes first.
			choice = append(choice, loadSource(reg0),
				&expr.Dynset{SrcRegKey: reg0, SrcRegData: reg1, SetName: chain, Operation: dynsetDelete},
				&expr.Dynset{SrcRegKey: reg0, SrcRegData: reg1, SetName: chain, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: rule.Sticky})
		}
		r.base.rule(c, chain, match, choice, redirect(reg1, reg2))
		left -= len(part)
	}
	return nil
}

// chunks cuts backends into lists that fit into one message.
func chunks(all []netip.AddrPort) iter.Seq[[]netip.AddrPort] { return slices.Chunk(all, 1000) }

func backend(b netip.AddrPort) []byte { return append(b.Addr().AsSlice(), portBytes(b)...) }

// portBytes is a port as a register holds it: two bytes, filled up to four.
func portBytes(b netip.AddrPort) []byte { return []byte{byte(b.Port() >> 8), byte(b.Port()), 0, 0} }
