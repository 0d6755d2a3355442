package test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skiff.dev/skiff/test/cluster"
)

// program is one that runs beside a test and is read line by line.
type program struct {
	cmd   *exec.Cmd
	lines chan string

	mu   sync.Mutex
	said []byte
}

// start starts a program that ends with the test.
func start(t *testing.T, cmd *exec.Cmd) *program {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &program{cmd: cmd, lines: make(chan string, 100_000)}
	go p.read(out)
	t.Cleanup(func() { p.stop(); _ = cmd.Wait() })
	return p
}

func (p *program) stop() { _ = p.cmd.Process.Kill() }

func (p *program) read(out io.Reader) {
	defer close(p.lines)
	for s := bufio.NewScanner(out); s.Scan(); {
		p.mu.Lock()
		p.said = append(append(p.said, s.Bytes()...), '\n')
		p.mu.Unlock()
		p.lines <- s.Text()
	}
}

func (p *program) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.said)
}

// waitFor reads on to the next line that matches and returns what its groups caught.
func (p *program) waitFor(t *testing.T, line *regexp.Regexp) []string {
	t.Helper()
	patience := time.After(cluster.Patience)
	for {
		select {
		case text, more := <-p.lines:
			if found := line.FindStringSubmatch(text); found != nil {
				return found
			}
			if !more {
				t.Fatalf("%v ended without a line like %q; it said:\n%s", p.cmd.Args, line, p)
			}
		case <-patience:
			t.Fatalf("%v shows no line like %q; it said:\n%s", p.cmd.Args, line, p)
		}
	}
}

// terminal is a program on a terminal of its own, as a person has.
type terminal struct {
	*program
	keyboard *os.File
}

// startOnTerminal starts a program on a terminal of that size.
func startOnTerminal(t *testing.T, cmd *exec.Cmd, rows, columns uint16) *terminal {
	t.Helper()
	master, slave := openTerminal(t)
	term := &terminal{keyboard: master}
	term.resize(t, rows, columns)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	term.program = &program{cmd: cmd, lines: make(chan string, 100_000)}
	go term.read(master)
	t.Cleanup(func() { term.stop(); _ = cmd.Wait(); master.Close() })
	return term
}

func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

func (x *terminal) resize(t *testing.T, rows, columns uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(x.keyboard.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
	if x.program != nil {
		_ = x.cmd.Process.Signal(syscall.SIGWINCH)
	}
}

// press types keys.
func (x *terminal) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := x.keyboard.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// exitCode waits for the program's end.
func (p *program) exitCode(t *testing.T) int {
	t.Helper()
	patience := time.After(cluster.Patience)
	for {
		select {
		case _, more := <-p.lines:
			if !more {
				_ = p.cmd.Wait()
				return p.cmd.ProcessState.ExitCode()
			}
		case <-patience:
			t.Fatalf("%v does not end; it said:\n%s", p.cmd.Args, p)
		}
	}
}
