package apiserver_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"

	"skiff.dev/skiff/internal/apiserver/admission"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// The test is the same with 10,000, which takes minutes.
var namespaceCount = flag.Int("namespaces", 2000, "how many namespaces TestManyNamespaces makes")

// each calls f with every number below n, 16 at a time, and stops at the first error.
func each(n int, f func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	for range 16 {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && failed.Load() == nil; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	running.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// populated is a server with all admission and all controllers.
func populated(t *testing.T) *fixture {
	t.Helper()
	admit, validate := admission.Default()
	f := startOver(t, func(c *registry.Config, a func() *authz.Authorizer) {
		c.Admit = append(admit, c.Admit...)
		c.Validate = append(validate, c.Validate...)
	})
	quiet := slog.New(slog.DiscardHandler)
	cl := client.Local(f.Registry.Registry, &user.DefaultInfo{Name: user.KubeControllerManager, Groups: []string{user.SystemPrivilegedGroup}}, quiet)
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- cl.Run(running) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	all, err := controller.New(controller.Config{
		Client: cl, Kinds: f.Table(), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, NodeMask: []int{24}, RootCA: f.ca.PEM, Log: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	registrytest.Run(t, all)
	return f
}

func nameOf(i int) string { return fmt.Sprintf("tenant-%05d", i) }

// crowd is many namespaces, each with a quota, somebody who may read it, and content.
type crowd struct {
	*fixture
	c *kubernetes.Clientset
	n int
}

const settings = "settings" // the ConfigMap of each

func (c crowd) fill() error {
	reader := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"}
	return each(c.n, func(i int) error {
		name := nameOf(i)
		if _, err := c.c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"tenant": "yes"}}}, metav1.CreateOptions{}); err != nil {
			return err
		}
		q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/secrets": resource.MustParse("2")}}}
		if _, err := c.c.CoreV1().ResourceQuotas(name).Create(ctx, q, metav1.CreateOptions{}); err != nil {
			return err
		}
		b := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, RoleRef: reader, Subjects: []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "user-of-" + name}}}
		if _, err := c.c.RbacV1().RoleBindings(name).Create(ctx, b, metav1.CreateOptions{}); err != nil {
			return err
		}
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: settings}, Data: map[string]string{"of": name}}
		_, err := c.c.CoreV1().ConfigMaps(name).Create(ctx, m, metav1.CreateOptions{})
		return err
	})
}

// follow counts, by namespace, the events that a watch over all of them has for the settings, until the test ends.
func (c crowd) follow() (count func(watch.EventType) (namespaces, events int)) {
	c.Helper()
	w, err := c.c.CoreV1().ConfigMaps("").Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + settings})
	if err != nil {
		c.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[watch.EventType]map[string]int{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			mu.Lock()
			if seen[e.Type] == nil {
				seen[e.Type] = map[string]int{}
			}
			if m, ok := e.Object.(*corev1.ConfigMap); ok {
				seen[e.Type][m.Namespace]++
			} else {
				seen[e.Type]["?"]++
			}
			mu.Unlock()
		}
	}()
	c.Cleanup(func() { w.Stop(); <-done })
	return func(kind watch.EventType) (namespaces, events int) {
		mu.Lock()
		defer mu.Unlock()
		for _, n := range seen[kind] {
			events += n
		}
		return len(seen[kind]), events
	}
}

// listed is how many settings a list over all namespaces has, page by page; each namespace may come once.
func (c crowd) listed() int {
	c.Helper()
	seen := map[string]bool{}
	o := metav1.ListOptions{Limit: 500, FieldSelector: "metadata.name=" + settings}
	for {
		page, err := c.c.CoreV1().ConfigMaps("").List(ctx, o)
		if err != nil {
			c.Fatal(err)
		}
		for i := range page.Items {
			m := &page.Items[i]
			if seen[m.Namespace] || m.Data["of"] != m.Namespace {
				c.Fatalf("in the list: %s/%s of %s", m.Namespace, m.Name, m.Data["of"])
			}
			seen[m.Namespace] = true
		}
		if o.Continue = page.Continue; o.Continue == "" {
			return len(seen)
		}
	}
}

// watched is how many namespaces a watch begins with that is to tell of all there are.
func (c crowd) watched() int {
	c.Helper()
	w, err := c.c.CoreV1().Namespaces().Watch(ctx, metav1.ListOptions{
		LabelSelector: "tenant=yes", SendInitialEvents: new(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true,
	})
	if err != nil {
		c.Fatal(err)
	}
	defer w.Stop()
	seen := map[string]bool{}
	for e := range w.ResultChan() {
		if e.Type == watch.Bookmark {
			return len(seen)
		}
		seen[e.Object.(*corev1.Namespace).Name] = true
	}
	c.Fatal("the watch ended before its bookmark")
	return 0
}

// checkTenant looks at one namespace: its quota counts and refuses, and its user may read it, and nothing else.
func (c crowd) checkTenant(i int) {
	c.Helper()
	name, other := nameOf(i), nameOf((i+1)%c.n)
	for s := range 3 {
		_, err := c.c.CoreV1().Secrets(name).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%d", s)}}, metav1.CreateOptions{})
		if (s < 2) != (err == nil) || err != nil && !apierrors.IsForbidden(err) {
			c.Fatalf("secret %d of %s: %v", s, name, err)
		}
	}
	q, err := c.c.CoreV1().ResourceQuotas(name).Get(ctx, "q", metav1.GetOptions{})
	if used := q.Status.Used["count/secrets"]; err != nil || used.Value() != 2 {
		c.Fatalf("the quota of %s: %v, used are %s", name, err, used.String())
	}
	reader := c.client("user-of-" + name)
	var list corev1.ConfigMapList
	c.askAs(reader, "GET /api/v1/namespaces/"+name+"/configmaps", "").ok(200).into(&list)
	if len(list.Items) != 2 || list.Items[0].Namespace != name { // settings and the root CA
		c.Fatalf("%s has %d ConfigMaps", name, len(list.Items))
	}
	c.askAs(reader, "GET /api/v1/namespaces/"+other+"/configmaps", "").ok(403)
	c.askAs(reader, "GET /api/v1/configmaps", "").ok(403)
	c.askAs(reader, "GET /api/v1/namespaces/"+name+"/secrets", "").ok(403)
}

// await waits for what takes the longer the more namespaces there are.
func (c crowd) await(what string, is func() bool) {
	c.Helper()
	for deadline := time.Now().Add(10 * time.Minute); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.Fatalf("%s: not within ten minutes", what)
		}
	}
}

// heap is what the process holds, in MB.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc >> 20
}

// Thousands of namespaces are each by themselves, are listed and watched together, and half of them go at once without touching the others.
func TestManyNamespaces(t *testing.T) {
	f := populated(t)
	c := crowd{f, f.clientset(), *namespaceCount}
	count, empty, began := c.follow(), heap(), time.Now()
	step := func(what string) {
		t.Logf("%s: %.1f s, %d MB more than at first", what, time.Since(began).Seconds(), heap()-empty)
		began = time.Now()
	}
	if err := c.fill(); err != nil {
		t.Fatal(err)
	}
	c.await("an event for each", func() bool { n, _ := count(watch.Added); return n == c.n })
	if n, events := count(watch.Added); n != c.n || events != c.n {
		t.Fatalf("%d events for %d namespaces, want one for each of %d", events, n, c.n)
	}
	c.await("what controllers put into each", func() bool {
		accounts, err := c.c.CoreV1().ServiceAccounts("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=default"})
		maps, err2 := c.c.CoreV1().ConfigMaps("").List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=kube-root-ca.crt"})
		return err == nil && err2 == nil && len(accounts.Items) >= c.n && len(maps.Items) >= c.n
	})
	step("filled")
	if n := c.listed(); n != c.n {
		t.Fatalf("%d of %d are listed", n, c.n)
	}
	if n := c.watched(); n != c.n {
		t.Fatalf("a watch begins with %d of %d", n, c.n)
	}
	for i := 0; i < c.n; i += c.n / 20 {
		c.checkTenant(i)
	}
	step("looked at")

	half := c.n / 2 // those with even numbers
	if err := each(half, func(i int) error { return c.c.CoreV1().Namespaces().Delete(ctx, nameOf(2*i), metav1.DeleteOptions{}) }); err != nil {
		t.Fatal(err)
	}
	left := func() int {
		l, err := c.c.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: "tenant=yes"})
		if err != nil {
			t.Fatal(err)
		}
		return len(l.Items)
	}
	c.await("half of them gone", func() bool { return left() <= c.n-half })
	step("half of them gone")
	c.await("an event for each that is gone", func() bool { _, n := count(watch.Deleted); return n >= half })
	if n, events := count(watch.Deleted); n != half || events != half {
		t.Errorf("%d events for %d namespaces that are gone, want one for each of %d", events, n, half)
	}
	if n := c.listed(); n != c.n-half || left() != c.n-half {
		t.Errorf("%d of %d are left, and listed %d", left(), c.n-half, n)
	}
	f.askAs(f.client("user-of-"+nameOf(0)), "GET /api/v1/namespaces/"+nameOf(0)+"/configmaps", "").ok(403)
	c.checkTenant(1)
	for _, path := range []string{"/api/v1/serviceaccounts", "/api/v1/secrets", "/api/v1/resourcequotas", "/apis/rbac.authorization.k8s.io/v1/rolebindings"} {
		var all metav1.PartialObjectMetadataList
		f.ask("GET "+path, "").ok(200).into(&all)
		for i := range all.Items {
			var number int
			if _, err := fmt.Sscanf(all.Items[i].Namespace, "tenant-%d", &number); err == nil && number%2 == 0 {
				t.Fatalf("%s: %s/%s has outlived its namespace", path, all.Items[i].Namespace, all.Items[i].Name)
			}
		}
	}
	step("looked at again")
}
