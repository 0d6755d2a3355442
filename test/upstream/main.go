// Upstream asks kube-scheduler what Skiff's scheduler was asked, and prints where the two differ: for each node whether the pod fits, in which words it does not,
// whether preemption could help there, and the node's score; or who would have to give way. `make compare` is how it is called; it reads what the tests
// TestLikeTheReference and TestLikeASlowLook wrote down (-record).
//
// It is a module of its own, so that nothing else is built with k8s.io/kubernetes.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

// decision is what Skiff decided for a pod and all that it was decided by.
type decision struct {
	Seed     uint64            `json:"seed"`
	Config   string            `json:"config"`
	Objects  []json.RawMessage `json:"objects"`
	Pod      *corev1.Pod       `json:"pod"`
	Unusable string            `json:"unusable"`
	Verdicts map[string]ruling `json:"verdicts"`
	Victims  map[string]string `json:"victims"` // of preemption, by node; there is nothing else then
	Best     []string          `json:"best"`    // nodes for it
}

type ruling struct {
	Reasons []string `json:"reasons,omitempty"`
	Final   bool     `json:"final,omitempty"`
	Score   int64    `json:"score"`
	Detail  string   `json:"-"`
}

func (r ruling) String() string {
	if len(r.Reasons) == 0 {
		return fmt.Sprintf("fits, score %d %s", r.Score, r.Detail)
	}
	return fmt.Sprintf("%s (final: %t)", strings.Join(r.Reasons, ", "), r.Final)
}

func (r ruling) like(o ruling, scores bool) bool {
	return r.Final == o.Final && slices.Equal(r.Reasons, o.Reasons) && (r.Score == o.Score || !scores)
}

// comparable says that scores matter, and that the two mean to score a pod alike. kube-scheduler's NodeResourcesFit filters by what a pod asks for as a whole
// (spec.resources), and scores by what its containers ask for; Skiff's goes by the former in both.
func (d *decision) comparable() bool {
	fit := 0
	for _, r := range d.Verdicts {
		if len(r.Reasons) == 0 {
			fit++
		}
	}
	return fit > 1 && d.Pod.Spec.Resources == nil
}

func main() {
	most := flag.Int("most", 20, "differences to print of each file")
	flag.Parse()
	klog.SetOutput(io.Discard)
	klog.LogToStderr(false)
	differ := 0
	for _, path := range flag.Args() {
		n, err := run(context.Background(), path, *most)
		if err != nil {
			fmt.Fprintln(os.Stderr, path+":", err)
			os.Exit(1)
		}
		differ += n
	}
	if differ > 0 {
		os.Exit(1)
	}
}

// run compares a file's decisions and counts those that differ.
func run(ctx context.Context, path string, most int) (differ int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	pods, nodes := 0, 0
	for lines := bufio.NewReaderSize(f, 1<<20); ; pods++ {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			break
		} else if err != nil {
			return 0, err
		}
		var d decision
		if err := json.Unmarshal(line, &d); err != nil {
			return 0, fmt.Errorf("decision %d: %w", pods+1, err)
		}
		diffs, err := compare(ctx, &d)
		if err != nil {
			return 0, fmt.Errorf("decision %d: %w", pods+1, err)
		}
		nodes += len(d.Verdicts) + len(d.Victims)
		if len(diffs) == 0 {
			continue
		}
		if differ++; differ <= most {
			slices.Sort(diffs)
			fmt.Printf("decision %d, seed %d:\n  %s\n", pods+1, d.Seed, strings.Join(diffs, "\n  "))
		}
	}
	fmt.Printf("%s: %d pods on %d nodes, %d pods differ\n", path, pods, nodes, differ)
	return differ, nil
}

// compare says where kube-scheduler decides otherwise.
func compare(ctx context.Context, d *decision) (diffs []string, err error) {
	if d.Victims != nil {
		return comparePreemption(ctx, d)
	}
	theirs, unusable, err := ask(ctx, d)
	if err != nil {
		return nil, err
	}
	if unusable != d.Unusable {
		diffs = append(diffs, fmt.Sprintf("all nodes: Skiff %q, kube-scheduler %q", d.Unusable, unusable))
	}
	for name, ours := range d.Verdicts {
		if unusable == "" && !ours.like(theirs[name], d.comparable()) {
			diffs = append(diffs, fmt.Sprintf("%s: Skiff %v; kube-scheduler %v", name, ours, theirs[name]))
		}
	}
	return diffs, nil
}
