package network

import (
	"context"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// TestWithdraw is a pod's way out of its services, as the kubelet waits for it.
func TestWithdraw(t *testing.T) {
	w := newWorld(t, true)
	leaves, stays := netip.MustParseAddr("10.42.0.7"), netip.MustParseAddr("10.42.0.8")
	slice := func(ending ...netip.Addr) *discoveryv1.EndpointSlice {
		s := endpoints("s", leaves, stays)
		for i := range s.Endpoints {
			for _, a := range ending {
				if no, yes := false, true; s.Endpoints[i].Addresses[0] == a.String() {
					s.Endpoints[i].Conditions = discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}
				}
			}
		}
		return s
	}
	took := func(a netip.Addr) time.Duration {
		begin := time.Now()
		w.net.Withdraw(context.Background(), []netip.Addr{a})
		return time.Since(begin)
	}
	if d := took(leaves); d > underWay {
		t.Errorf("a pod behind no service was waited for: %s", d)
	}
	serves := func(a netip.Addr) bool {
		serves, _, _ := w.net.rules.withdrawn([]netip.Addr{a})
		return serves
	}
	w.client.put(service("s", "10.43.0.20", func(s *corev1.Service) {}), slice())
	eventually(t, "both serve", func() bool { return serves(leaves) && serves(stays) })
	done := make(chan time.Duration)
	go func() { done <- took(leaves) }()
	w.client.put(slice(leaves))
	if d := <-done; d < underWay || d >= withdrawPatience || serves(leaves) {
		t.Errorf("took %s; still served: %t", d, serves(leaves))
	}
	w.client.put(slice(leaves, stays)) // nobody is left: they are led to all the same, and not waited for
	eventually(t, "both are on their way out", func() bool { return !serves(stays) })
	w.client.put(slice())
	eventually(t, "both serve again", func() bool { return serves(leaves) })
	if d := took(leaves); d < withdrawPatience {
		t.Errorf("a pod that serves was given up after %s", d)
	}
}

// TestDrain is a busy program: it accepts nothing for a while, and is not told to stop before it does.
func TestDrain(t *testing.T) {
	w := newWorld(t, true)
	pod := w.pod("busy", "")
	var l net.Listener
	pod.in(func() {
		var err error
		if l, err = net.Listen("tcp", ":8080"); err != nil {
			t.Fatal(err)
		}
	})
	defer l.Close()
	c, err := net.Dial("tcp", netip.AddrPortFrom(pod.addr, 8080).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan struct{})
	go func() {
		w.net.drain(t.Context(), []netip.Addr{pod.addr})
		close(done)
	}()
	unfinished := func(why string) {
		select {
		case <-done:
			t.Fatal("drained while " + why)
		case <-time.After(10 * drainPoll):
		}
	}
	unfinished("a connection waited to be accepted")
	taken, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	unfinished("a request was to be expected")
	if _, err := c.Write([]byte("GET")); err != nil {
		t.Fatal(err)
	}
	unfinished("a request waited to be read")
	if _, err := io.ReadFull(taken, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("never drained")
	}
}

func TestUnanswered(t *testing.T) {
	for name, c := range map[string]struct {
		info *netlink.TCPInfo
		want bool
	}{
		"the kernel does not say":        {nil, false},
		"just connected":                 {&netlink.TCPInfo{Last_data_recv: 5, Last_data_sent: 5}, true},
		"connected and silent":           {&netlink.TCPInfo{Last_data_recv: 2000, Last_data_sent: 2000}, false},
		"greeted":                        {&netlink.TCPInfo{Last_data_recv: 5, Last_data_sent: 5, Bytes_sent: 9}, false},
		"the first request":              {&netlink.TCPInfo{Last_data_recv: 5, Last_data_sent: 5, Bytes_received: 9}, true},
		"a request on a kept connection": {&netlink.TCPInfo{Last_data_recv: 5, Last_data_sent: 900, Bytes_received: 9, Bytes_sent: 9}, true},
		"an answer":                      {&netlink.TCPInfo{Last_data_recv: 6, Last_data_sent: 5, Bytes_received: 9, Bytes_sent: 9}, false},
		"a request that takes its time":  {&netlink.TCPInfo{Last_data_recv: 2000, Last_data_sent: 9000, Bytes_received: 9}, false},
	} {
		if got := unanswered(c.info); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
