package threshold

import (
	"strings"
	"testing"
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
		"memory.available":                          "is no threshold",
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
