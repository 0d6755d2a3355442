package scheduler

import (
	"context"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// TestTurns: what is asked for while a pod is being written about waits for its turn, and another pod's does not.
func TestTurns(t *testing.T) {
	ctx := context.Background()
	l := &loop{writes: make(chan func(context.Context), 8), turns: turns{waiting: map[types.UID][]func(context.Context){}}}
	var done []string
	say := func(what string) func(context.Context) {
		return func(context.Context) { done = append(done, what) }
	}
	l.write("a", func(ctx context.Context) {
		l.write("a", say("a's second"))
		l.write("b", say("b's first"))
		(<-l.writes)(ctx)
		done = append(done, "a's first")
	})
	l.write("a", say("a's third, asked for before the first began"))
	(<-l.writes)(ctx)
	want := []string{"b's first", "a's first", "a's third, asked for before the first began", "a's second"}
	if !slices.Equal(done, want) {
		t.Errorf("got  %q\nwant %q", done, want)
	}
	if len(l.writes) != 0 || l.turns.busy("a") || l.turns.busy("b") {
		t.Error("a turn did not end")
	}
	l.write("a", say("later"))
	if !l.turns.busy("a") || len(l.writes) != 1 {
		t.Error("a pod's next turn did not begin")
	}
}
