// Package shell is a POSIX shell (mvdan.cc/sh) and the few commands that an image without any others needs.
//
// It is one program under many names: in the built-in image, /bin holds a link to it for each of Names. Every command runs as a process of
// its own, as in any shell, so that ps, kill, pipes and Ctrl-C mean what they say. Command skiff-web calls it.
package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// streams are what a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// command runs with its arguments (without its name) and returns the exit code.
type command func(s streams, args []string) int

// commands are every name but the shell's own. It is a function because env finds other commands in it.
func commands() map[string]command {
	return map[string]command{
		"cat":      cat,
		"cp":       cp,
		"curl":     fetch,
		"date":     date,
		"env":      env,
		"grep":     grep,
		"head":     head,
		"hostname": hostname,
		"id":       id,
		"kill":     kill,
		"ls":       ls,
		"mkdir":    mkdir,
		"nslookup": nslookup,
		"ps":       ps,
		"rm":       rm,
		"sleep":    sleep,
		"sort":     sortLines,
		"tail":     tail,
		"tar":      archive,
		"uniq":     uniq,
		"wc":       wc,
		"wget":     fetch,
	}
}

// Names lists everything that Main answers to, sorted.
func Names() []string {
	names := []string{"sh"}
	for name := range commands() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Has says whether Main answers to name.
func Has(name string) bool {
	_, ok := commands()[name]
	return ok || name == "sh"
}

// Main runs the command that the last part of args[0] names, on the process's own streams, and returns the exit code.
func Main(args []string) int {
	s := streams{os.Stdin, os.Stdout, os.Stderr}
	name := args[0][strings.LastIndexByte(args[0], '/')+1:]
	if name == "sh" {
		return runShell(context.Background(), s, args[1:])
	}
	return commands()[name](s, args[1:])
}

// fail says what went wrong as `name: error` and is the exit code of a failed command.
func (s streams) fail(name string, err error) int {
	fmt.Fprintf(s.err, "%s: %s\n", name, reason(err))
	return 1
}

// misuse is fail for arguments that make no sense.
func (s streams) misuse(name, usage string) int {
	fmt.Fprintf(s.err, "usage: %s %s\n", name, usage)
	return 2
}

// reason leaves out the system call, which means nothing at a prompt.
func reason(err error) string {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Path + ": " + path.Err.Error()
	}
	return err.Error()
}

// options are a command's single-letter flags, "-n 5" and "-n5" and "-al" alike; long ones only as listed.
type options struct {
	set  map[string]bool
	text map[string]string
	rest []string
}

// parse reads flags: those in valued take a value. Unknown ones are an error. Everything after -- is an argument.
func parse(args []string, plain, valued string, long map[string]string) (options, error) {
	o := options{set: map[string]bool{}, text: map[string]string{}}
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			o.rest = append(o.rest, args[i+1:]...)
			return o, nil
		case strings.HasPrefix(a, "--"):
			name, value, given := strings.Cut(a[2:], "=")
			short, ok := long[name]
			if !ok {
				return o, fmt.Errorf("unknown option --%s", name)
			}
			o.set[short] = true
			if strings.Contains(valued, short) {
				if !given {
					if i++; i == len(args) {
						return o, fmt.Errorf("--%s needs a value", name)
					}
					value = args[i]
				}
				o.text[short] = value
			}
		case len(a) > 1 && a[0] == '-':
			for j := 1; j < len(a); j++ {
				f := a[j : j+1]
				if strings.Contains(plain, f) {
					o.set[f] = true
					continue
				}
				if !strings.Contains(valued, f) {
					return o, fmt.Errorf("unknown option -%s", f)
				}
				value := a[j+1:]
				if value == "" {
					if i++; i == len(args) {
						return o, fmt.Errorf("-%s needs a value", f)
					}
					value = args[i]
				}
				o.set[f], o.text[f] = true, value
				break
			}
		default:
			o.rest = append(o.rest, a)
		}
	}
	return o, nil
}

// each calls do for every named file, or for the input if there are none; - is the input too.
func (s streams) each(name string, files []string, do func(file string, r io.Reader) error) int {
	if len(files) == 0 {
		files = []string{"-"}
	}
	code := 0
	for _, file := range files {
		if err := s.open(file, do); err != nil {
			code = s.fail(name, err)
		}
	}
	return code
}

func (s streams) open(file string, do func(string, io.Reader) error) error {
	if file == "-" {
		return do(file, s.in)
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return do(file, f)
}
