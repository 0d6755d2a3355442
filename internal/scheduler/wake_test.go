package scheduler

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/queue"
)

// pendingLoop is a loop with nodes that none of its pods may go to, tried once; what it writes is thrown away.
func pendingLoop(t testing.TB, c *clienttest.Client, nodes, pods, kinds int) *loop {
	l, err := newLoop(New(Config{Client: c, Log: slog.New(slog.DiscardHandler)}))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range l.writes {
			continue
		}
	}()
	t.Cleanup(func() { close(l.writes) })
	for i := range nodes {
		l.nodeChanged(nil, node(fmt.Sprintf("n%d", i), "4"))
	}
	l.wake(l.now())
	for i := range pods {
		p := pod(fmt.Sprintf("p%d", i), fmt.Sprintf("%dm", 100+i%kinds))
		p.UID = types.UID(p.Name)
		p.Spec.NodeSelector = map[string]string{"disk": "ssd"}
		l.podChanged(nil, p)
	}
	for e := l.queue.Pop(l.now()); e != nil; e = l.queue.Pop(l.now()) {
		l.schedule(e)
	}
	return l
}

// relabel changes a label of node n0.
func (l *loop) relabel(key, value string) {
	i, _ := l.nodes.Index("n0")
	old := l.nodes.Node[i]
	changed := old.DeepCopy()
	changed.Labels = map[string]string{key: value}
	l.nodeChanged(old, changed)
}

// A label that helps nobody wakes nobody, and one that helps wakes those it helps: only that costs what there are pods.
func TestLabelsWakeWhomTheyHelp(t *testing.T) {
	l := pendingLoop(t, clienttest.New(t), 10, 100, 10)
	waiting := func() int { _, _, n := l.queue.Len(); return n }
	if waiting() != 100 {
		t.Fatalf("%d wait", waiting())
	}
	l.relabel("disk", "hdd")
	l.wake(l.now())
	if waiting() != 100 {
		t.Errorf("%d wait after a change that helps nobody", waiting())
	}
	l.relabel("disk", "ssd")
	l.wake(l.now())
	if waiting() != 0 {
		t.Errorf("%d wait after a change that helps all", waiting())
	}
}

// BenchmarkLabelChange is what a node's label costs the loop while 10,000 pods of 100 kinds wait for one, on 1,000 nodes: one that helps none of
// them, and one that helps all.
func BenchmarkLabelChange(b *testing.B) {
	for _, value := range []string{"hdd", "ssd"} {
		b.Run(value, func(b *testing.B) {
			l := pendingLoop(b, clienttest.New(b), 1000, 10000, 100)
			b.ResetTimer()
			for k := range b.N {
				if k > 0 {
					b.StopTimer()
					l.relabel("disk", "none")
					l.wake(l.now())
					var woken []*queue.Entry
					for e := l.queue.Pop(l.now().Add(time.Minute)); e != nil; e = l.queue.Pop(l.now().Add(time.Minute)) {
						woken = append(woken, e)
					}
					for _, e := range woken {
						l.queue.Refuse(e, cluster.Labels, l.now())
					}
					b.StartTimer()
				}
				l.relabel("disk", value)
				l.wake(l.now())
			}
		})
	}
}
