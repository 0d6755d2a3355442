// Package host assembles a server and its agent out of their parts, on this host.
//
// It owns the order in which parts start and stop, the lock on the data dir, and the few files that belong to no part: the
// administrator's kubeconfig and cluster.json, which says what must be removed when the cluster goes. Its invariant: a part runs only while
// everything it stands on runs. Package cli calls it.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"time"
)

// runner is anything that runs until its context ends. Ready is closed once others may build on it.
type runner interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

// part is one thing that runs in this process.
type part struct {
	name string
	// after names the parts that must be ready before this one is made, and that stop only after it has stopped.
	after []string
	make  func() (runner, error)
}

// group runs parts: each starts when those it comes after are ready, all stop in the reverse order. The first error of any
// part, or its panic, stops the whole group.
type group struct {
	parts []part
	log   *slog.Logger
	ready func(name string) // called once for each part that becomes ready; may be nil
	// stopPatience bounds how long a part may take to stop; then the group gives up and names it.
	stopPatience time.Duration
}

type state struct {
	part
	ready chan struct{} // closed when ready
	done  chan struct{} // closed when it has stopped or will never start
}

// Run blocks until parent ends or a part fails, and everything has stopped.
func (g *group) Run(parent context.Context) error {
	ctx, fail := context.WithCancelCause(parent)
	defer fail(nil)
	states := make(map[string]*state, len(g.parts))
	for _, p := range g.parts {
		states[p.name] = &state{part: p, ready: make(chan struct{}), done: make(chan struct{})}
	}
	for _, s := range states {
		for _, name := range s.after {
			if states[name] == nil {
				return fmt.Errorf("part %s comes after %s, which does not exist", s.name, name)
			}
		}
	}
	for _, s := range states {
		go g.drive(ctx, fail, s, states)
	}
	for _, s := range states {
		<-s.done
	}
	if err := context.Cause(ctx); err != context.Cause(parent) {
		return err
	}
	return nil
}

// drive takes one part through its life.
func (g *group) drive(ctx context.Context, fail context.CancelCauseFunc, s *state, all map[string]*state) {
	defer close(s.done)
	for _, name := range s.after {
		select {
		case <-all[name].ready:
		case <-ctx.Done():
			return
		}
	}
	if ctx.Err() != nil {
		return
	}
	r, err := s.make()
	if err != nil {
		fail(fmt.Errorf("%s: %w", s.name, err))
		return
	}
	// The part's own context outlives the group's: it ends when everything built upon the part has stopped.
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- g.guard(own, s.name, r) }()

	select {
	case <-r.Ready():
		if g.ready != nil {
			g.ready(s.name)
		}
		close(s.ready)
	case err := <-ended:
		fail(unexpected(s.name, err))
		return
	case <-ctx.Done():
	}
	select {
	case err := <-ended:
		fail(unexpected(s.name, err))
		return
	case <-ctx.Done():
	}
	for _, other := range all {
		if slices.Contains(other.after, s.name) {
			<-other.done
		}
	}
	stop()
	select {
	case err := <-ended:
		if err != nil && !errors.Is(err, context.Canceled) {
			g.log.Error("a part stopped with an error", "part", s.name, "err", err)
		}
	case <-time.After(g.stopPatience):
		g.log.Error("a part did not stop; going on without it", "part", s.name, "after", g.stopPatience)
		fail(fmt.Errorf("%s did not stop within %s", s.name, g.stopPatience))
	}
}

// guard turns a panic into an error, with its stack logged.
func (g *group) guard(ctx context.Context, name string, r runner) (err error) {
	defer func() {
		if p := recover(); p != nil {
			g.log.Error("a part panicked; stopping", "part", name, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return r.Run(ctx)
}

func unexpected(name string, err error) error {
	if err == nil {
		err = errors.New("stopped by itself")
	}
	return fmt.Errorf("%s: %w", name, err)
}

// task makes a runner of a function that is ready at once.
type task func(ctx context.Context) error

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (t task) Run(ctx context.Context) error { return t(ctx) }
func (t task) Ready() <-chan struct{}        { return closed }
