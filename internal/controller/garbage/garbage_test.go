package garbage

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
)

// ref refers to a ReplicaSet; "!" before the name makes the deletion of the owner wait.
func ref(name string) metav1.OwnerReference {
	bare, blocking := strings.CutPrefix(name, "!")
	return metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: bare, UID: types.UID(bare), BlockOwnerDeletion: &blocking}
}

func refs(owners []string) (list []metav1.OwnerReference) {
	for _, o := range owners {
		list = append(list, ref(o))
	}
	return list
}

func pod(name string, owners ...string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), OwnerReferences: refs(owners)}}
}

func set(name string, owners ...string) *appsv1.ReplicaSet {
	return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), OwnerReferences: refs(owners)}}
}

func begin(t *testing.T, objects ...crclient.Object) *clienttest.Client {
	t.Helper()
	c := clienttest.New(t, objects...)
	ctx, cancel := context.WithCancel(context.Background())
	ended, synced := make(chan error, 1), make(chan struct{})
	log := slog.New(slog.DiscardHandler)
	loop := New(c, api.NewTable(), log)
	go func() { ended <- harness.Run(ctx, loop, c, harness.NewMetrics(nil), log, func() { close(synced) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the collector ended with %v", err)
		}
	})
	<-synced
	return c
}

// mark deletes an object that a finalizer holds, as an API does for foreground and orphan deletion.
func mark(t *testing.T, c *clienttest.Client, o crclient.Object, finalizer string) {
	t.Helper()
	if err := c.Get(context.Background(), crclient.ObjectKeyFromObject(o), o); err != nil {
		t.Fatal(err)
	}
	o.SetFinalizers([]string{finalizer})
	if err := c.Update(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(context.Background(), o); err != nil {
		t.Fatal(err)
	}
}

func TestCollection(t *testing.T) {
	held := pod("held", "!a")
	held.Finalizers = []string{"test/hold"}
	foreign := pod("foreign", "a")
	foreign.Namespace = "other"
	unknown := pod("unknown")
	unknown.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Thing", Name: "t", UID: "t"}}
	for _, tt := range []struct {
		name    string
		objects []crclient.Object
		act     func(t *testing.T, c *clienttest.Client)
		pods    string // left in the end
		sets    string
		also    func(c *clienttest.Client) bool
	}{
		{name: "owned pods go with their owner, others stay", objects: []crclient.Object{set("a"), pod("p1", "a"), pod("p2", "a"), pod("free")},
			act: remove(set("a")), pods: "free"},
		{name: "an owner that went while nobody watched", objects: []crclient.Object{pod("p1", "gone"), set("a"), pod("p2", "a")}, pods: "p2", sets: "a"},
		{name: "an owner of that name but another UID", objects: []crclient.Object{set("a"), orphanOf("p", "a", "older")}, sets: "a"},
		{name: "down a chain", objects: []crclient.Object{set("a"), set("b", "a"), pod("p", "b")}, act: remove(set("a"))},
		{name: "two owners, one left: only the reference goes", objects: []crclient.Object{set("a"), set("b"), pod("p", "a", "b")}, act: remove(set("a")),
			pods: "p", sets: "b", also: func(c *clienttest.Client) bool {
				var p corev1.Pod
				return c.Get(context.Background(), crclient.ObjectKey{Namespace: "default", Name: "p"}, &p) == nil && len(p.OwnerReferences) == 1 && p.OwnerReferences[0].UID == "b"
			}},
		{name: "foreground: the owner goes last", objects: []crclient.Object{set("a"), pod("p", "!a")},
			act: func(t *testing.T, c *clienttest.Client) { mark(t, c, set("a"), metav1.FinalizerDeleteDependents) }},
		{name: "foreground: what is held holds its owner", objects: []crclient.Object{set("a"), held, pod("p", "a")},
			act:  func(t *testing.T, c *clienttest.Client) { mark(t, c, set("a"), metav1.FinalizerDeleteDependents) },
			pods: "held", sets: "a"},
		{name: "foreground: a circle is cut", objects: []crclient.Object{set("a", "!b"), set("b", "!a")},
			act: func(t *testing.T, c *clienttest.Client) { mark(t, c, set("a"), metav1.FinalizerDeleteDependents) }},
		{name: "orphaned: the owner goes, the pods stay", objects: []crclient.Object{set("a"), pod("p", "a")},
			act:  func(t *testing.T, c *clienttest.Client) { mark(t, c, set("a"), metav1.FinalizerOrphanDependents) },
			pods: "p", also: func(c *clienttest.Client) bool {
				var p corev1.Pod
				return c.Get(context.Background(), crclient.ObjectKey{Namespace: "default", Name: "p"}, &p) == nil && len(p.OwnerReferences) == 0
			}},
		{name: "an owner in another namespace is none", objects: []crclient.Object{set("a"), foreign}, sets: "a",
			also: func(c *clienttest.Client) bool {
				return slices.ContainsFunc(c.Events(), func(e string) bool { return strings.HasPrefix(e, "Warning OwnerRefInvalidNamespace ") })
			}},
		{name: "an owner of a kind not served is left alone", objects: []crclient.Object{unknown}, pods: "unknown"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var copies []crclient.Object
			for _, o := range tt.objects {
				copies = append(copies, o.DeepCopyObject().(crclient.Object))
			}
			c := begin(t, copies...)
			if tt.act != nil {
				tt.act(t, c)
			}
			clienttest.Eventually(t, "pods "+tt.pods+", sets "+tt.sets, func() bool {
				return strings.Join(c.Names(t, &corev1.PodList{}), " ") == tt.pods && strings.Join(c.Names(t, &appsv1.ReplicaSetList{}), " ") == tt.sets
			})
			if tt.also != nil {
				clienttest.Eventually(t, "the rest", func() bool { return tt.also(c) })
			}
		})
	}
}

func orphanOf(name, owner string, uid types.UID) *corev1.Pod {
	p := pod(name, owner)
	p.OwnerReferences[0].UID = uid
	return p
}

func remove(o crclient.Object) func(t *testing.T, c *clienttest.Client) {
	return func(t *testing.T, c *clienttest.Client) {
		t.Helper()
		if err := c.Delete(context.Background(), o); err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
	}
}

// The graph forgets what is gone: nothing may be left of objects that came and went.
func TestGraphForgets(t *testing.T) {
	g := newGraph()
	row := &api.Resource{Kind: "ReplicaSet", Namespaced: true}
	known := func(metav1.OwnerReference) (bool, bool) { return true, true }
	see := func(o crclient.Object) []types.UID { return g.observe(factsOf(row, o), known) }
	if look := see(set("b", "a")); !slices.Equal(look, []types.UID{"a"}) {
		t.Errorf("an owner not seen yet: look at %v", look)
	}
	if v, ok := g.look("a"); !ok || !v.virtual || v.namespace != "default" || len(v.dependents) != 1 {
		t.Errorf("virtual owner %+v", v)
	}
	see(set("a"))
	if v, _ := g.look("a"); v.virtual || len(v.dependents) != 1 {
		t.Errorf("owner %+v", v)
	}
	see(set("b"))
	if v, _ := g.look("a"); len(v.dependents) != 0 {
		t.Errorf("owner without dependents %+v", v)
	}
	see(set("b", "a", "never"))
	if look := g.remove("a"); !slices.Equal(look, []types.UID{"b"}) {
		t.Errorf("an owner went: look at %v", look)
	}
	g.remove("b")
	if len(g.nodes) != 0 {
		t.Errorf("%d nodes left", len(g.nodes))
	}
}
