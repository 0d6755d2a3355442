package preempt

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

var (
	cases  = flag.Int("cases", 3000, "random clusters")
	seed   = flag.Uint64("seed", 0, "play this one random cluster only")
	record = flag.String("record", "", "a file for what was decided, a line of JSON each, for test/upstream to compare with")
)

// drawn is a random cluster of full nodes, and a pod that might make others give way.
type drawn struct {
	nodes   int
	pods    []running
	budgets []Budget
	urgent  running
}

func draw(seed uint64) (d drawn) {
	r := rand.New(rand.NewPCG(seed, 2))
	one := func(of ...string) string { return of[r.IntN(len(of))] }
	d.nodes = 1 + r.IntN(5)
	for node := range d.nodes {
		began := r.IntN(2) // at times one of a node has not; no two begin together, which would leave their order open
		for free := 4 - r.IntN(2); free > 0; {
			cpu := min(free, 1+r.IntN(3))
			free -= cpu
			d.pods = append(d.pods, running{fmt.Sprintf("%s%d", one("db-", "web-", "plain"), len(d.pods)), string(rune('a' + node)),
				[]int32{-1, 0, 5, 10, 10, 100}[r.IntN(6)], fmt.Sprint(cpu), began})
			began = 1 + r.IntN(1e6)
		}
	}
	for range r.IntN(4) {
		b := budget(one("app=db", "app=web", "app", ""), int32(r.IntN(3)))
		for _, p := range d.pods {
			if r.IntN(8) == 0 {
				b.Status.DisruptedPods[p.name] = metav1.NewTime(time.Unix(1, 0))
			}
		}
		d.budgets = append(d.budgets, b)
	}
	d.urgent = running{"urgent", "", 50, fmt.Sprint(1 + r.IntN(4)), 0}
	return d
}

// slow is who gives way on a node: everybody goes, and comes back one after the other if there still is room, those that a budget protects before all others.
func (d *drawn) slow(node string) string {
	var stay, go1, go2 []running
	lesser := slices.DeleteFunc(slices.Clone(d.pods), func(r running) bool { return r.node != node || r.priority >= d.urgent.priority })
	if len(lesser) == 0 {
		return "nobody"
	}
	for _, r := range d.pods {
		if r.node == node && r.priority >= d.urgent.priority {
			stay = append(stay, r)
		}
	}
	if !d.room(stay) {
		return "nobody"
	}
	before := func(a, b running) int {
		switch {
		case a.priority != b.priority:
			return int(b.priority - a.priority)
		case a.began == b.began:
			return 0
		case a.began == 0 || b.began != 0 && a.began > b.began:
			return 1
		}
		return -1
	}
	slices.SortStableFunc(lesser, before)
	spent := map[int]int32{}
	for _, r := range lesser {
		beyond := false
		for k, b := range d.budgets {
			if _, already := b.Status.DisruptedPods[r.name]; !beyond && !already && !b.Selector.Empty() && b.Selector.Matches(labels.Set(podOf(r).Labels)) {
				spent[k]++
				beyond = spent[k] > b.Status.DisruptionsAllowed
			}
		}
		if beyond {
			go1 = append(go1, r)
		} else {
			go2 = append(go2, r)
		}
	}
	violated, victims := 0, []running{}
	for k, list := range [][]running{go1, go2} {
		for _, r := range list {
			if d.room(append(slices.Clone(stay), r)) {
				stay = append(stay, r)
				continue
			}
			victims = append(victims, r)
			violated += 1 - k
		}
	}
	slices.SortStableFunc(victims, before)
	text := node
	for _, v := range victims {
		text += " " + v.name
	}
	return fmt.Sprint(text, ", ", violated, " violated")
}

// room says that the urgent pod fits beside some.
func (d *drawn) room(pods []running) bool {
	sum := resource.MustParse(d.urgent.cpu)
	for _, r := range pods {
		sum.Add(resource.MustParse(r.cpu))
	}
	return sum.Value() <= 4 && len(pods) < 10
}

// Who gives way in random clusters is what the slow, obvious way says, node by node, and the choice is one that none is better than.
func TestLikeASlowLook(t *testing.T) {
	first, last := uint64(time.Now().UnixNano()), uint64(0)
	if *seed != 0 {
		first, *cases = *seed, 1
	}
	last = first + uint64(*cases)
	var out *json.Encoder
	if *record != "" {
		f, err := os.Create(*record)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		out = json.NewEncoder(f)
	}
	for s := first; s < last; s++ {
		d := draw(s)
		f, table := picture(d.nodes, d.pods, d.budgets...)
		p := cluster.PodOf(podOf(d.urgent))
		c := table.Of(p)
		if c.Feasible() {
			continue // nobody need go
		}
		all, _ := f.All(p, c)
		found := map[string]string{}
		for _, choice := range all {
			found[f.Nodes.Name(choice.Node)] = choice.text(f.Nodes)
		}
		for i := range d.nodes {
			name := string(rune('a' + i))
			got, has := found[name]
			if !has {
				got = "nobody"
			}
			if want := d.slow(name); got != want {
				t.Fatalf("seed %d, %+v: on %s %q, slowly %q", s, d, name, got, want)
			}
		}
		best, _ := f.Find(p, c)
		var none []string // none is better than these
		for _, choice := range all {
			if best == nil || better(choice, best) {
				t.Fatalf("seed %d: %s was found, and %s is better", s, best.text(f.Nodes), choice.text(f.Nodes))
			}
			if !better(best, choice) {
				none = append(none, f.Nodes.Name(choice.Node))
			}
		}
		if out != nil {
			if err := out.Encode(d.decision(s, f, all, none)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// decision is what test/upstream reads.
func (d *drawn) decision(seed uint64, f *Finder, all []*Choice, best []string) any {
	var objects []any
	for i := range d.nodes {
		n := f.Nodes.Node[i].DeepCopy()
		n.APIVersion, n.Kind = "v1", "Node"
		objects = append(objects, n)
	}
	for _, r := range d.pods {
		p := podOf(r)
		p.APIVersion, p.Kind = "v1", "Pod"
		objects = append(objects, p)
	}
	for i, b := range d.budgets {
		pdb := b.DeepCopy()
		pdb.TypeMeta, pdb.ObjectMeta = metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"}, metav1.ObjectMeta{Name: fmt.Sprint("b", i), Namespace: "x"}
		pdb.Spec = policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{}}
		switch key, value, equals := strings.Cut(b.Selector.String(), "="); {
		case equals:
			pdb.Spec.Selector.MatchLabels = map[string]string{key: value}
		case key != "":
			pdb.Spec.Selector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: key, Operator: metav1.LabelSelectorOpExists}}
		}
		objects = append(objects, pdb)
	}
	victims := map[string]string{}
	for _, choice := range all {
		victims[f.Nodes.Name(choice.Node)] = choice.text(f.Nodes)
	}
	return struct {
		Seed    uint64            `json:"seed"`
		Objects []any             `json:"objects"`
		Pod     *corev1.Pod       `json:"pod"`
		Victims map[string]string `json:"victims"`
		Best    []string          `json:"best"`
	}{seed, objects, podOf(d.urgent), victims, best}
}
