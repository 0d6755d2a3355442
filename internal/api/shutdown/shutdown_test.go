package shutdown

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestOf(t *testing.T) {
	for _, test := range []struct {
		all, critical time.Duration
		want          string
	}{
		{0, 0, "[] <nil>"},
		{30 * time.Second, 10 * time.Second, "[{0 20s} {2000000000 10s}] <nil>"},
		{30 * time.Second, 0, "[{0 30s} {2000000000 0s}] <nil>"},
		{30 * time.Second, 30 * time.Second, "[{0 0s} {2000000000 30s}] <nil>"},
		{0, 10 * time.Second, "[] 10s for critical pods is more than the 0s for all; it is a part of them"},
		{time.Millisecond, 0, "[] 1ms is neither 0 nor a second or more"},
		{time.Second, -time.Second, "[] -1s is neither 0 nor a second or more"},
	} {
		got, err := Of(test.all, test.critical)
		if text := fmt.Sprint(got, " ", err); text != test.want {
			t.Errorf("%s, %s: %s, want %s", test.all, test.critical, text, test.want)
		}
	}
}

func TestParse(t *testing.T) {
	got, err := Parse([]string{"2000000000=10s", " -5=1m", "1000=0s"})
	if text := fmt.Sprint(got, err, got.Sum()); text != "[{-5 1m0s} {1000 0s} {2000000000 10s}] <nil> 1m10s" {
		t.Error(text)
	}
	for text, want := range map[string]string{
		"1000":              "is not of the form 1000=20s",
		"high=20s":          "is not of the form 1000=20s",
		"3000000000=20s":    "is not of the form 1000=20s",
		"1000=20":           "is no period in whole seconds",
		"1000=-1s":          "is no period in whole seconds",
		"1000=1500ms":       "is no period in whole seconds",
		"1000=20s,1000=10s": "1000 is given twice",
	} {
		if _, err := Parse(strings.Split(text, ",")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// TestAt: a pod has the period of the highest priority that is not above its own, the lowest period if there is none.
func TestAt(t *testing.T) {
	periods := Periods{{-10, 1}, {0, 2}, {1000, 3}}
	for priority, want := range map[int32]int{-1000: 0, -10: 0, -1: 0, 0: 1, 999: 1, 1000: 2, 2_000_001_000: 2} {
		if got := periods.At(&corev1.Pod{Spec: corev1.PodSpec{Priority: &priority}}); got != want {
			t.Errorf("priority %d has period %d, want %d", priority, got, want)
		}
	}
	if got := periods.At(&corev1.Pod{}); got != 1 {
		t.Errorf("a pod without a priority has period %d, want that of 0", got)
	}
}
