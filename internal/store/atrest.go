package store

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage/value"
)

// Transform gives what a resource's values are put through on their way to etcd and back; nil where they are stored as they are. What comes out is
// bound to the etcd key, so that a value which was moved to another key can't be read.
type Transform func(schema.GroupResource) value.Transformer

// transformPatience bounds a question to a key management service: memory waits for the answer.
const transformPatience = 10 * time.Second

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
