package threshold

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	got, err := Parse([]string{"memory.available<200Mi", " nodefs.available<5%", "pid.available<100%", "nodefs.inodesFree<0"})
	if err != nil {
		t.Fatal(err)
	}
	for signal, want := range map[string]int64{"memory.available": 200 << 20, "nodefs.available": 50, "pid.available": 0, "nodefs.inodesFree": 0} {
		if n := got[signal].Of(1000); n != want {
			t.Errorf("%s: %d, want %d", signal, n, want)
		}
	}
	for text, want := range map[string]string{
		"memory.available":                          "is not of the form memory.available<200Mi",
		"imagefs.available<5%":                      "is none of memory.available",
		"pid.available<101%":                        "not between",
		"pid.available<NaN%":                        "not between",
		"memory.available<lots":                     "neither an amount",
		"memory.available<-1":                       "neither an amount",
		"memory.available<1Mi,memory.available<2Mi": "given twice",
	} {
		if _, err := Parse(strings.Split(text, ",")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestParseHow(t *testing.T) {
	grace, err := ParseGrace([]string{"memory.available=1m30s", " pid.available=0s"})
	if err != nil || len(grace) != 2 || grace["memory.available"] != 90*time.Second {
		t.Errorf("%v, %v", grace, err)
	}
	reclaim, err := ParseReclaim([]string{"nodefs.available=500Mi", "memory.available=100%"})
	if err != nil || reclaim["nodefs.available"].Of(0) != 500<<20 || reclaim["memory.available"].Of(7) != 7 {
		t.Errorf("%v, %v", reclaim, err)
	}
	for text, want := range map[string]string{
		"memory.available<1m":               "is not of the form memory.available=1m30s",
		"memory.available=-1s":              "is no period",
		"memory.available=90":               "is no period",
		"imagefs.available=1m":              "is none of",
		"pid.available=1m,pid.available=2m": "given twice",
	} {
		if _, err := ParseGrace(strings.Split(text, ",")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	if _, err := ParseReclaim([]string{"memory.available=-1Gi"}); err == nil {
		t.Error("less than nothing is reclaimed")
	}
}
