package store

import (
	"context"
	"errors"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// unreadable is a stored value that can't be decrypted or decoded. Memory leaves it out.
type unreadable struct {
	revision int64
	err      error
}

// Unreadable says why the value of a key can't be read; nil: it can, or there is none.
func (c *Collection) Unreadable(key string) error {
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	return c.s.corrupt[c.prefix+key].err
}

// UnreadableIn lists the keys of a namespace, or with "" of all, whose values can't be read.
func (c *Collection) UnreadableIn(namespace string) (keys []string) {
	c.s.mu.RLock()
	defer c.s.mu.RUnlock()
	at := Predicate{Namespace: namespace}
	for full := range c.s.corrupt {
		if key, is := strings.CutPrefix(full, c.prefix); is && at.within(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// DeleteUnreadable removes a value that can't be read, or in a dry run only says whether it would. It fails with NotFound when there is no such key, and with
// Conflict when its value can be read, or is another by now.
func (c *Collection) DeleteUnreadable(ctx context.Context, key string, dryRun bool) error {
	if err := c.s.settle(ctx, Read{Consistent: true}); err != nil {
		return err
	}
	name, full := key[strings.LastIndexByte(key, '/')+1:], c.prefix+key
	c.s.mu.RLock()
	bad, is := c.s.corrupt[full]
	readable := c.get(key) != nil
	c.s.mu.RUnlock()
	switch {
	case !is && readable:
		return apierrors.NewConflict(c.Resource().GroupResource(), name, errors.New("it can be read; delete it without ignoreStoreReadErrorWithClusterBreakingPotential"))
	case !is:
		return apierrors.NewNotFound(c.Resource().GroupResource(), name)
	case dryRun:
		return nil
	}
	resp, err := c.transact(ctx, "delete", &transaction{full: full, rev: bad.revision, then: []*etcdserverpb.RequestOp{remove(full)}})
	if err != nil {
		return asStatus(err, "delete")
	}
	if !resp.Succeeded {
		_ = c.s.waitFor(ctx, resp.Header.Revision)
		return c.refused(key, bad.revision)
	}
	return c.s.written(ctx, resp.Header.Revision)
}
