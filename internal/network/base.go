package network

import (
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names of the chains and maps that do not depend on services. There is a map of each for each family that the cluster has.
const (
	chainGuard       = "guard"
	chainPrerouting  = "prerouting"
	chainOutput      = "output"
	chainPostrouting = "postrouting"
	chainDispatch    = "dispatch"
	chainMasquerade  = "masquerade"
	chainReject      = "reject"  // the sender is told that nobody answers
	chainDrop        = "drop"    // the sender is not told: another node may answer
	chainOutside     = "outside" // what neither pods nor this node send, before all other
	chainRanges      = "ranges"  // drops what comes from none of its frontend's source ranges

	mapFrontends = "frontends" // address, protocol, port → chain
	mapOutside   = "outside"   // the same for what comes from outside, where that goes its own way; ports of the node with the unspecified address
	mapEndpoints = "endpoints" // address, protocol, port, place → backend; of ports of the node with the unspecified address
	mapSessions  = "sessions"  // address, protocol, port → the number of its session; likewise
	mapNodePorts = "nodeports" // protocol, port → chain, on every address of the node
	setHairpin   = "hairpin"   // pairs of a backend on this node and itself
	setMembers   = "members"   // number of a session, backend that it may lead to
	setRanges    = "ranges"    // address, protocol, port, network, its length

	chainPolicy = "policy"
)

// facts are what the fixed rules depend on.
type facts struct {
	cluster string
	ranges  []ranges // one for each family that the cluster has
}

// ranges are what there is of one family.
type ranges struct {
	pods     netip.Prefix // of the whole cluster
	services netip.Prefix // likewise; zero if services are of the other family alone
	nodePods netip.Prefix // this node's share of the pods; zero until it is known
	gateway  netip.Addr   // what pods know as their gateway; zero until it is known
	dns      netip.Addr   // cluster DNS, which answers on every node; zero: there is none
}

func (r ranges) family() family { return familyOf(r.pods.Addr()) }

func newFacts(cluster string, pods, services []netip.Prefix, dns netip.Addr) facts {
	f := facts{cluster: cluster}
	for _, p := range pods {
		r := ranges{pods: p.Masked(), services: ofFamily(services, familyOf(p.Addr())).Masked()}
		if dns.IsValid() && familyOf(dns) == r.family() {
			r.dns = dns
		}
		f.ranges = append(f.ranges, r)
	}
	return f
}

// learn takes in which shares of the pods are this node's.
func (f *facts) learn(shares []netip.Prefix) {
	for i := range f.ranges {
		r := &f.ranges[i]
		if share := ofFamily(shares, r.family()); share.IsValid() {
			r.nodePods, r.gateway = share, gatewayOf(share)
		}
	}
}

// group is the number that marks the links of one cluster's pods.
func group(cluster string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(cluster))
	return h.Sum32() | 1 // 0 is every link's group
}

// base is the fixed part of the table: where packets come in, how they are looked up, and what happens on their way out. Connections are
// tracked, so only the first packet of each passes here, except in the guard and at the beginning of the policies.
type base struct {
	table    *nftables.Table
	sides    []*side
	isolated map[isolation]*nftables.Set // pods of this node → the chain that says what may pass
}

// side is what leads one family's packets.
type side struct {
	family
	pods netip.Prefix // of the whole cluster

	frontends, nodePorts, outside, hairpin *nftables.Set
	spaces                                 [2]space // of all frontends, and of those of what comes from outside
	members, remembered, ranges            *nftables.Set

	picks   map[pick]int // that have a chain → how many lead there
	lengths map[int]bool // of source ranges that are looked for
	keeps   bool         // there is the map of who is remembered
}

// space is where frontends are looked up that do not get into each other's way.
type space struct{ endpoints, sessions *nftables.Set }

func (s *side) space(outside bool) space {
	if outside {
		return s.spaces[1]
	}
	return s.spaces[0]
}

func newBase(f facts) *base {
	b := &base{table: &nftables.Table{Family: nftables.TableFamilyINet, Name: f.cluster}}
	b.isolated = isolationMaps(b.table)
	for _, r := range f.ranges {
		b.sides = append(b.sides, newSide(b.table, r))
	}
	return b
}

func newSide(t *nftables.Table, r ranges) *side {
	f := r.family()
	frontend := []nftables.SetDatatype{f.addrType(), nftables.TypeInetProto, nftables.TypeInetService}
	set := func(name string, key ...nftables.SetDatatype) *nftables.Set {
		return &nftables.Set{Table: t, Name: name + f.digit(), Concatenation: true, KeyType: nftables.MustConcatSetType(key...)}
	}
	mapTo := func(to nftables.SetDatatype, name string, key ...nftables.SetDatatype) *nftables.Set {
		s := set(name, key...)
		s.IsMap, s.DataType = true, to
		return s
	}
	spaceOf := func(prefix string) space { // numbers are marks, for nft can print those, and integers not
		return space{
			endpoints: mapTo(f.backendType(), prefix+mapEndpoints, append(slices.Clone(frontend), nftables.TypeMark)...),
			sessions:  mapTo(nftables.TypeMark, prefix+mapSessions, frontend...),
		}
	}
	return &side{
		family: f, pods: r.pods, picks: map[pick]int{}, lengths: map[int]bool{},
		frontends:  mapTo(nftables.TypeVerdict, mapFrontends, frontend...),
		nodePorts:  mapTo(nftables.TypeVerdict, mapNodePorts, frontend[1:]...),
		outside:    mapTo(nftables.TypeVerdict, mapOutside, frontend...),
		spaces:     [2]space{spaceOf(""), spaceOf("outside-")},
		hairpin:    set(setHairpin, f.addrType(), f.addrType()),
		members:    set(setMembers, nftables.TypeMark, f.addrType(), nftables.TypeInetService),
		ranges:     set(setRanges, append(slices.Clone(frontend), f.addrType(), nftables.TypeMark)...),
		remembered: newMemory(t, f),
	}
}

// side is the one of a family; nil if the cluster does not have that.
func (b *base) side(f family) *side {
	for _, s := range b.sides {
		if s.family == f {
			return s
		}
	}
	return nil
}

func (s *side) sets() []*nftables.Set {
	out := []*nftables.Set{s.frontends, s.nodePorts, s.outside, s.hairpin, s.members, s.ranges}
	for _, in := range s.spaces {
		out = append(out, in.endpoints, in.sessions)
	}
	return out
}

// isLoop matches what a backend on this node sends to itself.
func (s *side) isLoop() []expr.Any {
	return []expr.Any{
		s.loadSource(reg0), s.loadDestination(reg0 + s.width()), &expr.Lookup{SourceRegister: reg0, SetName: s.hairpin.Name, SetID: s.hairpin.ID},
	}
}

func (b *base) chain(name string) *nftables.Chain { return &nftables.Chain{Table: b.table, Name: name} }

func (b *base) rule(c *nftables.Conn, chain string, parts ...[]expr.Any) {
	c.AddRule(&nftables.Rule{Table: b.table, Chain: b.chain(chain), Exprs: exprs(parts...)})
}

// create adds the table with its fixed part.
func (b *base) create(c *nftables.Conn, f facts) error {
	c.AddTable(b.table)
	sets := slices.Collect(maps.Values(b.isolated))
	for _, s := range b.sides {
		sets = append(sets, s.sets()...)
	}
	for _, s := range sets {
		s.ID = 0
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
	}
	hook := func(name string, kind nftables.ChainType, at *nftables.ChainHook, when *nftables.ChainPriority) {
		c.AddChain(&nftables.Chain{Table: b.table, Name: name, Type: kind, Hooknum: at, Priority: when})
	}
	for _, name := range []string{chainDispatch, chainMasquerade, chainReject, chainDrop, chainOutside} {
		c.AddChain(b.chain(name))
	}
	hook(chainGuard, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	hook(chainPrerouting, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	hook(chainOutput, nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	hook(chainPolicy, nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	hook(chainPostrouting, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)

	// Pods' links route to 127.0.0.0/8, for answers to connections the node made to a node port there; nothing else may use that.
	b.rule(c, chainGuard, metaIs(expr.MetaKeyIIFGROUP, number(group(f.cluster))), isFamily(v4), to(v4.loopback()),
		verdict(expr.VerdictDrop, ""))
	b.rule(c, chainPrerouting, verdict(expr.VerdictJump, chainOutside))
	b.rule(c, chainPrerouting, verdict(expr.VerdictJump, chainDispatch))
	b.rule(c, chainOutput, verdict(expr.VerdictJump, chainDispatch))
	for _, r := range f.ranges {
		b.dispatchOutside(c, r)
		b.dispatch(c, r)
	}
	b.rule(c, chainReject, metaIs(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_TCP}), one(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}))
	b.rule(c, chainReject, one(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}))
	b.rule(c, chainDrop, verdict(expr.VerdictDrop, ""))
	for _, s := range b.sides {
		ranges := chainRanges + s.digit()
		c.AddChain(b.chain(ranges))
		b.rule(c, ranges, gotoChain(chainDrop))
		s.keeps = false
		clear(s.lengths)
		clear(s.picks)
		for _, p := range usualPicks() {
			b.addPick(c, s, p)
		}
	}
	b.policies(c)
	b.wayOut(c, f)
	return nil
}

// dispatchOutside looks up what comes from outside. This node's own packets do not come here.
func (b *base) dispatchOutside(c *nftables.Conn, r ranges) {
	s, only := b.side(r.family()), isFamily(r.family())
	b.rule(c, chainOutside, only, from(r.pods), verdict(expr.VerdictReturn, ""))
	if r.dns.IsValid() {
		b.rule(c, chainOutside, only, to(netip.PrefixFrom(r.dns, r.dns.BitLen())), verdict(expr.VerdictReturn, ""))
	}
	lookup := &expr.Lookup{SourceRegister: reg0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: s.outside.Name, SetID: s.outside.ID}
	b.rule(c, chainOutside, only, s.loadFrontend(), one(lookup))
	b.rule(c, chainOutside, only, isLocal(false, false), s.loadPicked(pick{onNode: true}), one(lookup))
}

func (b *base) dispatch(c *nftables.Conn, r ranges) {
	s, only := b.side(r.family()), isFamily(r.family())
	if r.dns.IsValid() {
		// This node answers, whatever a service of that address says.
		b.rule(c, chainDispatch, only, to(netip.PrefixFrom(r.dns, r.dns.BitLen())), verdict(expr.VerdictReturn, ""))
	}
	b.rule(c, chainDispatch, only, s.loadFrontend(), []expr.Any{
		&expr.Lookup{SourceRegister: reg0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: s.frontends.Name, SetID: s.frontends.ID},
	})
	notThere := []expr.Any{} // an answer to ::1 could not come back from a pod, and the kernel has no setting for that
	if s.family == v6 {
		notThere = notTo(s.loopback())
	}
	b.rule(c, chainDispatch, only, notThere, isLocal(false, false), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0},
		loadDestinationPort(reg1),
		&expr.Lookup{SourceRegister: reg0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: s.nodePorts.Name, SetID: s.nodePorts.ID},
	})
	if r.services.IsValid() {
		// No service has this address or port: say so instead of sending the packet out into the world.
		b.rule(c, chainDispatch, only, to(r.services), isLocal(false, true), gotoChain(chainReject))
	}
}

// wayOut fills the chains that packets pass when they leave this host, or go to a pod.
func (b *base) wayOut(c *nftables.Conn, f facts) {
	b.rule(c, chainPostrouting, metaIs(expr.MetaKeyOIF, number(1)), verdict(expr.VerdictReturn, "")) // 1 is always lo
	for _, r := range f.ranges {
		if r.services.IsValid() {
			// Led nowhere, because what it was looked up in was replaced meanwhile. The kernel forgets a connection whose first packet is dropped, so when
			// the sender tries again, after a second at most, it is led anew; out there it would learn that there is no such host.
			b.rule(c, chainPostrouting, isFamily(r.family()), to(r.services), verdict(expr.VerdictDrop, ""))
		}
		b.rule(c, chainPostrouting, isFamily(r.family()), b.side(r.family()).isLoop(), gotoChain(chainMasquerade))
	}
	b.rule(c, chainPostrouting, isMarked(), gotoChain(chainMasquerade))
	for _, r := range f.ranges {
		b.masquerade(c, r)
	}
	b.rule(c, chainMasquerade, one(&expr.Masq{FullyRandom: true}))
}

func (b *base) masquerade(c *nftables.Conn, r ranges) {
	s, only := b.side(r.family()), isFamily(r.family())
	// Sent by the node from an address that means another host there.
	b.rule(c, chainPostrouting, wasRedirected(), only, from(s.loopback()), gotoChain(chainMasquerade))
	if r.nodePods.IsValid() {
		// Not sent by a pod, and led to another node: that node would not send the answer back here.
		b.rule(c, chainPostrouting, wasRedirected(), only, notFrom(r.pods), notTo(r.nodePods), gotoChain(chainMasquerade))
	}
	// Sent by a pod to the world, which knows no pods.
	b.rule(c, chainPostrouting, only, from(r.pods), notTo(r.pods), notTo(s.multicast()), gotoChain(chainMasquerade))
	if r.gateway.IsValid() {
		b.rule(c, chainMasquerade, only, to(r.pods), []expr.Any{
			&expr.Immediate{Register: reg0, Data: r.gateway.AsSlice()},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(s.family), RegAddrMin: reg0, FullyRandom: true},
		})
	}
}

// rewriteWayOut replaces the rules that depend on this node's share of the pods.
func (b *base) rewriteWayOut(c *nftables.Conn, f facts) {
	c.FlushChain(b.chain(chainPostrouting))
	c.FlushChain(b.chain(chainMasquerade))
	b.wayOut(c, f)
}
