// Package protection keeps what is used from going. Admission has given an object a finalizer; here it is put on what lacks it, and taken away once the
// object's deletion has begun and nobody uses it any more. Controllers that protect a kind say who uses an object of it.
package protection

import (
	"context"
	"fmt"
	"slices"

	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

// Leaving wakes objects that are being deleted and still protected, and those that lack the protection.
func Leaving[T interface {
	comparable
	crclient.Object
}](finalizer string) func(old, current T) []harness.Key {
	return func(_, current T) []harness.Key {
		var gone T
		if current == gone || settled(current, finalizer) {
			return nil
		}
		return []harness.Key{crclient.ObjectKeyFromObject(current)}
	}
}

// settled: the object is protected and stays, or is on its way and no longer protected.
func settled(o crclient.Object, finalizer string) bool {
	return (o.GetDeletionTimestamp() != nil) != slices.Contains(o.GetFinalizers(), finalizer)
}

// Settle protects an object, or lets one go that is being deleted and that nobody uses. used is asked twice: a user may have come a moment ago through another server.
func Settle(ctx context.Context, c client.Client, o crclient.Object, finalizer string, used func(from crclient.Reader) (bool, error)) error {
	if o.GetDeletionTimestamp() != nil && !settled(o, finalizer) {
		for _, from := range []crclient.Reader{c, c.Live()} {
			if is, err := used(from); is || err != nil {
				return err
			}
		}
	}
	return Set(ctx, c, o, finalizer)
}

// Set takes the finalizer from an object whose deletion has begun, and gives it to others.
func Set(ctx context.Context, c client.Client, o crclient.Object, finalizer string) error {
	if settled(o, finalizer) {
		return nil
	}
	changed := o.DeepCopyObject().(crclient.Object)
	rest := slices.DeleteFunc(changed.GetFinalizers(), func(f string) bool { return f == finalizer })
	if o.GetDeletionTimestamp() == nil {
		rest = append(rest, finalizer)
	}
	changed.SetFinalizers(rest)
	if err := c.Update(ctx, changed); crclient.IgnoreNotFound(err) != nil {
		return fmt.Errorf("change the protection of %s: %w", crclient.ObjectKeyFromObject(o), err)
	}
	return nil
}
