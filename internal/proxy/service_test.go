package proxy

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/yaml"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the tables in testdata from what the code decides")

var testNode = Node{Name: "here", Zone: "x", Pods: []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("fd42::/56")}}

// text is how a part reads in testdata.
func text(p Part) string {
	var b strings.Builder
	for _, f := range slices.SortedFunc(maps.Keys(p.Frontends), compareFrontends) {
		addr := "*"
		if !f.OnNode() {
			addr = f.Addr.String()
		} else if f.Addr.Is6() {
			addr = "*6"
		}
		fmt.Fprintf(&b, "%s %s %d -> %s\n", addr, f.Protocol, f.Port, p.Frontends[f])
	}
	for _, name := range slices.Sorted(maps.Keys(p.Chains)) {
		fmt.Fprintf(&b, "chain %s\n", name)
		for _, r := range p.Chains[name] {
			b.WriteString(" ")
			if r.From.IsValid() {
				fmt.Fprintf(&b, " from %s", r.From)
			}
			if r.FromHost {
				b.WriteString(" from this host")
			}
			if r.Masquerade {
				b.WriteString(" masquerade")
			}
			if r.Sticky > 0 {
				fmt.Fprintf(&b, " sticky %s", r.Sticky)
			}
			for i, to := range r.To {
				if i == 0 {
					b.WriteString(" to")
				}
				fmt.Fprintf(&b, " %s", to)
			}
			if r.Goto != "" {
				fmt.Fprintf(&b, " goto %s", r.Goto)
			}
			b.WriteString("\n")
		}
	}
	if len(p.Loops) > 0 {
		fmt.Fprintf(&b, "loops %v\n", p.Loops)
	}
	if len(p.UDP) > 0 {
		fmt.Fprintf(&b, "udp %v\n", p.UDP)
	}
	return b.String()
}

func readScenario(t *testing.T, file string) (svcs []*corev1.Service, eps []*discoveryv1.EndpointSlice) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range bytes.Split(data, []byte("\n---\n")) {
		if bytes.Contains(doc, []byte("kind: EndpointSlice")) {
			s := &discoveryv1.EndpointSlice{}
			if err := yaml.UnmarshalStrict(doc, s); err != nil {
				t.Fatal(err)
			}
			eps = append(eps, s)
			continue
		}
		s := &corev1.Service{}
		if err := yaml.UnmarshalStrict(doc, s); err != nil {
			t.Fatal(err)
		}
		svcs = append(svcs, s)
	}
	return svcs, eps
}

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			svcs, eps := readScenario(t, file)
			var got strings.Builder
			for _, s := range svcs {
				of := slices.DeleteFunc(slices.Clone(eps), func(e *discoveryv1.EndpointSlice) bool {
					return e.Labels[discoveryv1.LabelServiceName] != s.Name
				})
				part := Service(s, of, testNode)
				checkPart(t, part)
				fmt.Fprintf(&got, "# %s\n%s", s.Name, text(part))
			}
			want := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *rewrite {
				if err := os.WriteFile(want, []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			data, err := os.ReadFile(want)
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != string(data) {
				t.Errorf("table differs; -rewrite and look at the difference\ngot:\n%s\nwant:\n%s", got.String(), data)
			}
		})
	}
}

// checkPart checks what has to hold for every part: each chain that is named exists, and each that exists is named.
func checkPart(t *testing.T, p Part) {
	t.Helper()
	named := map[string]bool{}
	for _, target := range p.Frontends {
		named[target] = true
	}
	for _, rules := range p.Chains {
		for _, r := range rules {
			if r.Goto != "" {
				named[r.Goto] = true
			} else if len(r.To) == 0 {
				t.Error("a rule leads nowhere")
			}
		}
	}
	for name := range named {
		if _, ok := p.Chains[name]; !ok && name != Reject && name != Drop {
			t.Errorf("chain %s is named, and missing", name)
		}
	}
	for name := range p.Chains {
		if !named[name] {
			t.Errorf("nothing leads to chain %s", name)
		}
	}
}
