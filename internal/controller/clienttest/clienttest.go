// Package clienttest is an API in memory for the tests of controllers and of the scheduler: controller-runtime's fake client with the indexes,
// informers and subresources that client.Client promises, and a record of events.
package clienttest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
)

// Client is client.Client over objects in memory.
type Client struct {
	crclient.WithWatch
	events chan string
	ctx    context.Context
	cancel context.CancelFunc

	mu        sync.Mutex
	informers map[schema.GroupVersionKind]toolscache.SharedIndexInformer
	running   sync.WaitGroup
	serial    int
}

var _ client.Client = (*Client)(nil)

// New returns a client that holds objects. Its informers end with the test.
func New(t testing.TB, objects ...crclient.Object) *Client {
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{events: make(chan string, 10000), ctx: ctx, cancel: cancel, informers: map[schema.GroupVersionKind]toolscache.SharedIndexInformer{}}
	builder := fake.NewClientBuilder().WithScheme(api.Scheme()).WithInterceptorFuncs(interceptor.Funcs{
		Create: c.create, SubResourceCreate: c.createSub, SubResourceUpdate: c.updateSub, SubResourcePatch: patchSub, Delete: c.remove,
	})
	for _, row := range api.NewTable(api.Optional()...).All() {
		if row.Key == "" {
			continue
		}
		if row.Status {
			builder = builder.WithStatusSubresource(row.New())
		}
		for name, index := range row.Indexes {
			builder = builder.WithIndex(row.New(), name, func(o crclient.Object) []string { return index(o.(api.Object)) })
		}
	}
	for _, o := range objects {
		c.complete(o)
	}
	c.WithWatch = builder.WithObjects(objects...).Build()
	t.Cleanup(func() { cancel(); c.running.Wait() })
	return c
}

// complete gives an object what an API would.
func (c *Client) complete(o crclient.Object) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serial++
	if o.GetUID() == "" {
		o.SetUID(types.UID(fmt.Sprintf("uid-%d", c.serial)))
	}
	if o.GetName() == "" {
		o.SetName(fmt.Sprintf("%s%05d", o.GetGenerateName(), c.serial))
	}
	if o.GetCreationTimestamp().Time.IsZero() {
		o.SetCreationTimestamp(metav1.NewTime(time.Unix(1700000000+int64(c.serial), 0)))
	}
}

func (c *Client) create(ctx context.Context, w crclient.WithWatch, o crclient.Object, opts ...crclient.CreateOption) error {
	c.complete(o)
	return w.Create(ctx, o, opts...)
}

// remove honours a UID precondition, which the fake client doesn't.
func (c *Client) remove(ctx context.Context, w crclient.WithWatch, o crclient.Object, opts ...crclient.DeleteOption) error {
	var options crclient.DeleteOptions
	options.ApplyOptions(opts)
	if options.Preconditions != nil && options.Preconditions.UID != nil {
		present := o.DeepCopyObject().(crclient.Object)
		if err := w.Get(ctx, crclient.ObjectKeyFromObject(o), present); err != nil {
			return err
		}
		if present.GetUID() != *options.Preconditions.UID {
			return apierrors.NewConflict(schema.GroupResource{}, o.GetName(), fmt.Errorf("the UID in the precondition is another"))
		}
	}
	return w.Delete(ctx, o, opts...)
}

func (c *Client) createSub(ctx context.Context, w crclient.Client, name string, o, sub crclient.Object, opts ...crclient.SubResourceCreateOption) error {
	binding, ok := sub.(*corev1.Binding)
	if !ok {
		return w.SubResource(name).Create(ctx, o, sub, opts...)
	}
	var pod corev1.Pod
	if err := w.Get(ctx, crclient.ObjectKeyFromObject(o), &pod); err != nil {
		return err
	}
	refuse := func(format string, args ...any) error {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods/binding"}, pod.Name, fmt.Errorf(format, args...))
	}
	switch {
	case binding.UID != "" && binding.UID != pod.UID:
		return refuse("the UID in the precondition is another")
	case pod.DeletionTimestamp != nil:
		return refuse("pod %s is being deleted", pod.Name)
	case pod.Spec.NodeName != "":
		return refuse("pod is already assigned to node %q", pod.Spec.NodeName)
	}
	pod.Spec.NodeName = binding.Target.Name
	return w.Update(ctx, &pod)
}

func (c *Client) updateSub(ctx context.Context, w crclient.Client, name string, o crclient.Object, opts ...crclient.SubResourceUpdateOption) error {
	if ns, ok := o.(*corev1.Namespace); ok && name == "finalize" {
		if len(ns.Spec.Finalizers) == 0 {
			ns = ns.DeepCopy()
			ns.Finalizers = nil // what the fake holds a deleted object by
		}
		return w.Update(ctx, ns)
	}
	return w.SubResource(name).Update(ctx, o, opts...)
}

// patchSub patches metadata through status too, which the fake client leaves as it is.
func patchSub(ctx context.Context, w crclient.Client, name string, o crclient.Object, p crclient.Patch, opts ...crclient.SubResourcePatchOption) error {
	data, err := p.Data(o)
	if err != nil {
		return err
	}
	var body struct {
		Metadata json.RawMessage `json:"metadata"`
	}
	if err := w.SubResource(name).Patch(ctx, o, crclient.RawPatch(p.Type(), data), opts...); err != nil {
		return err
	}
	if json.Unmarshal(data, &body) != nil || body.Metadata == nil || name != "status" {
		return nil
	}
	return w.Patch(ctx, o, crclient.RawPatch(p.Type(), fmt.Appendf(nil, `{"metadata":%s}`, body.Metadata)))
}

// Live reads what everything here reads.
func (c *Client) Live() crclient.Reader { return c.WithWatch }

// Recorder records events as "Type Reason message".
func (c *Client) Recorder(string) record.EventRecorder { return &record.FakeRecorder{Events: c.events} }

// Events returns the events since it was last called.
func (c *Client) Events() []string {
	var list []string
	for {
		select {
		case e := <-c.events:
			list = append(list, e)
		default:
			return list
		}
	}
}

// Run does nothing: informers here start by themselves.
func (c *Client) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Cache gives informers that watch the fake client.
func (c *Client) Cache() cache.Cache { return informers{Client: c} }

type informers struct {
	cache.Cache // what tests don't use
	*Client
}

func (i informers) Get(ctx context.Context, key crclient.ObjectKey, o crclient.Object, opts ...crclient.GetOption) error {
	return i.Client.Get(ctx, key, o, opts...)
}

func (i informers) List(ctx context.Context, l crclient.ObjectList, opts ...crclient.ListOption) error {
	return i.Client.List(ctx, l, opts...)
}

// GetInformer returns the one informer of a kind; metadata-only informers deliver whole objects.
func (i informers) GetInformer(_ context.Context, o crclient.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	gvk, err := apiutil.GVKForObject(o, api.Scheme())
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if present := i.informers[gvk]; present != nil {
		return present, nil
	}
	row := api.NewTable(api.Optional()...).ByKind(gvk.GroupKind())
	if row == nil {
		return nil, fmt.Errorf("no kind %s", gvk)
	}
	// The fake has no resource versions to watch from: the watch begins before the list, so that nothing falls between.
	begun := make(chan watch.Interface, 1)
	source := toolscache.ToListWatcherWithWatchListSemantics(&toolscache.ListWatch{
		ListWithContextFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			list := row.NewList().(crclient.ObjectList)
			w, err := i.Watch(i.ctx, row.NewList().(crclient.ObjectList))
			if err != nil {
				return nil, err
			}
			begun <- w
			return list, i.List(i.ctx, list)
		},
		WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) { return <-begun, nil },
	}, plain{})
	informer := toolscache.NewSharedIndexInformer(source, row.New(), 0, toolscache.Indexers{})
	i.informers[gvk] = informer
	i.running.Go(func() { informer.Run(i.ctx.Done()) })
	return informer, nil
}

// plain is a client without streaming lists, which the fake cannot do.
type plain struct{}

// IsWatchListSemanticsUnSupported is client-go's question.
func (plain) IsWatchListSemanticsUnSupported() bool { return true }

// Names lists the names of a kind's objects, in order.
func (c *Client) Names(t *testing.T, list crclient.ObjectList, opts ...crclient.ListOption) []string {
	t.Helper()
	if err := c.List(context.Background(), list, opts...); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for o := range items(list) {
		names[o.GetName()] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// Eventually waits until a condition holds, or fails the test.
func Eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	const patience = time.Minute // it says nothing of speed
	for deadline := time.Now().Add(patience); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
