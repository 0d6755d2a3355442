package shell

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func hostname(s streams, _ []string) int {
	name, err := os.Hostname()
	if err != nil {
		return s.fail("hostname", err)
	}
	fmt.Fprintln(s.out, name)
	return 0
}

// id shows numbers: the image has no names for them.
func id(s streams, args []string) int {
	o, err := parse(args, "ugGn", "", nil)
	if err != nil {
		return s.misuse("id", "[-u | -g | -G]")
	}
	groups, err := os.Getgroups()
	if err != nil {
		return s.fail("id", err)
	}
	if !slices.Contains(groups, os.Getegid()) {
		groups = append([]int{os.Getegid()}, groups...)
	}
	list := func(separator string) string {
		var all []string
		for _, g := range groups {
			all = append(all, strconv.Itoa(g))
		}
		return strings.Join(all, separator)
	}
	switch {
	case o.set["u"]:
		fmt.Fprintln(s.out, os.Geteuid())
	case o.set["g"]:
		fmt.Fprintln(s.out, os.Getegid())
	case o.set["G"]:
		fmt.Fprintln(s.out, list(" "))
	default:
		fmt.Fprintf(s.out, "uid=%d gid=%d groups=%s\n", os.Geteuid(), os.Getegid(), list(","))
	}
	return 0
}

// env shows the environment, or runs a command in a changed one.
func env(s streams, args []string) int {
	vars := os.Environ()
	if len(args) > 0 && (args[0] == "-i" || args[0] == "-") {
		vars, args = nil, args[1:]
	}
	for len(args) > 0 && strings.Contains(args[0], "=") {
		vars, args = append(vars, args[0]), args[1:]
	}
	if len(args) == 0 {
		for _, v := range vars {
			fmt.Fprintln(s.out, v)
		}
		return 0
	}
	path, err := exec.LookPath(args[0])
	if err != nil && Has(args[0]) {
		path, err = os.Executable()
	}
	if err != nil {
		s.fail("env", err)
		return 127
	}
	cmd := &exec.Cmd{Path: path, Args: args}
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = s.in, s.out, s.err, vars
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		s.fail("env", err)
		return 127
	}
	return 0
}

func date(s streams, args []string) int {
	now := time.Now()
	for len(args) > 0 && args[0] == "-u" {
		now, args = now.UTC(), args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(s.out, now.Format("Mon Jan _2 15:04:05 MST 2006"))
		return 0
	}
	if !strings.HasPrefix(args[0], "+") {
		return s.misuse("date", "[-u] [+FORMAT]")
	}
	fmt.Fprintln(s.out, formatDate(now, args[0][1:]))
	return 0
}

var dateLetters = map[byte]string{
	'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'y': "06", 'b': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday",
	'F': "2006-01-02", 'T': "15:04:05", 'Z': "MST", 'z': "-0700", 'N': "000000000",
}

func formatDate(t time.Time, format string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		switch layout := dateLetters[format[i]]; {
		case format[i] == 's':
			b.WriteString(strconv.FormatInt(t.Unix(), 10))
		case format[i] == 'N':
			fmt.Fprintf(&b, "%09d", t.Nanosecond())
		case format[i] == '%':
			b.WriteByte('%')
		case layout != "":
			b.WriteString(t.Format(layout))
		default:
			b.WriteString(format[i-1 : i+1])
		}
	}
	return b.String()
}

// sleep takes seconds, as fractions too, or 1m, 2h, 3d; infinity sleeps until it is killed.
func sleep(s streams, args []string) int {
	var total time.Duration
	if len(args) == 0 {
		return s.misuse("sleep", "SECONDS[smhd]…")
	}
	for _, a := range args {
		if a == "infinity" || a == "inf" {
			total = math.MaxInt64
			continue
		}
		unit := time.Second
		if i := strings.IndexByte("smhd", a[max(len(a)-1, 0)]); a != "" && i >= 0 {
			unit, a = []time.Duration{time.Second, time.Minute, time.Hour, 24 * time.Hour}[i], a[:len(a)-1]
		}
		n, err := strconv.ParseFloat(a, 64)
		if err != nil || n < 0 {
			return s.misuse("sleep", "SECONDS[smhd]…")
		}
		if total < math.MaxInt64 {
			total += time.Duration(n * float64(unit))
		}
	}
	time.Sleep(total)
	return 0
}

func kill(s streams, args []string) int {
	const usage = "[-SIGNAL | -s SIGNAL] PID…"
	signal := syscall.SIGTERM
	if len(args) > 0 && args[0] == "-l" {
		for n := syscall.Signal(1); n < 32; n++ {
			fmt.Fprintf(s.out, "%2d %s\n", n, strings.TrimPrefix(unix.SignalName(n), "SIG"))
		}
		return 0
	}
	if len(args) > 1 && len(args[0]) > 1 && args[0][0] == '-' {
		name := args[0][1:]
		args = args[1:]
		if name == "s" || name == "n" {
			name, args = args[0], args[1:]
		}
		if name != "-" {
			sig, ok := signalOf(name)
			if !ok {
				return s.fail("kill", fmt.Errorf("there is no signal %s; kill -l lists them", name))
			}
			signal = sig
		}
	}
	if len(args) == 0 {
		return s.misuse("kill", usage)
	}
	code := 0
	for _, a := range args {
		pid, err := strconv.Atoi(a)
		if err != nil {
			return s.misuse("kill", usage)
		}
		if err := syscall.Kill(pid, signal); err != nil {
			code = s.fail("kill", fmt.Errorf("%d: %w", pid, err))
		}
	}
	return code
}

func signalOf(name string) (syscall.Signal, bool) {
	if n, err := strconv.Atoi(name); err == nil {
		return syscall.Signal(n), n >= 0 && n < 65
	}
	n := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	return n, n != 0
}

// ps lists every process that /proc shows; arguments are accepted and mean nothing.
func ps(s streams, _ []string) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return s.fail("ps", err)
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	fmt.Fprintf(s.out, "%5s %5s %5s %-5s %8s %s\n", "PID", "PPID", "USER", "STATE", "RSS", "COMMAND")
	for _, pid := range pids {
		if p, err := readProcess(pid); err == nil {
			fmt.Fprintf(s.out, "%5d %5s %5s %-5s %8s %s\n", pid, p.parent, p.user, p.state, p.memory, p.command)
		}
	}
	return 0
}

type process struct{ parent, user, state, memory, command string }

func readProcess(pid int) (p process, err error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		first, _, _ := strings.Cut(value, "\t")
		switch key {
		case "Name":
			p.command = "[" + value + "]"
		case "PPid":
			p.parent = value
		case "Uid":
			p.user = first
		case "State":
			p.state = value[:min(1, len(value))]
		case "VmRSS":
			p.memory = strings.ReplaceAll(value, " ", "")
		}
	}
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && len(cmdline) > 0 {
		p.command = strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
	}
	return p, nil
}
