package policy

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the tables in testdata from what the code decides")

// read fills a table from a scenario. Pods on the node "here" are local.
func read(t *testing.T, file string) *Table {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	table := NewTable()
	decode := func(doc []byte, o any) {
		if err := yaml.UnmarshalStrict(doc, o); err != nil {
			t.Fatalf("%v in %s", err, doc)
		}
	}
	for _, doc := range bytes.Split(data, []byte("\n---\n")) {
		switch {
		case bytes.Contains(doc, []byte("kind: NetworkPolicy")):
			p := &networkingv1.NetworkPolicy{}
			decode(doc, p)
			table.SetPolicy(p)
		case bytes.Contains(doc, []byte("kind: Namespace")):
			n := &corev1.Namespace{}
			decode(doc, n)
			table.SetNamespace(n.Name, n.Labels)
		default:
			p := &corev1.Pod{}
			decode(doc, p)
			table.SetPod(p)
			if p.Spec.NodeName == "here" {
				table.SetLocal(Key{p.Namespace, p.Name}, newPod(p).addrs...)
			}
		}
	}
	return table
}

// text is how a table reads in testdata: for each isolated address, its chain and those that it leads to.
func text(t *testing.T, table *Table) string {
	d := table.All()
	sets := map[string][]netip.Addr{}
	for _, m := range d.Members {
		sets[m.Set] = append(sets[m.Set], m.Addr)
	}
	var b strings.Builder
	var show func(name, indent string)
	leads := func(to, indent string) {
		if to == Allow || to == Drop {
			fmt.Fprintf(&b, " %s\n", to)
			return
		}
		b.WriteString("\n")
		show(to, indent+"  ")
	}
	show = func(name, indent string) {
		chain, ok := d.Chains[name]
		if !ok {
			t.Errorf("chain %s is named, and missing", name)
		}
		for _, r := range chain.Rules {
			b.WriteString(indent)
			if r.Protocol != 0 {
				fmt.Fprintf(&b, "protocol %d ", r.Protocol)
			}
			if r.Set != "" {
				slices.SortFunc(sets[r.Set], netip.Addr.Compare)
				fmt.Fprintf(&b, "pods %v", sets[r.Set])
			}
			for _, a := range r.Ranges {
				fmt.Fprintf(&b, "%s-%s ", a.First, a.Last)
			}
			if len(r.Ports) > 0 {
				b.WriteString("\n")
				for _, p := range r.Ports {
					fmt.Fprintf(&b, "%s  port %d-%d", indent, p.First, p.Last)
					leads(p.Goto, indent+"  ")
				}
				continue
			}
			leads(r.Goto, indent)
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(d.Isolated), func(a, b Isolated) int {
		return 10*a.Addr.Compare(b.Addr) + int(a.Direction) - int(b.Direction)
	}) {
		fmt.Fprintf(&b, "%s %s\n", at.Addr, []string{"ingress", "egress"}[at.Direction])
		show(d.Isolated[at], "  ")
	}
	return b.String()
}

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			got, want := text(t, read(t, file)), strings.TrimSuffix(file, ".yaml")+".txt"
			if *rewrite {
				if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			data, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(data) {
				t.Errorf("table differs; -rewrite and look at the difference\ngot:\n%s\nwant:\n%s", got, data)
			}
		})
	}
}

func TestRanges(t *testing.T) {
	p := netip.MustParsePrefix
	for _, c := range []struct {
		name   string
		ranges []Range
		want   string
	}{
		{"whole", block(p("10.0.0.0/24"), nil), "10.0.0.0-10.0.0.255"},
		{"hole", block(p("10.0.0.0/24"), []netip.Prefix{p("10.0.0.16/28")}), "10.0.0.0-10.0.0.15 10.0.0.32-10.0.0.255"},
		{"hole at the end", block(p("10.0.0.0/24"), []netip.Prefix{p("10.0.0.128/25")}), "10.0.0.0-10.0.0.127"},
		{"all", block(p("0.0.0.0/0"), []netip.Prefix{p("255.0.0.0/8")}), "0.0.0.0-254.255.255.255"},
		{"neighbours and overlaps", append(block(p("10.0.1.0/24"), nil), append(block(p("10.0.0.0/24"), nil), block(p("10.0.1.7/32"), nil)...)...), "10.0.0.0-10.0.1.255"},
		{"families", append(block(p("fd00::/127"), nil), block(p("0.0.0.0/0"), nil)...), "0.0.0.0-255.255.255.255 fd00::-fd00::1"},
	} {
		var got []string
		for _, r := range merge(c.ranges) {
			got = append(got, fmt.Sprintf("%s-%s", r.First, r.Last))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.name, got, c.want)
		}
	}
}

func pick(rnd *rand.Rand, of ...string) string { return of[rnd.IntN(len(of))] }

func randomPolicy(rnd *rand.Rand, name string) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}}
	p.Spec.PodSelector.MatchLabels = map[string]string{"app": pick(rnd, "x", "y")}
	p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	from := networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(rnd, "x", "y", "z")}}}
	if rnd.IntN(2) == 0 {
		from.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": pick(rnd, "red", "blue")}}
	}
	p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{from}}}
	return p
}

// TestDeltasAddUp replays random changes, and compares what all deltas make with what a table made from scratch would hold.
func TestDeltasAddUp(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	table := NewTable()
	chains, sets := map[string]bool{}, map[string]bool{}
	members, isolated := map[Member]bool{}, map[Isolated]string{}
	for range 3000 {
		switch key := (Key{pick(rnd, "a", "b"), pick(rnd, "1", "2", "3", "4")}); rnd.IntN(7) {
		case 0:
			table.SetNamespace(key.Namespace, map[string]string{"team": pick(rnd, "red", "blue")})
		case 1:
			table.RemovePod(key)
			table.SetLocal(key)
		case 2:
			table.RemovePolicy(Key{"a", key.Name})
		case 3:
			table.SetPolicy(randomPolicy(rnd, key.Name))
		default:
			ip := fmt.Sprintf("10.42.%d.%s", strings.Index("ab", key.Namespace), key.Name)
			p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, Labels: map[string]string{"app": pick(rnd, "x", "y", "z")}}}
			p.Status.PodIPs = []corev1.PodIP{{IP: ip}}
			table.SetPod(p)
			table.SetLocal(key, netip.MustParseAddr(ip))
		}
		if rnd.IntN(3) > 0 {
			continue
		}
		d := table.Take()
		for _, m := range d.GoneMembers {
			if !members[m] {
				t.Fatalf("%v goes, and was not there", m)
			}
			delete(members, m)
		}
		for _, s := range d.GoneSets {
			delete(sets, s)
			maps.DeleteFunc(members, func(m Member, _ bool) bool { return m.Set == s })
		}
		for _, s := range d.Sets {
			sets[s] = true
		}
		for _, m := range d.Members {
			if members[m] || !sets[m.Set] {
				t.Fatalf("%v comes; it is there: %t, its set: %t", m, members[m], sets[m.Set])
			}
			members[m] = true
		}
		for _, c := range d.GoneChains {
			delete(chains, c)
		}
		for c := range d.Chains {
			chains[c] = true
		}
		for _, at := range append(d.GoneIsolated, d.OldIsolated...) {
			if isolated[at] == "" {
				t.Fatalf("%v goes, and was not isolated", at)
			}
			delete(isolated, at)
		}
		for at, chain := range d.Isolated {
			if isolated[at] != "" {
				t.Fatalf("%v is isolated twice", at)
			}
			isolated[at] = chain
		}
		if !maps.Equal(isolated, table.isolated.Now) || len(chains) != len(table.chains.Now) || len(members) != len(table.members.Now) || len(sets) != len(table.sets) {
			t.Fatal("the deltas do not add up to the table")
		}
		fresh := NewTable()
		fresh.policies, fresh.namespaces, fresh.pods, fresh.local, fresh.stale = table.policies, table.namespaces, table.pods, table.local, true
		if got, want := text(t, table), text(t, fresh); got != want {
			t.Fatalf("the table is\n%s\nmade from scratch it would be\n%s", got, want)
		}
	}
}

// TestUnknownPodIsIsolated is a pod that is connected before its labels are known.
func TestUnknownPodIsIsolated(t *testing.T) {
	table, key, addr := NewTable(), Key{"a", "1"}, netip.MustParseAddr("10.42.0.1")
	table.SetLocal(key, addr)
	if d := table.Take(); !d.Empty() {
		t.Errorf("no policy, but %+v", d)
	}
	p := randomPolicy(rand.New(rand.NewPCG(1, 2)), "p")
	p.Spec.PodSelector.MatchLabels = map[string]string{"app": "x"}
	table.SetPolicy(p)
	chain := table.Take().Isolated[Isolated{Ingress, addr}]
	if rules := table.chains.Now[chain].Rules; len(rules) != 1 || rules[0].Goto != Drop {
		t.Errorf("want the pod isolated from everybody, got %+v", rules)
	}
	table.SetPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "1", Labels: map[string]string{"app": "y"}}})
	if d := table.Take(); len(d.GoneIsolated) != 1 {
		t.Errorf("no policy selects the pod, and still %+v", d)
	}
}
