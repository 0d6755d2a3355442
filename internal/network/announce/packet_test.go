package announce

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
)

var (
	mine   = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	theirs = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	addr   = netip.MustParseAddr("192.0.2.10")
	client = netip.MustParseAddr("192.0.2.99")
)

func ask(target netip.Addr) packet {
	return packet{to: everybody, op: request, senderMAC: theirs, sender: client, targetMAC: make(net.HardwareAddr, 6), target: target}
}

func TestFrames(t *testing.T) {
	question := ask(addr)
	raw := question.frame()
	if got, want := hex.EncodeToString(raw), "ffffffffffff0200000000020806"+"0001080006040001"+"020000000002c0000263"+"000000000000c000020a"; got != want {
		t.Errorf("a request is\n%s, want\n%s", got, want)
	}
	read, ok := parse(append(raw, make([]byte, 18)...)) // frames are padded on the way
	if !ok || !bytes.Equal(read.frame(), raw) {
		t.Errorf("read back: %+v", read)
	}
	if got, want := hex.EncodeToString(read.answer(mine).frame()), "0200000000020200000000010806"+"0001080006040002"+"020000000001c000020a"+"020000000002c0000263"; got != want {
		t.Errorf("the answer is\n%s, want\n%s", got, want)
	}
	for name, bad := range map[string][]byte{"short": raw[:41], "IPv4": append(append(append([]byte{}, raw[:12]...), 8, 0), raw[14:]...), "no Ethernet": append(append(append([]byte{}, raw[:14]...), 0, 6), raw[16:]...)} {
		if _, ok := parse(bad); ok {
			t.Errorf("%s is taken for ARP", name)
		}
	}
}

func TestFilter(t *testing.T) {
	raw, err := filter(addr, addr.Next())
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
		packet packet
		passes bool
	}{
		"first":  {ask(addr), true},
		"last":   {ask(addr.Next()), true},
		"below":  {ask(addr.Prev()), false},
		"above":  {ask(addr.Next().Next()), false},
		"answer": {ask(addr).answer(mine), false},
	} {
		if n, err := vm.Run(c.packet.frame()); err != nil || (n > 0) != c.passes {
			t.Errorf("%s: %d, %v", name, n, err)
		}
	}
}
