package apiserver_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
)

// TestMixedLoad is everything at once, over HTTPS: writers of all kinds on few objects, lists in chunks, watches that come and go, custom resources whose
// definition changes, webhooks and policies that are configured meanwhile. The race detector and the store's look for changed shared objects are what it is for;
// besides, informers must end with what there is.
func TestMixedLoad(t *testing.T) {
	s := seaOf(t)
	s.define(boats)
	protobuf := s.config()
	protobuf.ContentType = "application/vnd.kubernetes.protobuf"
	clients := []*kubernetes.Clientset{s.clientset(), kubernetes.NewForConfigOrDie(protobuf)}
	run, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	factory := informers.NewSharedInformerFactoryWithOptions(clients[1], 0, informers.WithNamespace("default"))
	maps, pods := factory.Core().V1().ConfigMaps().Lister(), factory.Core().V1().Pods().Lister()
	factory.Start(run.Done())
	defer factory.Shutdown()
	defer cancel()
	factory.WaitForCacheSync(run.Done())

	const rounds = 25
	var all sync.WaitGroup
	worker := func(name string, do func(c *kubernetes.Clientset, n int) error) {
		for i, c := range clients {
			all.Go(func() {
				for n := range rounds {
					if err := do(c, n); err != nil && !expected(err) {
						t.Errorf("%s %d, round %d: %v", name, i, n, err)
						return
					}
				}
			})
		}
	}
	worker("configmaps", func(c *kubernetes.Clientset, n int) error { return churnMap(run, c, fmt.Sprint("m", n%5)) })
	worker("pods", func(c *kubernetes.Clientset, n int) error { return churnPod(run, c, fmt.Sprint("p", n%3)) })
	worker("lists", func(c *kubernetes.Clientset, n int) error { return readAll(run, c) })
	worker("watches", func(c *kubernetes.Clientset, n int) error { return lookOn(run, c, n) })
	s.healthy() // a reader of /readyz below comes early
	worker("boats", func(_ *kubernetes.Clientset, n int) error { return s.churnBoat(run, fmt.Sprint("b", n%3)) })
	all.Go(func() {
		for n := range rounds / 5 {
			s.validating(fmt.Sprint("v", n), "/configmaps", `validations: [{expression: "!has(object.data) || size(object.data) < 100"}]`, ", validationActions: [Deny]")
			s.ask("PATCH /apis/apiextensions.k8s.io/v1/customresourcedefinitions/boats.sea.example.com",
				fmt.Sprintf(`[{"op":"replace","path":"/spec/versions/0/additionalPrinterColumns/0/description","value":"round %d"}]`, n), "Content-Type", "application/json-patch+json").ok(200)
			for _, path := range []string{"/openapi/v2", "/openapi/v3/apis/sea.example.com/v1", "/metrics", "/readyz?verbose"} {
				s.ask("GET "+path, "").ok(200)
			}
		}
	})
	all.Wait()
	s.eventually("informers to have seen everything", func() bool {
		m, err := clients[0].CoreV1().ConfigMaps("default").List(run, metav1.ListOptions{})
		p, err2 := clients[0].CoreV1().Pods("default").List(run, metav1.ListOptions{})
		return err == nil && err2 == nil && sameObjects(m.Items, maps.ConfigMaps("default").List) && sameObjects(p.Items, pods.Pods("default").List)
	})
}

// expected: what writers of the same few objects do to one another.
func expected(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) || apierrors.IsResourceExpired(err)
}

// sameObjects compares names and resourceVersions.
func sameObjects[T any, PT interface {
	*T
	metav1.Object
}](there []T, seen func(labels.Selector) ([]PT, error)) bool {
	list, err := seen(labels.Everything())
	versions := map[string]string{}
	for _, o := range list {
		versions[o.GetName()] = o.GetResourceVersion()
	}
	for i := range there {
		if o := PT(&there[i]); versions[o.GetName()] != o.GetResourceVersion() {
			return false
		}
	}
	return err == nil && len(list) == len(there)
}

func churnMap(ctx context.Context, c *kubernetes.Clientset, name string) error {
	maps := c.CoreV1().ConfigMaps("default")
	_, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"a": "b"}}, Data: map[string]string{"k": "v"}}, metav1.CreateOptions{})
	_, err2 := maps.Patch(ctx, name, types.MergePatchType, []byte(`{"data":{"k":"w"}}`), metav1.PatchOptions{})
	_, err3 := maps.Apply(ctx, corev1apply.ConfigMap(name, "default").WithData(map[string]string{"own": "x"}), metav1.ApplyOptions{FieldManager: "load", Force: true})
	m, err4 := maps.Get(ctx, name, metav1.GetOptions{})
	if err4 == nil {
		m.Labels = map[string]string{"a": "c"}
		_, err4 = maps.Update(ctx, m, metav1.UpdateOptions{})
	}
	return firstUnexpected(err, err2, err3, err4, maps.Delete(ctx, name, metav1.DeleteOptions{}))
}

func churnPod(ctx context.Context, c *kubernetes.Clientset, name string) error {
	pods := c.CoreV1().Pods("default")
	_, err := pods.Create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}, metav1.CreateOptions{})
	err2 := pods.Bind(ctx, &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: name}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}, metav1.CreateOptions{})
	_, err3 := pods.Patch(ctx, name, types.StrategicMergePatchType, []byte(`{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`), metav1.PatchOptions{}, "status")
	now := int64(0)
	return firstUnexpected(err, err2, err3, pods.Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
}

func (s *sea) churnBoat(ctx context.Context, name string) error {
	boat := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "sea.example.com/v1", "kind": "Boat", "metadata": map[string]any{"name": name}, "spec": map[string]any{"kind": "skiff", "oars": int64(2), "seats": int64(4)},
	}}
	_, err := s.boats.Create(ctx, boat, metav1.CreateOptions{})
	_, err2 := s.boats.Patch(ctx, name, types.MergePatchType, []byte(`{"spec":{"oars":3}}`), metav1.PatchOptions{})
	_, err3 := s.boats.List(ctx, metav1.ListOptions{FieldSelector: "spec.kind=skiff"})
	return firstUnexpected(err, err2, err3, s.boats.Delete(ctx, name, metav1.DeleteOptions{}))
}

// readAll lists in chunks.
func readAll(ctx context.Context, c *kubernetes.Clientset) error {
	o := metav1.ListOptions{Limit: 2}
	for {
		page, err := c.CoreV1().ConfigMaps("").List(ctx, o)
		if err != nil || page.Continue == "" {
			return err
		}
		o.Continue = page.Continue
	}
}

// lookOn watches until a few events have come, or for a moment.
func lookOn(ctx context.Context, c *kubernetes.Clientset, n int) error {
	second, initial := int64(1), true
	o := metav1.ListOptions{TimeoutSeconds: &second, AllowWatchBookmarks: true, LabelSelector: []string{"", "a=b", "a=c"}[n%3]}
	if n%2 == 0 {
		o.SendInitialEvents, o.ResourceVersionMatch = &initial, metav1.ResourceVersionMatchNotOlderThan
	}
	w, err := c.CoreV1().ConfigMaps("default").Watch(ctx, o)
	if err != nil {
		return err
	}
	defer w.Stop()
	for range 5 {
		if _, open := <-w.ResultChan(); !open {
			break
		}
	}
	return nil
}

func firstUnexpected(errs ...error) error {
	var out []error
	for _, err := range errs {
		if err != nil && !expected(err) {
			out = append(out, err)
		}
	}
	return errors.Join(out...)
}
