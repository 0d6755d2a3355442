package network

import (
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// A sender is remembered in one map for all sessions, with the backend it went to. Which session a frontend is of, and which backends a session
// may lead to, are looked up likewise. What is remembered of sessions and backends that are gone leads nowhere, and goes when its time is over.

// remembers is how many senders a node remembers at most: of two services the same one counts twice. Who comes when there are more is led as if
// there were no session.
const remembers = 1 << 18

// dynsetDelete is the operation that takes an element out of a map (linux/netfilter/nf_tables.h; not in package unix).
const dynsetDelete = 2

// session is what the rules of a pick hold in registers while they look for whom a sender went to before: sender, session and backend follow
// one another behind a frontend and what is drawn.
type session struct {
	*side
	p                       pick
	sender, number, backend uint32
}

func (s *side) session(p pick) session {
	sender := reg3
	return session{s, p, sender, sender + s.width(), sender + s.width() + 1}
}

// find loads which sender and session it is.
func (s session) find() []expr.Any {
	sessions := s.space(s.p.outside).sessions
	return append(s.loadPicked(s.p),
		&expr.Lookup{SourceRegister: reg0, DestRegister: s.number, IsDestRegSet: true, SetName: sessions.Name, SetID: sessions.ID},
		s.loadSource(s.sender))
}

// recall leads a known sender where it went before, if that still is a backend.
func (s session) recall() []expr.Any {
	return exprs(s.find(), []expr.Any{
		&expr.Lookup{SourceRegister: s.sender, DestRegister: s.backend, IsDestRegSet: true, SetName: s.remembered.Name, SetID: s.remembered.ID},
		&expr.Lookup{SourceRegister: s.number, SetName: s.members.Name, SetID: s.members.ID},
		s.note(unix.NFT_DYNSET_OP_UPDATE),
	}, s.redirect(s.backend))
}

// begin draws a backend and remembers it. An update does not change what is remembered, so that goes first.
func (s session) begin() []expr.Any {
	drawn := append(s.loadPicked(s.p), s.draw(s.p, s.backend)...)
	return exprs(drawn, s.find(), []expr.Any{s.note(dynsetDelete), s.note(unix.NFT_DYNSET_OP_UPDATE)}, s.redirect(s.backend))
}

func (s session) note(operation uint32) expr.Any {
	d := &expr.Dynset{SrcRegKey: s.sender, SrcRegData: s.backend, SetName: s.remembered.Name, SetID: s.remembered.ID, Operation: operation}
	if operation == unix.NFT_DYNSET_OP_UPDATE {
		d.Timeout = s.p.keep
	}
	return d
}

// addMemory adds the map of who is remembered, unless it is there. It is the only one that takes memory before it has elements: 4 MiB.
func (s *side) addMemory(c *nftables.Conn) error {
	if s.keeps {
		return nil
	}
	s.keeps, s.remembered.ID = true, 0
	return c.AddSet(s.remembered, nil)
}

// newMemory is that map. Each sender stays for the time that its session says.
func newMemory(t *nftables.Table, f family) *nftables.Set {
	return &nftables.Set{Table: t, Name: "remembered" + f.digit(), IsMap: true, Dynamic: true, HasTimeout: true, Timeout: 24 * time.Hour, Size: remembers,
		Concatenation: true, KeyType: nftables.MustConcatSetType(f.addrType(), nftables.TypeMark), DataType: f.backendType()}
}

// backendType is an address and a port.
func (f family) backendType() nftables.SetDatatype {
	return nftables.MustConcatSetType(f.addrType(), nftables.TypeInetService)
}

func backend(b netip.AddrPort) []byte { return append(b.Addr().AsSlice(), portBytes(b)...) }

// portBytes is a port as a register holds it: two bytes, filled up to four.
func portBytes(b netip.AddrPort) []byte { return []byte{byte(b.Port() >> 8), byte(b.Port()), 0, 0} }
