package proxy

import (
	"net/netip"
	"slices"
	"time"
)

// Lead is where a frontend leads: to one of several backends, each as likely as the others, or nowhere. Whatever a service asks for, it costs no
// objects of its own in the kernel: its backends lie in numbered places of one map for all services, those that are remembered for a sender in
// another, and a change of its backends is a few elements.
type Lead struct {
	To         []netip.AddrPort // sorted in a Part, by place in a Table
	Drop       bool             // without a backend the sender is not told, because another node may answer; else it is
	Session    Session          // zero: each connection goes where it falls
	Masquerade Masquerade
	Ranges     []netip.Prefix // where senders may be; none: anywhere. Sorted.
}

// Masquerade says whose packets get an address of this node for their source, so that the answer comes back through it.
type Masquerade uint8

const (
	MasqueradeNobody Masquerade = iota
	MasqueradeAll
	MasqueradeNode // what this node itself sends, and pods do not
)

// Session has a sender go to the backend it went to before, if that still is one.
type Session struct {
	Name   string        // frontends of the same name and time lead to the same backends, and remember together. No two parts have one of the same name.
	Keep   time.Duration // for how long after the last connection; 0: there is no session
	Number uint32        // by which the kernel knows it, and no other; a Table's
}

// Member is a backend that a session may lead to.
type Member struct {
	Session uint32
	Backend netip.AddrPort
}

// Range is where senders may be that a frontend serves.
type Range struct {
	Frontend
	From netip.Prefix
}

// Place is where one of a frontend's backends lies.
type Place struct {
	Frontend
	Index int
}

func (l Lead) equal(o Lead) bool {
	return l.Drop == o.Drop && l.Session == o.Session && l.Masquerade == o.Masquerade && slices.Equal(l.To, o.To) && slices.Equal(l.Ranges, o.Ranges)
}

func (l Lead) answers() bool { return len(l.To) > 0 }

// arrange puts backends, which are sorted, into places. Who has one stays there, unless it is past the end.
func arrange(held, all []netip.AddrPort) []netip.AddrPort {
	if len(held) == 0 {
		return all
	}
	out, placed := make([]netip.AddrPort, len(all)), make([]bool, len(all))
	for i, b := range held[:min(len(held), len(all))] {
		if at, stays := slices.BinarySearchFunc(all, b, netip.AddrPort.Compare); stays {
			out[i], placed[at] = b, true
		}
	}
	free := 0
	for at, b := range all {
		if placed[at] {
			continue
		}
		for out[free].IsValid() {
			free++
		}
		out[free] = b
	}
	return out
}

// replaced are the places whose backend is another one now.
func replaced(f Frontend, was, now []netip.AddrPort) (out []Place) {
	for i := range min(len(was), len(now)) {
		if was[i] != now[i] {
			out = append(out, Place{f, i})
		}
	}
	return out
}

// places are those from one index up to another.
func places(f Frontend, from, to int) (out []Place) {
	for i := from; i < to; i++ {
		out = append(out, Place{f, i})
	}
	return out
}

// ranges are those of some frontends which the same frontends did not have. What comes from outside has those of the frontend beside.
func ranges(of, had map[Frontend]Lead) (out []Range) {
	for f, l := range of {
		if f.Outside {
			continue
		}
		for _, r := range l.Ranges {
			if !slices.Contains(had[f].Ranges, r) {
				out = append(out, Range{f, r})
			}
		}
	}
	return out
}
