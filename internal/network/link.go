package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Each pod has a link of its own to the host (a veth pair), and the host a route to each pod: what pods send one another is routed, and so
// passes the table like everything else. The gateway's address is on the cluster's own link. For IPv4 the host answers for it on every pod's;
// for IPv6 both ends are told where the other is, so that nobody asks, and no address waits until it is known that nobody else has it.

const linkPrefix = "sk"

// linkName is the name of the host's end of a pod's link.
func linkName(cluster, id string) string {
	sum := sha256.Sum256([]byte(cluster + "/" + id))
	return linkPrefix + hex.EncodeToString(sum[:])[:13]
}

// anchor is the link that carries the gateway's address and the route for services' addresses.
func anchor(cluster string) string { return cluster + "0" }

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func network(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// address is one as a link has it. Nobody else can have it, so it need not be looked for on the link first.
func address(a netip.Addr) *netlink.Addr {
	out := &netlink.Addr{IPNet: single(a)}
	if a.Is6() {
		out.Flags = unix.IFA_F_NODAD
	}
	return out
}

// setUpHost makes the cluster's own link. It is a bridge without ports, because that is the one link without an end elsewhere which every
// kernel has.
func setUpHost(cluster string, pods, services []netip.Prefix) error {
	name := anchor(cluster)
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Group = name, group(cluster)
		if err = netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err == nil {
			link, err = netlink.LinkByName(name)
		}
	}
	if err != nil {
		return fmt.Errorf("make link %s: %w", name, err)
	}
	if has6(pods) {
		if err := quiet(name); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	for _, share := range pods {
		if err := setGateway(link, gatewayOf(share)); err != nil {
			return err
		}
		reach := ofFamily(services, familyOf(share.Addr()))
		if !reach.IsValid() {
			continue
		}
		// Without it a host that has no default route could not even try to connect to a service.
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: network(reach), Src: gatewayOf(share).AsSlice(), Scope: netlink.SCOPE_LINK}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route services' addresses %s: %w", reach, err)
		}
	}
	return nil
}

// setGateway gives the cluster's link the one address of a family that it shall have.
func setGateway(link netlink.Link, gateway netip.Addr) error {
	name := link.Attrs().Name
	old, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(link, int(familyOf(gateway))) })
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for i := range old {
		if !old[i].IP.Equal(gateway.AsSlice()) && !old[i].IP.IsLinkLocalUnicast() {
			if err := netlink.AddrDel(link, &old[i]); err != nil {
				return fmt.Errorf("take the old gateway from %s: %w", name, err)
			}
		}
	}
	if err := netlink.AddrReplace(link, address(gateway)); err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, gateway, err)
	}
	return nil
}

// podLink is what a pod gets.
type podLink struct {
	cluster, host, name string
	netns               string
	ends                []ends // one for each family
	mtu                 int
}

// ends are the addresses at both ends of a pod's link.
type ends struct{ pod, gateway netip.Addr }

func (l podLink) has6() bool {
	return slices.ContainsFunc(l.ends, func(e ends) bool { return e.pod.Is6() })
}

// connect makes a pod's link, whatever was there before under its name.
func (l podLink) connect() (hostMAC, podMAC net.HardwareAddr, err error) {
	ns, err := netns.GetFromPath(l.netns)
	if err != nil {
		return nil, nil, fmt.Errorf("open network namespace %s: %w", l.netns, err)
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, fmt.Errorf("enter network namespace %s: %w", l.netns, err)
	}
	defer inside.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group, attrs.MTU = l.host, group(l.cluster), l.mtu
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: l.name, PeerNamespace: netlink.NsFd(int(ns)), PeerMTU: uint32(l.mtu)}
	err = netlink.LinkAdd(veth)
	if errors.Is(err, unix.EEXIST) {
		if err := l.disconnect(inside); err != nil {
			return nil, nil, err
		}
		err = netlink.LinkAdd(veth)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make link %s: %w", l.host, err)
	}
	host, err := netlink.LinkByName(l.host)
	if err != nil {
		return nil, nil, fmt.Errorf("find link %s: %w", l.host, err)
	}
	hostMAC = host.Attrs().HardwareAddr
	if podMAC, err = l.setUpInside(inside, hostMAC); err != nil {
		return nil, nil, err
	}
	return hostMAC, podMAC, l.setUpOutside(host, podMAC)
}

// disconnect removes what an earlier attempt left.
func (l podLink) disconnect(inside *netlink.Handle) error {
	if err := deleteLink(l.host); err != nil {
		return err
	}
	if old, err := inside.LinkByName(l.name); err == nil {
		if err := inside.LinkDel(old); err != nil {
			return fmt.Errorf("remove the old %s of the pod: %w", l.name, err)
		}
	}
	return nil
}

// step is one of those that set up an end of a link.
type step struct {
	what string
	do   func() error
}

func (l podLink) setUpInside(inside *netlink.Handle, hostMAC net.HardwareAddr) (net.HardwareAddr, error) {
	link, err := inside.LinkByName(l.name)
	if err != nil {
		return nil, fmt.Errorf("find %s in the pod: %w", l.name, err)
	}
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}
	steps := []step{{"set lo up", func() error { return inside.LinkSetUp(lo) }}}
	for _, e := range l.ends {
		steps = append(steps, step{"give it its address", func() error { return inside.AddrReplace(link, address(e.pod)) }})
	}
	steps = append(steps, step{"set it up", func() error { return inside.LinkSetUp(link) }})
	for _, e := range l.ends {
		steps = append(steps, e.ways(inside, link.Attrs().Index, hostMAC)...)
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			return nil, fmt.Errorf("set up %s in the pod: %s: %w", l.name, s.what, err)
		}
	}
	return link.Attrs().HardwareAddr, nil
}

// ways lead out of the pod.
func (e ends) ways(inside *netlink.Handle, index int, hostMAC net.HardwareAddr) (steps []step) {
	if e.gateway.Is6() {
		steps = append(steps, step{"tell where the gateway is", func() error { return inside.NeighSet(known(index, e.gateway, hostMAC)) }})
	}
	return append(steps,
		step{"route to the gateway", func() error {
			return inside.RouteReplace(&netlink.Route{LinkIndex: index, Dst: single(e.gateway), Scope: netlink.SCOPE_LINK})
		}},
		step{"route everything else", func() error {
			return inside.RouteReplace(&netlink.Route{LinkIndex: index, Gw: e.gateway.AsSlice(), Src: e.pod.AsSlice()})
		}})
}

// known says where an address is, so that nobody asks.
func known(index int, a netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: index, Family: int(familyOf(a)), State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac}
}

func (l podLink) setUpOutside(link netlink.Link, podMAC net.HardwareAddr) error {
	// Answers to what the node sent from 127.0.0.1 come back here; the table's guard keeps everything else out.
	for key, value := range map[string]string{"rp_filter": "2", "route_localnet": "1"} {
		if err := sysctl("net/ipv4/conf/"+l.host+"/"+key, value); err != nil {
			return err
		}
	}
	if l.has6() {
		if err := quiet(l.host); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", l.host, err)
	}
	index := link.Attrs().Index
	for _, e := range l.ends {
		if e.pod.Is6() {
			if err := netlink.NeighSet(known(index, e.pod, podMAC)); err != nil {
				return fmt.Errorf("tell %s of the pod at %s: %w", l.host, e.pod, err)
			}
		}
		route := &netlink.Route{LinkIndex: index, Dst: single(e.pod), Src: e.gateway.AsSlice(), Scope: netlink.SCOPE_LINK}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route to the pod at %s: %w", e.pod, err)
		}
	}
	return nil
}

// deleteLink removes a link, with its routes and its other end. One that is not there is no error.
func deleteLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil && !errors.As(err, new(netlink.LinkNotFoundError)) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", name, err)
	}
	return nil
}

// complete asks the kernel for a list again when something changed while it was read, which makes the list unreliable.
func complete[T any](list func() (T, error)) (out T, err error) {
	for range 20 {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}

// clusterLinks lists the links of a cluster's pods on this host.
func clusterLinks(cluster string) (names []string, err error) {
	links, err := complete(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		a := l.Attrs()
		if a.Group == group(cluster) && strings.HasPrefix(a.Name, linkPrefix) && len(a.Name) == len(linkPrefix)+13 {
			names = append(names, a.Name)
		}
	}
	return names, nil
}

// CheckLink says why pods' packets between nodes would not fit through the link of a node's address. A host learns that before it joins.
func CheckLink(addr netip.Addr) error {
	_, err := podMTU(addr, true)
	return err
}

// podMTU is the size of pods' packets on a node, which between nodes travel in vxlan.
func podMTU(addr netip.Addr, betweenNodes bool) (int, error) {
	mtu := mtuOf(addr)
	if !betweenNodes {
		return mtu, nil
	}
	overhead := overheadOver(familyOf(addr))
	if mtu -= overhead; mtu < leastMTU {
		return 0, fmt.Errorf("the link of the node's address %s carries packets of %d bytes, which leaves %d for pods between nodes; give it an MTU of at least %d",
			addr, mtu+overhead, mtu, leastMTU+overhead)
	}
	return mtu, nil
}

// mtuOf is the packet size of the link that has an address: pods' packets have to fit through it.
func mtuOf(addr netip.Addr) int {
	const usual = 1500
	all, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil || !addr.IsValid() {
		return usual
	}
	for _, a := range all {
		if a.IP.Equal(addr.AsSlice()) {
			if link, err := netlink.LinkByIndex(a.LinkIndex); err == nil && link.Attrs().Flags&net.FlagLoopback == 0 {
				return link.Attrs().MTU
			}
		}
	}
	return usual
}

// linkOf is the link on which others would look for an address, by index: the one of its range, else that of the node's own addresses.
func linkOf(addr netip.Addr, node []netip.Addr) (index int, err error) {
	all, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return 0, fmt.Errorf("list the host's addresses: %w", err)
	}
	bits := 0
	for _, at := range all {
		ones, size := at.Mask.Size()
		switch {
		case at.IP.IsLoopback() || at.IP.IsLinkLocalUnicast():
		case size == addr.BitLen() && ones < size && ones > bits && at.Contains(addr.AsSlice()):
			index, bits = at.LinkIndex, ones
		case bits == 0 && slices.ContainsFunc(node, func(a netip.Addr) bool { return at.IP.Equal(a.AsSlice()) }):
			index = at.LinkIndex
		}
	}
	if index == 0 {
		return 0, fmt.Errorf("no link of this host has the node's addresses %s", node)
	}
	return index, nil
}

func sysctl(key, value string) error {
	if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s to %s: %w", key, value, err)
	}
	return nil
}

// readSysctl is a setting's value; empty if there is none.
func readSysctl(key string) string {
	value, _ := os.ReadFile("/proc/sys/" + key)
	return strings.TrimSpace(string(value))
}

// AddLocal gives this host an address, on its loopback link: whoever is on the host or in its pods reaches what listens there. Doing it
// twice does no harm. The address is the host's alone, so that the kernel does not choose it as the source of what it sends elsewhere.
func AddLocal(addr netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.AddrReplace(lo, local(addr))
	}
	if err != nil {
		return fmt.Errorf("add address %s to lo: %w", addr, err)
	}
	return nil
}

// local is an address that only this host knows. IPv6 has no scope for that; there one that is deprecated is chosen last.
func local(a netip.Addr) *netlink.Addr {
	out := address(a)
	out.Scope = unix.RT_SCOPE_HOST
	if a.Is6() {
		out.ValidLft = math.MaxUint32 // for ever
	}
	return out
}

// RemoveLocal takes it away again. An address that is not there is no error.
func RemoveLocal(addr netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.AddrDel(lo, &netlink.Addr{IPNet: single(addr)})
	}
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove address %s from lo: %w", addr, err)
	}
	return nil
}
