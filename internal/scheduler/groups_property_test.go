package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/scheduler/cluster"
)

// bindings is an API that takes nothing but bindings, and may refuse one.
type bindings struct {
	client.Client
	bound  map[types.UID]string
	refuse func() bool
}

func (b *bindings) Recorder(string) record.EventRecorder { return &record.FakeRecorder{} }
func (b *bindings) SubResource(name string) crclient.SubResourceClient {
	return bindingsOf{name: name, b: b}
}

type bindingsOf struct {
	crclient.SubResourceClient
	name string
	b    *bindings
}

func (s bindingsOf) Create(_ context.Context, o, sub crclient.Object, _ ...crclient.SubResourceCreateOption) error {
	if s.b.refuse() {
		return errors.New("try again")
	}
	s.b.bound[o.GetUID()] = sub.(*corev1.Binding).Target.Name
	return nil
}

func (s bindingsOf) Update(context.Context, crclient.Object, ...crclient.SubResourceUpdateOption) error {
	return nil
}

// world is a cluster with gangs, and a scheduler's loop that is driven by hand.
type world struct {
	*testing.T
	r      *rand.Rand
	seed   int64
	api    *bindings
	l      *loop
	now    time.Time
	nodes  map[string]int64 // CPUs
	pods   map[types.UID]*corev1.Pod
	order  []types.UID
	least  map[string]int // of each gang
	chosen map[string]int // the most that a gang ever had
	writes []func(context.Context)
}

func newWorld(t *testing.T, seed int64) *world {
	w := &world{T: t, r: rand.New(rand.NewSource(seed)), seed: seed, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		nodes: map[string]int64{}, pods: map[types.UID]*corev1.Pod{}, least: map[string]int{}, chosen: map[string]int{}}
	w.api = &bindings{bound: map[types.UID]string{}, refuse: func() bool { return false }}
	w.restart()
	return w
}

// restart begins anew with what the API has. What was still to be written is lost.
func (w *world) restart() {
	w.writes = nil
	s := New(Config{Groups: true, Client: w.api, Log: slog.New(slog.DiscardHandler)})
	s.now = func() time.Time { return w.now }
	l, err := newLoop(s)
	if err != nil {
		w.Fatal(err)
	}
	w.l = l
	for name, least := range w.least {
		w.l.podGroupChanged(nil, gangOf(name, int32(least)))
	}
	for name, cpu := range w.nodes {
		w.l.nodeChanged(nil, node(name, fmt.Sprint(cpu)))
	}
	for _, uid := range w.order {
		if p := w.pods[uid]; p != nil {
			w.l.podChanged(nil, p)
		}
	}
}

func (w *world) addNode(cpu int64) {
	name := fmt.Sprintf("n%d", len(w.nodes))
	w.nodes[name] = cpu
	w.l.nodeChanged(nil, node(name, fmt.Sprint(cpu)))
}

func (w *world) addGang(least int) string {
	name := fmt.Sprintf("g%d", len(w.least))
	w.least[name] = least
	w.l.podGroupChanged(nil, gangOf(name, int32(least)))
	return name
}

// addPod adds a pod of a gang, or of none if group is "".
func (w *world) addPod(group string, cpu int64, priority int32) {
	p := pod(fmt.Sprintf("p%d", len(w.order)), fmt.Sprint(cpu))
	if group != "" {
		p = member(group, p.Name, fmt.Sprint(cpu))
	}
	p.UID, p.Spec.Priority, p.Spec.PreemptionPolicy = types.UID(p.Name), &priority, new(corev1.PreemptNever)
	w.pods[p.UID], w.order = p, append(w.order, p.UID)
	w.l.podChanged(nil, p)
}

func (w *world) deletePod() {
	if len(w.order) == 0 {
		return
	}
	uid := w.order[w.r.Intn(len(w.order))]
	if p := w.pods[uid]; p != nil {
		if group := p.Spec.SchedulingGroup; group != nil && (w.l.assumed[uid] || p.Spec.NodeName != "") {
			w.chosen[*group.PodGroupName]-- // it is no fault of the scheduler's that there is one fewer
		}
		delete(w.pods, uid)
		w.l.podChanged(p, nil)
	}
}

// placed counts the pods of a gang that have a node, as the loop's columns know, not its book of groups.
func (w *world) placed(group string) (n int) {
	for uid, p := range w.pods {
		if g := p.Spec.SchedulingGroup; g != nil && *g.PodGroupName == group && w.l.nodes.Placed(uid) != nil {
			n++
		}
	}
	return n
}

// step lets the loop do one thing, and says whether it did. After it no gang has newly got fewer pods onto nodes than its least, and no node more than it has.
func (w *world) step() bool {
	for _, do := range w.l.mail.take() {
		do()
	}
	if w.l.pending&^cluster.Joined != 0 {
		w.l.wake(w.now)
	}
	w.l.tellHeld()
	e := w.l.queue.Pop(w.now)
	if e == nil {
		return w.l.wake(w.now)
	}
	group := e.Pod.Spec.SchedulingGroup
	before := 0
	if group != nil {
		before = w.placed(*group.PodGroupName)
	}
	w.l.schedule(e)
	if group != nil {
		name := *group.PodGroupName
		after := w.placed(name)
		if after > before && after < w.least[name] {
			w.Fatalf("seed %d: %d of gang %s have nodes, and it needs %d", w.seed, after, name, w.least[name])
		}
		w.chosen[name] = max(w.chosen[name], after)
	}
	for i, n := range w.l.nodes.Node {
		if n == nil {
			continue
		}
		var sum int64
		for _, p := range w.l.nodes.On[i] {
			sum += p.Spec.Containers[0].Resources.Requests.Cpu().Value()
		}
		if sum > w.nodes[n.Name] {
			w.Fatalf("seed %d: %d CPUs are asked of node %s, which has %d", w.seed, sum, n.Name, w.nodes[n.Name])
		}
	}
	for more := true; more; {
		select {
		case write := <-w.l.writes:
			w.writes = append(w.writes, write)
		default:
			more = false
		}
	}
	return true
}

// write does some of the writes that are due, and shows the loop what came of them.
func (w *world) write(most int) {
	for ; most > 0 && len(w.writes) > 0; most-- {
		write := w.writes[0]
		w.writes = w.writes[1:]
		write(context.Background())
	}
	for uid, node := range w.api.bound {
		if p := w.pods[uid]; p != nil && p.Spec.NodeName == "" {
			next := p.DeepCopy()
			next.Spec.NodeName = node
			w.pods[uid] = next
			w.l.podChanged(p, next)
		}
	}
}

// settle goes on until nothing more happens but by waiting for minutes.
func (w *world) settle() {
	for until := w.now.Add(time.Minute); ; {
		switch at, waits := w.l.queue.Next(); {
		case w.step():
		case len(w.writes) > 0 || w.l.mail.work != nil:
			w.write(1 << 20)
		case waits && at.Before(until):
			w.now = at
		default:
			return
		}
	}
}

// check compares what has become of all pods, which ask for one CPU each, with what a slow look says: a gang waits only if the room that is left would not
// take all that it lacks, and a pod that needs no others only if there is none.
func (w *world) check() {
	var room int
	for name, cpu := range w.nodes {
		free := cpu
		for _, p := range w.pods {
			if p.Spec.NodeName == name {
				free--
			}
		}
		room += int(free)
	}
	waiting, there := map[string]int{}, map[string]int{}
	for _, p := range w.pods {
		group := ""
		if g := p.Spec.SchedulingGroup; g != nil {
			group = *g.PodGroupName
		}
		there[group]++
		if p.Spec.NodeName == "" {
			waiting[group]++
		}
	}
	for group, n := range waiting {
		lacks := max(1, w.least[group]-(there[group]-n))
		if there[group] >= w.least[group] && room >= lacks {
			w.Fatalf("seed %d: %d pods of %q wait for %d places, and there are %d", w.seed, n, group, lacks, room)
		}
	}
}

// In random clusters, with bindings that fail and restarts amid them, gangs get nodes together or not at all, none waits that would fit, and what was chosen
// before a restart is carried through after it.
func TestGangsLikeASlowLook(t *testing.T) {
	for seed := range int64(600) {
		w := newWorld(t, seed)
		even := seed%2 == 0 // all pods ask for the same, so that it matters to nobody which node another gets
		cpu := func() int64 {
			if even {
				return 1
			}
			return 1 + w.r.Int63n(3)
		}
		if !even {
			w.api.refuse = func() bool { return w.r.Intn(10) == 0 }
		}
		var gangs []string
		for range 40 {
			switch w.r.Intn(8) {
			case 0:
				w.addNode(1 + w.r.Int63n(6))
			case 1:
				gangs = append(gangs, w.addGang(1+w.r.Intn(5)))
			case 2, 3, 4:
				if len(gangs) > 0 {
					w.addPod(gangs[w.r.Intn(len(gangs))], cpu(), int32(w.r.Intn(3)))
				}
			case 5:
				w.addPod("", cpu(), int32(w.r.Intn(3)))
			case 6:
				w.deletePod()
			case 7:
				w.write(w.r.Intn(4))
			}
			for range w.r.Intn(4) {
				w.step()
			}
		}
		w.write(w.r.Intn(5))
		w.restart()
		w.settle()
		if even {
			w.check()
			for name, chosen := range w.chosen {
				if placed := w.placed(name); chosen >= w.least[name] && 0 < placed && placed < w.least[name] {
					t.Fatalf("seed %d: of gang %s, which needs %d, %d had nodes before the restart, and %d have after it", seed, name, w.least[name], chosen, placed)
				}
			}
		}
	}
}
