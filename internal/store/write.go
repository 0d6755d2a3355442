package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
)

// pendingWrite is a write whose event the watch has yet to bring. The watch makes the entry, once, out of the object that was written.
type pendingWrite struct {
	obj   api.Object
	value []byte // the encoding
	saved []byte // what etcd gets of it
	rule  uint32 // by which it is encrypted
	entry *Entry
}

func (p *pendingWrite) is(value []byte) bool { return bytes.Equal(p.saved, value) }

// Create writes a new object. It fails with AlreadyExists when the key is taken. The object belongs to the store from then on.
func (c *Collection) Create(ctx context.Context, key string, obj api.Object, and ...Beside) (*Entry, error) {
	return c.put(ctx, key, nil, obj, and)
}

// Update replaces prev. It fails with Conflict when prev is no longer the newest. The object belongs to the store from then on.
func (c *Collection) Update(ctx context.Context, prev *Entry, obj api.Object, and ...Beside) (*Entry, error) {
	return c.put(ctx, prev.key, prev, obj, and)
}

func (c *Collection) put(ctx context.Context, key string, prev *Entry, obj api.Object, and []Beside) (*Entry, error) {
	rev := int64(0)
	if prev != nil {
		rev = prev.rev
		c.share(obj, prev.obj)
	} else {
		c.share(obj, nil)
	}
	value, err := encode(c.Resource(), obj)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("encode %s %s: %w", c.Resource().Kind, key, err))
	}
	full := c.prefix + key
	saved, rule, err := c.seal(ctx, full, value)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("encrypt %s %s: %w", c.Resource().Kind, key, err))
	}
	p := &pendingWrite{obj: obj, value: value, saved: saved, rule: rule}
	t := transaction{full: full, rev: rev, then: []*etcdserverpb.RequestOp{put(full, saved)}}
	if err := t.join(ctx, and); err != nil {
		return nil, err
	}
	unlock := c.s.locks.lock(full)
	defer unlock()
	c.s.expect(full, p)
	defer c.s.expect(full, nil)

	operation := "update"
	if rev == 0 {
		operation = "create"
	}
	resp, err := c.transactLeased(ctx, operation, &t)
	if err != nil {
		return nil, asStatus(err, "write")
	}
	if !resp.Succeeded {
		// What was found instead is on its way into memory; a caller that reads again must see it.
		_ = c.s.waitFor(ctx, resp.Header.Revision)
		if taken := t.takenBeside(resp); taken != nil {
			return nil, taken
		}
		return nil, c.refused(key, rev)
	}
	if err := c.s.written(ctx, resp.Header.Revision); err != nil {
		return nil, err
	}
	if p.entry != nil {
		return p.entry, nil
	}
	// A reload came between: it decoded the value itself.
	e, err := c.Get(ctx, key, Read{})
	if err == nil && e == nil {
		err = apierrors.NewConflict(c.Resource().GroupResource(), key, errors.New("it was deleted at the same time"))
	}
	return e, err
}

// share lets an object have what it has in common with others from them. Of cold kinds there are no objects to share with.
func (c *Collection) share(obj, old api.Object) {
	if c.Resource().Share == nil || c.Resource().Cold {
		return
	}
	c.s.pool.Lock()
	defer c.s.pool.Unlock()
	c.Resource().Share(obj, old, &c.s.pool)
}

// Delete removes prev. It returns the deleted object's last entry, carrying the revision of the deletion.
func (c *Collection) Delete(ctx context.Context, prev *Entry, and ...Beside) (*Entry, error) {
	full := c.prefix + prev.key
	t := transaction{full: full, rev: prev.rev, then: []*etcdserverpb.RequestOp{remove(full)}}
	if err := t.join(ctx, and); err != nil {
		return nil, err
	}
	resp, err := c.transact(ctx, "delete", &t)
	if err != nil {
		return nil, asStatus(err, "delete")
	}
	if !resp.Succeeded {
		_ = c.s.waitFor(ctx, resp.Header.Revision)
		return nil, c.refused(prev.key, prev.rev)
	}
	if err := c.s.written(ctx, resp.Header.Revision); err != nil {
		return nil, err
	}
	return prev.at(resp.Header.Revision), nil
}

// transact does what t says if its key is still at its revision.
func (c *Collection) transact(ctx context.Context, operation string, t *transaction) (*etcdserverpb.TxnResponse, error) {
	if c.s.cfg.Observe != nil {
		defer func(start time.Time) { c.s.cfg.Observe(operation, c.Resource().GroupResource(), time.Since(start)) }(time.Now())
	}
	return c.s.cfg.Client.Transact(ctx, &etcdserverpb.TxnRequest{Compare: append(t.is, isAt(t.full, t.rev)), Success: t.then, Failure: t.otherwise})
}

// patientWrites is how many times as long as a read a write waits until memory has it.
const patientWrites = 10

// written returns once memory has a write that has happened, so that its caller's impatience no longer matters. When memory lags for long, the error has no
// hint to try again: clients would follow it, and be told that what they create exists already.
func (s *Store) written(ctx context.Context, rev int64) (err error) {
	for range patientWrites {
		if err = s.waitFor(context.WithoutCancel(ctx), rev); err == nil {
			return nil
		}
	}
	return apierrors.NewTimeoutError(fmt.Sprintf("it is written, but the server has not seen it come back from etcd yet: %v", err), 0)
}

// expect notes the write whose event is to come next for a key; nil forgets it.
func (s *Store) expect(full string, p *pendingWrite) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p == nil {
		delete(s.pending, full)
	} else {
		s.pending[full] = p
	}
}

func (c *Collection) refused(key string, rev int64) error {
	name := key[strings.LastIndexByte(key, '/')+1:]
	if rev == 0 {
		return apierrors.NewAlreadyExists(c.Resource().GroupResource(), name)
	}
	return apierrors.NewConflict(c.Resource().GroupResource(), name,
		errors.New("the object has been modified; please apply your changes to the latest version and try again"))
}

// asStatus turns etcd's errors into the ones an API user gets.
func asStatus(err error, verb string) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, rpctypes.ErrTimeout),
		errors.Is(err, rpctypes.ErrTimeoutDueToLeaderFail), errors.Is(err, rpctypes.ErrTimeoutDueToConnectionLost):
		// No hint to try again: clients follow it ten times before they tell their user, and a write may have been done.
		return apierrors.NewTimeoutError(fmt.Sprintf("etcd did not answer the %s in time: %v", verb, err), 0)
	case errors.Is(err, rpctypes.ErrNoSpace), errors.Is(err, rpctypes.ErrGRPCNoSpace):
		return &apierrors.StatusError{ErrStatus: metav1.Status{
			Status: metav1.StatusFailure, Code: http.StatusInsufficientStorage, Reason: metav1.StatusReasonInternalError,
			Message: "the disk below the data dir (or etcd's quota) is full: make room; reads go on, and writes will work again by themselves",
		}}
	case errors.Is(err, rpctypes.ErrRequestTooLarge), errors.Is(err, rpctypes.ErrGRPCRequestTooLarge):
		return apierrors.NewRequestEntityTooLargeError("the object is larger than etcd takes (1.5 MiB upstream, 3 MiB here)")
	case errors.Is(err, rpctypes.ErrNoLeader), errors.Is(err, rpctypes.ErrGRPCNoLeader), errors.Is(err, rpctypes.ErrStopped):
		return apierrors.NewServiceUnavailable(fmt.Sprintf("etcd cannot %s now: %v", verb, err))
	}
	return apierrors.NewInternalError(fmt.Errorf("etcd refused the %s: %w", verb, err))
}
