package scheduler

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
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

// A node that joins while ten thousand pods wait, all of which it would help, takes what it can. The rest goes back after one try each,
// which costs seconds at most: none of it is a look a pod and node.
func TestNodeJoinsTenThousand(t *testing.T) {
	const pods, takes, most = 10000, 110, 20 * time.Second // of CPU; it takes about one
	l := pendingLoop(t, clienttest.New(t), 100, pods, 100)
	n := node("new", "400")
	n.Labels = map[string]string{"disk": "ssd"}
	began := cpuTime(t)
	l.nodeChanged(nil, n)
	l.wake(l.now())
	tries := 0
	for e := l.queue.Pop(l.now()); e != nil; e = l.queue.Pop(l.now()) {
		l.schedule(e)
		tries++
	}
	if took := cpuTime(t) - began; took > most {
		t.Errorf("it takes %s", took)
	}
	if _, _, waiting := l.queue.Len(); len(l.assumed) != takes || waiting != pods-takes || tries != pods {
		t.Errorf("%d placed, %d wait, %d tries", len(l.assumed), waiting, tries)
	}
	l.relabel("disk", "none") // helps nobody
	l.wake(l.now())
	if e := l.queue.Pop(l.now()); e != nil {
		t.Errorf("%s is tried again", e.Pod.Name)
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

// A pod for which others give way is tried again once, when the last of them has left: neither while they are being told nor for each that goes.
func TestPreemptorsWaitForTheLast(t *testing.T) {
	for _, toldFirst := range []bool{true, false} {
		l := pendingLoop(t, clienttest.New(t), 1, 0, 1)
		var low []*corev1.Pod
		for i := range 4 {
			p := on(pod(fmt.Sprintf("low%d", i), "1"), "n0")
			p.UID = types.UID(p.Name)
			low = append(low, p)
			l.podChanged(nil, p)
		}
		urgent := priority(pod("urgent", "3"), 10)
		urgent.UID = "urgent"
		l.podChanged(nil, urgent)
		l.schedule(l.queue.Pop(l.now()))
		if !l.evicting["urgent"] || l.nominated["urgent"] == nil {
			t.Fatal("nobody gives way")
		}
		again := func() bool { _, _, waiting := l.queue.Len(); return waiting == 0 }
		step := func(what string, do func(), want bool) {
			do()
			l.wake(l.now())
			if again() != want {
				t.Fatalf("told first %t, %s: tried again %t", toldFirst, what, !want)
			}
		}
		told := func() { l.evicted("urgent", nil) }
		if toldFirst {
			step("they are told", told, false)
		}
		gone := slices.DeleteFunc(low, func(p *corev1.Pod) bool { return p == low[0] }) // any three: with one left there is room
		step("the first leaves", func() { l.podChanged(gone[0], nil) }, false)
		step("the second leaves", func() { l.podChanged(gone[1], nil) }, false)
		step("the last leaves", func() { l.podChanged(gone[2], nil) }, toldFirst)
		if !toldFirst {
			step("they have been told", told, true)
		}
		l.schedule(l.queue.Pop(l.now()))
		if !l.assumed["urgent"] {
			t.Error("it is not placed")
		}
	}
}

// A place that only a less important pod holds, for which others left it, is taken at once: nothing is told of a try that found it held.
func TestAHeldPlaceIsTaken(t *testing.T) {
	l := idle(t, nil)
	l.happen(nodeIs(node("n", "1")), podIs(pod("least", "700m"), "n"), podIs(priority(pod("low", "700m"), 5), ""))
	l.schedule(l.queue.Pop(l.now()))
	l.evicted("low", nil)
	l.happen(podGoes("least"), podIs(priority(pod("high", "700m"), 10), ""))
	high := l.queue.Get("high")
	for range 2 {
		if e := l.queue.Pop(l.now()); e != high {
			t.Fatalf("%v comes first", e)
		}
		l.schedule(high)
	}
	if !l.assumed["high"] || l.nominated["low"] != nil || high.Verdict != "" {
		t.Errorf("placed %t, verdict %q", l.assumed["high"], high.Verdict)
	}
}

// Events go after an hour, so a pod that waits for longer is told of again though nothing has changed; not at every try.
func TestLongWaitsAreToldAgain(t *testing.T) {
	c := clienttest.New(t)
	l := pendingLoop(t, c, 1, 1, 1)
	ahead := time.Duration(0)
	l.now = func() time.Time { return time.Now().Add(ahead) }
	told := func(later time.Duration) bool {
		ahead += later
		l.queue.Retry(l.queue.Get("p0"))
		l.schedule(l.queue.Pop(l.now()))
		return contains(c.Events(), "Warning FailedScheduling 0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.")
	}
	for range 2 {
		if told(5 * time.Minute) {
			t.Error("told at each try")
		}
	}
	if !told(retelling) {
		t.Error("not told again")
	}
	if told(5 * time.Minute) {
		t.Error("told at each try from then on")
	}
}
