package evict

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"skiff.dev/skiff/internal/api/threshold"
	"skiff.dev/skiff/internal/scenariotest"
)

// TestScenarios replays testdata/*.txt: settings, then what is there at which time ("$ …"), each followed by what the node makes of it: for which
// thresholds pods go, how long a grace period still runs, and which conditions it tells.
func TestScenarios(t *testing.T) { scenariotest.Run(t, replay) }

func replay(t *testing.T, script string) []byte {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	var s Shortages
	var settings threshold.Settings
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for line := range strings.Lines(script) {
		if strings.HasPrefix(line, "  ") { // what came of it the last time
			continue
		}
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		list := strings.Split(value, ",")
		var err error
		switch key {
		case "hard":
			settings.Hard, err = threshold.Parse(list)
		case "soft":
			settings.Soft, err = threshold.Parse(list)
		case "grace":
			settings.Grace, err = threshold.ParseGrace(list)
		case "reclaim":
			settings.Reclaim, err = threshold.ParseReclaim(list)
		case "hold":
			s.Hold, err = time.ParseDuration(value)
		case "$":
			out.WriteString(line)
			at, there, _ := strings.Cut(value, " ")
			d, err := time.ParseDuration(at)
			must(err)
			now := begin.Add(d)
			short, next := s.See(levelsOf(t, &settings, there), now)
			for _, l := range short {
				fmt.Fprintf(&out, "  evict for %s%s<%s\n", map[bool]string{true: "soft "}[l.Soft], l.Signal, show(l.Least, l.Signal.Resource()))
			}
			if !next.IsZero() {
				fmt.Fprintf(&out, "  grace for %s\n", next.Sub(now))
			}
			fmt.Fprintf(&out, "  = %v\n", s.Conditions(now))
			continue
		}
		must(err)
		out.WriteString(line)
	}
	return out.Bytes()
}

// levelsOf reads memory.available=300Mi of 1Gi, and likewise for others.
func levelsOf(t *testing.T, settings *threshold.Settings, there string) (out []Level) {
	amounts, err := threshold.ParseReclaim(strings.Fields(there))
	if err != nil {
		t.Fatal(err)
	}
	for _, signal := range threshold.Signals {
		now, measured := amounts[signal]
		if !measured {
			continue
		}
		const capacity = 1000 << 20
		l := Level{Signal: Signal(signal), Available: now.Of(capacity), Least: settings.Hard[signal].Of(capacity), Reclaim: settings.Reclaim[signal].Of(capacity)}
		out = append(out, l)
		if soft, set := settings.Soft[signal]; set {
			l.Least, l.Soft, l.Grace = soft.Of(capacity), true, settings.Grace[signal]
			out = append(out, l)
		}
	}
	return out
}
