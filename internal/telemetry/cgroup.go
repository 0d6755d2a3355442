package telemetry

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// cgroups reads a host's control groups: the one tree of v2, or a tree for each controller of v1.
type cgroups struct {
	mount string
	v2    bool
	files *files // kept open; nil: none
}

func lookAtCgroups(mount string) cgroups {
	var st unix.Statfs_t
	err := unix.Statfs(mount, &st)
	return cgroups{mount: mount, v2: err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC, files: keepFiles()}
}

// usage is one reading of a cgroup.
type usage struct {
	cpu         uint64 // nanoseconds since it began
	memory      uint64
	workingSet  uint64 // without page cache that could go at once
	anonymous   uint64
	faults      uint64
	majorFaults uint64
	limit       uint64 // of memory; 0 for none
	swap        uint64
	swaps       bool // the host counts that
}

func (c cgroups) file(controller, group, name string) string {
	if c.v2 {
		return filepath.Join(c.mount, group, name)
	}
	return filepath.Join(c.mount, controller, group, name)
}

func (c cgroups) exists(group string) bool {
	_, err := os.Stat(c.file("memory", group, "cgroup.procs"))
	return err == nil
}

// process is one that is in the group, 0 if none is.
func (c cgroups) process(group string) int {
	raw, err := os.ReadFile(c.file("memory", group, "cgroup.procs"))
	if err != nil {
		return 0
	}
	first, _, _ := bytes.Cut(raw, []byte("\n"))
	pid, err := strconv.Atoi(string(first))
	if err != nil {
		return 0
	}
	return pid
}

// processes counts those in the group and below; the controller may be off.
func (c cgroups) processes(group string) uint64 {
	n, _ := c.files.number(c.file("pids", group, "pids.current"))
	return n
}

// cpu is a group's CPU clock alone.
func (c cgroups) cpu(group string) (nanos uint64, err error) {
	if !c.v2 {
		return c.files.number(c.file("cpuacct", group, "cpuacct.usage"))
	}
	err = c.files.counts(c.file("", group, "cpu.stat"), func(name []byte, n uint64) {
		if string(name) == "usage_usec" {
			nanos = n * 1000
		}
	})
	return nanos, err
}

func (c cgroups) read(group string) (u usage, err error) {
	if c.v2 {
		return c.readUnified(group)
	}
	if u.cpu, err = c.cpu(group); err != nil {
		return u, err
	}
	if u.memory, err = c.files.number(c.file("memory", group, "memory.usage_in_bytes")); err != nil {
		return u, err
	}
	var inactive uint64
	err = c.files.counts(c.file("memory", group, "memory.stat"), func(name []byte, n uint64) {
		switch string(name) {
		case "total_inactive_file":
			inactive = n
		case "total_rss":
			u.anonymous = n
		case "total_pgfault":
			u.faults = n
		case "total_pgmajfault":
			u.majorFaults = n
		case "total_swap":
			u.swap, u.swaps = n, true
		case "hierarchical_memory_limit":
			if n < math.MaxInt64/2 { // "no limit" is the largest number of whole pages
				u.limit = n
			}
		}
	})
	u.workingSet = u.memory - min(u.memory, inactive)
	return u, err
}

func (c cgroups) readUnified(group string) (u usage, err error) {
	if u.cpu, err = c.cpu(group); err != nil {
		return u, err
	}
	if u.memory, err = c.files.number(c.file("", group, "memory.current")); err != nil {
		return u, err
	}
	var inactive uint64
	err = c.files.counts(c.file("", group, "memory.stat"), func(name []byte, n uint64) {
		switch string(name) {
		case "inactive_file":
			inactive = n
		case "anon":
			u.anonymous = n
		case "pgfault":
			u.faults = n
		case "pgmajfault":
			u.majorFaults = n
		}
	})
	if err != nil {
		return u, err
	}
	u.workingSet = u.memory - min(u.memory, inactive)
	u.limit, _ = c.files.number(c.file("", group, "memory.max")) // "max" is no number, and no limit
	if n, err := c.files.number(c.file("", group, "memory.swap.current")); err == nil {
		u.swap, u.swaps = n, true
	}
	return u, nil
}

// page is more than any of the files that are read here has.
const page = 16 << 10

// slurp reads a file of /proc or a cgroup: os.ReadFile asks for its size and whether it can be waited for, which costs more than the reading.
func slurp(file string, buf []byte) ([]byte, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: file, Err: err}
	}
	defer unix.Close(fd)
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: file, Err: err}
		}
		if m == 0 {
			break
		}
		n += m
	}
	return buf[:n], nil
}

// number and counts read files that are not kept open.
func number(file string) (uint64, error) { return (*files)(nil).number(file) }

func counts(file string, f func(name []byte, n uint64)) error { return (*files)(nil).counts(file, f) }

func (f *files) number(file string) (uint64, error) {
	var buf [64]byte
	raw, err := f.read(file, buf[:])
	if err != nil {
		return 0, err
	}
	n, ok := decimal(bytes.TrimSpace(raw))
	if !ok {
		return 0, fmt.Errorf("%s: %q is no number", file, raw)
	}
	return n, nil
}

// counts reads lines of a name and a number; others are left out. A colon after the name is no part of it.
func (f *files) counts(file string, each func(name []byte, n uint64)) error {
	var buf [page]byte
	raw, err := f.read(file, buf[:])
	if err != nil {
		return err
	}
	for line := range bytes.Lines(raw) {
		name, rest, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		rest = bytes.TrimLeft(rest, " ")
		if end := bytes.IndexByte(rest, ' '); end >= 0 {
			rest = rest[:end]
		}
		if n, ok := decimal(rest); ok {
			each(bytes.TrimSuffix(name, []byte(":")), n)
		}
	}
	return nil
}

// table is counts for who wants to look names up.
func table(file string) (map[string]uint64, error) {
	t := map[string]uint64{}
	err := counts(file, func(name []byte, n uint64) { t[string(name)] = n })
	return t, err
}

func decimal(text []byte) (n uint64, ok bool) {
	if len(text) == 0 || len(text) > 20 {
		return 0, false
	}
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return n, true
}
