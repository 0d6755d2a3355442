package telemetry

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// host is the machine, as /proc and /sys show it.
type host struct {
	proc   string
	groups cgroups
}

// tick is the unit of /proc/stat, which is the same on every Linux that Go runs on.
const tick = uint64(time.Second) / 100

func (s *Sampler) node(now time.Time) (*stats.NodeStats, error) {
	busy, boot, err := s.host.cpu()
	if err != nil {
		return nil, err
	}
	mem, err := table(filepath.Join(s.host.proc, "meminfo"))
	if err != nil {
		return nil, err
	}
	faults, err := table(filepath.Join(s.host.proc, "vmstat"))
	if err != nil {
		return nil, err
	}
	disk, err := fileSystem(s.cfg.DataDir, now)
	if err != nil {
		return nil, err
	}
	const kb = 1024
	at := metav1.NewTime(now)
	node := &stats.NodeStats{
		NodeName:  s.cfg.NodeName,
		StartTime: metav1.NewTime(boot),
		CPU:       s.cpu("node", now, busy, time.Time{}),
		Memory: &stats.MemoryStats{
			Time: at, AvailableBytes: value(mem["MemAvailable"] * kb), UsageBytes: value((mem["MemTotal"] - mem["MemFree"]) * kb),
			WorkingSetBytes: value((mem["MemTotal"] - min(mem["MemTotal"], mem["MemAvailable"])) * kb), RSSBytes: value(mem["AnonPages"] * kb),
			PageFaults: value(faults["pgfault"]), MajorPageFaults: value(faults["pgmajfault"]),
		},
		Swap: &stats.SwapStats{
			Time: at, SwapAvailableBytes: value(mem["SwapFree"] * kb), SwapUsageBytes: value((mem["SwapTotal"] - mem["SwapFree"]) * kb),
		},
		Fs:     disk,
		Rlimit: s.host.processes(at),
	}
	node.IO = press(s.host.pressure(), at, node.CPU, node.Memory)
	if links, err := readLinks(filepath.Join(s.host.proc, "net/dev")); err == nil {
		node.Network = network(links, now)
	}
	return node, nil
}

// cpu is the time all CPUs were busy, and when the machine started.
func (h host) cpu() (busy uint64, boot time.Time, err error) {
	raw, err := os.ReadFile(filepath.Join(h.proc, "stat"))
	if err != nil {
		return 0, boot, err
	}
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "cpu":
			// user nice system idle iowait irq softirq steal; guest time is part of user and nice.
			for i, f := range fields[1:min(len(fields), 9)] {
				n, err := strconv.ParseUint(f, 10, 64)
				if err != nil {
					return 0, boot, fmt.Errorf("/proc/stat: %w", err)
				}
				if i != 3 && i != 4 && i != 7 {
					busy += n * tick
				}
			}
		case "btime":
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				return 0, boot, fmt.Errorf("/proc/stat: %w", err)
			}
			boot = time.Unix(n, 0)
		}
	}
	return busy, boot, nil
}

func (h host) processes(at metav1.Time) *stats.RlimitStats {
	limit, err := number(filepath.Join(h.proc, "sys/kernel/pid_max"))
	raw, err2 := os.ReadFile(filepath.Join(h.proc, "loadavg"))
	if err != nil || err2 != nil {
		return nil
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 4 {
		return nil
	}
	_, total, _ := strings.Cut(fields[3], "/")
	running, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		return nil
	}
	return &stats.RlimitStats{Time: at, MaxPID: value(int64(limit)), NumOfRunningProcesses: value(running)}
}

func fileSystem(path string, now time.Time) (*stats.FsStats, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return nil, fmt.Errorf("look at the file system of %s: %w", path, err)
	}
	size := uint64(st.Bsize)
	return &stats.FsStats{
		Time: metav1.NewTime(now), AvailableBytes: value(st.Bavail * size), CapacityBytes: value(st.Blocks * size),
		UsedBytes: value((st.Blocks - st.Bfree) * size), InodesFree: value(st.Ffree), Inodes: value(st.Files), InodesUsed: value(st.Files - st.Ffree),
	}, nil
}
