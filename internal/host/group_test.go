package host

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// journal notes what happens, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, s)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Join(j.lines, " ")
}

type fake struct {
	name  string
	j     *journal
	start time.Duration
	end   error // returned at once after start, if set
	stuck bool
	boom  bool
	ready chan struct{}
}

func (f *fake) Ready() <-chan struct{} { return f.ready }
func (f *fake) Run(ctx context.Context) error {
	if f.boom {
		panic("boom")
	}
	time.Sleep(f.start)
	f.j.note("+" + f.name)
	close(f.ready)
	if f.end != nil {
		return f.end
	}
	<-ctx.Done()
	if f.stuck {
		select {}
	}
	time.Sleep(time.Millisecond)
	f.j.note("-" + f.name)
	return nil
}

func (f *fake) part(after ...string) part {
	f.ready = make(chan struct{})
	return part{f.name, after, func() (runner, error) { return f, nil }}
}

func newGroup(log *bytes.Buffer, parts ...part) *group {
	return &group{parts: parts, log: slog.New(slog.NewTextHandler(log, nil)), stopPatience: time.Second}
}

func TestPartsStartInOrderAndStopInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := newGroup(&bytes.Buffer{},
			(&fake{name: "top", j: j}).part("middle", "side"),
			(&fake{name: "middle", j: j, start: 2 * time.Second}).part("bottom"),
			(&fake{name: "side", j: j, start: time.Second}).part(),
			(&fake{name: "bottom", j: j}).part())
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		got := j.String()
		if !strings.HasPrefix(got, "+bottom +side +middle +top -top -") || !strings.HasSuffix(got, "-bottom") {
			t.Errorf("order was %s", got)
		}
	})
}

func TestOneFailureStopsAll(t *testing.T) {
	cases := map[string]struct {
		bad  fake
		want string
	}{
		"error":         {fake{end: errors.New("disk on fire")}, "bad: disk on fire"},
		"ends silently": {fake{end: context.Canceled}, "bad:"},
		"panic":         {fake{boom: true}, "bad: panic: boom"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j, log := &journal{}, &bytes.Buffer{}
				bad := c.bad
				bad.name, bad.j = "bad", j
				g := newGroup(log, (&fake{name: "base", j: j}).part(), bad.part("base"), (&fake{name: "never", j: j, start: time.Hour}).part("bad"))
				err := g.Run(t.Context())
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				if !strings.HasSuffix(j.String(), "-base") {
					t.Errorf("base was not stopped: %s", j)
				}
				if bad.boom && !strings.Contains(log.String(), "group_test.go") {
					t.Errorf("the panic's stack was not logged: %s", log)
				}
			})
		})
	}
}

func TestMakeThatFails(t *testing.T) {
	g := newGroup(&bytes.Buffer{}, part{"p", nil, func() (runner, error) { return nil, errors.New("no") }})
	if err := g.Run(t.Context()); err == nil || err.Error() != "p: no" {
		t.Errorf("got %v", err)
	}
}

func TestStuckPartIsNamed(t *testing.T) {
	var log bytes.Buffer
	g := newGroup(&log, (&fake{name: "base", j: &journal{}}).part(), (&fake{name: "slow", j: &journal{}, stuck: true}).part("base"))
	g.stopPatience = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	_ = g.Run(ctx)
	if !strings.Contains(log.String(), "part=slow") {
		t.Errorf("the log does not name the stuck part: %s", log.String())
	}
}
