// Package shutdown is how long pods get to end when their host shuts down, by their priority (KEP-2000, KEP-2712).
//
// It is pure; the configuration checks with it what the kubelet goes by.
package shutdown

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/scheduling/corev1"

	"skiff.dev/skiff/internal/api"
)

// Period is what pods of a priority get, and those of higher ones up to the next period's.
type Period struct {
	Priority int32
	Grace    time.Duration
}

// Periods by priority, the lowest first. None: nothing is done when the host shuts down.
type Periods []Period

// Of a period for all pods, whose last part is for critical ones alone.
func Of(all, forCritical time.Duration) (Periods, error) {
	for _, d := range []time.Duration{all, forCritical} {
		if d != 0 && d < time.Second {
			return nil, fmt.Errorf("%s is neither 0 nor a second or more", d)
		}
	}
	if forCritical > all {
		return nil, fmt.Errorf("%s for critical pods is more than the %s for all; it is a part of them", forCritical, all)
	}
	if all == 0 {
		return nil, nil
	}
	return Periods{{0, all - forCritical}, {api.ClusterCriticalPriority, forCritical}}, nil
}

// Parse reads PRIORITY=PERIOD, as in 0=1m, 1000=20s, 2000000000=10s.
func Parse(list []string) (out Periods, err error) {
	for _, one := range list {
		key, value, ok := strings.Cut(strings.TrimSpace(one), "=")
		priority, err := strconv.ParseInt(key, 10, 32)
		if !ok || err != nil {
			return nil, fmt.Errorf("%q is not of the form 1000=20s", one)
		}
		grace, err := time.ParseDuration(value)
		if err != nil || grace < 0 || grace%time.Second != 0 {
			return nil, fmt.Errorf("%s: %q is no period in whole seconds such as 20s", key, value)
		}
		if slices.ContainsFunc(out, func(p Period) bool { return p.Priority == int32(priority) }) {
			return nil, fmt.Errorf("%s is given twice", key)
		}
		out = append(out, Period{int32(priority), grace})
	}
	slices.SortFunc(out, func(a, b Period) int { return cmp.Compare(a.Priority, b.Priority) })
	return out, nil
}

// Sum is how long all of them take together.
func (p Periods) Sum() (sum time.Duration) {
	for _, one := range p {
		sum += one.Grace
	}
	return sum
}

// At is the index of the period of a pod: the highest one that is not above its priority, or the lowest.
func (p Periods) At(pod *corev1.Pod) int {
	n, found := slices.BinarySearchFunc(p, helpers.PodPriority(pod), func(one Period, priority int32) int { return cmp.Compare(one.Priority, priority) })
	if !found {
		n--
	}
	return max(n, 0)
}
