// Package threshold reads how little of what a node has makes it evict pods, and how, in upstream's words: memory.available<200Mi,nodefs.available<5%.
//
// It is pure; the configuration checks with it what the kubelet goes by.
package threshold

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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

// Settings are what a node goes by, each by signal.
type Settings struct {
	Hard    map[string]Threshold // below it pods are evicted at once; signals that are not there have the usual one
	Soft    map[string]Threshold // below it for longer than Grace, pods are evicted in order
	Grace   map[string]time.Duration
	Reclaim map[string]Threshold // what must be there beyond a threshold before pods are no longer evicted for it
	// MaxPodGrace is how many seconds a pod that is evicted for a soft threshold gets at most to end; negative: what it asks for.
	MaxPodGrace int64
	Hold        time.Duration // how long a condition is told after its shortage ended
}

// Check that the parts fit together; field is the one that is wrong.
func (s *Settings) Check() (field string, err error) {
	for _, signal := range Signals {
		_, soft := s.Soft[signal]
		if _, grace := s.Grace[signal]; soft && !grace {
			return "eviction-soft-grace-period", fmt.Errorf("%s has a soft threshold, and so needs a period", signal)
		} else if grace && !soft {
			return "eviction-soft-grace-period", fmt.Errorf("%s has no soft threshold; give it one with eviction-soft", signal)
		}
	}
	return "", nil
}

// ParseGrace reads how long a soft threshold must have been passed: memory.available=1m30s.
func ParseGrace(list []string) (map[string]time.Duration, error) {
	return each(list, "=", "memory.available=1m30s", func(value string) (time.Duration, error) {
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 {
			return 0, fmt.Errorf("%q is no period such as 1m30s", value)
		}
		return d, nil
	})
}

// ParseReclaim reads how much must be won beyond a threshold: nodefs.available=500Mi.
func ParseReclaim(list []string) (map[string]Threshold, error) {
	return each(list, "=", "nodefs.available=500Mi", parse)
}

// Parse a list of thresholds. A threshold of 0, 0% or 100% is none: nothing is evicted for that.
func Parse(list []string) (map[string]Threshold, error) {
	return each(list, "<", "memory.available<200Mi", func(value string) (Threshold, error) {
		t, err := parse(value)
		if t.Part == 1 {
			t.Part = 0
		}
		return t, err
	})
}

// each reads a list of signals with values.
func each[T any](list []string, separator, example string, read func(string) (T, error)) (map[string]T, error) {
	out := map[string]T{}
	for _, one := range list {
		signal, value, ok := strings.Cut(strings.TrimSpace(one), separator)
		if !ok {
			return nil, fmt.Errorf("%q is not of the form %s", one, example)
		}
		if !slices.Contains(Signals, signal) {
			return nil, fmt.Errorf("%q is none of %s; images and containers are on the node's own filesystem", signal, strings.Join(Signals, ", "))
		}
		if _, twice := out[signal]; twice {
			return nil, fmt.Errorf("%s is given twice", signal)
		}
		t, err := read(value)
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
		return Threshold{Part: n / 100}, nil
	}
	q, err := resource.ParseQuantity(value)
	if err != nil || q.Sign() < 0 {
		return Threshold{}, fmt.Errorf("%q is neither an amount such as 200Mi nor a part such as 5%%", value)
	}
	return Threshold{Quantity: q.Value()}, nil
}
