package addon

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/addon"
	"skiff.dev/skiff/internal/controller/harness"
)

// follow makes Addons known to the cluster, watches them once they are served, and puts the shipped ones in place.
func (r *reconciler) follow(ctx context.Context, add func(harness.Watch)) {
	for wait := again; ; wait = min(2*wait, time.Minute) {
		err := r.define(ctx)
		if err == nil {
			break
		}
		r.report(ctx, "define the kind Addon", err)
		if !sleep(ctx, wait) {
			return
		}
	}
	if !r.awaitKind(ctx) {
		return
	}
	add(harness.Any(addon.Empty(), wanted))
	for _, s := range r.Shipped {
		for wait := again; ; wait = min(2*wait, time.Minute) {
			err := r.ship(ctx, s)
			if err == nil {
				break
			}
			r.report(ctx, "put the add-on "+s.Name+" in place", err)
			if !sleep(ctx, wait) {
				return
			}
		}
	}
}

// wanted wakes an add-on when what is wanted of it changes; what this controller says of it wakes nobody, or a failure would be tried again at once.
func wanted(old, current crclient.Object) []harness.Key {
	switch {
	case current == nil:
		return nil
	case old != nil && old.GetGeneration() == current.GetGeneration() && (old.GetDeletionTimestamp() == nil) == (current.GetDeletionTimestamp() == nil) &&
		slices.Equal(old.GetFinalizers(), current.GetFinalizers()):
		return nil
	}
	return []harness.Key{crclient.ObjectKeyFromObject(current)}
}

// report tells of a failure that will be tried again, unless it is the end.
func (r *reconciler) report(ctx context.Context, what string, err error) {
	if ctx.Err() == nil && r.Log != nil {
		r.Log.Warn("cannot "+what+", will be tried again", "err", err)
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// define brings the definition of Addons up to this program's.
func (r *reconciler) define(ctx context.Context) error {
	var want unstructured.Unstructured
	if err := yaml.Unmarshal(addon.Definition, &want.Object); err != nil {
		return fmt.Errorf("read the definition of Addon: %w", err)
	}
	return r.Client.Apply(ctx, crclient.ApplyConfigurationFromUnstructured(&want), crclient.FieldOwner(manager), crclient.ForceOwnership)
}

// awaitKind blocks until Addons are served.
func (r *reconciler) awaitKind(ctx context.Context) bool {
	for {
		changed := r.Kinds.Changed()
		for _, row := range r.Kinds.All() {
			if row.GVK() == addon.GVK {
				return true
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// ship creates the Addon of a shipped add-on that has none. One that is there is the user's.
func (r *reconciler) ship(ctx context.Context, s addon.Shipped) error {
	a := &addon.Addon{}
	a.Name, a.Spec.Description = s.Name, s.Description
	a.Spec.Source.Part = s.Name
	if s.Files != nil {
		a.Spec.Source = addon.Source{Shipped: s.Name}
		m, err := addon.ReadMeta(s.Files)
		if err != nil {
			return err
		}
		a.Spec.After = m.After
	}
	on := !s.Off
	a.Spec.Enabled = &on
	u, err := a.Unstructured()
	if err != nil {
		return err
	}
	err = r.Client.Create(ctx, u)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
