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
		fmt.Fprintf(&b, "%s %s %d", addr, f.Protocol, f.Port)
		if f.Outside {
			b.WriteString(" from outside")
		}
		fmt.Fprintf(&b, " ->%s\n", leadText(p.Frontends[f]))
	}
	if len(p.Loops) > 0 {
		fmt.Fprintf(&b, "loops %v\n", p.Loops)
	}
	if len(p.UDP) > 0 {
		fmt.Fprintf(&b, "udp %v\n", p.UDP)
	}
	return b.String()
}

func leadText(l Lead) string {
	var b strings.Builder
	for _, to := range l.To {
		fmt.Fprintf(&b, " %s", to)
	}
	switch {
	case len(l.To) > 0:
	case l.Drop:
		b.WriteString(" drop")
	default:
		b.WriteString(" reject")
	}
	switch l.Masquerade {
	case MasqueradeAll:
		b.WriteString(", masquerade")
	case MasqueradeNode:
		b.WriteString(", masquerade the node")
	}
	if l.Session.Keep > 0 {
		fmt.Fprintf(&b, ", sticky %s as %s", l.Session.Keep, l.Session.Name)
	}
	if len(l.Ranges) > 0 {
		fmt.Fprintf(&b, ", only from %v", l.Ranges)
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

// checkPart checks what has to hold for every part.
func checkPart(t *testing.T, p Part) {
	t.Helper()
	sessions := map[string][]netip.AddrPort{}
	for f, l := range p.Frontends {
		if beside, ok := p.Frontends[Frontend{f.Addr, f.Protocol, f.Port, false}]; f.Outside && (!ok || beside.Masquerade != MasqueradeNode && !beside.Drop) {
			t.Errorf("%v: what comes from outside has no frontend beside it that is for all others", f)
		}
		if !l.answers() && !l.equal(Lead{Drop: l.Drop}) {
			t.Errorf("%v leads nowhere, and says more: %+v", f, l)
		}
		if l.Drop && l.Masquerade != MasqueradeNobody || !slices.IsSortedFunc(l.To, netip.AddrPort.Compare) {
			t.Errorf("%v: %+v", f, l)
		}
		name := l.Session.Name
		if to, other := sessions[name]; name != "" && other && !slices.Equal(to, l.To) {
			t.Errorf("session %s leads to %v and %v", name, to, l.To)
		}
		sessions[name] = l.To
	}
}
