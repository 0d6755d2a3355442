package cluster

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is a machine as far as the network is concerned: a network namespace with a loopback and one address, 172.31.0.2 unless it is plugged
// into a Link with others.
type Host struct {
	t      T
	name   string
	handle netns.NsHandle
	ip     string
	ip6    string              // empty on a machine without IPv6, and for hosts that are alone
	port   func(up bool) error // of the link that it is plugged into; nil if there is none
}

// HostIP is every host's own address; hosts of different tests cannot see each other.
const HostIP = "172.31.0.2"

var (
	hosts atomic.Int64
	// slots bounds how many hosts there are at a time; more would only wait for each other's processors.
	slots = make(chan struct{}, 3)
)

// NewHost makes a host that goes with the test.
func NewHost(t T) *Host {
	t.Helper()
	slots <- struct{}{}
	t.Cleanup(func() { <-slots })
	return newHost(t, HostIP, "", func() error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "uplink"})
	})
}

// newHost makes a host of a namespace in which connect has made eth0.
func newHost(t T, ip, ip6 string, connect func() error) *Host {
	t.Helper()
	if !HasIPv6() {
		ip6 = ""
	}
	h := &Host{t: t, ip: ip, ip6: ip6, name: fmt.Sprintf("skifftest-%d-%d", os.Getpid(), hosts.Add(1))}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if h.handle, err = netns.NewNamed(h.name); err != nil { // enters it too
		t.Fatal(err)
	}
	release := hold(func() { _ = netns.DeleteNamed(h.name) })
	t.Cleanup(func() {
		defer release()
		for _, left := range h.leftovers() {
			t.Errorf("left behind on the host: %s", left)
		}
		h.handle.Close()
		if err := netns.DeleteNamed(h.name); err != nil {
			t.Errorf("delete network namespace %s: %v", h.name, err)
		}
	})
	err = h.plug(connect)
	if back := netns.Set(own); back != nil {
		panic(back) // this thread would carry a foreign namespace into other goroutines
	}
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// plug gives the namespace a loopback, a link with an address and a default route.
func (h *Host) plug(connect func() error) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	if err := connect(); err != nil {
		return err
	}
	for _, name := range []string{"eth0", "uplink"} {
		link, err := netlink.LinkByName(name)
		if err != nil && name == "uplink" {
			break // the other end is elsewhere
		}
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
	}
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(h.ip + "/24")
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(eth0, addr); err != nil {
		return err
	}
	if h.ip6 != "" {
		addr, err := netlink.ParseAddr(h.ip6 + "/64")
		if err != nil {
			return err
		}
		addr.Flags = unix.IFA_F_NODAD
		if err := netlink.AddrAdd(eth0, addr); err != nil {
			return err
		}
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.IPv4(172, 31, 0, 1)})
}

// HasIPv6 tells whether this machine's kernel has it.
func HasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// Command runs a program on the host. Only its network differs: mounts and cgroups are this machine's.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + h.name, name}, args...)...)
}

// Dial connects from the host. addr must hold an IP address, not a name.
func (h *Host) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var conn net.Conn
	var dialErr error
	err := h.Do(func() error {
		conn, dialErr = (&net.Dialer{}).DialContext(ctx, network, addr)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return conn, dialErr
}

// Do runs f with this goroutine's thread on the host's network.
func (h *Host) Do(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, err := netns.Get()
	if err != nil {
		return err
	}
	defer own.Close()
	if err := netns.Set(h.handle); err != nil {
		return err
	}
	defer func() {
		if back := netns.Set(own); back != nil {
			panic(back)
		}
	}()
	return f()
}

// HTTP fetches a URL from the host, on a connection of its own.
func (h *Host) HTTP(url string) (string, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, resp.Status, body)
	}
	return string(body), err
}

// leftovers lists links, addresses and nft tables that a cluster left in the host's network.
func (h *Host) leftovers() (left []string) {
	err := h.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			if name := l.Attrs().Name; name != "lo" && name != "eth0" && name != "uplink" {
				left = append(left, "link "+name)
			}
		}
		addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if ip := a.IP.String(); !a.IP.IsLoopback() && !a.IP.IsLinkLocalUnicast() && ip != h.ip && ip != h.ip6 {
				left = append(left, "address "+ip)
			}
		}
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		tables, err := conn.ListTables()
		for _, table := range tables {
			left = append(left, "nft table "+table.Name)
		}
		return err
	})
	if err != nil {
		left = append(left, err.Error())
	}
	return left
}

// leftovers lists what a cluster with this data dir and name still has on the machine, besides its data.
func leftovers(dataDir, name string) (left []string) {
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return append(left, err.Error())
	}
	defer mounts.Close()
	runDir := "/run/skiff/" + name
	for s := bufio.NewScanner(mounts); s.Scan(); {
		if line := s.Text(); strings.Contains(line, dataDir) || name != "" && strings.Contains(line, runDir+"/") {
			left = append(left, "mount "+line)
		}
	}
	left = append(left, processes(dataDir, name)...)
	if name == "" {
		return left
	}
	if _, err := os.Stat(runDir); err == nil {
		left = append(left, "folder "+runDir)
	}
	for _, pattern := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup/*/" + name} {
		found, _ := filepath.Glob(pattern)
		for _, dir := range found {
			left = append(left, "cgroup "+dir)
		}
	}
	return left
}

// processes lists those whose command lines name a cluster's folders.
func processes(dataDir, name string) (found []string) {
	cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range cmdlines {
		raw, err := os.ReadFile(file)
		if line := strings.ReplaceAll(string(raw), "\x00", " "); err == nil && (strings.Contains(line, dataDir) || name != "" && strings.Contains(line, "/run/skiff/"+name+"/")) {
			found = append(found, fmt.Sprintf("process %s: %s", filepath.Base(filepath.Dir(file)), line))
		}
	}
	return found
}

// Sandboxes are the shims that the cluster has on its host, of which every pod that runs has one.
func (c *Cluster) Sandboxes() (shims []string) {
	for _, p := range processes(c.DataDir, c.Name()) {
		if strings.Contains(p, "containerd-shim") {
			shims = append(shims, p)
		}
	}
	return shims
}

// Shims are the process IDs of Sandboxes.
func (c *Cluster) Shims() (pids []int) {
	for _, p := range c.Sandboxes() {
		var pid int
		if _, err := fmt.Sscanf(p, "process %d:", &pid); err != nil {
			c.t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}
