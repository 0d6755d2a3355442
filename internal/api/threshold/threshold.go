// Package threshold reads how little of what a node has makes it evict pods, in upstream's words: memory.available<200Mi,nodefs.available<5%.
//
// It is pure; the configuration checks with it what the kubelet goes by.
package threshold

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Signals that may be given a threshold.
var Signals = []string{"memory.available", "nodefs.available", "nodefs.inodesFree", "pid.available"}

// Threshold is an amount, or a part of what there is.
type Threshold struct {
	Quantity int64
	Part     float64 // above 0 it counts, and the quantity doesn't
}

// Of what there is.
func (t Threshold) Of(capacity int64) int64 {
	if t.Part > 0 {
		return int64(t.Part * float64(capacity))
	}
	return t.Quantity
}

// Parse a list. A threshold of 0, 0% or 100% is none: nothing is evicted for that.
func Parse(list []string) (map[string]Threshold, error) {
	out := map[string]Threshold{}
	for _, one := range list {
		signal, value, ok := strings.Cut(strings.TrimSpace(one), "<")
		if !ok {
			return nil, fmt.Errorf("%q is no threshold such as memory.available<200Mi", one)
		}
		if !slices.Contains(Signals, signal) {
			return nil, fmt.Errorf("%q is none of %s; images and containers are on the node's own filesystem", signal, strings.Join(Signals, ", "))
		}
		if _, twice := out[signal]; twice {
			return nil, fmt.Errorf("%s is given twice", signal)
		}
		t, err := parse(value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", signal, err)
		}
		out[signal] = t
	}
	return out, nil
}

func parse(value string) (Threshold, error) {
	if text, percent := strings.CutSuffix(value, "%"); percent {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || !(n >= 0 && n <= 100) {
			return Threshold{}, fmt.Errorf("%q is not between 0%% and 100%%", value)
		}
		if n == 100 {
			n = 0
		}
		return Threshold{Part: n / 100}, nil
	}
	q, err := resource.ParseQuantity(value)
	if err != nil || q.Sign() < 0 {
		return Threshold{}, fmt.Errorf("%q is neither an amount such as 200Mi nor a part such as 5%%", value)
	}
	return Threshold{Quantity: q.Value()}, nil
}
