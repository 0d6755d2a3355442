package cli

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"skiff.dev/skiff/internal/kubelet/logs"
)

// TestMergeLogs: what was written before is in the order of its times, what is new comes after it.
func TestMergeLogs(t *testing.T) {
	line := func(second int, text string) logs.Line {
		return logs.Line{Time: time.Unix(int64(second), 0), Text: text}
	}
	now := logs.Line{Live: true}
	a, b, c := &logSource{lines: make(chan logs.Line, 8)}, &logSource{lines: make(chan logs.Line, 8)}, &logSource{lines: make(chan logs.Line)}
	close(c.lines) // a node that doesn't answer
	for _, l := range []logs.Line{line(1, "one"), line(4, "four"), now, line(9, "new")} {
		a.lines <- l
	}
	for _, l := range []logs.Line{line(2, "two"), line(3, "three"), line(5, "five"), now} {
		b.lines <- l
	}
	close(a.lines)
	close(b.lines)
	var got []string
	if err := mergeLogs([]*logSource{a, b, c}, func(l *logs.Line) error { got = append(got, l.Text); return nil }, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if have := strings.Join(got, " "); have != "one two three four five new" {
		t.Error(have)
	}
}

func TestUnread(t *testing.T) {
	var said strings.Builder
	err := unread([]*logSource{{name: "node a"}, {name: "node b", err: errors.New("no way there")}}, "nodes", &said)
	if err == nil || err.Error() != "the logs of 1 of 2 nodes could not be read in full" || said.String() != "node b: no way there\n" {
		t.Errorf("%v; %q", err, said.String())
	}
	if err := unread([]*logSource{{name: "node a"}}, "nodes", io.Discard); err != nil {
		t.Error(err)
	}
}

func TestLogSearchIsChecked(t *testing.T) {
	for want, s := range map[string]logSearch{
		"search:": {search: "("}, "selector:": {selector: "a in"}, "since:": {since: -time.Second}, "output:": {output: "yaml"},
	} {
		if err := s.check(nil); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
