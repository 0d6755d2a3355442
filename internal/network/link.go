package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Each pod has a link of its own to the host (a veth pair), and the host a route to each pod: what pods send one another is routed, and so
// passes the table like everything else. The gateway's address is on the cluster's own link, and the host answers for it on every pod's.

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

// setUpHost makes the cluster's own link. It is a bridge without ports, because that is the one link without an end elsewhere which every
// kernel has.
func setUpHost(cluster string, gateway netip.Addr, services netip.Prefix) error {
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
	old, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(link, unix.AF_INET) })
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for i := range old {
		if !old[i].IP.Equal(gateway.AsSlice()) {
			if err := netlink.AddrDel(link, &old[i]); err != nil {
				return fmt.Errorf("take the old gateway from %s: %w", name, err)
			}
		}
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: single(gateway)}); err != nil {
		return fmt.Errorf("give %s the address %s: %w", name, gateway, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	// Without it a host that has no default route could not even try to connect to a service.
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: network(services), Src: gateway.AsSlice(), Scope: netlink.SCOPE_LINK}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route services' addresses %s: %w", services, err)
	}
	return nil
}

// podLink is what a pod gets.
type podLink struct {
	cluster, host, name string
	netns               string
	addr, gateway       netip.Addr
	mtu                 int
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
	if podMAC, err = l.setUpInside(inside); err != nil {
		return nil, nil, err
	}
	hostMAC, err = l.setUpOutside()
	return hostMAC, podMAC, err
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

func (l podLink) setUpInside(inside *netlink.Handle) (net.HardwareAddr, error) {
	link, err := inside.LinkByName(l.name)
	if err != nil {
		return nil, fmt.Errorf("find %s in the pod: %w", l.name, err)
	}
	index := link.Attrs().Index
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}}
	steps := []struct {
		what string
		err  func() error
	}{
		{"set lo up", func() error { return inside.LinkSetUp(lo) }},
		{"give it its address", func() error { return inside.AddrReplace(link, &netlink.Addr{IPNet: single(l.addr)}) }},
		{"set it up", func() error { return inside.LinkSetUp(link) }},
		{"route to the gateway", func() error {
			return inside.RouteReplace(&netlink.Route{LinkIndex: index, Dst: single(l.gateway), Scope: netlink.SCOPE_LINK})
		}},
		{"route everything else", func() error {
			return inside.RouteReplace(&netlink.Route{LinkIndex: index, Gw: l.gateway.AsSlice(), Src: l.addr.AsSlice()})
		}},
	}
	for _, s := range steps {
		if err := s.err(); err != nil {
			return nil, fmt.Errorf("set up %s in the pod: %s: %w", l.name, s.what, err)
		}
	}
	return link.Attrs().HardwareAddr, nil
}

func (l podLink) setUpOutside() (net.HardwareAddr, error) {
	link, err := netlink.LinkByName(l.host)
	if err != nil {
		return nil, fmt.Errorf("find link %s: %w", l.host, err)
	}
	// Answers to what the node sent from 127.0.0.1 come back here; the table's guard keeps everything else out.
	for key, value := range map[string]string{"rp_filter": "2", "route_localnet": "1"} {
		if err := sysctl("net/ipv4/conf/"+l.host+"/"+key, value); err != nil {
			return nil, err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set %s up: %w", l.host, err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: single(l.addr), Src: l.gateway.AsSlice(), Scope: netlink.SCOPE_LINK}
	if err := netlink.RouteReplace(route); err != nil {
		return nil, fmt.Errorf("route to the pod at %s: %w", l.addr, err)
	}
	return link.Attrs().HardwareAddr, nil
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

// linkOf is the link on which others would look for an address, by index: the one of its range, else the one of uplink.
func linkOf(addr, uplink netip.Addr) (index int, err error) {
	all, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return 0, fmt.Errorf("list the host's addresses: %w", err)
	}
	bits := 0
	for _, at := range all {
		ones, _ := at.Mask.Size()
		switch {
		case at.IP.IsLoopback():
		case ones < 32 && ones > bits && at.Contains(addr.AsSlice()):
			index, bits = at.LinkIndex, ones
		case bits == 0 && at.IP.Equal(uplink.AsSlice()):
			index = at.LinkIndex
		}
	}
	if index == 0 {
		return 0, fmt.Errorf("no link of this host has the node's address %s", uplink)
	}
	return index, nil
}

func sysctl(key, value string) error {
	if err := os.WriteFile("/proc/sys/"+key, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s to %s: %w", key, value, err)
	}
	return nil
}

// AddLocal gives this host an address, on its loopback link: whoever is on the host or in its pods reaches what listens there. Doing it
// twice does no harm. The address is the host's alone, so that the kernel does not choose it as the source of what it sends elsewhere.
func AddLocal(addr netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.AddrReplace(lo, &netlink.Addr{IPNet: single(addr), Scope: unix.RT_SCOPE_HOST})
	}
	if err != nil {
		return fmt.Errorf("add address %s to lo: %w", addr, err)
	}
	return nil
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
