// Package scenariotest replays scenarios: scripts in testdata/*.txt that hold what happens together with what came of it, so that a reader sees both.
// It is for tests alone; what a script means is theirs.
package scenariotest

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the scenarios' expectations")

// Run replays each script, which must come out as it is.
func Run(t *testing.T, replay func(t *testing.T, script string) []byte) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(want))
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s differs; look at it and run with -update\n--- got\n%s", file, got)
			}
		})
	}
}
