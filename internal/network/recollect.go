package network

import (
	"slices"
	"time"

	"github.com/google/nftables"

	"skiff.dev/skiff/internal/proxy"
)

// recollections are whom a side of the table in the kernel remembers, before the whole table is written anew: an agent that starts would otherwise
// take from clients with session affinity what an earlier one remembered.
type recollections struct {
	senders []nftables.SetElement
	fronts  map[string][]front // by the number of a session as it is in the kernel
}

// front is a frontend by the key and the space in which the kernel has it.
type front struct {
	outside bool
	key     string
}

// recollect reads them, by side. A table that is not there remembers nobody, and neither does one that cannot be read.
func (b *base) recollect() []recollections {
	out := make([]recollections, len(b.sides))
	c, err := open()
	if err != nil {
		return out
	}
	defer func() { _ = c.CloseLasting() }()
	for i, s := range b.sides {
		out[i] = s.recollect(c)
	}
	return out
}

func (s *side) recollect(c *nftables.Conn) recollections {
	r := recollections{fronts: map[string][]front{}}
	for _, outside := range []bool{false, true} {
		sessions, err := c.GetSetElements(s.space(outside).sessions)
		if err != nil {
			return recollections{}
		}
		for _, e := range sessions {
			r.fronts[string(e.Val)] = append(r.fronts[string(e.Val)], front{outside, string(e.Key)})
		}
	}
	if len(r.fronts) > 0 {
		r.senders, _ = c.GetSetElements(s.remembered) // unread they are forgotten
	}
	return r
}

// remember writes those whose sessions there still are, under the numbers that these have now and for the time that they had left. A session whose time
// became shorter remembers nobody.
func (s *side) remember(c *nftables.Conn, d *proxy.Delta, was recollections) error {
	sessions := map[front]proxy.Session{}
	for f, l := range d.Frontends {
		if s.carries(f.Addr) && l.Session.Keep > 0 {
			sessions[front{f.Outside, string(frontendKey(f))}] = l.Session
		}
	}
	var elements []nftables.SetElement
	written := map[string]bool{}
	for _, e := range was.senders {
		sender, old := e.Key[:s.size()], e.Key[s.size():]
		for _, f := range was.fronts[string(old)] {
			now, known := sessions[f]
			key := append(slices.Clone(sender), number(now.Number)...)
			if !known || e.Timeout > now.Keep || e.Expires < time.Millisecond || written[string(key)] {
				continue
			}
			written[string(key)] = true
			elements = append(elements, nftables.SetElement{Key: key, Val: e.Val, Timeout: e.Expires})
			break
		}
	}
	return addElements(c, s.remembered, elements)
}
