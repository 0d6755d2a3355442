package telemetry

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
)

// detail is what of a cgroup only a scrape is told.
type detail struct {
	user, system                        uint64 // nanoseconds
	periods, throttled, throttledNanos  uint64
	shares, quota, period               uint64 // quota 0: none
	memoryLimit, memoryMax, failures    uint64
	rss, cache, mapped, swap, oomKills  uint64
	faults, majorFaults                 uint64
	reads, writes, readBytes, wroteByte uint64
}

// detail reads as much as the host has.
func (c cgroups) detail(group string) (d detail) {
	if c.v2 {
		c.detailUnified(group, &d)
		return d
	}
	const perTick = tick
	_ = counts(c.file("cpuacct", group, "cpuacct.stat"), pick(map[string]*uint64{"user": &d.user, "system": &d.system}))
	d.user, d.system = d.user*perTick, d.system*perTick
	_ = counts(c.file("cpu", group, "cpu.stat"), pick(map[string]*uint64{"nr_periods": &d.periods, "nr_throttled": &d.throttled, "throttled_time": &d.throttledNanos}))
	d.shares, _ = number(c.file("cpu", group, "cpu.shares"))
	d.quota, _ = number(c.file("cpu", group, "cpu.cfs_quota_us")) // -1 is no number, and no quota
	d.period, _ = number(c.file("cpu", group, "cpu.cfs_period_us"))
	_ = counts(c.file("memory", group, "memory.stat"), pick(map[string]*uint64{
		"total_rss": &d.rss, "total_cache": &d.cache, "total_mapped_file": &d.mapped, "total_swap": &d.swap,
		"total_pgfault": &d.faults, "total_pgmajfault": &d.majorFaults, "hierarchical_memory_limit": &d.memoryLimit,
	}))
	if d.memoryLimit > math.MaxInt64/2 {
		d.memoryLimit = 0
	}
	d.memoryMax, _ = number(c.file("memory", group, "memory.max_usage_in_bytes"))
	d.failures, _ = number(c.file("memory", group, "memory.failcnt"))
	_ = counts(c.file("memory", group, "memory.oom_control"), pick(map[string]*uint64{"oom_kill": &d.oomKills}))
	d.reads, d.writes = devices(c.file("blkio", group, "blkio.throttle.io_serviced"))
	d.readBytes, d.wroteByte = devices(c.file("blkio", group, "blkio.throttle.io_service_bytes"))
	return d
}

func (c cgroups) detailUnified(group string, d *detail) {
	_ = counts(c.file("", group, "cpu.stat"), pick(map[string]*uint64{
		"user_usec": &d.user, "system_usec": &d.system, "nr_periods": &d.periods, "nr_throttled": &d.throttled, "throttled_usec": &d.throttledNanos,
	}))
	d.user, d.system, d.throttledNanos = d.user*1000, d.system*1000, d.throttledNanos*1000
	if weight, err := number(c.file("", group, "cpu.weight")); err == nil && weight > 0 {
		d.shares = 2 + (weight-1)*262142/9999 // how weights were made of shares, backwards
	}
	var buf [64]byte
	if raw, err := slurp(c.file("", group, "cpu.max"), buf[:]); err == nil {
		quota, period, _ := bytes.Cut(bytes.TrimSpace(raw), []byte(" "))
		d.quota, _ = decimal(quota) // "max" is no number, and no quota
		d.period, _ = decimal(period)
	}
	_ = counts(c.file("", group, "memory.stat"), pick(map[string]*uint64{
		"anon": &d.rss, "file": &d.cache, "file_mapped": &d.mapped, "pgfault": &d.faults, "pgmajfault": &d.majorFaults,
	}))
	d.memoryLimit, _ = number(c.file("", group, "memory.max"))
	d.memoryMax, _ = number(c.file("", group, "memory.peak"))
	d.swap, _ = number(c.file("", group, "memory.swap.current"))
	_ = counts(c.file("", group, "memory.events"), pick(map[string]*uint64{"oom_kill": &d.oomKills, "max": &d.failures}))
	if raw, err := os.ReadFile(c.file("", group, "io.stat")); err == nil {
		for field := range bytes.FieldsSeq(raw) {
			name, text, _ := bytes.Cut(field, []byte("="))
			n, _ := decimal(text)
			switch string(name) {
			case "rbytes":
				d.readBytes += n
			case "wbytes":
				d.wroteByte += n
			case "rios":
				d.reads += n
			case "wios":
				d.writes += n
			}
		}
	}
}

// detail of a group, whose disk input and output is its processes' own account of it where the kernel has none for the group: for those of version 1 it
// counts, of late, only on disks that are throttled.
func (h host) detail(group string) detail {
	d := h.groups.detail(group)
	if !h.groups.v2 && d.reads+d.writes == 0 {
		d.readBytes, d.wroteByte = h.diskBytes(group)
	}
	return d
}

// diskBytes sums what the processes of a group, and of those right below it, have read and written. What a process did that has ended is its parent's account.
func (h host) diskBytes(group string) (read, written uint64) {
	dir := h.groups.file("memory", group, "")
	below, _ := filepath.Glob(filepath.Join(dir, "*", "cgroup.procs"))
	for _, file := range append(below, filepath.Join(dir, "cgroup.procs")) {
		pids, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for pid := range bytes.FieldsSeq(pids) {
			var r, w uint64
			_ = counts(filepath.Join(h.proc, string(pid), "io"), pick(map[string]*uint64{"read_bytes": &r, "write_bytes": &w}))
			read, written = read+r, written+w
		}
	}
	return read, written
}

// devices sums lines of a device, an operation and a number.
func devices(file string) (reads, writes uint64) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, 0
	}
	for line := range bytes.Lines(raw) {
		if f := bytes.Fields(line); len(f) == 3 {
			n, _ := decimal(f[2])
			switch string(f[1]) {
			case "Read":
				reads += n
			case "Write":
				writes += n
			}
		}
	}
	return reads, writes
}

func pick(into map[string]*uint64) func(name []byte, n uint64) {
	return func(name []byte, n uint64) {
		if p := into[string(name)]; p != nil {
			*p = n
		}
	}
}
