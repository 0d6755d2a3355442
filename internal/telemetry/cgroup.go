package telemetry

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroups reads a host's control groups: the one tree of v2, or a tree for each controller of v1.
type cgroups struct {
	mount string
	v2    bool
}

func lookAtCgroups(mount string) cgroups {
	var st unix.Statfs_t
	err := unix.Statfs(mount, &st)
	return cgroups{mount: mount, v2: err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC}
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
	processes   uint64
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
	first, _, _ := strings.Cut(string(raw), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return pid
}

func (c cgroups) read(group string) (u usage, err error) {
	if c.v2 {
		return c.readUnified(group)
	}
	if u.cpu, err = number(c.file("cpuacct", group, "cpuacct.usage")); err != nil {
		return u, err
	}
	if u.memory, err = number(c.file("memory", group, "memory.usage_in_bytes")); err != nil {
		return u, err
	}
	counts, err := table(c.file("memory", group, "memory.stat"))
	if err != nil {
		return u, err
	}
	u.workingSet = u.memory - min(u.memory, counts["total_inactive_file"])
	u.anonymous, u.faults, u.majorFaults = counts["total_rss"], counts["total_pgfault"], counts["total_pgmajfault"]
	// "No limit" is the largest number of whole pages.
	if limit := counts["hierarchical_memory_limit"]; limit < math.MaxInt64/2 {
		u.limit = limit
	}
	u.processes, _ = number(c.file("pids", group, "pids.current")) // the controller may be off
	return u, nil
}

func (c cgroups) readUnified(group string) (u usage, err error) {
	cpu, err := table(c.file("", group, "cpu.stat"))
	if err != nil {
		return u, err
	}
	u.cpu = cpu["usage_usec"] * 1000
	if u.memory, err = number(c.file("", group, "memory.current")); err != nil {
		return u, err
	}
	counts, err := table(c.file("", group, "memory.stat"))
	if err != nil {
		return u, err
	}
	u.workingSet = u.memory - min(u.memory, counts["inactive_file"])
	u.anonymous, u.faults, u.majorFaults = counts["anon"], counts["pgfault"], counts["pgmajfault"]
	u.limit, _ = number(c.file("", group, "memory.max")) // "max" is no number, and no limit
	u.processes, _ = number(c.file("", group, "pids.current"))
	return u, nil
}

func number(file string) (uint64, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", file, err)
	}
	return n, nil
}

// table reads lines of a name and a number; others are left out. A colon after the name is no part of it.
func table(file string) (map[string]uint64, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	t := map[string]uint64{}
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
			t[strings.TrimSuffix(fields[0], ":")] = n
		}
	}
	return t, nil
}
