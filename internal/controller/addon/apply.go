package addon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/addon"
)

// manager is who owns the fields that add-ons set.
const manager = "skiff-addon"

// apply brings what the bundle holds, if it has changed or something of it is missing, and says how it is.
func (r *pass) apply(ctx context.Context, b *addon.Bundle) (time.Duration, error) {
	a := r.a
	digest, err := b.Digest()
	if err != nil {
		return 0, err
	}
	if missing := r.look(ctx, a.Status.Applied); !missing && digest == a.Status.Digest {
		a.Status.State, a.Status.Message = addon.Sum(a.Status.Applied)
		return 0, nil
	}
	wanted, awaited, err := r.bring(ctx, b)
	if err != nil {
		a.Status.State, a.Status.Message = addon.Failed, err.Error()
		return 0, err
	}
	left, err := r.remove(ctx, a, addon.Left(a.Status.Applied, wanted))
	if err != nil {
		return 0, err
	}
	a.Status.Applied = slices.Concat(wanted, left)
	_ = r.look(ctx, a.Status.Applied)
	a.Status.State, a.Status.Message = addon.Sum(a.Status.Applied)
	switch {
	case awaited != "":
		a.Status.State, a.Status.Message = addon.Progressing, awaited
		return again, nil
	case len(left) > 0:
		return again, nil
	}
	a.Status.Digest = digest
	return 0, nil
}

// bring applies what can be applied now. Kinds whose definitions the bundle has just brought are served a moment later: they are awaited.
func (r *pass) bring(ctx context.Context, b *addon.Bundle) (wanted []addon.Applied, awaited string, err error) {
	if err := r.ensureNamespace(ctx, b.Namespace); err != nil {
		return nil, "", fmt.Errorf("make the namespace %s: %w", b.Namespace, err)
	}
	var now []*unstructured.Unstructured
	for _, o := range b.Objects {
		switch err := r.place(o, b.Namespace); {
		case meta.IsNoMatchError(err):
			awaited = fmt.Sprintf("%s %s: the cluster does not serve %s %s", o.GetKind(), o.GetName(), o.GetAPIVersion(), o.GetKind())
		case err != nil:
			return nil, "", fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		default:
			now = append(now, o)
		}
		wanted = append(wanted, addon.Applied{APIVersion: o.GetAPIVersion(), Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()})
	}
	if err := r.announce(ctx, wanted); err != nil {
		return nil, "", err
	}
	for _, o := range now {
		if err := r.applyOne(ctx, o); err != nil {
			return nil, "", err
		}
	}
	return wanted, awaited, nil
}

// announce writes into the status what is about to be applied, before it is.
func (r *pass) announce(ctx context.Context, wanted []addon.Applied) error {
	s := &r.a.Status
	fresh := addon.Left(wanted, s.Applied)
	if len(fresh) == 0 {
		return nil
	}
	s.Applied = slices.Concat(s.Applied, fresh)
	s.State, s.Message = addon.Progressing, "is being applied"
	return r.write(ctx)
}

// place puts an object that names no namespace into the add-on's. It fails for kinds that are not served.
func (r *reconciler) place(o *unstructured.Unstructured, namespace string) error {
	namespaced, err := r.Client.IsObjectNamespaced(o)
	switch {
	case err != nil:
		return err
	case !namespaced:
		o.SetNamespace("")
	case o.GetNamespace() == "":
		o.SetNamespace(namespace)
	}
	return nil
}

// applyOne applies one object, unless it is another add-on's.
func (r *pass) applyOne(ctx context.Context, o *unstructured.Unstructured) error {
	name := addon.Applied{Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}.String()
	there := &metav1.PartialObjectMetadata{}
	there.SetGroupVersionKind(o.GroupVersionKind())
	err := r.Client.Live().Get(ctx, crclient.ObjectKeyFromObject(o), there)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("%s: %w", name, err)
	}
	if other := there.GetLabels()[addon.Label]; other != "" && other != r.a.Name {
		return fmt.Errorf("%s is part of the add-on %s already", name, other)
	}
	err = r.writer().Apply(ctx, crclient.ApplyConfigurationFromUnstructured(o.DeepCopy()), crclient.FieldOwner(manager), crclient.ForceOwnership)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (r *reconciler) ensureNamespace(ctx context.Context, name string) error {
	err := r.Client.Get(ctx, crclient.ObjectKey{Name: name}, &corev1.Namespace{})
	if !apierrors.IsNotFound(err) {
		return err
	}
	err = r.Client.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// look fills in how the objects are, and says whether one is missing.
func (r *reconciler) look(ctx context.Context, applied []addon.Applied) (missing bool) {
	for i := range applied {
		a := &applied[i]
		o, err := r.read(ctx, *a)
		switch {
		case err == nil:
			a.UID = string(o.GetUID())
			a.Health, a.Message = addon.Health(o)
		case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
			missing = true
			a.Health, a.Message = addon.Progressing, "is missing"
		default:
			a.Health, a.Message = addon.Progressing, err.Error()
		}
	}
	return missing
}

// read gets an object as the client keeps it: in its Go type where there is one.
func (r *reconciler) read(ctx context.Context, a addon.Applied) (*unstructured.Unstructured, error) {
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(a.APIVersion)
	u.SetKind(a.Kind)
	key := crclient.ObjectKey{Namespace: a.Namespace, Name: a.Name}
	typed, err := r.Client.Scheme().New(u.GroupVersionKind())
	if runtime.IsNotRegisteredError(err) {
		return u, r.Client.Live().Get(ctx, key, u)
	}
	if err != nil {
		return nil, err
	}
	o, ok := typed.(crclient.Object)
	if !ok {
		return nil, errors.New("is no object that can be read")
	}
	if err := r.Client.Live().Get(ctx, key, o); err != nil {
		return nil, err
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, err
	}
	out := &unstructured.Unstructured{Object: content}
	out.SetGroupVersionKind(u.GroupVersionKind())
	return out, nil
}

// remove deletes objects that the add-on brought and returns those that are still there.
func (r *reconciler) remove(ctx context.Context, a *addon.Addon, gone []addon.Applied) (left []addon.Applied, err error) {
	for _, x := range addon.Removal(gone) {
		o, err := r.read(ctx, x)
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", x, err)
		}
		if o.GetLabels()[addon.Label] != a.Name {
			continue // somebody has taken it over
		}
		left = append(left, x)
		if o.GetDeletionTimestamp() != nil {
			continue
		}
		uid := types.UID(o.GetUID())
		del := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: x.Namespace, Name: x.Name}}
		del.SetGroupVersionKind(o.GroupVersionKind())
		err = r.Client.Delete(ctx, del, crclient.Preconditions{UID: &uid}, crclient.PropagationPolicy(background))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return nil, fmt.Errorf("delete %s: %w", x, err)
		}
	}
	return left, nil
}
