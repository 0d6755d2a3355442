package apiserver_test

import (
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
)

const manyNamespaces = 10_000

// A cluster with 10,000 namespaces is listed, watched, chunked and changed like any other, and each namespace has only what is its own.
func TestTenThousandNamespaces(t *testing.T) {
	f := start(t)
	c := f.clientset()
	name := func(i int) string { return fmt.Sprintf("team-%05d", i) }
	each := func(do func(i int) error) {
		t.Helper()
		work := make(chan int)
		var all sync.WaitGroup
		for range 32 {
			all.Go(func() {
				for i := range work {
					if err := do(i); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for i := range manyNamespaces {
			work <- i
		}
		close(work)
		all.Wait()
	}
	each(func(i int) error {
		_, err := c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name(i)}}, metav1.CreateOptions{})
		return err
	})
	each(func(i int) error {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name(i), Name: "settings"}, Data: map[string]string{"team": name(i)}}
		_, err := c.CoreV1().ConfigMaps(name(i)).Create(ctx, m, metav1.CreateOptions{})
		return err
	})
	if t.Failed() {
		t.FailNow()
	}
	t.Run("chunks", func(t *testing.T) { namespacesInChunks(t, c, name) })
	t.Run("watch", func(t *testing.T) { namespacesAreWatched(t, c) })
	one, err := c.CoreV1().ConfigMaps(name(4711)).List(ctx, metav1.ListOptions{})
	if err != nil || len(one.Items) != 1 || one.Items[0].Data["team"] != name(4711) {
		t.Errorf("one namespace has %d, %v", len(one.Items), err)
	}
	if err := c.CoreV1().ConfigMaps(name(1)).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if err := c.CoreV1().Namespaces().Delete(ctx, name(2), metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	f.ask("GET /api/v1/namespaces/"+name(2), "").mustSay(200, `"phase":"Terminating"`)
	rest, err := c.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{LabelSelector: "!x", FieldSelector: "metadata.name=settings"})
	if err != nil || len(rest.Items) != manyNamespaces-1 {
		t.Errorf("%d are left, %v", len(rest.Items), err)
	}
}

// namespacesInChunks: all that is in them comes once, in order.
func namespacesInChunks(t *testing.T, c *kubernetes.Clientset, name func(int) string) {
	next, o := 0, metav1.ListOptions{Limit: 777, FieldSelector: "metadata.name=settings"}
	for {
		page, err := c.CoreV1().ConfigMaps("").List(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range page.Items {
			if page.Items[i].Namespace != name(next) {
				t.Fatalf("number %d is in %s", next, page.Items[i].Namespace)
			}
			next++
		}
		if o.Continue = page.Continue; o.Continue == "" {
			break
		}
	}
	if next != manyNamespaces {
		t.Errorf("%d came", next)
	}
}

// namespacesAreWatched: a watch that begins with what there is has all of them.
func namespacesAreWatched(t *testing.T, c *kubernetes.Clientset) {
	w, err := c.CoreV1().Namespaces().Watch(ctx, metav1.ListOptions{
		SendInitialEvents: new(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	seen := map[string]bool{}
	for e := range w.ResultChan() {
		if e.Type == watch.Bookmark {
			break
		}
		seen[e.Object.(*corev1.Namespace).Name] = true
	}
	if len(seen) < manyNamespaces {
		t.Errorf("%d were told", len(seen))
	}
}
