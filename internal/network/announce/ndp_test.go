package announce

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

var (
	addr6   = netip.MustParseAddr("fd00::10")
	client6 = netip.MustParseAddr("fd00::99")
)

// solicit is what a host at theirs asks.
func solicit(target, from netip.Addr) []byte {
	group := solicitedNode(target)
	f := advertise(target, theirs, group, groupMAC(group), 0)
	f[offICMP], f[offICMP+4] = solicitation, 0
	copy(f[offIPv6+8:], from.AsSlice())
	f[sizeAsked] = optionSource
	if from.IsUnspecified() { // who has no address yet gives no hardware address either
		f = f[:sizeAsked]
		binary.BigEndian.PutUint16(f[offIPv6+4:], sizeAsked-offICMP)
	}
	return f
}

func TestAdvertisements(t *testing.T) {
	here := func(a netip.Addr) bool { return a == addr6 }
	got := answerNDP(solicit(addr6, client6), here, mine)
	want := "020000000002" + "020000000001" + "86dd" + // Ethernet
		"6000000000203aff" + "fd000000000000000000000000000010" + "fd000000000000000000000000000099" + // IPv6
		"8800" + "1be7" + "60000000" + "fd000000000000000000000000000010" + "0201020000000001" // solicited, in place of what was known
	if hex.EncodeToString(got) != want {
		t.Errorf("the answer is\n%x, want\n%s", got, want)
	}
	if checksum(got) != 0 {
		t.Error("its checksum is wrong")
	}
	defends := answerNDP(solicit(addr6, netip.IPv6Unspecified()), here, mine)
	if !bytes.Equal(defends, tellNDP(addr6, mine)[0]) || !bytes.Equal(defends[:6], []byte{0x33, 0x33, 0, 0, 0, 1}) || defends[offICMP+4] != flagOverride {
		t.Errorf("who wants the address is told\n%x", defends)
	}
	question := solicit(addr6, client6)
	change := func(at int, to byte) []byte {
		c := bytes.Clone(question)
		c[at] = to
		return c
	}
	for name, bad := range map[string][]byte{
		"another address": solicit(client6, client6), "short": question[:sizeAsked-1], "an advertisement": change(offICMP, advertisement),
		"from beyond the link": change(offIPv6+7, 64), "UDP": change(offIPv6+6, unix.IPPROTO_UDP), "an option without a size": change(sizeAsked+1, 0),
		"an option past the end": change(sizeAsked+1, 2),
	} {
		if a := answerNDP(bad, here, mine); a != nil {
			t.Errorf("%s is answered: %x", name, a)
		}
	}
}

func TestFilterOfQuestions(t *testing.T) {
	raw, err := filterNDP(map[netip.Addr]int{addr6: 1, addr6.Next(): 1})
	if err != nil {
		t.Fatal(err)
	}
	var program []bpf.Instruction
	for _, r := range raw {
		program = append(program, bpf.RawInstruction{Op: r.Code, Jt: r.Jt, Jf: r.Jf, K: r.K}.Disassemble())
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		frame  []byte
		passes bool
	}{
		"first":  {solicit(addr6, client6), true},
		"last":   {solicit(addr6.Next(), client6), true},
		"below":  {solicit(addr6.Prev(), client6), false},
		"above":  {solicit(addr6.Next().Next(), client6), false},
		"answer": {tellNDP(addr6, mine)[0], false},
	} {
		if n, err := vm.Run(c.frame); err != nil || (n > 0) != c.passes {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}

// TestKernelIsAnswered: the kernel, on the other end of the cable, finds an address of each family, and follows it to another host.
func TestKernelIsAnswered(t *testing.T) {
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		t.Skip("this kernel has no IPv6")
	}
	here, there := wire(t)
	link, err := netlink.LinkByIndex(there.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, cidr := range []string{"192.0.2.99/24", "fd00::99/64"} {
		a, err := netlink.ParseAddr(cidr)
		if err != nil {
			t.Fatal(err)
		}
		if a.IP.To4() == nil {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, a); err != nil {
			t.Fatal(err)
		}
	}
	a := New("a", func(netip.Addr) (int, error) { return here.Index, nil }, slog.New(slog.DiscardHandler))
	defer a.Close()
	a.Alive(time.Now().Add(time.Hour))
	web := types.NamespacedName{Name: "web"}
	a.Follow(map[types.NamespacedName]*corev1.Service{web: service("a", addr, addr6)})
	for _, target := range []netip.Addr{addr, addr6} {
		knows := func() net.HardwareAddr {
			all, err := netlink.NeighList(there.Index, netlink.FAMILY_ALL)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range all {
				if n.IP.Equal(target.AsSlice()) {
					return n.HardwareAddr
				}
			}
			return nil
		}
		until := func(mac net.HardwareAddr) {
			t.Helper()
			for end := time.Now().Add(time.Minute); !bytes.Equal(knows(), mac); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the kernel has %s at %q, want %s", target, knows(), mac)
				}
				if c, err := net.Dial("udp", netip.AddrPortFrom(target, 9).String()); err == nil {
					_, _ = c.Write([]byte("?"))
					c.Close()
				}
			}
		}
		until(here.HardwareAddr)
		frame := protocolOf(target).tell(target, theirs)[0]
		sock, err := listen(here.Index)
		if err == nil {
			err = bind(sock, here.Index, protocolOf(target).etherType)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sock.Write(frame); err != nil { // another node takes over
			t.Fatal(err)
		}
		sock.Close()
		until(theirs)
	}
	a.Follow(map[types.NamespacedName]*corev1.Service{web: nil})
	if len(a.links) != 0 || len(a.held) != 0 {
		t.Errorf("left open: %v, %v", a.links, a.held)
	}
}
