package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"skiff.dev/skiff/test/cluster"
)

// TestTour does what the README's section on volumes, ingress, figures and logs shows, command by command, and reads what it says.
func TestTour(t *testing.T) {
	t.Parallel()
	text := readme(t, "## Volumes, ingress, figures, logs\n", "```\n")
	c := cluster.Start(t)
	applyWeb(t, c)
	bin := t.TempDir()
	for _, name := range []string{"skiff", "kubectl"} {
		if err := os.Symlink(cluster.Binary(t, "skiff"), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range strings.Split(text, "$ ")[1:] {
		command, want, _ := strings.Cut(step, "\n")
		once := func() error {
			cmd := c.Program("bash", "-euo", "pipefail", "-c", command)
			cmd.Dir, cmd.Env = "..", append(cmd.Env, "PATH="+bin+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			if err != nil || anonymous(string(out)) != anonymous(want) {
				return fmt.Errorf("%s: %v\n%s\nThe README has:\n%s", command, err, out, want)
			}
			return nil
		}
		if repeatable.MatchString(command) {
			cluster.Eventually(t, once) // a reader is slower than a test
		} else if err := once(); err != nil {
			t.Fatal(err)
		}
	}
}

// readme is what the README's transcript holds from some marks on, one after the other, to its end.
func readme(t *testing.T, marks ...string) string {
	t.Helper()
	raw, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	for _, mark := range marks {
		var found bool
		if _, text, found = strings.Cut(text, mark); !found {
			t.Fatalf("the README has no %q", mark)
		}
	}
	text, _, ends := strings.Cut(text, "```")
	if !ends {
		t.Fatalf("the README's transcript of %q has no end", marks)
	}
	return text
}

// repeatable commands change nothing.
var repeatable = regexp.MustCompile(`^(curl|skiff logs|kubectl (get|top|exec \S+ -- cat)) `)

// waits are what commands say as long as there is something to wait for.
var waits = regexp.MustCompile(`(?m)^(Waiting for|\S+ is Progressing:) .*\n`)

// varying is what differs from one run to the next: names with random ends, times, addresses, numbers.
var varying = regexp.MustCompile(`\b[0-9a-f]{8,10}-[0-9a-z]{5}\b|\bpvc-[0-9a-f-]{36}\b|\blink/\S+|\b\d[0-9T:.Z-]*(s|m|Mi|µs)?\b`)

// anonymous is what a command said, without what varies and without the width of columns.
func anonymous(out string) string {
	out = varying.ReplaceAllLiteralString(waits.ReplaceAllLiteralString(out, ""), "#")
	lines := strings.Split(out, "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}
