package network

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"skiff.dev/skiff/internal/policy"
)

// isolation tells the maps of isolated pods apart.
type isolation struct {
	direction policy.Direction
	family    family
}

var isolationNames = map[policy.Direction]string{policy.Ingress: "isolated-in", policy.Egress: "isolated-out"}

func isolationMaps(t *nftables.Table) map[isolation]*nftables.Set {
	out := map[isolation]*nftables.Set{}
	for _, dir := range []policy.Direction{policy.Egress, policy.Ingress} {
		for _, family := range families {
			out[isolation{dir, family}] = &nftables.Set{
				Table: t, Name: isolationNames[dir] + suffix(family), IsMap: true, KeyType: family.addrType(), DataType: nftables.TypeVerdict,
			}
		}
	}
	return out
}

func suffix(f family) string {
	if f == v4 {
		return "/4"
	}
	return "/6"
}

// policies fills the chain that packets pass which are neither from this host nor for it. What the node says to its own pods does not come
// here, so probes always get through.
func (b *base) policies(c *nftables.Conn) {
	const passing = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	b.rule(c, chainPolicy, []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: number(passing), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, 4)},
	}, verdict(expr.VerdictAccept, ""))
	// No policy keeps a pod from itself.
	for _, s := range b.sides {
		b.rule(c, chainPolicy, isFamily(s.family), s.isLoop(), verdict(expr.VerdictAccept, ""))
	}
	for _, dir := range []policy.Direction{policy.Egress, policy.Ingress} {
		for _, family := range families {
			m := b.isolated[isolation{dir, family}]
			b.rule(c, chainPolicy, isFamily(family), []expr.Any{
				loadAddr(family, dir == policy.Egress),
				&expr.Lookup{SourceRegister: wide, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
			})
		}
	}
}

// wide is a register that holds an address of either family.
const wide = unix.NFT_REG_1

// loadAddr loads a packet's source or destination into the wide register.
func loadAddr(f family, source bool) expr.Any {
	if source {
		return f.loadSource(wide)
	}
	return f.loadDestination(wide)
}

// applyPolicy orders the steps so that everything a step names exists: what is new comes first, what is gone goes last.
func (r *ruleset) applyPolicy(c *nftables.Conn, d *policy.Delta) error {
	for _, name := range d.Sets {
		for _, family := range families {
			if err := c.AddSet(r.peerSet(name, family), nil); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(r.eachSet(d.GoneMembers, deleteElements, c), r.eachSet(d.Members, addElements, c)); err != nil {
		return err
	}
	for name := range d.Chains {
		c.AddChain(r.base.chain(name))
	}
	for name, chain := range d.Chains {
		for _, rule := range chain.Rules {
			if err := r.addPolicyRule(c, name, chain.Direction, rule); err != nil {
				return fmt.Errorf("chain %s: %w", name, err)
			}
		}
	}
	if err := r.applyIsolated(c, d); err != nil {
		return err
	}
	for _, name := range d.GoneChains {
		c.FlushChain(r.base.chain(name))
	}
	for _, name := range d.GoneChains {
		c.DelChain(r.base.chain(name))
	}
	for _, name := range d.GoneSets {
		for _, family := range families {
			c.DelSet(r.peerSet(name, family))
		}
	}
	return nil
}

func (r *ruleset) peerSet(name string, family family) *nftables.Set {
	return &nftables.Set{Table: r.base.table, Name: "peers/" + name + suffix(family), KeyType: family.addrType()}
}

type change func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error

// eachSet adds or deletes members, those of one set together.
func (r *ruleset) eachSet(all []policy.Member, do change, c *nftables.Conn) error {
	type which struct {
		set    string
		family family
	}
	elements := map[which][]nftables.SetElement{}
	for _, m := range all {
		w := which{m.Set, familyOf(m.Addr)}
		elements[w] = append(elements[w], nftables.SetElement{Key: m.Addr.AsSlice()})
	}
	for w, list := range elements {
		if err := do(c, r.peerSet(w.set, w.family), list); err != nil {
			return err
		}
	}
	return nil
}

func (r *ruleset) applyIsolated(c *nftables.Conn, d *policy.Delta) error {
	put := func(at policy.Isolated, chain string, do change) error {
		e := nftables.SetElement{Key: at.Addr.AsSlice()}
		if chain != "" {
			e.VerdictData = &expr.Verdict{Kind: expr.VerdictJump, Chain: chain}
		}
		return do(c, r.base.isolated[isolation{at.Direction, familyOf(at.Addr)}], []nftables.SetElement{e})
	}
	var errs []error
	for _, at := range append(d.GoneIsolated, d.OldIsolated...) {
		errs = append(errs, put(at, "", deleteElements))
	}
	for at, chain := range d.Isolated {
		errs = append(errs, put(at, chain, addElements))
	}
	return errors.Join(errs...)
}

// policyVerdict is where a rule leads. A chain's end leads back to where the isolated pod was looked up.
func policyVerdict(to string) *expr.Verdict {
	switch to {
	case policy.Allow:
		return &expr.Verdict{Kind: expr.VerdictReturn}
	case policy.Drop:
		return &expr.Verdict{Kind: expr.VerdictDrop}
	}
	return &expr.Verdict{Kind: expr.VerdictGoto, Chain: to}
}

// addPolicyRule translates one rule of the policies' model.
func (r *ruleset) addPolicyRule(c *nftables.Conn, chain string, dir policy.Direction, rule policy.Rule) error {
	var match []expr.Any
	if rule.Protocol != 0 {
		match = metaIs(expr.MetaKeyL4PROTO, []byte{byte(rule.Protocol)})
	}
	leads := one(policyVerdict(rule.Goto))
	source := dir == policy.Ingress // the other end
	switch {
	case len(rule.Ports) > 0:
		m := &nftables.Set{Table: r.base.table, Anonymous: true, Constant: true, IsMap: true, Interval: true,
			KeyType: nftables.TypeInetService, DataType: nftables.TypeVerdict}
		if err := c.AddSet(m, portElements(rule.Ports)); err != nil {
			return err
		}
		r.base.rule(c, chain, match, []expr.Any{
			loadDestinationPort(reg0),
			&expr.Lookup{SourceRegister: reg0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		})
	case rule.Set != "":
		for _, family := range families {
			s := r.peerSet(rule.Set, family)
			r.base.rule(c, chain, match, isFamily(family), []expr.Any{loadAddr(family, source), &expr.Lookup{SourceRegister: wide, SetName: s.Name}}, leads)
		}
	case len(rule.Ranges) > 0:
		family := familyOf(rule.Ranges[0].First)
		for part := range slices.Chunk(rule.Ranges, 500) {
			s := &nftables.Set{Table: r.base.table, Anonymous: true, Constant: true, Interval: true, KeyType: family.addrType()}
			if err := c.AddSet(s, rangeElements(part)); err != nil {
				return err
			}
			r.base.rule(c, chain, match, isFamily(family), []expr.Any{
				loadAddr(family, source), &expr.Lookup{SourceRegister: wide, SetName: s.Name, SetID: s.ID},
			}, leads)
		}
	default:
		r.base.rule(c, chain, match, leads)
	}
	return nil
}

// portElements are the beginnings and ends of ranges, as the kernel has intervals: the end is the first that is not in it.
func portElements(ports []policy.Ports) (out []nftables.SetElement) {
	key := func(n uint16) []byte { return []byte{byte(n >> 8), byte(n)} }
	for _, p := range ports {
		out = append(out, nftables.SetElement{Key: key(p.First), VerdictData: policyVerdict(p.Goto)})
		if p.Last < 65535 {
			out = append(out, nftables.SetElement{Key: key(p.Last + 1), IntervalEnd: true})
		}
	}
	return out
}

func rangeElements(ranges []policy.Range) (out []nftables.SetElement) {
	for _, r := range ranges {
		out = append(out, nftables.SetElement{Key: r.First.AsSlice()})
		if end := r.Last.Next(); end.IsValid() {
			out = append(out, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}
