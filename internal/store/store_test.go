package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/etcd"
)

var pods = &api.Resource{
	Version: "v1", Kind: "Pod", Plural: "pods", Key: "pods", Namespaced: true,
	New:     func() api.Object { return &corev1.Pod{} },
	NewList: func() runtime.Object { return &corev1.PodList{} },
	Fields: func(obj api.Object) fields.Set {
		return fields.Set{"spec.nodeName": obj.(*corev1.Pod).Spec.NodeName}
	},
	Indexes: map[string]func(api.Object) []string{"spec.nodeName": func(obj api.Object) []string {
		return []string{obj.(*corev1.Pod).Spec.NodeName}
	}},
}

var events = &api.Resource{
	Version: "v1", Kind: "Event", Plural: "events", Key: "events", Namespaced: true, Cold: true,
	New:     func() api.Object { return &corev1.Event{} },
	NewList: func() runtime.Object { return &corev1.EventList{} },
}

func startEtcd(t testing.TB) *etcd.Member {
	t.Helper()
	m, err := etcd.New(etcd.Config{Dir: filepath.Join(t.TempDir(), "etcd"), Name: "test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	runPart(t, m)
	return m
}

func runPart(t testing.TB, p interface {
	Run(context.Context) error
	Ready() <-chan struct{}
}) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-p.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("ended before it was ready: %v", err)
	}
}

func start(t testing.TB, change ...func(*Config)) (*Store, *etcd.Client) {
	t.Helper()
	m := startEtcd(t)
	cfg := Config{Client: m.Client(), Prefix: "/registry/", Sole: true, DetectMutation: true}
	for _, f := range change {
		f(&cfg)
	}
	s := New(cfg)
	s.Collection(pods)
	runPart(t, s)
	return s, m.Client()
}

func pod(name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "u-1", Labels: map[string]string{"app": "a"}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func mustCreate(t testing.TB, c *Collection, p *corev1.Pod) *Entry {
	t.Helper()
	e, err := c.Create(context.Background(), p.Namespace+"/"+p.Name, p)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestWritesAreSeenByReads(t *testing.T) {
	s, _ := start(t)
	ctx, c := context.Background(), s.Collection(pods)
	obj := pod("a")
	e := mustCreate(t, c, obj)
	if e.Object() != api.Object(obj) {
		t.Error("the written object was decoded again instead of being handed on")
	}
	if obj.ResourceVersion != fmt.Sprint(e.Revision()) || obj.Kind != "Pod" {
		t.Errorf("resourceVersion %q and kind %q were not set", obj.ResourceVersion, obj.Kind)
	}
	got, err := c.Get(ctx, "default/a", Read{Consistent: true})
	if err != nil || got != e {
		t.Fatalf("got %v, %v", got, err)
	}
	if _, err := c.Create(ctx, "default/a", pod("a")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("creating twice: %v", err)
	}
	e2, err := c.Update(ctx, e, pod("a", func(p *corev1.Pod) { p.Spec.NodeName = "n1" }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Update(ctx, e, pod("a")); !apierrors.IsConflict(err) {
		t.Errorf("updating an old entry: %v", err)
	}
	if _, err := c.Delete(ctx, e); !apierrors.IsConflict(err) {
		t.Errorf("deleting an old entry: %v", err)
	}
	gone, err := c.Delete(ctx, e2)
	if err != nil || gone.Revision() <= e2.Revision() || gone.Object().GetResourceVersion() != fmt.Sprint(gone.Revision()) {
		t.Errorf("delete: %v, %v", gone, err)
	}
	if got, _ := c.Get(ctx, "default/a", Read{}); got != nil {
		t.Error("still there after its deletion")
	}
}

func TestEncodingsEqualUpstreams(t *testing.T) {
	s, client := start(t)
	c := s.Collection(pods)
	e := mustCreate(t, c, pod("a", func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{{Name: "x", Image: "y"}} }))
	wire, err := e.Bytes(Protobuf)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string][]byte{"wire": wire, "disk": onDisk(t, client, "/registry/pods/default/a")} {
		obj, gvk, err := api.Codecs().UniversalDeserializer().Decode(value, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		p := obj.(*corev1.Pod)
		wantRV := map[string]string{"wire": fmt.Sprint(e.Revision()), "disk": ""}[name]
		if gvk.Kind != "Pod" || p.Name != "a" || p.Namespace != "default" || p.UID != "u-1" || p.ResourceVersion != wantRV || len(p.Spec.Containers) != 1 {
			t.Errorf("%s decodes to %v", name, p)
		}
	}
	again, _ := e.Bytes(Protobuf)
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // JSON is shared until the next collection
	j1, _ := e.Bytes(JSON)
	j2, _ := e.Bytes(JSON)
	if &again[0] != &wire[0] || &j1[0] != &j2[0] {
		t.Error("an encoding was made twice")
	}
	if !strings.Contains(string(j1), `"kind":"Pod","apiVersion":"v1"`) {
		t.Errorf("JSON is %s", j1)
	}
}

func onDisk(t *testing.T, client *etcd.Client, key string) []byte {
	t.Helper()
	resp, err := client.Get(context.Background(), key)
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("%s: %v, %v", key, resp, err)
	}
	return resp.Kvs[0].Value
}

func TestListPagesAndSnapshots(t *testing.T) {
	s, _ := start(t)
	ctx, c := context.Background(), s.Collection(pods)
	for i := range 10 {
		mustCreate(t, c, pod(fmt.Sprintf("p%02d", i)))
	}
	p1, err := c.List(ctx, ListOptions{Limit: 4})
	if err != nil || len(p1.Entries) != 4 || p1.Remaining == nil || *p1.Remaining != 6 {
		t.Fatalf("first page: %+v, %v", p1, err)
	}
	late := mustCreate(t, c, pod("p99"))
	p2, err := c.List(ctx, ListOptions{Limit: 10, Continue: p1.Continue})
	if err != nil || len(p2.Entries) != 6 || p2.Revision != p1.Revision || p2.Continue != "" {
		t.Fatalf("second page: %+v, %v", p2, err)
	}
	all, err := c.List(ctx, ListOptions{Predicate: Predicate{Namespace: "default"}})
	if err != nil || len(all.Entries) != 11 || all.Revision < late.Revision() {
		t.Fatalf("all: %+v, %v", all, err)
	}
	if other, _ := c.List(ctx, ListOptions{Predicate: Predicate{Namespace: "defaul"}}); len(other.Entries) != 0 {
		t.Error("a namespace that is a prefix of another sees its entries")
	}
	c.snapshots = nil // as after many other lists: the log knows what there was
	if again, err := c.List(ctx, ListOptions{Limit: 10, Continue: p1.Continue}); err != nil || !slices.Equal(again.Entries, p2.Entries) {
		t.Fatalf("a page made again: %+v, %v", again, err)
	}
	s.mu.Lock()
	s.past = past{{s.revision, time.Now().Add(-revisionLife)}}
	s.mu.Unlock()
	_, err = c.List(ctx, ListOptions{Limit: 4, Continue: p1.Continue})
	status, _ := err.(*apierrors.StatusError)
	if !apierrors.IsResourceExpired(err) || status.ErrStatus.Continue == "" {
		t.Fatalf("a page of a revision that is too old: %v", err)
	}
	rest, err := c.List(ctx, ListOptions{Limit: 100, Continue: status.ErrStatus.Continue})
	if err != nil || len(rest.Entries) != 7 {
		t.Fatalf("the inconsistent rest: %+v, %v", rest, err)
	}
	for _, bad := range []string{"x", "e30", "bm9wZQ"} {
		if _, err := c.List(ctx, ListOptions{Continue: bad}); !apierrors.IsBadRequest(err) {
			t.Errorf("continue=%s: %v", bad, err)
		}
	}
	if _, err := c.List(ctx, ListOptions{ExactRevision: p1.Revision}); !apierrors.IsResourceExpired(err) {
		t.Errorf("a revision that is too old: %v", err)
	}
	if now, err := c.List(ctx, ListOptions{ExactRevision: late.Revision()}); err != nil || len(now.Entries) != 11 {
		t.Errorf("the present revision, however old: %+v, %v", now, err)
	}
}

// A list at a revision has what there was then, as far back as the log reaches, in pages too, whatever has happened since.
func TestListsOfThePast(t *testing.T) {
	s, _ := start(t, func(c *Config) { c.EventBytes = 250_000 })
	ctx, c, rnd := context.Background(), s.Collection(pods), rand.New(rand.NewPCG(1, 2))
	there := map[string]*Entry{}
	then := map[int64][]*Entry{}
	var revisions []int64
	for range 300 {
		name := fmt.Sprint("p", rnd.IntN(12))
		e, err := there[name], error(nil)
		switch {
		case e == nil:
			there[name] = mustCreate(t, c, pod(name))
		case rnd.IntN(3) == 0:
			delete(there, name)
			_, err = c.Delete(ctx, e)
		default:
			there[name], err = c.Update(ctx, e, pod(name, func(p *corev1.Pod) { p.Spec.NodeName = fmt.Sprint("n", rnd.IntN(3)) }))
		}
		if err != nil {
			t.Fatal(err)
		}
		entries := slices.SortedFunc(maps.Values(there), func(a, b *Entry) int { return strings.Compare(a.key, b.key) })
		revisions, then[s.Revision()] = append(revisions, s.Revision()), entries
	}
	expired := 0
	for i, rev := range revisions {
		want := then[rev]
		page, err := c.List(ctx, ListOptions{ExactRevision: rev})
		if apierrors.IsResourceExpired(err) {
			if expired++; expired != i+1 {
				t.Fatalf("revision %d is too old, and an older one was not", rev)
			}
			continue
		}
		if err != nil || page.Revision != rev || !slices.Equal(page.Entries, want) {
			t.Fatalf("at revision %d: %v, %v; want %v", rev, page, err, want)
		}
		var paged []*Entry
		o := ListOptions{ExactRevision: rev, Limit: 5}
		for {
			page, err = c.List(ctx, o)
			if err != nil || page.Revision != rev {
				t.Fatalf("pages at revision %d: %v, %v", rev, page, err)
			}
			paged = append(paged, page.Entries...)
			if o = (ListOptions{Limit: 5, Continue: page.Continue}); o.Continue == "" {
				break
			}
		}
		if !slices.Equal(paged, want) {
			t.Fatalf("in pages at revision %d: %v; want %v", rev, paged, want)
		}
		page, err = c.List(ctx, ListOptions{ExactRevision: rev, Predicate: Predicate{Index: "spec.nodeName", Value: "n1"}})
		on := slices.DeleteFunc(slices.Clone(want), func(e *Entry) bool { return e.Object().(*corev1.Pod).Spec.NodeName != "n1" })
		if err != nil || !slices.Equal(page.Entries, on) {
			t.Fatalf("of a node at revision %d: %v, %v; want %v", rev, page, err, on)
		}
	}
	if expired == 0 || expired > len(revisions)/2 {
		t.Errorf("%d of %d revisions are too old", expired, len(revisions))
	}
}

func TestHorizon(t *testing.T) {
	var p past
	began := time.Now()
	for second := range 3600 { // a revision a second
		p.note(int64(second), began.Add(time.Duration(second)*time.Second))
	}
	now := began.Add(3599 * time.Second)
	if at := p.horizon(now); at < 3599-360 || at > 3599-300 || len(p) > 8 {
		t.Errorf("the oldest revision that can be listed at is %d, by %d marks", at, len(p))
	}
	if at := p.horizon(now.Add(time.Hour)); at < 3599-60 {
		t.Errorf("after an hour's silence it is %d", at)
	}
	if at := (past{{7, now}}).horizon(now.Add(revisionLife - 1)); at != 0 {
		t.Errorf("before anything is old it is %d", at)
	}
}

// A long list is walked once; whoever lists again sees every change since.
func TestLongListsAreKeptUntilSomethingChanges(t *testing.T) {
	s, _ := start(t)
	ctx, c := context.Background(), s.Collection(pods)
	for i := range longList {
		mustCreate(t, c, pod(fmt.Sprintf("p%d", i)))
	}
	list := func(namespace string) []*Entry {
		p, err := c.List(ctx, ListOptions{Predicate: Predicate{Namespace: namespace}})
		if err != nil {
			t.Fatal(err)
		}
		return p.Entries
	}
	first := list("default")
	if again := list("default"); len(again) != longList || &again[0] != &first[0] {
		t.Error("the list was made anew")
	}
	if len(list("")) != longList || len(list("other")) != 0 {
		t.Error("another namespace has this one's list")
	}
	list("default")
	e := mustCreate(t, c, pod("q"))
	if got := list("default"); len(got) != longList+1 || len(first) != longList {
		t.Errorf("%d after a create", len(got))
	}
	updated, err := c.Update(ctx, e, pod("q", func(p *corev1.Pod) { p.Labels["app"] = "b" }))
	if err != nil {
		t.Fatal(err)
	}
	if got := list("default"); got[longList] != updated {
		t.Error("the list is older than an update")
	}
	if _, err := c.Delete(ctx, updated); err != nil {
		t.Fatal(err)
	}
	if got := list("default"); len(got) != longList {
		t.Errorf("%d after a delete", len(got))
	}
}

func TestSelectionsAndIndexes(t *testing.T) {
	s, _ := start(t)
	ctx, c := context.Background(), s.Collection(pods)
	for i := range 6 {
		mustCreate(t, c, pod(fmt.Sprintf("p%d", i), func(p *corev1.Pod) {
			p.Spec.NodeName = fmt.Sprintf("n%d", i%2)
			p.Labels = map[string]string{"i": fmt.Sprint(i)}
		}))
	}
	for name, tc := range map[string]struct {
		p    Predicate
		want string
	}{
		"labels": {Predicate{Labels: labels.SelectorFromSet(labels.Set{"i": "3"})}, "p3"},
		"fields": {Predicate{Fields: fields.OneTermEqualSelector("spec.nodeName", "n1")}, "p1 p3 p5"},
		"name":   {Predicate{Fields: fields.OneTermEqualSelector("metadata.name", "p4")}, "p4"},
		"index":  {Predicate{Index: "spec.nodeName", Value: "n0"}, "p0 p2 p4"},
		"both":   {Predicate{Index: "spec.nodeName", Value: "n0", Name: "p2"}, "p2"},
		"none":   {Predicate{Namespace: "other"}, ""},
	} {
		page, err := c.List(ctx, ListOptions{Predicate: tc.p})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range page.Entries {
			got = append(got, e.Object().GetName())
		}
		if strings.Join(got, " ") != tc.want {
			t.Errorf("%s: got %v, want %s", name, got, tc.want)
		}
	}
}

func collect(t *testing.T, w *Watcher, n int) (out []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for len(out) < n {
		evs, err := w.Next(ctx, nil, 100)
		if err != nil {
			t.Fatalf("after %v: %v", out, err)
		}
		for _, e := range evs {
			switch {
			case e.InitialEnd:
				out = append(out, "end")
			case e.Type == Bookmark:
				out = append(out, "bookmark")
			default:
				out = append(out, []string{"+", "~", "-"}[e.Type]+e.Entry.Object().GetName())
			}
		}
	}
	return out
}

func TestWatchSeesSelectionChange(t *testing.T) {
	s, _ := start(t)
	ctx, c := context.Background(), s.Collection(pods)
	old := mustCreate(t, c, pod("old", func(p *corev1.Pod) { p.Spec.NodeName = "n1" }))
	sel, err := c.Watch(ctx, WatchOptions{Predicate: Predicate{Fields: fields.OneTermEqualSelector("spec.nodeName", "n1")}, Initial: true, Bookmarks: true})
	if err != nil {
		t.Fatal(err)
	}
	resume, err := c.Watch(ctx, WatchOptions{Revision: old.Revision()})
	if err != nil {
		t.Fatal(err)
	}
	a := mustCreate(t, c, pod("a"))
	a, err = c.Update(ctx, a, pod("a", func(p *corev1.Pod) { p.Spec.NodeName = "n1" }))
	if err != nil {
		t.Fatal(err)
	}
	a, err = c.Update(ctx, a, pod("a", func(p *corev1.Pod) { p.Spec.NodeName = "n2" }))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Delete(ctx, a); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Delete(ctx, old); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(collect(t, sel, 5), " "); got != "+old end +a -a -old" {
		t.Errorf("the selecting watch saw %s", got)
	}
	if got := strings.Join(collect(t, resume, 5), " "); got != "+a ~a ~a -a -old" {
		t.Errorf("the resumed watch saw %s", got)
	}
}

// What one transaction writes shares a revision. A watcher sees all of it, also one that was cut off in the middle and goes on from there.
func TestWatchOfWhatOneTransactionWrote(t *testing.T) {
	s, _ := start(t, func(c *Config) { c.EventBytes = 1 })
	ctx, c := context.Background(), s.Collection(pods)
	watch := func(o WatchOptions) *Watcher {
		w, err := c.Watch(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Stop)
		return w
	}
	live, ahead := watch(WatchOptions{FromNow: true, Keep: true}), watch(WatchOptions{Revision: s.Revision() + 1, Keep: true})
	e, err := c.Create(ctx, "default/a", pod("a"), Beside{In: c, Key: "default/b", Obj: pod("b")}, Beside{In: c, Key: "default/c", Obj: pod("c")})
	if err != nil {
		t.Fatal(err)
	}
	first, err := live.Next(ctx, nil, 1)
	if err != nil || len(first) != 1 || first[0].Revision != e.Revision() {
		t.Fatalf("%v, %v", first, err)
	}
	resumed := watch(WatchOptions{Revision: first[0].Revision, Keep: true})
	after, err := c.Delete(ctx, e, Beside{In: c, Key: "default/b"}, Beside{In: c, Key: "default/c"})
	if err != nil {
		t.Fatal(err)
	}
	for what, w := range map[string]*Watcher{"the live watch": live, "the resumed one": resumed, "one that began ahead": ahead} {
		got := strings.Join(collect(t, w, map[*Watcher]int{live: 5, resumed: 6, ahead: 3}[w]), " ")
		if want := map[*Watcher]string{live: "+b +c -a -b -c", resumed: "+a +b +c -a -b -c", ahead: "-a -b -c"}[w]; got != want {
			t.Errorf("%s saw %s, want %s", what, got, want)
		}
	}
	// A lone event is not shown again, and of several none is forgotten when the log has dropped the first of them.
	mustCreate(t, c, pod("d"))
	for _, w := range []*Watcher{live, resumed, ahead} {
		collect(t, w, 1)
		w.Stop()
	}
	e = mustCreate(t, c, pod("e"))
	mustCreate(t, c, pod("f"))
	if got := strings.Join(collect(t, watch(WatchOptions{Revision: e.Revision()}), 1), " "); got != "+f" {
		t.Errorf("resumed at a revision of one event: %s", got)
	}
	if _, err := c.Watch(ctx, WatchOptions{Revision: after.Revision()}); !apierrors.IsResourceExpired(err) {
		t.Errorf("a forgotten revision: %v", err)
	}
	e, err = c.Create(ctx, "default/g", pod("g"), Beside{In: c, Key: "default/h", Obj: pod("h")})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(collect(t, watch(WatchOptions{Revision: e.Revision()}), 1), " "); got != "+h" {
		t.Errorf("resumed where the log holds the rest: %s", got)
	}
}

// A watch that asked for bookmarks is told now and then how far it has seen, although nothing of what happens is for it; and again, as things go on.
func TestQuietWatchesGetBookmarks(t *testing.T) {
	s, _ := start(t)
	s.quiet = time.Millisecond
	ctx, c := context.Background(), s.Collection(pods)
	for what, p := range map[string]Predicate{
		"a selection": {Labels: labels.SelectorFromSet(labels.Set{"app": "none"})}, "one object": {Namespace: "default", Name: "none"}, "a node's": {Index: "spec.nodeName", Value: "none"},
	} {
		w, err := c.Watch(ctx, WatchOptions{Predicate: p, Bookmarks: true})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			e := mustCreate(t, c, pod(fmt.Sprint("p", i)))
			got, err := w.Next(ctx, nil, 10)
			if err != nil || len(got) != 1 || got[0].Type != Bookmark || got[0].InitialEnd || got[0].Revision < e.Revision() {
				t.Fatalf("%s: %+v, %v; want a bookmark at %d or after", what, got, err, e.Revision())
			}
		}
		w.Stop()
		for i := range 2 {
			e, err := c.Get(ctx, fmt.Sprint("default/p", i), Read{})
			if err == nil {
				_, err = c.Delete(ctx, e)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestSlowWatcherIsCutOff(t *testing.T) {
	s, _ := start(t, func(c *Config) { c.EventBytes = 4000 })
	ctx, c := context.Background(), s.Collection(pods)
	e := mustCreate(t, c, pod("a"))
	w, err := c.Watch(ctx, WatchOptions{Revision: e.Revision()})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if e, err = c.Update(ctx, e, pod("a")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Next(ctx, nil, 10); !apierrors.IsResourceExpired(err) {
		t.Errorf("a watcher that fell behind: %v", err)
	}
	if _, err := c.Watch(ctx, WatchOptions{Revision: 2}); !apierrors.IsResourceExpired(err) {
		t.Errorf("a watch from a forgotten revision: %v", err)
	}
}

func TestOthersWritesAndCorruptValues(t *testing.T) {
	s, client := start(t, func(c *Config) { c.Sole = false })
	ctx, c := context.Background(), s.Collection(pods)
	value, err := encode(pods, pod("theirs"))
	if err != nil {
		t.Fatal(err)
	}
	for key, v := range map[string]string{"/registry/pods/default/theirs": string(value), "/registry/pods/default/bad": "k8s\x00garbage", "/registry/events/default/e": "k8s\x00", "/elsewhere": "x"} {
		if _, err := client.Put(ctx, key, v); err != nil {
			t.Fatal(err)
		}
	}
	page, err := c.List(ctx, ListOptions{Read: Read{Consistent: true}})
	if err != nil || len(page.Entries) != 1 || page.Entries[0].Object().GetName() != "theirs" {
		t.Fatalf("got %+v, %v", page, err)
	}
	if bad := s.Corrupt(); len(bad) != 1 || bad["/registry/pods/default/bad"] == nil {
		t.Errorf("corrupt: %v", bad)
	}
	s.mu.Lock() // one that is deleted while the watch is down
	s.corrupt["/registry/pods/default/gone"] = unreadable{1, errors.New("it was unreadable")}
	s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.UnreadableIn(""), " "); got != "default/bad" || c.Unreadable("default/gone") != nil || len(c.UnreadableIn("other")) != 0 {
		t.Errorf("after a reload unreadable are %s", got)
	}
	if _, err := client.Delete(ctx, "/registry/pods/default/theirs"); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(ctx, "default/theirs", Read{Consistent: true}); err != nil || got != nil {
		t.Errorf("after another's delete: %v, %v", got, err)
	}
}

// Values of an older version, or another program, may lack what is a default today. Readers get it all the same.
func TestDefaultsOfOldValues(t *testing.T) {
	row := *pods
	row.Default = func(obj api.Object) {
		if p := obj.(*corev1.Pod); p.Spec.DNSPolicy == "" {
			p.Spec.DNSPolicy = corev1.DNSClusterFirst
		}
	}
	m := startEtcd(t)
	value, err := encode(pods, pod("old"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Client().Put(t.Context(), "/registry/pods/default/old", string(value)); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Client: m.Client(), Prefix: "/registry/", Sole: true, DetectMutation: true})
	c := s.Collection(&row)
	runPart(t, s)
	e, err := c.Get(t.Context(), "default/old", Read{})
	if err != nil || e == nil {
		t.Fatalf("%v, %v", e, err)
	}
	wire, err := e.Bytes(Protobuf)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := decode(pods, wire)
	if err != nil {
		t.Fatal(err)
	}
	for where, obj := range map[string]api.Object{"memory": e.Object(), "the wire": sent} {
		if p := obj.(*corev1.Pod); p.Spec.DNSPolicy != corev1.DNSClusterFirst || p.Labels["app"] != "a" || p.ResourceVersion == "" {
			t.Errorf("%s has %+v", where, p)
		}
	}
}

func TestColdKindsAndLateCollections(t *testing.T) {
	s, _ := start(t)
	ctx := context.Background()
	c := s.Collection(events)
	if _, err := c.Create(ctx, "default/e", &corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "e"}, Reason: "Test"}); err != nil {
		t.Fatal(err)
	}
	e, err := c.Get(ctx, "default/e", Read{})
	if err != nil || e.obj != nil {
		t.Fatalf("a cold entry keeps its object: %v, %v", e, err)
	}
	if got := e.Object().(*corev1.Event); got.Reason != "Test" || got.ResourceVersion == "" {
		t.Errorf("got %v", got)
	}
}

func TestRestartAndLateCollection(t *testing.T) {
	m := startEtcd(t)
	run := func(f func(*Store)) {
		s := New(Config{Client: m.Client(), Prefix: "/registry/", Sole: true})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		<-s.Ready()
		f(s)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	run(func(s *Store) { mustCreate(t, s.Collection(pods), pod("a")) })
	run(func(s *Store) {
		// Opened only now, long after the load.
		if e, err := s.Collection(pods).Get(context.Background(), "default/a", Read{}); err != nil || e == nil || e.Object().GetName() != "a" {
			t.Errorf("after a restart: %v, %v", e, err)
		}
	})
}

func TestChangedSharedObjectIsNoticed(t *testing.T) {
	m := startEtcd(t)
	s := New(Config{Client: m.Client(), Prefix: "/registry/", Sole: true, DetectMutation: true})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	e := mustCreate(t, s.Collection(pods), pod("a"))
	e.Object().(*corev1.Pod).Spec.NodeName = "changed"
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "default/a") {
		t.Errorf("got %v", err)
	}
}

func TestManyWritersOfOneKey(t *testing.T) {
	s, _ := start(t)
	ctx, c := context.Background(), s.Collection(pods)
	mustCreate(t, c, pod("a"))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for done := 0; done < 20; {
				e, err := c.Get(ctx, "default/a", Read{})
				if err != nil {
					t.Error(err)
					return
				}
				next := e.Object().DeepCopyObject().(*corev1.Pod)
				next.Generation++
				if _, err := c.Update(ctx, e, next); err == nil {
					done++
				} else if !apierrors.IsConflict(err) {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if e, _ := c.Get(ctx, "default/a", Read{}); e.Object().GetGeneration() != 160 {
		t.Errorf("%d of 160 increments were kept", e.Object().GetGeneration())
	}
}

func BenchmarkCreate(b *testing.B) {
	s, _ := start(b, func(c *Config) { c.DetectMutation = false })
	c := s.Collection(pods)
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		mustCreate(b, c, pod(fmt.Sprintf("p%d", i)))
	}
}

func BenchmarkList10000(b *testing.B) {
	s, _ := start(b, func(c *Config) { c.DetectMutation = false })
	c := s.Collection(pods)
	var group sync.WaitGroup
	for w := range 50 {
		group.Go(func() {
			for i := range 200 {
				mustCreate(b, c, pod(fmt.Sprintf("p%d-%d", w, i)))
			}
		})
	}
	group.Wait()
	b.ReportAllocs()
	for b.Loop() {
		if p, err := c.List(context.Background(), ListOptions{Read: Read{Consistent: true}}); err != nil || len(p.Entries) != 10000 {
			b.Fatal(err)
		}
	}
}

// A write that is done waits for memory longer than a read does, and its answer never asks for the write to be done again.
func TestWrittenAndNotSeenYet(t *testing.T) {
	t.Parallel()
	s := New(Config{Sole: true})
	late := time.AfterFunc(waitPatience+200*time.Millisecond, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.advance(7)
	})
	defer late.Stop()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.written(ctx, 7); err != nil {
		t.Error(err)
	}
}
