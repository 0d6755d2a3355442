package internal_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "skiff.dev/skiff/internal/"

// below lists, for each part, what it may import of the others: host → parts → client → registry → store → etcd. Parts do not import one
// another except through small interfaces they declare themselves; network owns the table that proxy decides on.
var below = map[string][]string{
	"version":    {},
	"histogram":  {},
	"config":     {"api"},
	"pki":        {},
	"encryption": {"pki"},
	"api":        {},
	"quota":      {"api"},
	"etcd":       {},
	"store":      {"api", "etcd"},
	"registry":   {"api", "store"},
	"client":     {"api", "store", "registry"},
	"apiserver":  {"api", "histogram", "quota", "store", "registry", "version", "apiserver"},
	"scheduler":  {"api", "client", "version"},
	"controller": {"api", "client", "addon", "histogram", "quota"},
	"join":       {"api", "pki"},
	"runtime":    {"version"},
	"telemetry":  {},
	"kubelet":    {"api", "client", "version"},
	"ledger":     {},
	"proxy":      {"ledger"},
	"policy":     {"ledger"},
	"network":    {"api", "client", "histogram", "proxy", "policy"},
	"dns":        {"client"},
	"addon":      {"api", "client"},
	"dashboard":  {},
	"ingress":    {},
	"host":       {"*"},
	"cli":        {"*"},
}

// aside are single packages that use another part's: a node refuses a pod by the scheduler's own arithmetic, so that the two never differ about it.
var aside = map[string]string{"kubelet/admit": "scheduler"}

func TestArrowsPointDown(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "skiff.dev/skiff/internal/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		from, ok := strings.CutPrefix(fields[0], module)
		if !ok || strings.HasSuffix(from, "test") { // suites that tests import stand outside the order
			continue
		}
		seen++
		part, _, _ := strings.Cut(from, "/")
		allowed, known := below[part]
		if !known {
			t.Errorf("%s has no place in the order; give it one here", from)
		}
		for _, imported := range fields[1:] {
			to, ours := strings.CutPrefix(imported, module)
			toPart, _, _ := strings.Cut(to, "/")
			if ours && toPart != part && aside[from] != toPart && !slices.Contains(allowed, toPart) && !slices.Contains(allowed, "*") {
				t.Errorf("%s imports %s, which is not below it", from, to)
			}
		}
	}
	if seen < 10 {
		t.Fatalf("only %d packages were looked at", seen)
	}
}

func TestUpstreamIsNeverImported(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "skiff.dev/skiff/cmd/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if pkg := strings.TrimSpace(line); pkg == "k8s.io/kubernetes" || strings.HasPrefix(pkg, "k8s.io/kubernetes/") {
			t.Errorf("the product imports %s", pkg)
		}
	}
}
