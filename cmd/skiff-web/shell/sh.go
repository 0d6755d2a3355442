package shell

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/term"
	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/interp"
	"mvdan.cc/sh/v3/syntax"
)

const shellUsage = "[-eux] [-i] [-c COMMAND [NAME [ARGUMENT…]] | FILE [ARGUMENT…]]"

// invocation is what the shell's own arguments ask for.
type invocation struct {
	command     string // of -c
	hasCommand  bool
	interactive bool
	fromInput   bool
	settings    []string // -e, -u, -x, …: for the interpreter
	file        string
	params      []string
}

func parseInvocation(args []string) (v invocation, err error) {
	for len(args) > 0 && len(args[0]) > 1 && (args[0][0] == '-' || args[0][0] == '+') {
		a := args[0]
		args = args[1:]
		if a == "--" {
			break
		}
		for _, f := range a[1:] {
			switch {
			case f == 'c' && a[0] == '-':
				v.hasCommand = true
			case f == 'i' && a[0] == '-':
				v.interactive = true
			case f == 's' && a[0] == '-':
				v.fromInput = true
			case f == 'l':
			case strings.ContainsRune("aefnuvx", f):
				v.settings = append(v.settings, a[:1]+string(f))
			default:
				return v, fmt.Errorf("unknown option -%c", f)
			}
		}
	}
	if v.hasCommand {
		if len(args) == 0 {
			return v, errors.New("-c needs a command")
		}
		v.command, args = args[0], args[1:]
		if len(args) > 0 {
			args = args[1:] // the name, $0
		}
	} else if len(args) > 0 && !v.fromInput {
		v.file, args = args[0], args[1:]
	}
	v.params = args
	return v, nil
}

// session is one run of the shell.
type session struct {
	streams
	runner *interp.Runner
	jobs   jobs
}

func runShell(ctx context.Context, s streams, args []string) int {
	v, err := parseInvocation(args)
	if err != nil {
		fmt.Fprintf(s.err, "sh: %v\n", err)
		return s.misuse("sh", shellUsage)
	}
	if v.file == "" && !v.hasCommand {
		f, ok := s.in.(*os.File)
		v.interactive = v.interactive || ok && term.IsTerminal(int(f.Fd()))
	}
	sh := &session{streams: s}
	sh.runner, err = interp.New(
		interp.StdIO(s.in, s.out, s.err),
		interp.Params(append(append(v.settings, "--"), v.params...)...),
		interp.CallHandler(noBuiltinKill),
		interp.ExecHandlers(sh.jobs.handler, ownCommands),
	)
	if err != nil {
		return s.fail("sh", err)
	}
	switch {
	case v.interactive:
		return sh.interact(ctx)
	case v.hasCommand:
		return sh.script(ctx, strings.NewReader(v.command), "sh")
	case v.file != "":
		f, err := os.Open(v.file)
		if err != nil {
			s.fail("sh", err)
			return 127
		}
		defer f.Close()
		return sh.script(ctx, f, v.file)
	}
	return sh.input(ctx)
}

// script runs a whole file.
func (sh *session) script(ctx context.Context, r io.Reader, name string) int {
	file, err := parser().Parse(r, name)
	if err != nil {
		fmt.Fprintf(sh.err, "%v\n", err)
		return 2
	}
	sh.jobs.rewrite(file)
	return sh.code(sh.runner.Run(ctx, file))
}

// input runs commands from the input as they come, a line at a time: what a command reads itself is not for the shell.
func (sh *session) input(ctx context.Context) int {
	code := 0
	p := parser()
	for stmts, err := range p.InteractiveSeq(oneByOne{sh.in}) {
		if err != nil {
			fmt.Fprintf(sh.err, "%v\n", err)
			return 2
		}
		if p.Incomplete() {
			continue
		}
		for _, stmt := range stmts {
			sh.jobs.rewrite(stmt)
			code = sh.code(sh.runner.Run(ctx, stmt))
			if sh.runner.Exited() {
				return code
			}
		}
	}
	return code
}

// interact shows a prompt. Ctrl-C ends the running command or the line that is being typed, never the shell.
func (sh *session) interact(ctx context.Context) int {
	interrupts := make(chan os.Signal, 1)
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	go func() {
		for range interrupts {
			fmt.Fprintln(sh.out)
		}
	}()

	lines := bufio.NewReader(oneByOne{sh.in})
	code, pending := 0, ""
	for {
		fmt.Fprint(sh.out, sh.prompt(pending != ""))
		line, err := lines.ReadString('\n')
		pending += line
		if err != nil && (pending == "" || !errors.Is(err, io.EOF)) {
			fmt.Fprintln(sh.out)
			return code
		}
		file, parseErr := parser().Parse(strings.NewReader(pending), "sh")
		if parseErr != nil && syntax.IsIncomplete(parseErr) && err == nil {
			continue
		}
		pending = ""
		if parseErr != nil {
			fmt.Fprintf(sh.err, "%v\n", parseErr)
			code = 2
			continue
		}
		for _, stmt := range file.Stmts {
			sh.jobs.rewrite(stmt)
			code = sh.code(sh.runner.Run(ctx, stmt))
			if sh.runner.Exited() {
				return code
			}
		}
	}
}

func (sh *session) prompt(more bool) string {
	name, fallback := "PS1", "# "
	if more {
		name, fallback = "PS2", "> "
	} else if os.Geteuid() != 0 {
		fallback = "$ "
	}
	if v, ok := sh.runner.Vars[name]; ok && v.IsSet() {
		return v.String()
	}
	if more {
		return fallback
	}
	if sh.runner.Dir != "" {
		return sh.runner.Dir + " " + fallback
	}
	return fallback
}

// code turns the interpreter's error into an exit code, telling what is not one.
func (sh *session) code(err error) int {
	var status interp.ExitStatus
	switch {
	case err == nil:
		return 0
	case errors.As(err, &status):
		return int(status)
	}
	fmt.Fprintf(sh.err, "sh: %v\n", err)
	return 1
}

// oneByOne reads a byte at a time and so takes no more from the input than the shell needs.
type oneByOne struct{ io.Reader }

func (r oneByOne) Read(p []byte) (int, error) {
	if len(p) > 1 {
		p = p[:1]
	}
	return r.Reader.Read(p)
}

// parser takes bash's language, of which POSIX's is a part: the interpreter has export, local and readonly in no other form.
func parser() *syntax.Parser { return syntax.NewParser(syntax.Variant(syntax.LangBash)) }

// killName stands for kill, which the interpreter has as a builtin that says it is not supported.
const killName = "\x00kill"

func noBuiltinKill(_ context.Context, args []string) ([]string, error) {
	if args[0] == "kill" {
		return append([]string{killName}, args[1:]...), nil
	}
	return args, nil
}

// ownCommands finds this program's commands where PATH has no link to them.
func ownCommands(next interp.ExecHandlerFunc) interp.ExecHandlerFunc {
	return func(ctx context.Context, args []string) error {
		hc := interp.HandlerCtx(ctx)
		if args[0] == killName {
			args = append([]string{"kill"}, args[1:]...)
		}
		if strings.Contains(args[0], "/") || !Has(args[0]) {
			return next(ctx, args)
		}
		if _, err := interp.LookPathDir(hc.Dir, hc.Env, args[0]); err == nil {
			return next(ctx, args)
		}
		cmd, err := itself(ctx, args)
		if err != nil {
			return err
		}
		err = cmd.Run()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			if code := exit.ExitCode(); code >= 0 {
				return interp.ExitStatus(code)
			}
			return interp.ExitStatus(130)
		}
		return err
	}
}

// itself is this program under another name, on the streams and variables of the command that is being run.
func itself(ctx context.Context, args []string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the shell's own program: %w", err)
	}
	hc := interp.HandlerCtx(ctx)
	cmd := exec.CommandContext(ctx, exe)
	cmd.Args, cmd.Dir, cmd.Env = args, hc.Dir, exported(hc.Env, false)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = hc.Stdin, hc.Stdout, hc.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 2 * time.Second
	return cmd, nil
}

// exported lists variables as a process gets them; all adds those that were not exported.
func exported(env expand.Environ, all bool) (list []string) {
	for name, v := range env.Each {
		if v.IsSet() && v.Kind == expand.String && (v.Exported || all) {
			list = append(list, name+"="+v.String())
		}
	}
	return list
}
