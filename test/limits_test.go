package test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"skiff.dev/skiff/test/cluster"
)

// TestLimits: what is as large as it may be works, what is larger is refused, and a server with a lot starts soon.
func TestLimits(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent", "--no-scheduler")
	c.Server()
	cfg := c.RESTConfig()
	cfg.QPS, cfg.ContentType = -1, "application/vnd.kubernetes.protobuf"
	cs := kubernetes.NewForConfigOrDie(cfg)
	t.Run("ConfigMaps of 1 MiB", func(t *testing.T) { largeConfigMaps(t, cs) })
	t.Run("bodies without end", func(t *testing.T) { largeBodies(t, c) })
	t.Run("10,000 namespaces", func(t *testing.T) { manyNamespaces(t, c.For(t), cs) })
}

// largest is how much a ConfigMap may hold.
const largest = 1 << 20

func largeConfigMaps(t *testing.T, cs kubernetes.Interface) {
	maps := cs.CoreV1().ConfigMaps("default")
	named := func(name string, size int) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"k": strings.Repeat("x", size)}}
	}
	if _, err := maps.Create(t.Context(), named("too-large", largest+1), metav1.CreateOptions{}); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "Too long") {
		t.Errorf("%.200s", fmt.Sprint(err))
	}
	all, err := maps.Watch(t.Context(), metav1.ListOptions{LabelSelector: "size=large"})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Stop()
	const count = 40
	for i := range count {
		m := named(fmt.Sprintf("large-%d", i), largest)
		m.Labels = map[string]string{"size": "large"}
		if _, err := maps.Create(t.Context(), m, metav1.CreateOptions{}); err != nil {
			t.Fatalf("%.200s", err)
		}
	}
	for range count {
		e := <-all.ResultChan()
		if m, ok := e.Object.(*corev1.ConfigMap); !ok || len(m.Data["k"]) != largest {
			t.Fatalf("the watch says %s, %T", e.Type, e.Object)
		}
	}
	list, err := maps.List(t.Context(), metav1.ListOptions{LabelSelector: "size=large"})
	if err != nil || len(list.Items) != count {
		t.Fatalf("%d ConfigMaps, %v", len(list.Items), err)
	}
	if err := maps.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "size=large"}); err != nil {
		t.Fatal(err)
	}
}

// endless is a body that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	copy(p, bytes.Repeat([]byte("x"), len(p)))
	return len(p), nil
}

func largeBodies(t *testing.T, c *cluster.Cluster) {
	client, err := rest.HTTPClientFor(c.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	for method, path := range map[string]string{"POST": "", "PUT": "/kube-root-ca.crt", "PATCH": "/kube-root-ca.crt", "DELETE": "/kube-root-ca.crt"} {
		body := io.MultiReader(strings.NewReader(`{"kind":"ConfigMap","apiVersion":"v1","data":{"k":"`), endless{})
		r, err := http.NewRequestWithContext(t.Context(), method, c.RESTConfig().Host+"/api/v1/namespaces/default/configmaps"+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if method == "PATCH" {
			r.Header.Set("Content-Type", "application/merge-patch+json")
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Errorf("%s: %v", method, err)
			continue
		}
		said, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge || !bytes.Contains(said, []byte(`"reason":"RequestEntityTooLarge"`)) {
			t.Errorf("%s: %s: %.300s", method, resp.Status, said)
		}
	}
}

func manyNamespaces(t *testing.T, c *cluster.Cluster, cs kubernetes.Interface) {
	const count = 10_000
	began := time.Now()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(32)
	for i := range count {
		group.Go(func() error {
			_, err := cs.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("many-%05d", i)}}, metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("made after %s", time.Since(began).Round(time.Millisecond))
	accounts := func() error {
		list, err := cs.CoreV1().ServiceAccounts("").List(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=default"})
		if err == nil && len(list.Items) < count {
			err = fmt.Errorf("%d service accounts", len(list.Items))
		}
		return err
	}
	cluster.Eventually(t, func() error { // each list is large
		time.Sleep(200 * time.Millisecond)
		return accounts()
	})
	t.Logf("each has its service account after %s", time.Since(began).Round(time.Millisecond))
	if n := countNamespaces(t.Context(), t, cs); n < count {
		t.Errorf("%d namespaces in chunks", n)
	}
	c.Kubectl("delete", "namespace", "many-05000", "--timeout=3m")
	c.Kill()
	began = time.Now()
	c.Server()
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("ready %s after the start", took)
	}
	t.Logf("ready %s after the start", time.Since(began).Round(time.Millisecond))
	if _, err := cs.CoreV1().ServiceAccounts("many-09999").Get(t.Context(), "default", metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	began = time.Now()
	endNamespaces(t, cs, "many-")
	t.Logf("all of them gone %s after that", time.Since(began).Round(time.Millisecond))
}

// endNamespaces deletes those of a prefix, all at once, and waits until they are gone with what was in them.
func endNamespaces(t *testing.T, cs kubernetes.Interface, prefix string) {
	t.Helper()
	left := func() (names []string) {
		t.Helper()
		list, err := cs.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			if strings.HasPrefix(list.Items[i].Name, prefix) {
				names = append(names, list.Items[i].Name)
			}
		}
		return names
	}
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(32)
	all := left()
	for _, name := range all {
		group.Go(func() error { return cs.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for before := len(all); before > 0; { // as long as they become fewer
		cluster.Eventually(t, func() error {
			time.Sleep(200 * time.Millisecond) // each list is large
			n := len(left())
			if n == before {
				return fmt.Errorf("%d namespaces are left, and become no fewer", n)
			}
			before = n
			return nil
		})
	}
	maps, err := cs.CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range maps.Items {
		if ns := maps.Items[i].Namespace; strings.HasPrefix(ns, prefix) {
			t.Fatalf("%s/%s has outlived its namespace", ns, maps.Items[i].Name)
		}
	}
}

// countNamespaces lists them as kubectl does.
func countNamespaces(ctx context.Context, t *testing.T, cs kubernetes.Interface) (n int) {
	t.Helper()
	o := metav1.ListOptions{Limit: 500}
	for {
		list, err := cs.CoreV1().Namespaces().List(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		n += len(list.Items)
		if o.Continue = list.Continue; o.Continue == "" {
			return n
		}
	}
}
