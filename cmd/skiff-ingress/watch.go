package main

import (
	"context"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	networkingclient "k8s.io/client-go/kubernetes/typed/networking/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"skiff.dev/skiff/internal/ingress"
)

// podLabel is on the pods of the add-on's DaemonSet.
const podLabel = "app=skiff-ingress"

// between two tables there is at least this much time: many changes in a row, as of a rollout, make few.
const between = 50 * time.Millisecond

// clients are those of the API groups in use; the whole clientset would double the program.
type clients struct {
	core         *coreclient.CoreV1Client
	networking   *networkingclient.NetworkingV1Client
	discovery    *discoveryclient.DiscoveryV1Client
	coordination *coordinationclient.CoordinationV1Client
}

func newClients(conf *rest.Config) (c clients, err error) {
	if c.core, err = coreclient.NewForConfig(conf); err != nil {
		return c, err
	}
	if c.networking, err = networkingclient.NewForConfig(conf); err != nil {
		return c, err
	}
	if c.discovery, err = discoveryclient.NewForConfig(conf); err != nil {
		return c, err
	}
	c.coordination, err = coordinationclient.NewForConfig(conf)
	return c, err
}

// watcher keeps what the cluster says and tells when it changed.
type watcher struct {
	ingresses, classes, services, slices, secrets, pods cache.SharedIndexInformer

	first   chan struct{} // closed once there is a table
	table   chan struct{} // one in it: something changed that the table is made of
	written chan struct{} // likewise for the status
}

func newWatcher(c clients, namespace string) *watcher {
	w := &watcher{first: make(chan struct{}), table: make(chan struct{}, 1), written: make(chan struct{}, 1)}
	w.ingresses = w.informer(c.networking.RESTClient(), "ingresses", "", &networkingv1.Ingress{}, metav1.ListOptions{}, w.table, w.written)
	w.classes = w.informer(c.networking.RESTClient(), "ingressclasses", "", &networkingv1.IngressClass{}, metav1.ListOptions{}, w.table, w.written)
	w.services = w.informer(c.core.RESTClient(), "services", "", &corev1.Service{}, metav1.ListOptions{}, w.table)
	w.slices = w.informer(c.discovery.RESTClient(), "endpointslices", "", &discoveryv1.EndpointSlice{}, metav1.ListOptions{}, w.table)
	w.secrets = w.informer(c.core.RESTClient(), "secrets", "", &corev1.Secret{}, metav1.ListOptions{FieldSelector: "type=" + string(corev1.SecretTypeTLS)}, w.table)
	w.pods = w.informer(c.core.RESTClient(), "pods", namespace, &corev1.Pod{}, metav1.ListOptions{LabelSelector: podLabel}, w.written)
	return w
}

// informer watches the objects that which selects and wakes those who use them.
func (w *watcher) informer(c rest.Interface, resource, namespace string, kind runtime.Object, which metav1.ListOptions, users ...chan struct{}) cache.SharedIndexInformer {
	source := cache.NewFilteredListWatchFromClient(c, resource, namespace, func(o *metav1.ListOptions) {
		o.FieldSelector, o.LabelSelector = which.FieldSelector, which.LabelSelector
	})
	i := cache.NewSharedIndexInformer(source, kind, 0, cache.Indexers{})
	if err := i.SetTransform(withoutManagers); err != nil {
		panic(err) // it has not been started
	}
	wake := func() {
		for _, user := range users {
			select {
			case user <- struct{}{}:
			default: // it will look anyway
			}
		}
	}
	_, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { wake() }, DeleteFunc: func(any) { wake() }, UpdateFunc: func(any, any) { wake() },
	})
	if err != nil {
		panic(err) // it has not been stopped
	}
	return i
}

// withoutManagers drops what is only bulk here.
func withoutManagers(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		m.SetManagedFields(nil)
	}
	return o, nil
}

// run watches until ctx ends and hands over a table whenever there is a new one.
func (w *watcher) run(ctx context.Context, use func(*ingress.Table), log *slog.Logger) error {
	var synced []cache.InformerSynced
	for _, i := range []cache.SharedIndexInformer{w.ingresses, w.classes, w.services, w.slices, w.secrets, w.pods} {
		go i.RunWithContext(ctx)
		synced = append(synced, i.HasSynced)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil
	}
	var t *ingress.Table
	for ctx.Err() == nil {
		before := t
		t = ingress.Build(w.objects(), before)
		use(t)
		if before == nil {
			close(w.first)
		}
		for _, p := range t.Problems {
			if before == nil || !slices.Contains(before.Problems, p) {
				log.Warn(p)
			}
		}
		if !sleep(ctx, between) {
			return nil
		}
		select {
		case <-w.table:
		case <-ctx.Done():
		}
	}
	return nil
}

func (w *watcher) objects() ingress.Objects {
	return ingress.Objects{
		Ingresses: all[*networkingv1.Ingress](w.ingresses), Classes: all[*networkingv1.IngressClass](w.classes), Services: all[*corev1.Service](w.services),
		Slices: all[*discoveryv1.EndpointSlice](w.slices), Secrets: all[*corev1.Secret](w.secrets),
	}
}

func all[T any](i cache.SharedIndexInformer) (out []T) {
	for _, o := range i.GetStore().List() {
		if t, ok := o.(T); ok {
			out = append(out, t)
		}
	}
	return out
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
