package store

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"

	"skiff.dev/skiff/internal/etcd"
)

// Transform gives what a resource's values are put through on their way to etcd and back; nil where they are stored as they are. What comes out is
// bound to the etcd key, so that a value which was moved to another key can't be read.
type Transform func(schema.GroupResource) value.Transformer

// transformPatience bounds a question to a key management service: memory waits for the answer.
const transformPatience = 10 * time.Second

// sealedMark begins every value that is encrypted, as upstream stores it: what, which version and which key follow ("aesgcm:v1:key1:").
var sealedMark = []byte("k8s:enc:")

// Sealed finds an encrypted value below prefix: its key, and what encrypted it; both are "" if there is none.
func Sealed(ctx context.Context, client *etcd.Client, prefix string) (key, by string, err error) {
	_, err = pages(ctx, client, prefix, func(kv *mvccpb.KeyValue) bool {
		if !bytes.HasPrefix(kv.Value, sealedMark) {
			return true
		}
		key, by = string(kv.Key), sealedBy(kv.Value)
		return false
	})
	return key, by, err
}

// sealedBy is the part of an encrypted value that says how it was: "k8s:enc:aesgcm:v1:key1".
func sealedBy(value []byte) string {
	head := bytes.SplitN(value[:min(len(value), 200)], []byte(":"), 6)
	return string(bytes.Join(head[:min(len(head), 5)], []byte(":")))
}

// seal gives the bytes that etcd gets.
func (c *Collection) seal(ctx context.Context, full string, plain []byte) ([]byte, error) {
	if c.atRest == nil {
		return plain, nil
	}
	return c.atRest.TransformToStorage(ctx, plain, value.DefaultContext(full))
}

// unseal gives the encoding of what etcd has. stale says that it would be written differently today.
func (c *Collection) unseal(full string, stored []byte) (plain []byte, stale bool, err error) {
	if c.atRest == nil {
		return stored, false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), transformPatience)
	defer cancel()
	plain, stale, err = c.atRest.TransformFromStorage(ctx, stored, value.DefaultContext(full))
	if err != nil {
		return nil, false, fmt.Errorf("decrypt the value: %w", err)
	}
	return plain, stale, nil
}
