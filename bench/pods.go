package main

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"skiff.dev/skiff/test/cluster"
)

func benchPods(b *bench) {
	c := cluster.Start(b)
	cs := c.Client()
	server := serverOf(b, c)
	seen := watchPods(b, cs)
	const singles, burst = 20, 30

	var running, gone []float64
	for i := range singles {
		name := fmt.Sprintf("single-%d", i)
		began := time.Now()
		createPod(b, cs, name)
		running = append(running, seen.running(name).Sub(began).Seconds())
		began = time.Now()
		deletePod(b, cs, name)
		gone = append(gone, seen.gone(name).Sub(began).Seconds())
	}
	report("a pod, create to Running", "s", running...)
	report("a pod, delete with grace 0 to gone", "s", gone...)

	profiled, spent := server.profileOf("pods at once"), server.cpu()
	began := time.Now()
	for i := range burst {
		createPod(b, cs, fmt.Sprintf("burst-%d", i))
	}
	var last time.Time
	for i := range burst {
		if at := seen.running(fmt.Sprintf("burst-%d", i)); at.After(last) {
			last = at
		}
	}
	spent = server.cpu() - spent
	report(fmt.Sprintf("%d pods created at once, all Running", burst), "s", last.Sub(began).Seconds())
	report("of it Skiff's own CPU, API server and containerd included", "s", spent.Seconds())
	profiled()
	began = time.Now()
	for i := range burst {
		deletePod(b, cs, fmt.Sprintf("burst-%d", i))
	}
	for i := range burst {
		if at := seen.gone(fmt.Sprintf("burst-%d", i)); at.After(last) {
			last = at
		}
	}
	report(fmt.Sprintf("%d pods deleted at once, all gone", burst), "s", last.Sub(began).Seconds())
}

func createPod(b *bench, cs *kubernetes.Clientset, name string) {
	_, err := cs.CoreV1().Pods("default").Create(context.Background(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "skiff.dev/web:1"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
}

func deletePod(b *bench, cs *kubernetes.Clientset, name string) {
	if err := cs.CoreV1().Pods("default").Delete(context.Background(), name, *metav1.NewDeleteOptions(0)); err != nil {
		b.Fatal(err)
	}
}

// sightings says when a watcher saw what.
type sightings struct {
	b      *bench
	events chan sighting
	runs   map[string]time.Time
	leaves map[string]time.Time
}

type sighting struct {
	name    string
	running bool
	at      time.Time
}

func watchPods(b *bench, cs *kubernetes.Clientset) *sightings {
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	w, err := cs.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	s := &sightings{b: b, events: make(chan sighting, 10000), runs: map[string]time.Time{}, leaves: map[string]time.Time{}}
	go func() {
		for e := range w.ResultChan() {
			p, ok := e.Object.(*corev1.Pod)
			switch {
			case !ok:
			case e.Type == watch.Deleted:
				s.events <- sighting{p.Name, false, time.Now()}
			case p.Status.Phase == corev1.PodRunning:
				s.events <- sighting{p.Name, true, time.Now()}
			}
		}
	}()
	return s
}

func (s *sightings) running(name string) time.Time { return s.wait(s.runs, name) }
func (s *sightings) gone(name string) time.Time    { return s.wait(s.leaves, name) }

// wait returns the first time that name was entered into one of the two maps.
func (s *sightings) wait(in map[string]time.Time, name string) time.Time {
	patience := time.After(time.Minute)
	for in[name].IsZero() {
		select {
		case e := <-s.events:
			into := s.leaves
			if e.running {
				into = s.runs
			}
			if into[e.name].IsZero() {
				into[e.name] = e.at
			}
		case <-patience:
			s.b.Fatal("pod " + name + " was not seen in that state within a minute")
		}
	}
	return in[name]
}
