// Package addon brings the cluster's objects in line with its Addons: it applies what their bundles render to, removes what left them, and says on each
// Addon what there is and how it is.
//
// What is to be done is decided by package internal/addon. Its invariant: an object is in the Addon's status before it is in the cluster, and in the cluster no
// longer when it leaves the status, so that nothing is orphaned however often the process is killed in between. A bundle that has not changed is not
// applied again; what users changed in its objects stays theirs until it does.
package addon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/addon"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

// again is when an add-on is looked at once more while something no event tells of is awaited: a kind that a definition is about to bring, an object that is
// about to go.
const again = time.Second

// Config of the controller.
type Config struct {
	Client  client.Client
	Kinds   harness.Kinds
	Shipped []addon.Shipped
	// Granting applies what shipped bundles hold; their roles may grant any right, since they are part of the program. What users install goes
	// through Client and can grant no more than the controller manager has. nil: Client for all.
	Granting crclient.Writer
	Version  string // of Kubernetes, for charts that ask
	// Switch tells a part of the program whether its add-on is enabled; may be nil.
	Switch func(part string, on bool)
	Log    *slog.Logger
}

type reconciler struct {
	Config
	events record.EventRecorder
	wake   func(harness.Key)
}

// New returns the controller. Its keys are Addons.
func New(cfg Config) harness.Controller {
	r := &reconciler{Config: cfg, events: cfg.Client.Recorder("addon-controller")}
	return harness.Controller{
		Watches: []harness.Watch{
			part[*appsv1.Deployment](&appsv1.Deployment{}), part[*appsv1.StatefulSet](&appsv1.StatefulSet{}), part[*appsv1.DaemonSet](&appsv1.DaemonSet{}),
			part[*batchv1.Job](&batchv1.Job{}), part[*corev1.Service](&corev1.Service{}), part[*corev1.Secret](&corev1.Secret{}),
			part[*apiextensionsv1.CustomResourceDefinition](&apiextensionsv1.CustomResourceDefinition{}),
			harness.On(&corev1.ConfigMap{}, r.configMap),
		},
		Begin:     func(wake func(harness.Key)) { r.wake = wake },
		Follow:    r.follow,
		Reconcile: r.reconcile,
	}
}

// part wakes the add-on that an object belongs to.
func part[T crclient.Object](kind T) harness.Watch {
	return harness.Any(kind, func(old, current crclient.Object) []harness.Key { return owners(old, current) })
}

func owners(objects ...crclient.Object) (keys []harness.Key) {
	for _, o := range objects {
		if o == nil {
			continue
		}
		if name := o.GetLabels()[addon.Label]; name != "" && !slices.Contains(keys, harness.Key{Name: name}) {
			keys = append(keys, harness.Key{Name: name})
		}
	}
	return keys
}

// configMap wakes those that read values from it, too.
func (r *reconciler) configMap(old, current *corev1.ConfigMap) []harness.Key {
	at := current
	if at == nil {
		at = old
	}
	keys := owners(at)
	all, err := r.list(context.Background())
	if err != nil {
		return keys // there are no Addons yet
	}
	for _, a := range all {
		for _, v := range a.Spec.ValuesFrom {
			if v.Namespace == at.Namespace && v.Name == at.Name {
				keys = append(keys, harness.Key{Name: a.Name})
			}
		}
	}
	return keys
}

func (r *reconciler) list(ctx context.Context) ([]*addon.Addon, error) {
	l := addon.EmptyList()
	if err := r.Client.List(ctx, l); err != nil {
		return nil, err
	}
	out := make([]*addon.Addon, 0, len(l.Items))
	for i := range l.Items {
		a, err := addon.From(&l.Items[i])
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	u := addon.Empty()
	if err := r.Client.Get(ctx, key, u); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	a, err := addon.From(u)
	if err != nil {
		return 0, err
	}
	if a.DeletionTimestamp == nil && !slices.Contains(a.Finalizers, addon.Finalizer) {
		return 0, r.finalizers(ctx, a, append(a.Finalizers, addon.Finalizer))
	}
	p := &pass{reconciler: r, a: a, written: a.Status}
	a.Status.Applied = slices.Clone(a.Status.Applied)
	state := a.Status.State
	after, err := p.settle(ctx)
	a.Status.ObservedGeneration = a.Generation
	if a.DeletionTimestamp != nil && len(a.Status.Applied) == 0 && err == nil {
		return 0, r.finalizers(ctx, a, slices.DeleteFunc(slices.Clone(a.Finalizers), func(f string) bool { return f == addon.Finalizer }))
	}
	if err := errors.Join(err, p.write(ctx)); err != nil {
		return 0, err
	}
	if a.Status.State != state {
		r.tell(ctx, a)
	}
	return after, nil
}

// pass is one look at one add-on.
type pass struct {
	*reconciler
	a       *addon.Addon
	written addon.Status // what the API has
}

// writer is who applies the add-on's objects.
func (r *pass) writer() crclient.Writer {
	if r.a.Spec.Source.Shipped != "" && r.Granting != nil {
		return r.Granting
	}
	return r.Client
}

// settle takes the add-on a step on and puts into its status where it stands.
func (r *pass) settle(ctx context.Context) (time.Duration, error) {
	a := r.a
	wanted := a.Wanted()
	if part := a.Spec.Source.Part; part != "" {
		return 0, r.settlePart(a, part, wanted || a.DeletionTimestamp != nil)
	}
	if !wanted {
		left, err := r.remove(ctx, a, a.Status.Applied)
		a.Status.Applied, a.Status.Digest, a.Status.State, a.Status.Message = left, "", addon.Disabled, ""
		if len(left) > 0 {
			a.Status.State, a.Status.Message = addon.Progressing, left[0].String()+": is being removed"
			return again, err
		}
		return 0, err
	}
	if state, message, err := r.awaited(ctx, a); err != nil || message != "" {
		a.Status.State, a.Status.Message = state, message
		return 0, err
	}
	b, err := r.bundle(ctx, a)
	if err != nil {
		a.Status.State, a.Status.Message = addon.Failed, err.Error()
		return 0, nil // only a change helps, and that is an event
	}
	a.Status.Version = b.Version
	return r.apply(ctx, b)
}

func (r *reconciler) settlePart(a *addon.Addon, part string, on bool) error {
	s, known := addon.Find(r.Shipped, part)
	if !known || s.Files != nil {
		a.Status.State, a.Status.Message = addon.Failed, fmt.Sprintf("source.part: Skiff has no part %q that can be switched", part)
		return nil
	}
	if r.Switch != nil {
		r.Switch(part, on)
	}
	a.Status.State, a.Status.Message = addon.Ready, ""
	switch {
	case on && s.Absent != "":
		a.Status.State, a.Status.Message = addon.Disabled, s.Absent
	case !on:
		a.Status.State = addon.Disabled
	}
	return nil
}

// awaited says what the add-on waits for, and whether in vain; "" if for nothing.
func (r *reconciler) awaited(ctx context.Context, a *addon.Addon) (addon.State, string, error) {
	if len(a.Spec.After) == 0 {
		return "", "", nil
	}
	all, err := r.list(ctx)
	if err != nil {
		return a.Status.State, a.Status.Message, err
	}
	after, states := map[string][]string{}, map[string]addon.State{}
	for _, other := range all {
		after[other.Name], states[other.Name] = other.Spec.After, other.Status.State
	}
	if cycle := addon.Cycle(a.Name, after); cycle != nil {
		return addon.Failed, fmt.Sprintf("spec.after: add-ons wait for one another, so none will ever start: %s; take one of them out of another's spec.after", strings.Join(cycle, " after ")), nil
	}
	for _, name := range a.Spec.After {
		switch state, known := states[name]; {
		case !known:
			return addon.Waiting, fmt.Sprintf("spec.after: there is no add-on %q: install it, or take it out", name), nil
		case state != addon.Ready:
			return addon.Waiting, fmt.Sprintf("waits for the add-on %s", name), nil
		}
	}
	return "", "", nil
}

// tell records an event of a state that a user would want to know of, and wakes those that wait for it.
func (r *reconciler) tell(ctx context.Context, a *addon.Addon) {
	u, err := a.Unstructured()
	if err == nil {
		switch a.Status.State {
		case addon.Failed:
			r.events.Event(u, corev1.EventTypeWarning, string(addon.Failed), a.Status.Message)
		case addon.Ready, addon.Disabled:
			r.events.Eventf(u, corev1.EventTypeNormal, string(a.Status.State), "the add-on is %s", map[bool]string{true: "ready", false: "disabled"}[a.Status.State == addon.Ready])
		}
	}
	all, err := r.list(ctx)
	if err != nil {
		return
	}
	for _, other := range all {
		if slices.Contains(other.Spec.After, a.Name) {
			r.wake(harness.Key{Name: other.Name})
		}
	}
}

// write stores the status if it has changed.
func (r *pass) write(ctx context.Context) error {
	if equality.Semantic.DeepEqual(r.a.Status, r.written) {
		return nil
	}
	u, err := r.a.Unstructured()
	if err != nil {
		return err
	}
	if err := r.Client.Status().Update(ctx, u); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	r.a.ResourceVersion = u.GetResourceVersion()
	r.written = r.a.Status
	r.written.Applied = slices.Clone(r.a.Status.Applied)
	return nil
}

func (r *reconciler) finalizers(ctx context.Context, a *addon.Addon, all []string) error {
	u := addon.Empty()
	u.SetName(a.Name)
	list := make([]any, len(all))
	for i, f := range all {
		list[i] = f
	}
	patch, err := (&unstructured.Unstructured{Object: map[string]any{
		"apiVersion": addon.GVK.GroupVersion().String(), "kind": addon.GVK.Kind,
		"metadata": map[string]any{"name": a.Name, "resourceVersion": a.ResourceVersion, "finalizers": list},
	}}).MarshalJSON()
	if err != nil {
		return err
	}
	return crclient.IgnoreNotFound(r.Client.Patch(ctx, u, crclient.RawPatch("application/merge-patch+json", patch)))
}

// background deletes what an object owns with it.
var background = metav1.DeletePropagationBackground
