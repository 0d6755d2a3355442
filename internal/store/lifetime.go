package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// lifetime hands out the etcd leases that take transient values away when their time is over. One lease is for all that is written within a twentieth of that
// time, a thousand values at most: a cluster then has few leases, and none takes much away at once.
type lifetime struct {
	turn  chan struct{} // whoever looks at the rest holds its one place; those who wait for it give up with their requests
	id    clientv3.LeaseID
	until time.Time // what is written from then on needs a younger one
	given int
}

const (
	leasesPerLife = 20
	leaseValues   = 1000
	// grantPatience bounds how long etcd may take for a lease: nobody else gets one meanwhile.
	grantPatience = 5 * time.Second
)

// lease for a value of c that is written now: it ends after Config.Life, and a twentieth of that later at the latest. 0: the value stays.
func (c *Collection) lease(ctx context.Context) (clientv3.LeaseID, error) {
	life := c.s.cfg.Life
	if !c.Resource().Transient || life <= 0 {
		return 0, nil
	}
	l := &c.s.life
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return 0, fmt.Errorf("wait for a lease of etcd's: %w", ctx.Err())
	}
	now := time.Now()
	if l.id == 0 || l.given >= leaseValues || !now.Before(l.until) {
		slack := life / leasesPerLife
		ctx, cancel := context.WithTimeout(ctx, grantPatience)
		defer cancel()
		granted, err := c.s.cfg.Client.Grant(ctx, int64((life+slack+time.Second-1)/time.Second))
		if err != nil {
			return 0, fmt.Errorf("take a lease from etcd: %w", err)
		}
		l.id, l.until, l.given = granted.ID, now.Add(slack), 0
	}
	l.given++
	return l.id, nil
}

// forgetLease is for one that etcd no longer has: a restored snapshot knows others.
func (s *Store) forgetLease(id clientv3.LeaseID) {
	s.life.turn <- struct{}{}
	defer func() { <-s.life.turn }()
	if s.life.id == id {
		s.life.id = 0
	}
}

// transactLeased is transact with the first put under a lease, if values of c have one.
func (c *Collection) transactLeased(ctx context.Context, operation string, t *transaction) (*etcdserverpb.TxnResponse, error) {
	for first := true; ; first = false {
		lease, err := c.lease(ctx)
		if err != nil {
			return nil, err
		}
		t.then[0].GetRequestPut().Lease = int64(lease)
		resp, err := c.transact(ctx, operation, t)
		if lost := errors.Is(err, rpctypes.ErrLeaseNotFound) || errors.Is(err, rpctypes.ErrGRPCLeaseNotFound); !lost || !first {
			return resp, err
		}
		c.s.forgetLease(lease)
	}
}
