package config

import (
	"fmt"
	"net/netip"
	"strings"

	"skiff.dev/skiff/internal/api/cidr"
)

// ClusterCIDRs are the ranges of pod addresses: one, or one of each family, the primary first.
func (c *Config) ClusterCIDRs() []netip.Prefix { return cidr.MustParseList(c.PodCIDR) }

// ServiceCIDRs are the ranges of service addresses, likewise.
func (c *Config) ServiceCIDRs() []netip.Prefix { return cidr.MustParseList(c.ServiceCIDR) }

// NodeCIDRMasks are the sizes of a node's shares, one for each of ClusterCIDRs.
func (c *Config) NodeCIDRMasks() (out []int) {
	for _, p := range c.ClusterCIDRs() {
		out = append(out, c.maskOf(p).size)
	}
	return out
}

type mask struct {
	key  string
	size int
}

// maskOf is the size of a share of a range, and the key that says so. The key of no family is for clusters of one.
func (c *Config) maskOf(pods netip.Prefix) mask {
	switch {
	case c.NodeCIDRMask != 0:
		return mask{"node-cidr-mask-size", c.NodeCIDRMask}
	case pods.Addr().Is4():
		return mask{"node-cidr-mask-size-ipv4", c.NodeCIDRMaskIPv4}
	}
	return mask{"node-cidr-mask-size-ipv6", c.NodeCIDRMaskIPv6}
}

// ServiceAddr is the n-th address of the primary service range: 1 is the API server's, 10 the cluster DNS's.
func (c *Config) ServiceAddr(n int) netip.Addr { return c.ServiceAddrs(n)[0] }

// ServiceAddrs are the n-th addresses of all service ranges.
func (c *Config) ServiceAddrs(n int) (out []netip.Addr) {
	for _, p := range c.ServiceCIDRs() {
		a := p.Addr()
		for range n {
			a = a.Next()
		}
		out = append(out, a)
	}
	return out
}

// checkRanges holds that the ranges of pods and services fit each other, and writes them in one way.
func (c *Config) checkRanges() (pods, services []netip.Prefix, err error) {
	if pods, err = cidr.ParseList(c.PodCIDR); err != nil {
		return nil, nil, fmt.Errorf("pod-cidr: %w", err)
	}
	if services, err = cidr.ParseList(c.ServiceCIDR); err != nil {
		return nil, nil, fmt.Errorf("service-cidr: %w", err)
	}
	if s, p, ok := cidr.Overlap(services, pods); ok {
		return nil, nil, fmt.Errorf("service-cidr: %s overlaps pod-cidr %s; choose another", s, p)
	}
	if pods[0].Addr().Is4() != services[0].Addr().Is4() {
		return nil, nil, fmt.Errorf("service-cidr: %s is of another family than pod-cidr %s; the first of both must be of the same", services[0], pods[0])
	}
	if len(services) > len(pods) {
		return nil, nil, fmt.Errorf("service-cidr: %s is of a family that pods have no addresses of; give pod-cidr a range of it too", services[1])
	}
	for _, s := range services {
		if s.Addr().BitLen()-s.Bits() < 4 {
			return nil, nil, fmt.Errorf("service-cidr: %s has too few addresses; a /%d is the least", s, s.Addr().BitLen()-4)
		}
	}
	c.PodCIDR, c.ServiceCIDR = strings.Join(cidr.Strings(pods), ","), strings.Join(cidr.Strings(services), ",")
	return pods, services, c.checkMasks(pods)
}

func (c *Config) checkMasks(pods []netip.Prefix) error {
	if c.NodeCIDRMask != 0 && len(pods) == 2 {
		return fmt.Errorf("node-cidr-mask-size: pod-cidr has two families; give node-cidr-mask-size-ipv4 and node-cidr-mask-size-ipv6 instead")
	}
	for _, p := range pods {
		m := c.maskOf(p)
		if m.size <= p.Bits() || m.size > p.Addr().BitLen()-2 {
			return fmt.Errorf("%s: %d does not divide pod-cidr %s; a number from %d to %d does", m.key, m.size, p, p.Bits()+1, p.Addr().BitLen()-2)
		}
	}
	return nil
}
