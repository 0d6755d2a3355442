package network

import (
	"hash/fnv"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"skiff.dev/skiff/internal/proxy"
)

// Names of the chains and maps that do not depend on services.
const (
	chainGuard       = "guard"
	chainPrerouting  = "prerouting"
	chainOutput      = "output"
	chainPostrouting = "postrouting"
	chainDispatch    = "dispatch"
	chainMasquerade  = "masquerade"

	mapFrontends = "frontends" // address, protocol, port → chain
	mapEndpoints = "endpoints" // address, protocol, port, place → backend
	mapNodePorts = "nodeports" // protocol, port → chain, on every address of the node
	setHairpin   = "hairpin"   // pairs of a backend on this node and itself

	chainPolicy = "policy"
)

// usualEndpoints is the number of endpoints up to which a service finds its chain there, and does not wait for it.
const usualEndpoints = 32

var (
	loopback  = netip.MustParsePrefix("127.0.0.0/8")
	multicast = netip.MustParsePrefix("224.0.0.0/4")
)

// facts are what the fixed rules depend on.
type facts struct {
	cluster        string
	pods, services netip.Prefix // of the whole cluster
	nodePods       netip.Prefix // this node's share of the pods; zero until it is known
	gateway        netip.Addr   // what pods know as their gateway; zero until it is known
	dns            netip.Addr   // cluster DNS, which answers on every node; zero: there is none
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
	table                                    *nftables.Table
	frontends, endpoints, nodePorts, hairpin *nftables.Set
	isolated                                 map[isolation]*nftables.Set // pods of this node → the chain that says what may pass
	picks                                    map[int]bool                // numbers of endpoints that have a chain to draw one
}

func newBase(cluster string) *base {
	t := &nftables.Table{Family: nftables.TableFamilyINet, Name: cluster}
	return &base{
		table: t, isolated: isolationMaps(t), picks: map[int]bool{},
		frontends: &nftables.Set{Table: t, Name: mapFrontends, IsMap: true, Concatenation: true, DataType: nftables.TypeVerdict,
			KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)},
		endpoints: &nftables.Set{Table: t, Name: mapEndpoints, IsMap: true, Concatenation: true, DataType: typeBackend,
			KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeMark)}, // nft can print marks, and integers not
		nodePorts: &nftables.Set{Table: t, Name: mapNodePorts, IsMap: true, Concatenation: true, DataType: nftables.TypeVerdict,
			KeyType: nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)},
		hairpin: &nftables.Set{Table: t, Name: setHairpin, Concatenation: true,
			KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr)},
	}
}

func (b *base) chain(name string) *nftables.Chain { return &nftables.Chain{Table: b.table, Name: name} }

func (b *base) rule(c *nftables.Conn, chain string, parts ...[]expr.Any) {
	c.AddRule(&nftables.Rule{Table: b.table, Chain: b.chain(chain), Exprs: exprs(parts...)})
}

// create adds the table with its fixed part.
func (b *base) create(c *nftables.Conn, f facts) error {
	c.AddTable(b.table)
	for _, s := range []*nftables.Set{b.frontends, b.endpoints, b.nodePorts, b.hairpin} {
		s.ID = 0
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
	}
	for _, s := range b.isolated {
		s.ID = 0
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
	}
	hook := func(name string, kind nftables.ChainType, at *nftables.ChainHook, when *nftables.ChainPriority) {
		c.AddChain(&nftables.Chain{Table: b.table, Name: name, Type: kind, Hooknum: at, Priority: when})
	}
	for _, name := range []string{chainDispatch, chainMasquerade, proxy.Reject, proxy.Drop} {
		c.AddChain(b.chain(name))
	}
	hook(chainGuard, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	hook(chainPrerouting, nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	hook(chainOutput, nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	hook(chainPolicy, nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	hook(chainPostrouting, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)

	// Pods' links route to 127.0.0.0/8, for answers to connections the node made to a node port there; nothing else may use that.
	b.rule(c, chainGuard, metaIs(expr.MetaKeyIIFGROUP, number(group(f.cluster))), ipv4(), to(loopback),
		verdict(expr.VerdictDrop, ""))
	b.rule(c, chainPrerouting, verdict(expr.VerdictJump, chainDispatch))
	b.rule(c, chainOutput, verdict(expr.VerdictJump, chainDispatch))
	b.dispatch(c, f)
	b.rule(c, proxy.Reject, metaIs(expr.MetaKeyL4PROTO, []byte{unix.IPPROTO_TCP}), one(&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}))
	b.rule(c, proxy.Reject, one(&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_PORT_UNREACH}))
	b.rule(c, proxy.Drop, verdict(expr.VerdictDrop, ""))
	clear(b.picks)
	for n := range usualEndpoints {
		b.addPick(c, n+1)
	}
	b.policies(c)
	b.wayOut(c, f)
	return nil
}

func (b *base) dispatch(c *nftables.Conn, f facts) {
	if f.dns.IsValid() {
		// This node answers, whatever a service of that address says.
		b.rule(c, chainDispatch, ipv4(), to(netip.PrefixFrom(f.dns, 32)), verdict(expr.VerdictReturn, ""))
	}
	b.rule(c, chainDispatch, ipv4(), loadFrontend(), []expr.Any{
		&expr.Lookup{SourceRegister: reg0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: b.frontends.Name, SetID: b.frontends.ID},
	})
	b.rule(c, chainDispatch, ipv4(), isLocal(false, false), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0},
		loadDestinationPort(reg1),
		&expr.Lookup{SourceRegister: reg0, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: b.nodePorts.Name, SetID: b.nodePorts.ID},
	})
	// No service has this address or port: say so instead of sending the packet out into the world.
	b.rule(c, chainDispatch, ipv4(), to(f.services), isLocal(false, true), gotoChain(proxy.Reject))
}

// wayOut fills the chains that packets pass when they leave this host, or go to a pod.
func (b *base) wayOut(c *nftables.Conn, f facts) {
	b.rule(c, chainPostrouting, metaIs(expr.MetaKeyOIF, number(1)), verdict(expr.VerdictReturn, "")) // 1 is always lo
	// Led nowhere, because what it was looked up in was replaced meanwhile. The kernel forgets a connection whose first packet is dropped, so when
	// the sender tries again, after a second at most, it is led anew; out there it would learn that there is no such host.
	b.rule(c, chainPostrouting, ipv4(), to(f.services), verdict(expr.VerdictDrop, ""))
	b.rule(c, chainPostrouting, ipv4(), []expr.Any{
		loadSource(reg0), loadDestination(reg1), &expr.Lookup{SourceRegister: reg0, SetName: b.hairpin.Name, SetID: b.hairpin.ID},
	}, gotoChain(chainMasquerade))
	b.rule(c, chainPostrouting, isMarked(), gotoChain(chainMasquerade))
	// Sent by the node from an address that means another host there.
	b.rule(c, chainPostrouting, wasRedirected(), ipv4(), from(loopback), gotoChain(chainMasquerade))
	if f.nodePods.IsValid() {
		// Not sent by a pod, and led to another node: that node would not send the answer back here.
		b.rule(c, chainPostrouting, wasRedirected(), ipv4(), notFrom(f.pods), notTo(f.nodePods), gotoChain(chainMasquerade))
	}
	// Sent by a pod to the world, which knows no pods.
	b.rule(c, chainPostrouting, ipv4(), from(f.pods), notTo(f.pods), notTo(multicast), gotoChain(chainMasquerade))
	if f.gateway.IsValid() {
		b.rule(c, chainMasquerade, ipv4(), to(f.pods), []expr.Any{
			&expr.Immediate{Register: reg0, Data: f.gateway.AsSlice()},
			&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg0, FullyRandom: true},
		})
	}
	b.rule(c, chainMasquerade, one(&expr.Masq{FullyRandom: true}))
}

// rewriteWayOut replaces the rules that depend on this node's share of the pods.
func (b *base) rewriteWayOut(c *nftables.Conn, f facts) {
	c.FlushChain(b.chain(chainPostrouting))
	c.FlushChain(b.chain(chainMasquerade))
	b.wayOut(c, f)
}
