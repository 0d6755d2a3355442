package clienttest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	toolscache "k8s.io/client-go/tools/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
)

// diary is a handler that writes down what happens in one namespace.
type diary struct {
	space string

	mu      sync.Mutex
	entries []string         // "add c 0", "update c 1", "delete c 2": what, name, data.n
	early   map[string]bool  // names that were added as part of what was there
	newest  map[string]int64 // resourceVersion by name
	wrong   []string
}

func newDiary(space string) *diary {
	return &diary{space: space, early: map[string]bool{}, newest: map[string]int64{}}
}

func (d *diary) OnAdd(o any, initial bool) { d.note("add", o, initial) }
func (d *diary) OnUpdate(old, o any) {
	if a, b := old.(crclient.Object), o.(crclient.Object); a.GetResourceVersion() == b.GetResourceVersion() {
		d.mu.Lock()
		d.wrong = append(d.wrong, "an update that changes nothing of "+b.GetName())
		d.mu.Unlock()
	}
	d.note("update", o, false)
}
func (d *diary) OnDelete(o any) {
	if gone, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = gone.Obj
	}
	d.note("delete", o, false)
}

func (d *diary) note(what string, o any, initial bool) {
	obj := o.(crclient.Object)
	if obj.GetNamespace() != d.space {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	rv, _ := strconv.ParseInt(obj.GetResourceVersion(), 10, 64)
	if rv < d.newest[obj.GetName()] {
		d.wrong = append(d.wrong, fmt.Sprintf("%s %s goes back from %d to %d", what, obj.GetName(), d.newest[obj.GetName()], rv))
	}
	d.newest[obj.GetName()] = rv
	n := ""
	if c, ok := o.(*corev1.ConfigMap); ok {
		n = " " + c.Data["n"]
	}
	d.entries = append(d.entries, what+" "+obj.GetName()+n)
	if initial {
		d.early[obj.GetName()] = true
	}
}

// about are the entries about one object.
func (d *diary) about(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, e := range d.entries {
		if f := strings.Fields(e); f[1] == name {
			out = append(out, strings.Replace(e, " "+name, "", 1))
		}
	}
	return strings.Join(out, ", ")
}

func (s *suite) follow(obj crclient.Object, h toolscache.ResourceEventHandler) (remove func()) {
	s.Helper()
	informer, err := s.Cache().GetInformer(s.ctx, obj)
	s.must(err)
	r, err := informer.AddEventHandler(h)
	s.must(err)
	s.soon(func() error { return expect("synced", r.HasSynced(), true) })
	return func() { s.must(informer.RemoveEventHandler(r)) }
}

func (s *suite) noComplaints(d *diary) {
	s.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.wrong {
		s.Error(w)
	}
}

func informersDeliverInOrder(s *suite) {
	s.create(s.configMap("there"), s.configMap("there-too"))
	d := newDiary(s.space)
	s.follow(&corev1.ConfigMap{}, d)
	if d.about("there") != "add 0" || d.about("there-too") != "add 0" || !d.early["there"] {
		s.Errorf("synced, it has got %v", d.entries)
	}
	c := s.configMap("new")
	s.create(c)
	want := "add 0"
	for i := 1; i <= 20; i++ {
		c.Data["n"] = strconv.Itoa(i)
		s.must(s.Update(s.ctx, c))
		want += ", update " + strconv.Itoa(i)
	}
	s.must(s.Delete(s.ctx, c))
	want += ", delete 20"
	s.soon(func() error { return expect("the story", d.about("new"), want) })
	s.create(s.configMap("new"))
	s.soon(func() error { return expect("the story", d.about("new"), want+", add 0") })
	d.mu.Lock()
	if d.early["new"] {
		s.Error("what came later was added as if it had been there")
	}
	d.mu.Unlock()
	s.noComplaints(d)
	if d.about("there") != "add 0" {
		s.Errorf("an object that did not change: %s", d.about("there"))
	}
}

func lateHandlers(s *suite) {
	first := newDiary(s.space)
	s.follow(&corev1.ConfigMap{}, first)
	kept, gone := s.configMap("kept"), s.configMap("gone")
	s.create(kept, gone)
	kept.Data["n"] = "1"
	s.must(s.Update(s.ctx, kept))
	s.must(s.Delete(s.ctx, gone))
	s.soon(func() error {
		return errors.Join(expect("kept", first.about("kept"), "add 0, update 1"), expect("gone", first.about("gone"), "add 0, delete 0"))
	})
	second := newDiary(s.space)
	s.follow(&corev1.ConfigMap{}, second)
	if second.about("kept") != "add 1" || second.about("gone") != "" {
		s.Errorf("a late handler got %v", second.entries)
	}
	s.must(s.Delete(s.ctx, kept))
	s.soon(func() error {
		return errors.Join(expect("first", first.about("kept"), "add 0, update 1, delete 1"), expect("second", second.about("kept"), "add 1, delete 1"))
	})
	s.noComplaints(first)
	s.noComplaints(second)
}

func metadataInformers(s *suite) {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	d := newDiary(s.space)
	s.follow(m, d)
	o := s.deployment("d")
	s.create(o)
	o.Labels = map[string]string{"a": "b"}
	s.must(s.Update(s.ctx, o))
	s.must(s.Delete(s.ctx, o))
	s.soon(func() error { return expect("the story", d.about("d"), "add, update, delete") })
	s.noComplaints(d)
}

func removedHandlers(s *suite) {
	d, other := newDiary(s.space), newDiary(s.space)
	remove := s.follow(&corev1.ConfigMap{}, d)
	s.follow(&corev1.ConfigMap{}, other)
	s.create(s.configMap("before"))
	s.soon(func() error { return expect("before", d.about("before"), "add 0") })
	remove()
	time.Sleep(20 * time.Millisecond) // one call may be under way
	s.create(s.configMap("after"))
	s.soon(func() error { return expect("after", other.about("after"), "add 0") })
	if d.about("after") != "" {
		s.Error("a removed handler is called")
	}
}

func indexesAreThere(s *suite) {
	byNode := func(o crclient.Object) []string { return []string{o.(*corev1.Pod).Spec.NodeName} }
	for range 2 { // two parts may both ask
		s.must(s.Cache().IndexField(s.ctx, &corev1.Pod{}, "spec.nodeName", byNode))
	}
	if err := s.Cache().IndexField(s.ctx, &corev1.Pod{}, "spec.nothing", byNode); err == nil {
		s.Error("an index that is not the table's can be had")
	}
	s.create(s.pod("p", func(p *corev1.Pod) { p.Spec.NodeName = "n" }))
	s.soon(func() error {
		list := &corev1.PodList{}
		err := s.Cache().List(s.ctx, list, crclient.MatchingFields{"spec.nodeName": "n"})
		return errors.Join(err, expect("the list", names(list.Items), "p"))
	})
}

func recordersWrite(s *suite) {
	p := s.pod("p")
	s.create(p)
	r := s.Recorder("tester")
	for range 3 {
		r.Eventf(p, corev1.EventTypeWarning, "Tested", "for the %s time", "nth")
	}
	r.Event(p, corev1.EventTypeNormal, "Done", "all well")
	s.soon(func() error {
		list := &corev1.EventList{}
		err := s.Live().List(s.ctx, list, crclient.InNamespace(s.space))
		var tested, done int32
		for _, e := range list.Items {
			if e.InvolvedObject.UID != p.UID || e.InvolvedObject.Kind != "Pod" || e.Source.Component != "tester" {
				return fmt.Errorf("an event is about %+v, from %+v", e.InvolvedObject, e.Source)
			}
			switch e.Reason {
			case "Tested":
				tested += e.Count
			case "Done":
				done += e.Count
			}
		}
		return errors.Join(err, expect("Tested", tested, 3), expect("Done", done, 1), expect("events", len(list.Items), 2))
	})
}

// endsAll checks that nothing of a client is left when its Run has returned.
func endsAll(t *testing.T, c client.Client) {
	before := len(clientGoroutines())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	s := &suite{T: t, Client: c, ctx: ctx, space: "default"}
	s.follow(&corev1.ConfigMap{}, newDiary("default"))
	s.follow(&corev1.Pod{}, newDiary("default"))
	s.create(s.configMap("c"))
	s.must(s.List(ctx, &corev1.NodeList{}))
	c.Recorder("tester").Event(s.configMap("c"), corev1.EventTypeNormal, "Done", "all well")
	s.soon(func() error {
		list := &corev1.EventList{}
		err := s.Live().List(ctx, list, crclient.InNamespace("default"))
		return errors.Join(err, expect("events", len(list.Items), 1))
	})
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Run does not return")
	}
	deadline := time.Now().Add(patience)
	for left := clientGoroutines(); len(left) > before; left = clientGoroutines() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines before, %d after:\n%s", before, len(left), strings.Join(left, "\n\n"))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// clientGoroutines are the stacks of those that belong to clients. The server that a client speaks to may run in this process too, and comes and goes
// as it likes.
func clientGoroutines() (out []string) {
	stacks := make([]byte, 4<<20)
	for _, g := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
		for _, of := range []string{"k8s.io/client-go/", "controller-runtime/pkg/cache", "internal/client.", "net/http.(*http2ClientConn)", "net/http.(*persistConn)"} {
			if strings.Contains(g, of) {
				out = append(out, g)
				break
			}
		}
	}
	return out
}
