package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A node's end of the overlay is a vxlan link that learns nothing by itself. For each other node there is one forwarding entry (its MAC is behind
// this node's address), and for each family one route (its pods, by way of the first address of their range) and one neighbour (that address has
// this MAC). Packets of both families pass the one tunnel, which is between the nodes' primary addresses.

// routeOrigin marks the overlay's routes among those of others on the same links (the field is for this; values from 192 on are free).
const routeOrigin netlink.RouteProtocol = 211

func tunnelName(cluster string) string { return cluster + "v" }

type vxlan struct {
	cluster string
	index   int
	own     []netip.Prefix // this node's pods; what the node itself sends to others comes from the gateways of these
	under   []uplink
}

// uplink is a link of the host that has one of the node's addresses, and the addresses that are on it.
type uplink struct {
	index int
	on    netip.Prefix
}

// links are the ranges whose nodes are reached directly, if any shall be.
func (v *vxlan) links(direct bool) (out []netip.Prefix) {
	for _, u := range v.under {
		if direct {
			out = append(out, u.on)
		}
	}
	return out
}

// gateway is this node's, of a family.
func (v *vxlan) gateway(f family) net.IP { return gatewayOf(ofFamily(v.own, f)).AsSlice() }

// underlay is the link that has an address.
func underlay(addr netip.Addr) (u uplink, err error) {
	all, err := complete(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, int(familyOf(addr))) })
	if err != nil {
		return u, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		if a.IP.Equal(addr.AsSlice()) {
			bits, _ := a.Mask.Size()
			return uplink{a.LinkIndex, netip.PrefixFrom(addr, bits).Masked()}, nil
		}
	}
	return u, fmt.Errorf("the node's address %s is on none of this host's links; give one that is with --node-ip", addr)
}

// setUpTunnel makes this node's end. One that an earlier agent made stays as it is, if it is the same.
func setUpTunnel(cfg Config, pods []netip.Prefix, mtu int) (*vxlan, error) {
	v := &vxlan{cluster: cfg.Cluster, own: pods}
	for _, ip := range cfg.NodeIPs {
		u, err := underlay(ip)
		if err != nil {
			return nil, err
		}
		v.under = append(v.under, u)
	}
	have, err := makeTunnel(cfg, v.under[0].index, mtu)
	if err != nil {
		return nil, err
	}
	name := have.Attrs().Name
	// As on pods' links: answers to what the node sent from 127.0.0.1 come back here, and the table's guard keeps everything else out.
	for key, value := range map[string]string{"rp_filter": "2", "route_localnet": "1"} {
		if err := sysctl("net/ipv4/conf/"+name+"/"+key, value); err != nil {
			return nil, err
		}
	}
	if has6(pods) {
		if err := quiet(name); err != nil {
			return nil, err
		}
	}
	if have.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(have, mtu); err != nil {
			return nil, fmt.Errorf("set the packet size of %s: %w", name, err)
		}
	}
	if err := netlink.LinkSetUp(have); err != nil {
		return nil, fmt.Errorf("set %s up: %w", name, err)
	}
	v.index = have.Attrs().Index
	return v, nil
}

// makeTunnel returns the vxlan link, making it if there is none, or another one.
func makeTunnel(cfg Config, over, mtu int) (netlink.Link, error) {
	name := tunnelName(cfg.Cluster)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr, attrs.Group = name, mtu, hardware(cfg.NodeName), group(cfg.Cluster)
	want := &netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: int(cfg.Overlay.Number), VtepDevIndex: over, SrcAddr: cfg.nodeIP().AsSlice(),
		Port: cfg.Overlay.Port, Learning: false,
	}
	have, err := netlink.LinkByName(name)
	if err == nil && !sameTunnel(have, want) {
		if err = netlink.LinkDel(have); err == nil {
			err = netlink.LinkNotFoundError{}
		}
	}
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		if err = netlink.LinkAdd(want); err == nil {
			have, err = netlink.LinkByName(name)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("make link %s (vxlan %d, UDP port %d): %w", name, cfg.Overlay.Number, cfg.Overlay.Port, err)
	}
	return have, nil
}

func sameTunnel(have netlink.Link, want *netlink.Vxlan) bool {
	v, ok := have.(*netlink.Vxlan)
	return ok && v.VxlanId == want.VxlanId && v.Port == want.Port && v.VtepDevIndex == want.VtepDevIndex && v.SrcAddr.Equal(want.SrcAddr) &&
		!v.Learning && v.Attrs().HardwareAddr.String() == want.HardwareAddr.String()
}

func (v *vxlan) route(p peer) *netlink.Route {
	r := &netlink.Route{Dst: network(p.pods), Src: v.gateway(familyOf(p.pods.Addr())), Protocol: routeOrigin}
	if p.direct {
		r.LinkIndex, r.Gw = v.over(p.addr), p.addr.AsSlice()
	} else {
		r.LinkIndex, r.Gw, r.Flags = v.index, p.pods.Addr().AsSlice(), int(netlink.FLAG_ONLINK)
	}
	return r
}

// over is the host's link on which an address is.
func (v *vxlan) over(a netip.Addr) int {
	for _, u := range v.under {
		if u.on.Contains(a) {
			return u.index
		}
	}
	return 0
}

func (v *vxlan) neighbour(p peer) *netlink.Neigh {
	return known(v.index, p.pods.Addr(), hardware(p.node))
}

func (v *vxlan) forwarding(p peer) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: v.index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT | netlink.NUD_NOARP, Flags: netlink.NTF_SELF,
		IP: p.addr.AsSlice(), HardwareAddr: hardware(p.node),
	}
}

func (v *vxlan) set(p peer) error {
	if !p.direct {
		if err := netlink.NeighSet(v.forwarding(p)); err != nil {
			return fmt.Errorf("tell %s where %s is: %w", tunnelName(v.cluster), p.addr, err)
		}
		if err := netlink.NeighSet(v.neighbour(p)); err != nil {
			return fmt.Errorf("tell %s of %s: %w", tunnelName(v.cluster), p.pods.Addr(), err)
		}
	}
	if err := netlink.RouteReplace(v.route(p)); err != nil {
		return fmt.Errorf("route pods' addresses %s to %s: %w", p.pods, p.addr, err)
	}
	return nil
}

func (v *vxlan) remove(p peer) error {
	errs := []error{absent(netlink.RouteDel(v.route(p)))}
	if !p.direct {
		errs = append(errs, absent(netlink.NeighDel(v.neighbour(p))), absent(netlink.NeighDel(v.forwarding(p))))
	}
	return errors.Join(errs...)
}

// absent: what was to go had gone.
func absent(err error) error {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func (v *vxlan) keep(peers []peer) error {
	routes, neighbours := map[string]bool{}, map[string]bool{}
	for _, p := range peers {
		routes[v.route(p).String()] = true
		neighbours[p.pods.Addr().String()], neighbours[hardware(p.node).String()+p.addr.String()] = true, true
	}
	old, err := overlayRoutes(v.own)
	if err != nil {
		return err
	}
	var errs []error
	for i := range old {
		r := old[i]
		if !v.ours(&r) {
			continue
		}
		if key := (&netlink.Route{Dst: r.Dst, Src: r.Src, Protocol: r.Protocol, LinkIndex: r.LinkIndex, Gw: r.Gw, Flags: r.Flags & int(netlink.FLAG_ONLINK)}).String(); !routes[key] {
			errs = append(errs, absent(netlink.RouteDel(&r)))
		}
	}
	for family, key := range map[int]func(netlink.Neigh) string{
		unix.AF_INET:   func(n netlink.Neigh) string { return n.IP.String() },
		unix.AF_INET6:  func(n netlink.Neigh) string { return n.IP.String() },
		unix.AF_BRIDGE: func(n netlink.Neigh) string { return n.HardwareAddr.String() + n.IP.String() },
	} {
		list, err := complete(func() ([]netlink.Neigh, error) { return netlink.NeighList(v.index, family) })
		if err != nil {
			return fmt.Errorf("list the overlay's neighbours: %w", err)
		}
		for i := range list {
			if list[i].LinkIndex == v.index && list[i].State&netlink.NUD_PERMANENT != 0 && !neighbours[key(list[i])] {
				n := list[i]
				n.Family = family
				errs = append(errs, absent(netlink.NeighDel(&n)))
			}
		}
	}
	return errors.Join(errs...)
}

// overlayRoutes lists the routes of overlays on this host, of the families of some addresses.
func overlayRoutes(like []netip.Prefix) (out []netlink.Route, err error) {
	for _, p := range like {
		some, err := complete(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(int(familyOf(p.Addr())), &netlink.Route{Protocol: routeOrigin}, netlink.RT_FILTER_PROTOCOL)
		})
		if err != nil {
			return nil, fmt.Errorf("list the overlay's routes: %w", err)
		}
		out = append(out, some...)
	}
	return out, nil
}

// ours: another cluster's overlay on this host has routes of the same mark, by its own link or to its own gateway.
func (v *vxlan) ours(r *netlink.Route) bool {
	return r.LinkIndex == v.index || slices.ContainsFunc(v.own, func(p netip.Prefix) bool { return r.Src.Equal(gatewayOf(p).AsSlice()) })
}

// removeDirect takes away the routes of a cluster that do not go with its own links. Pods' addresses tell them.
func removeDirect(pods []netip.Prefix) error {
	old, err := overlayRoutes(pods)
	if err != nil {
		return err
	}
	var errs []error
	for i := range old {
		if old[i].Dst == nil {
			continue
		}
		if a, ok := netip.AddrFromSlice(old[i].Dst.IP); ok && slices.ContainsFunc(pods, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) }) {
			errs = append(errs, absent(netlink.RouteDel(&old[i])))
		}
	}
	return errors.Join(errs...)
}
