package shell

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"sync"

	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

// jobs runs what ends in & as a shell of its own. The interpreter would run it within this process, and it would end with it; elsewhere
// `sh -c 'long &'` leaves a process behind.
type jobs struct {
	mu        sync.Mutex
	functions []string // declarations seen so far, which a job may call
	running   map[string]*exec.Cmd
	next      int
}

// spawnName and awaitName cannot be typed as commands: a name in a script has no NUL.
const (
	spawnName = "\x00spawn"
	awaitName = "\x00await"
)

// rewrite turns `job &` into `spawn n 'job'; await n &`: started before the shell goes on, waited for by `wait`.
func (j *jobs) rewrite(node syntax.Node) {
	printer := syntax.NewPrinter()
	source := func(n syntax.Node) string {
		var b strings.Builder
		_ = printer.Print(&b, n) // a builder takes everything
		return b.String()
	}
	syntax.Walk(node, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.FuncDecl:
			j.functions = append(j.functions, source(n))
		case *syntax.Stmt:
			if !n.Background {
				return true
			}
			// Redirections stay with the call, so that the job does not hold on to what it was told not to use.
			job := &syntax.Stmt{Cmd: n.Cmd, Negated: n.Negated}
			script := strings.Join(append(j.functions[:len(j.functions):len(j.functions)], source(job)), "\n")
			input := "none"
			for _, r := range n.Redirs {
				if r.Op == syntax.RdrIn || r.Op == syntax.Hdoc || r.Op == syntax.DashHdoc || r.Op == syntax.WordHdoc {
					input = "given"
				}
			}
			j.next++
			number := fmt.Sprint(j.next)
			spawn := &syntax.Stmt{Cmd: call(spawnName, number, script, input), Redirs: n.Redirs}
			await := &syntax.Stmt{Background: true, Cmd: call(awaitName, number)}
			*n = syntax.Stmt{Position: n.Position, Cmd: &syntax.Block{Stmts: []*syntax.Stmt{spawn, await}}}
			return false
		}
		return true
	})
}

func call(words ...string) *syntax.CallExpr {
	c := &syntax.CallExpr{}
	for _, w := range words {
		c.Args = append(c.Args, &syntax.Word{Parts: []syntax.WordPart{&syntax.SglQuoted{Value: w}}})
	}
	return c
}

func (j *jobs) handler(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
	return func(ctx context.Context, args []string) error {
		switch args[0] {
		case spawnName:
			return j.spawn(ctx, args[1], args[2], args[3] == "given")
		case awaitName:
			return j.await(args[1])
		}
		return next(ctx, args)
	}
}

func (j *jobs) spawn(ctx context.Context, number, source string, withInput bool) error {
	cmd, err := itself(context.WithoutCancel(ctx), []string{"sh", "-c", source})
	if err != nil {
		return err
	}
	cmd.Env = exported(interp.HandlerCtx(ctx).Env, true)
	if !withInput {
		cmd.Stdin = nil
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a job: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.running == nil {
		j.running = map[string]*exec.Cmd{}
	}
	j.running[number] = cmd
	return nil
}

func (j *jobs) await(number string) error {
	j.mu.Lock()
	cmd := j.running[number]
	delete(j.running, number)
	j.mu.Unlock()
	if cmd == nil {
		return nil
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) && exit.ExitCode() >= 0 {
		return interp.ExitStatus(exit.ExitCode())
	} else if err != nil {
		return interp.ExitStatus(130)
	}
	return nil
}
