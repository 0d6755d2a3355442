package network

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"skiff.dev/skiff/internal/policy"
	"skiff.dev/skiff/internal/proxy"
)

// ruleset owns the cluster's nft table: nobody else writes it, and it is never read. Every change is one transaction.
type ruleset struct {
	log *slog.Logger

	mu     sync.Mutex
	facts  facts
	table  *proxy.Table
	policy *policy.Table
	base   *base
	begun  bool                     // the table has been asked for; until then what an earlier agent wrote stays
	moved  chan struct{}            // closed at the next change
	left   map[netip.Addr]time.Time // when backends on this node were withdrawn, for a while
	intact bool                     // the kernel holds what table held when its changes were last taken
	conn   *nftables.Conn           // nil until it is needed, and after a failure
}

func newRuleset(f facts, log *slog.Logger) *ruleset {
	return &ruleset{log: log, facts: f, table: proxy.NewTable(), policy: policy.NewTable(), base: newBase(f.cluster), moved: make(chan struct{}), left: map[netip.Addr]time.Time{}}
}

// Prepare changes the table without writing it, before the first Change.
func (r *ruleset) Prepare(change func(*proxy.Table, *policy.Table)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r.table, r.policy)
}

// Change changes the table and puts the difference into the kernel. When the kernel does not take it, the whole table is written anew; an
// error means that this failed too, and that the next change will try again.
func (r *ruleset) Change(change func(*proxy.Table, *policy.Table)) error {
	r.mu.Lock()
	r.begun = true
	change(r.table, r.policy)
	d, err := r.write()
	if err == nil {
		r.noteWithdrawn(d.Withdrawn)
	}
	r.mu.Unlock()
	if err != nil {
		return err
	}
	forgetConnections(&d, r.log)
	return nil
}

func (r *ruleset) write() (proxy.Delta, error) {
	var failed error
	var lost []netip.Addr
	if r.intact {
		d, p := r.table.Take(), r.policy.Take()
		if d.Empty() && p.Empty() {
			return d, nil
		}
		if failed = r.transact(func(c *nftables.Conn) error { return errors.Join(r.apply(c, &d), r.applyPolicy(c, &p)) }); failed == nil {
			return d, nil
		}
		r.intact, lost = false, d.Withdrawn
	}
	d, p := r.table.All(), r.policy.All()
	d.Withdrawn = append(d.Withdrawn, lost...)
	err := r.transact(func(c *nftables.Conn) error {
		r.empty(c)
		if err := r.base.create(c, r.facts); err != nil {
			return err
		}
		return errors.Join(r.apply(c, &d), r.applyPolicy(c, &p))
	})
	if err != nil {
		return d, fmt.Errorf("write nft table %s: %w", r.facts.cluster, errors.Join(err, failed))
	}
	if failed != nil {
		r.log.Warn("a change of the nft table was refused; wrote the whole table", "err", failed)
	}
	r.intact = true
	return d, nil
}

// empty deletes the table. Deleting what is not there fails, so it is added first.
func (r *ruleset) empty(c *nftables.Conn) {
	c.AddTable(r.base.table)
	c.DelTable(r.base.table)
}

// SetNode tells which share of the pods is this node's.
func (r *ruleset) SetNode(pods netip.Prefix, gateway netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.facts.nodePods, r.facts.gateway = pods, gateway
	if !r.begun {
		return nil
	}
	if r.intact {
		err := r.transact(func(c *nftables.Conn) error { r.base.rewriteWayOut(c, r.facts); return nil })
		if err == nil {
			return nil
		}
		r.intact = false
	}
	_, err := r.write()
	return err
}

// Restore writes the whole table again if somebody else deleted it; deleted tells whether that was so.
func (r *ruleset) Restore() (deleted bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("open nftables: %w", err)
	}
	if _, err := c.ListTableOfFamily(r.facts.cluster, nftables.TableFamilyINet); !r.intact || !errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	r.log.Warn("somebody deleted the nft table; writing it again")
	r.intact = false
	_, err = r.write()
	return true, err
}

// Delete removes the table.
func (r *ruleset) Delete() error {
	defer r.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.transact(func(c *nftables.Conn) error { r.empty(c); return nil })
}

// transact sends what fill puts together as one transaction. The socket stays open from one to the next, for to close it is to wait until the kernel has
// cleared away what the transaction replaced: 12 ms and more. After a failure there may be answers left in it, so the next one is new.
func (r *ruleset) transact(fill func(*nftables.Conn) error) error {
	if r.conn == nil {
		c, err := open()
		if err != nil {
			return err
		}
		r.conn = c
	}
	err := fill(r.conn)
	if err == nil {
		err = r.conn.Flush()
	}
	if err != nil {
		r.hangUp()
	}
	return err
}

func open() (*nftables.Conn, error) {
	const size = 512 << 20 // the kernel answers every single message; the buffers take memory only as they fill
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(s *netlink.Conn) error {
		return errors.Join(s.SetReadBuffer(size), s.SetWriteBuffer(size))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return c, nil
}

// Close lets go of the kernel. The table stays, and a later change opens the way to it anew.
func (r *ruleset) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hangUp()
}

func (r *ruleset) hangUp() {
	if r.conn != nil {
		_ = r.conn.CloseLasting() // nothing is on its way
		r.conn = nil
	}
}

// apply orders a delta's steps so that everything a step names exists: what is new comes first, what is gone goes last.
func (r *ruleset) apply(c *nftables.Conn, d *proxy.Delta) error {
	b := r.base
	for _, name := range d.NewChains {
		c.AddChain(b.chain(name))
	}
	// A chain that changes its memory is emptied before the old memory can go.
	for name := range d.Chains {
		c.FlushChain(b.chain(name))
	}
	for _, name := range d.GoneChains {
		c.FlushChain(b.chain(name))
	}
	for _, name := range d.GoneMemory {
		c.DelSet(&nftables.Set{Table: b.table, Name: name})
	}
	for name, keep := range d.Memory {
		if err := c.AddSet(memory(b.table, name, keep), nil); err != nil {
			return err
		}
	}
	for name, rules := range d.Chains {
		for _, rule := range rules {
			if err := r.addRule(c, name, rule); err != nil {
				return fmt.Errorf("chain %s: %w", name, err)
			}
		}
	}
	if err := r.applyFrontends(c, d); err != nil {
		return err
	}
	if err := deleteElements(c, b.hairpin, hairpinElements(d.GoneLoops)); err != nil {
		return err
	}
	if err := addElements(c, b.hairpin, hairpinElements(d.Loops)); err != nil {
		return err
	}
	for _, name := range d.GoneChains {
		c.DelChain(b.chain(name))
	}
	return nil
}

func (r *ruleset) applyFrontends(c *nftables.Conn, d *proxy.Delta) error {
	var gone, now [2][]nftables.SetElement // of frontends, of nodePorts
	put := func(list *[2][]nftables.SetElement, f proxy.Frontend, target string) {
		which, e := 0, nftables.SetElement{VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: target}}
		e.Key = append(f.Addr.AsSlice(), byte(f.Protocol), 0, 0, 0, byte(f.Port>>8), byte(f.Port), 0, 0)
		if !f.Addr.IsValid() {
			which = 1
		}
		if target == "" {
			e.VerdictData = nil // the key says which element goes
		}
		list[which] = append(list[which], e)
	}
	for _, f := range d.GoneFrontends {
		put(&gone, f, "")
	}
	for f, target := range d.Frontends {
		if d.Old[f] {
			put(&gone, f, "")
		}
		put(&now, f, target)
	}
	for i, set := range []*nftables.Set{r.base.frontends, r.base.nodePorts} {
		if err := deleteElements(c, set, gone[i]); err != nil {
			return err
		}
		if err := addElements(c, set, now[i]); err != nil {
			return err
		}
	}
	return nil
}

func hairpinElements(addrs []netip.Addr) (out []nftables.SetElement) {
	for _, a := range addrs {
		out = append(out, nftables.SetElement{Key: append(a.AsSlice(), a.AsSlice()...)})
	}
	return out
}

// elementsPerMessage keeps a list of elements below the 64 KiB that a netlink attribute can hold, with the longest chain names.
const elementsPerMessage = 180

func addElements(c *nftables.Conn, s *nftables.Set, all []nftables.SetElement) error {
	return inChunks(all, func(e []nftables.SetElement) error { return c.SetAddElements(s, e) })
}

func deleteElements(c *nftables.Conn, s *nftables.Set, all []nftables.SetElement) error {
	return inChunks(all, func(e []nftables.SetElement) error { return c.SetDeleteElements(s, e) })
}

func inChunks(all []nftables.SetElement, do func([]nftables.SetElement) error) error {
	for len(all) > 0 {
		n := min(len(all), elementsPerMessage)
		if err := do(all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

var typeBackend = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)

// memory is the map in which a chain remembers where it sent whom.
func memory(t *nftables.Table, chain string, keep time.Duration) *nftables.Set {
	return &nftables.Set{Table: t, Name: chain, IsMap: true, Dynamic: true, HasTimeout: true, Timeout: keep, Size: 65535,
		KeyType: nftables.TypeIPAddr, DataType: typeBackend}
}

// addRule translates one rule of the table's model.
func (r *ruleset) addRule(c *nftables.Conn, chain string, rule proxy.Rule) error {
	var match []expr.Any
	if rule.From.IsValid() {
		match = append(match, from(rule.From)...)
	}
	if rule.FromHost {
		match = append(match, isLocal(true, false)...)
	}
	if rule.Masquerade {
		match = append(match, mark()...)
	}
	if rule.Goto != "" {
		r.base.rule(c, chain, match, gotoChain(rule.Goto))
		return nil
	}
	if rule.Sticky > 0 {
		if err := r.addRecall(c, chain, match, rule); err != nil {
			return err
		}
	}
	return r.addBalance(c, chain, match, rule)
}

// addRecall sends a known sender where it went before, if that backend still is one.
func (r *ruleset) addRecall(c *nftables.Conn, chain string, match []expr.Any, rule proxy.Rule) error {
	for part := range chunks(rule.To) {
		still := &nftables.Set{Table: r.base.table, Anonymous: true, Constant: true, KeyType: typeBackend}
		var elements []nftables.SetElement
		for _, b := range part {
			elements = append(elements, nftables.SetElement{Key: backend(b)})
		}
		if err := c.AddSet(still, elements); err != nil {
			return err
		}
		r.base.rule(c, chain, match, []expr.Any{
			loadSource(reg0),
			&expr.Lookup{SourceRegister: reg0, DestRegister: reg1, IsDestRegSet: true, SetName: chain},
			&expr.Lookup{SourceRegister: reg1, SetName: still.Name, SetID: still.ID},
			&expr.Dynset{SrcRegKey: reg0, SrcRegData: reg1, SetName: chain, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: rule.Sticky},
		}, redirect(reg1, reg2))
	}
	return nil
}

// dynsetDelete is the operation that takes an element out of a map (linux/netfilter/nf_tables.h; not in package unix).
const dynsetDelete = 2

// addBalance sends a packet to any backend, each with the same probability. More backends than one map can be created with are spread over
// several rules: each draws among those that are left.
func (r *ruleset) addBalance(c *nftables.Conn, chain string, match []expr.Any, rule proxy.Rule) error {
	left := len(rule.To)
	for part := range chunks(rule.To) {
		choice := []expr.Any{&expr.Immediate{Register: reg1, Data: rule.To[0].Addr().AsSlice()},
			&expr.Immediate{Register: reg2, Data: portBytes(rule.To[0])}}
		if len(rule.To) > 1 {
			choose := &nftables.Set{Table: r.base.table, Anonymous: true, Constant: true, IsMap: true, KeyType: nftables.TypeInteger, DataType: typeBackend}
			var elements []nftables.SetElement
			for i, b := range part {
				elements = append(elements, nftables.SetElement{Key: number(uint32(i)), Val: backend(b)})
			}
			if err := c.AddSet(choose, elements); err != nil {
				return err
			}
			choice = []expr.Any{
				&expr.Numgen{Register: reg3, Modulus: uint32(left), Type: unix.NFT_NG_RANDOM},
				&expr.Lookup{SourceRegister: reg3, DestRegister: reg1, IsDestRegSet: true, SetName: choose.Name, SetID: choose.ID},
			}
		}
		if rule.Sticky > 0 {
			// An update does not change what is remembered, so that goes first.
			choice = append(choice, loadSource(reg0),
				&expr.Dynset{SrcRegKey: reg0, SrcRegData: reg1, SetName: chain, Operation: dynsetDelete},
				&expr.Dynset{SrcRegKey: reg0, SrcRegData: reg1, SetName: chain, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: rule.Sticky})
		}
		r.base.rule(c, chain, match, choice, redirect(reg1, reg2))
		left -= len(part)
	}
	return nil
}

// chunks cuts backends into lists that fit into one message.
func chunks(all []netip.AddrPort) iter.Seq[[]netip.AddrPort] { return slices.Chunk(all, 1000) }

func backend(b netip.AddrPort) []byte { return append(b.Addr().AsSlice(), portBytes(b)...) }

// portBytes is a port as a register holds it: two bytes, filled up to four.
func portBytes(b netip.AddrPort) []byte { return []byte{byte(b.Port() >> 8), byte(b.Port()), 0, 0} }
