package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"skiff.dev/skiff/test/cluster"
)

const (
	watchers       = 200
	watchedPatches = 500
)

// benchWatch has many watchers follow one pod that is patched again and again: what a delivery costs the server, and how late it comes.
func benchWatch(b *bench) {
	t := newServer(b)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cs := t.clients(1)[0]
	cluster.Eventually(b, func() error {
		_, err := cs.CoreV1().Pods("default").Create(ctx, benchPod(0), metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil
		}
		return err
	})
	var (
		mu   sync.Mutex
		late []float64
		all  sync.WaitGroup
	)
	for _, watcher := range t.clients(watchers) {
		w, err := watcher.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			b.Fatal(err)
		}
		defer w.Stop()
		all.Go(func() {
			own := follow(w)
			mu.Lock()
			late = append(late, own...)
			mu.Unlock()
		})
	}
	stop := t.profileOf("watch")
	cpu := t.cpu()
	for i := range watchedPatches {
		body := fmt.Sprintf(`{"metadata":{"annotations":{"sent":"%d","n":"%d"}}}`, time.Now().UnixNano(), i)
		if _, err := cs.CoreV1().Pods("default").Patch(ctx, benchPod(0).Name, types.MergePatchType, []byte(body), metav1.PatchOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	all.Wait()
	spent := t.cpu() - cpu
	stop()
	report("a delivery: server CPU", "µs", float64(spent.Microseconds())/float64(len(late)))
	reportQuantiles("a delivery: lag", "ms", late)
}

// follow reads events until that of the last patch, and returns how long each was on its way, in ms.
func follow(w watch.Interface) (late []float64) {
	for ev := range w.ResultChan() {
		pod, ok := ev.Object.(*corev1.Pod)
		if !ok {
			continue
		}
		sent, err := strconv.ParseInt(pod.Annotations["sent"], 10, 64)
		if err != nil {
			continue // the state before the first patch
		}
		late = append(late, float64(time.Now().UnixNano()-sent)/1e6)
		if pod.Annotations["n"] == strconv.Itoa(watchedPatches-1) {
			break
		}
	}
	return late
}
