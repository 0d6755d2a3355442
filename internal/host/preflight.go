package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"skiff.dev/skiff/internal/apiserver/admission"
	"skiff.dev/skiff/internal/apiserver/admission/dynamic"
	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/controller"
)

// programs are the ones that must lie beside the skiff binary for the embedded runtime and the pod network.
var programs = []string{"containerd-shim-runc-v2", "runc", "skiff-cni", "pause", "skiff-web"}

// preflight finds what would make a start fail half-way, before anything has been started.
func preflight(c *config.Config, binDir string) error {
	if os.Geteuid() != 0 {
		return errors.New("skiff runs containers and must be root; run it with sudo")
	}
	if err := controller.Check(c.Controllers); err != nil {
		return err
	}
	if _, _, err := admission.New(admission.Config{
		Enable: c.EnableAdmission, Disable: c.DisableAdmission, File: c.AdmissionConfig, Configure: dynamic.New().Configure(),
	}); err != nil {
		return err
	}
	if _, err := schedulerSettings(c); err != nil {
		return err
	}
	if c.NoAgent {
		return nil
	}
	if err := checkPrograms(c, binDir); err != nil {
		return err
	}
	return checkKernel()
}

func checkPrograms(c *config.Config, binDir string) error {
	needed := programs
	if c.CRIEndpoint != "" {
		needed = []string{"skiff-cni"}
	}
	for _, name := range needed {
		st, err := os.Stat(filepath.Join(binDir, name))
		if err != nil {
			return fmt.Errorf("the program %s is missing beside skiff in %s; build it with make, or install all of skiff's programs into one folder", name, binDir)
		}
		if st.Mode()&0o111 == 0 {
			return fmt.Errorf("%s cannot be executed; chmod +x it", filepath.Join(binDir, name))
		}
	}
	return nil
}

// checkKernel looks for what pods cannot do without. A module may be loaded on first use, so only a file system's or family's
// plain absence after trying counts.
func checkKernel() error {
	raw, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return fmt.Errorf("read the kernel's file systems: %w; is /proc mounted?", err)
	}
	for _, need := range []string{"proc", "sysfs", "tmpfs"} {
		if !slices.Contains(strings.Fields(string(raw)), need) {
			return fmt.Errorf("the kernel has no %s file system, which containers need; use a kernel that has it", need)
		}
	}
	if _, err := os.Stat("/sys/fs/cgroup"); err != nil {
		return errors.New("there are no cgroups at /sys/fs/cgroup; mount them (cgroup v2: mount -t cgroup2 none /sys/fs/cgroup)")
	}
	for _, ns := range []string{"net", "pid", "ipc", "uts", "mnt"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			return fmt.Errorf("the kernel has no %s namespaces (CONFIG_NAMESPACES), which containers need; use a kernel that has them", ns)
		}
	}
	s, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("the kernel has no netfilter (CONFIG_NF_TABLES), which services need: %w; use a kernel that has it", err)
	}
	return syscall.Close(s)
}

// listen opens the API server's port, so that a taken one is known before anything starts.
func listen(key, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is taken by another program; stop it, or give another --%s", key, addr, key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: %s is not an address of this host; give another --%s", key, addr, key)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return l, nil
}

// nodeIPs are this host's addresses, of those families in which pods have addresses, in their order. A host that has none of these has one of
// the other family, and one without any network loopback.
func nodeIPs(pods []netip.Prefix) (out []netip.Addr, err error) {
	for _, p := range pods {
		a, err := nodeIP(p.Addr().Is6())
		if err != nil {
			return nil, err
		}
		if a.IsValid() {
			out = append(out, a)
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	if a, err := nodeIP(!pods[0].Addr().Is6()); err != nil || a.IsValid() {
		return []netip.Addr{a}, err
	}
	if pods[0].Addr().Is6() {
		return []netip.Addr{netip.IPv6Loopback()}, nil
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, nil
}

// nodeIP is the address of the default route's link, else the first address that others could reach; zero if there is none.
func nodeIP(six bool) (netip.Addr, error) {
	family := netlink.FAMILY_V4
	if six {
		family = netlink.FAMILY_V6
	}
	if routes, err := netlink.RouteListFiltered(family, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST); err == nil {
		for _, r := range routes {
			if r.Src != nil {
				a, _ := netip.AddrFromSlice(r.Src)
				return a.Unmap(), nil
			}
			if link, err := netlink.LinkByIndex(r.LinkIndex); err == nil {
				if a, ok := firstAddr(link, family); ok {
					return a, nil
				}
			}
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list this host's links: %w", err)
	}
	for _, link := range links {
		// Addresses on bridges and container links are not this host's own.
		if link.Attrs().Flags&net.FlagUp == 0 || link.Attrs().Flags&net.FlagLoopback != 0 || link.Type() == "bridge" {
			continue
		}
		if a, ok := firstAddr(link, family); ok {
			return a, nil
		}
	}
	return netip.Addr{}, nil
}

// firstAddr is a link's first address that others could reach for as long as the host lives.
func firstAddr(link netlink.Link, family int) (netip.Addr, bool) {
	const passing = unix.IFA_F_TEMPORARY | unix.IFA_F_DEPRECATED | unix.IFA_F_DADFAILED
	addrs, err := netlink.AddrList(link, family)
	if err != nil {
		return netip.Addr{}, false
	}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if ip = ip.Unmap(); ok && ip.IsGlobalUnicast() && !ip.IsLinkLocalUnicast() && (ip.Is4() || a.Flags&passing == 0) {
			return ip, true
		}
	}
	return netip.Addr{}, false
}
