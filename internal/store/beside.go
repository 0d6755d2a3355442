package store

import (
	"context"
	"fmt"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"skiff.dev/skiff/internal/api"
)

// Beside is an object that is written in the same transaction as another: both are, or neither is. What is created must not be there yet; what is
// removed may be gone already.
type Beside struct {
	In  *Collection
	Key string
	Obj api.Object // to create; nil: the key is removed
}

// Taken says that an object that was to be created beside another is there already.
type Taken struct{ Key string }

func (t *Taken) Error() string { return t.Key + " is there already" }

// transaction is what is done at once if its key is at its revision, and what is looked up if not.
type transaction struct {
	full            string
	rev             int64
	is              []*etcdserverpb.Compare
	then, otherwise []*etcdserverpb.RequestOp
	created         []string // keys beside, in the order of otherwise
}

// join adds what is written beside. Memory decodes it like a write of somebody else's: it is small.
func (t *transaction) join(ctx context.Context, and []Beside) error {
	for _, b := range and {
		full := b.In.prefix + b.Key
		if b.Obj == nil {
			t.then = append(t.then, remove(full))
			continue
		}
		value, err := encode(b.In.Resource(), b.Obj)
		if err == nil {
			value, _, err = b.In.seal(ctx, full, value)
		}
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("encode %s %s: %w", b.In.Resource().Kind, b.Key, err))
		}
		t.is = append(t.is, isAt(full, 0))
		t.then = append(t.then, put(full, value))
		t.otherwise = append(t.otherwise, count(full))
		t.created = append(t.created, b.Key)
	}
	return nil
}

// takenBeside finds what stood in the way of a transaction, unless it was the key itself.
func (t *transaction) takenBeside(resp *etcdserverpb.TxnResponse) error {
	for i, key := range t.created {
		if i < len(resp.Responses) && resp.Responses[i].GetResponseRange().GetCount() > 0 {
			return &Taken{key}
		}
	}
	return nil
}

// What a transaction is made of.

func isAt(full string, rev int64) *etcdserverpb.Compare {
	return &etcdserverpb.Compare{
		Key: []byte(full), Target: etcdserverpb.Compare_MOD, TargetUnion: &etcdserverpb.Compare_ModRevision{ModRevision: rev}, Result: etcdserverpb.Compare_EQUAL,
	}
}

func put(full string, value []byte) *etcdserverpb.RequestOp {
	return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestPut{RequestPut: &etcdserverpb.PutRequest{Key: []byte(full), Value: value}}}
}

func remove(full string) *etcdserverpb.RequestOp {
	return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestDeleteRange{RequestDeleteRange: &etcdserverpb.DeleteRangeRequest{Key: []byte(full)}}}
}

func count(full string) *etcdserverpb.RequestOp {
	return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestRange{RequestRange: &etcdserverpb.RangeRequest{Key: []byte(full), CountOnly: true}}}
}
