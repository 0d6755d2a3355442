package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"skiff.dev/skiff/internal/policy"
	"skiff.dev/skiff/internal/proxy"
)

// ruleset owns the cluster's nft table: nobody else writes it, and nothing in it is read but whom it remembers, before it is written as a whole. Every change is
// one transaction.
type ruleset struct {
	log   *slog.Logger
	tries *tries

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
	return &ruleset{log: log, tries: newTries(log), facts: f, table: proxy.NewTable(), policy: policy.NewTable(), base: newBase(f), moved: make(chan struct{}), left: map[netip.Addr]time.Time{}}
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
	r.tries.leadAnew(d.Deserted)
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
	was := r.base.recollect()
	err := r.transact(func(c *nftables.Conn) error {
		r.empty(c)
		if err := r.base.create(c, r.facts); err != nil {
			return err
		}
		err := errors.Join(r.apply(c, &d), r.applyPolicy(c, &p))
		for i, s := range r.base.sides {
			err = errors.Join(err, s.remember(c, &d, was[i]))
		}
		return err
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

// SetNode tells which shares of the pods are this node's.
func (r *ruleset) SetNode(shares []netip.Prefix) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.facts.learn(shares)
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
	if !r.intact {
		return false, nil
	}
	c, err := r.kernel()
	if err != nil {
		return false, err
	}
	if _, err := c.ListTableOfFamily(r.facts.cluster, nftables.TableFamilyINet); !errors.Is(err, unix.ENOENT) {
		if err != nil {
			r.hangUp()
		}
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
	c, err := r.kernel()
	if err != nil {
		return err
	}
	if err = fill(c); err == nil {
		err = c.Flush()
	}
	if err != nil {
		r.hangUp()
	}
	return err
}

// kernel is the socket, opened when there is none.
func (r *ruleset) kernel() (*nftables.Conn, error) {
	if r.conn != nil {
		return r.conn, nil
	}
	c, err := open()
	if err == nil {
		r.conn = c
	}
	return c, err
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
