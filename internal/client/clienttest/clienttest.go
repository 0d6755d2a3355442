// Package clienttest is the contract of package client, as a suite that every implementation runs: what parts may count on, whichever transport
// they were given.
package clienttest

import (
	"context"
	"fmt"
	"reflect"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
)

// patience is how long a cache may take to show a write.
const patience = 10 * time.Second

// suite is one test of a client that runs, in a namespace of its own.
type suite struct {
	*testing.T
	client.Client
	ctx   context.Context
	space string
}

// Run runs the suite. make returns a client of an empty cluster that nobody else writes to; the suite runs it.
func Run(t *testing.T, make func(t *testing.T) client.Client) {
	tests := []struct {
		name string
		test func(s *suite)
	}{
		{"a write is read at once when live, soon when cached", readsFollowWrites},
		{"lists select", listsSelect},
		{"lists refuse what they cannot select by", listsRefuse},
		{"metadata alone", metadataAlone},
		{"kinds are known", kindsAreKnown},
		{"writes return what was stored, which is the caller's", writesReturnCopies},
		{"writes that come too late conflict", staleWritesConflict},
		{"patches", patches},
		{"deletes", deletes},
		{"everything that is selected is deleted", deletesAll},
		{"status and scale", statusAndScale},
		{"binding and eviction", bindingAndEviction},
		{"informers deliver what is there, then every change in order", informersDeliverInOrder},
		{"a late handler gets what is there", lateHandlers},
		{"informers of metadata alone", metadataInformers},
		{"a handler that is removed gets nothing more", removedHandlers},
		{"the table's indexes are there", indexesAreThere},
		{"recorders write events", recordersWrite},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, make(t))
			c.test(s)
		})
	}
	t.Run("nothing runs when Run has returned", func(t *testing.T) { endsAll(t, make(t)) })
}

// start runs the client until the test ends.
func start(t *testing.T, c client.Client) *suite {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the client's Run: %v", err)
		}
	})
	s := &suite{T: t, Client: c, ctx: ctx, space: "contract"}
	if !c.Cache().WaitForCacheSync(ctx) {
		t.Fatal("the cache does not start")
	}
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.space}})
	return s
}

func (s *suite) create(objs ...crclient.Object) {
	s.Helper()
	for _, o := range objs {
		if err := s.Create(s.ctx, o); err != nil {
			s.Fatalf("create %T %s: %v", o, o.GetName(), err)
		}
	}
}

// must fails the test if there is an error.
func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// live reads an object past the cache into *obj, which becomes a copy: what is read may be shared.
func (s *suite) live(obj crclient.Object) {
	s.Helper()
	shared := reflect.New(reflect.TypeOf(obj).Elem()).Interface().(crclient.Object)
	s.must(s.Live().Get(s.ctx, crclient.ObjectKeyFromObject(obj), shared))
	reflect.ValueOf(obj).Elem().Set(reflect.ValueOf(shared.DeepCopyObject()).Elem())
}

// soon waits until f says that there is nothing to complain about.
func (s *suite) soon(f func() error) {
	s.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("not in %s: %v", patience, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (s *suite) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: s.space, Name: name}
}

func (s *suite) configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: s.meta(name), Data: map[string]string{"n": "0"}}
}

func (s *suite) pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: s.meta(name), Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "web"}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func (s *suite) deployment(name string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{ObjectMeta: s.meta(name), Spec: appsv1.DeploymentSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "web"}}}},
	}}
}

// expect is an error if what was found is not what was wanted.
func expect[T comparable](what string, got, want T) error {
	if got != want {
		return fmt.Errorf("%s is %v, want %v", what, got, want)
	}
	return nil
}
