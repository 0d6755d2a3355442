package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// family is one of IP's, by the number that the kernel gives it everywhere.
type family byte

const (
	v4 family = unix.NFPROTO_IPV4
	v6 family = unix.NFPROTO_IPV6
)

var families = []family{v4, v6}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return v4
	}
	return v6
}

// size of an address in bytes, and in registers of four.
func (f family) size() uint32 {
	if f == v4 {
		return 4
	}
	return 16
}

func (f family) width() uint32 { return f.size() / 4 }

func (f family) addrType() nftables.SetDatatype {
	if f == v4 {
		return nftables.TypeIPAddr
	}
	return nftables.TypeIP6Addr
}

// digit ends the names of what there is for each family: it is left out for IPv4, which most clusters have alone.
func (f family) digit() string {
	if f == v4 {
		return ""
	}
	return "6"
}

// loopback are the addresses that mean another host on each host; multicast those that mean no host.
func (f family) loopback() netip.Prefix {
	if f == v4 {
		return netip.MustParsePrefix("127.0.0.0/8")
	}
	return netip.MustParsePrefix("::1/128")
}

func (f family) multicast() netip.Prefix {
	if f == v4 {
		return netip.MustParsePrefix("224.0.0.0/4")
	}
	return netip.MustParsePrefix("ff00::/8")
}

// whole is every address there is.
func (f family) whole() netip.Prefix {
	if f == v4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// ofFamily is the one of a list that is of a family; zero if there is none.
func ofFamily(list []netip.Prefix, f family) netip.Prefix {
	for _, p := range list {
		if familyOf(p.Addr()) == f {
			return p
		}
	}
	return netip.Prefix{}
}

func has6(list []netip.Prefix) bool { return ofFamily(list, v6).IsValid() }

// CheckFamilies says what is wrong with a host that is to carry such addresses: some kernels have no IPv6.
func CheckFamilies(list []netip.Prefix) error {
	p := ofFamily(list, v6)
	if !p.IsValid() {
		return nil
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pod-cidr: %s is IPv6, and this host's kernel has no IPv6; start it without ipv6.disable=1, or make the cluster of IPv4 alone", p)
	}
	return nil
}

// forward has the kernel carry packets between links. A host that forwards IPv6 no longer heeds routers, unless its links are told that they
// shall; those that have heeded them so far are.
func forward(list []netip.Prefix) error {
	if ofFamily(list, v4).IsValid() {
		if err := sysctl("net/ipv4/ip_forward", "1"); err != nil {
			return err
		}
	}
	if !has6(list) {
		return nil
	}
	links, err := os.ReadDir("/proc/sys/net/ipv6/conf")
	if err != nil {
		return fmt.Errorf("list this host's links: %w", err)
	}
	for _, l := range links {
		heeds, forwards := readSysctl("net/ipv6/conf/"+l.Name()+"/accept_ra"), readSysctl("net/ipv6/conf/"+l.Name()+"/forwarding")
		if l.Name() == "all" || l.Name() == "default" || heeds != "1" || forwards != "0" {
			continue
		}
		if err := sysctl("net/ipv6/conf/"+l.Name()+"/accept_ra", "2"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return sysctl("net/ipv6/conf/all/forwarding", "1")
}

// quiet makes a link of ours one on which the kernel neither looks for neighbours and routers nor listens to any: who is there is known.
func quiet(link string) error {
	for _, s := range [][2]string{{"disable_ipv6", "0"}, {"accept_ra", "0"}, {"accept_dad", "0"}, {"addr_gen_mode", "1"}, {"forwarding", "1"}} {
		if err := sysctl("net/ipv6/conf/"+link+"/"+s[0], s[1]); err != nil {
			return err
		}
	}
	return nil
}
