package kubelet

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"skiff.dev/skiff/internal/api/threshold"
	"skiff.dev/skiff/internal/kubelet/evict"
)

// machine is what doesn't change while a host is up.
type machine struct {
	eviction        *threshold.Settings
	hostname        string
	id, uuid, boot  string
	kernel, osImage string
	memory          int64
	disk            int64
	root            string
	hugepages       map[string]int64 // "2Mi" → bytes
}

func look(root string) (machine, error) {
	m := machine{root: root, hugepages: map[string]int64{}}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, err
	}
	m.kernel = unix.ByteSliceToString(uts.Release[:])
	m.hostname = unix.ByteSliceToString(uts.Nodename[:])
	m.id = firstOf("/etc/machine-id", "/var/lib/dbus/machine-id")
	m.uuid = strings.ToLower(firstOf("/sys/class/dmi/id/product_uuid", "/etc/machine-id"))
	m.boot = firstOf("/proc/sys/kernel/random/boot_id")
	m.osImage = "Linux"
	if release, err := os.ReadFile("/etc/os-release"); err == nil {
		for line := range strings.Lines(string(release)) {
			if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
				m.osImage = strings.Trim(name, `"'`)
			}
		}
	}
	total, _, err := memory()
	if err != nil {
		return m, err
	}
	m.memory = total
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return m, fmt.Errorf("look at the file system of %s: %w", root, err)
	}
	m.disk = int64(fs.Blocks) * fs.Bsize
	entries, _ := os.ReadDir("/sys/kernel/mm/hugepages")
	for _, e := range entries {
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		n, _ := strconv.ParseInt(firstOf("/sys/kernel/mm/hugepages/"+e.Name()+"/nr_hugepages"), 10, 64)
		m.hugepages[resource.NewQuantity(kb<<10, resource.BinarySI).String()] = n * kb << 10
	}
	return m, nil
}

func firstOf(paths ...string) string {
	for _, path := range paths {
		if text, err := os.ReadFile(path); err == nil {
			if text = bytes.TrimSpace(text); len(text) > 0 {
				return string(text)
			}
		}
	}
	return ""
}

// memory of the host, and how much of it is available, in bytes.
func memory() (total, available int64, err error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "MemTotal:":
			total = n << 10
		case "MemAvailable:":
			available = n << 10
		}
	}
	return total, available, nil
}

func (m *machine) capacity(maxPods int) corev1.ResourceList {
	out := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(m.memory, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(m.disk, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(int64(maxPods), resource.DecimalSI),
	}
	for size, bytes := range m.hugepages {
		out[corev1.ResourceName(corev1.ResourceHugePagesPrefix+size)] = *resource.NewQuantity(bytes, resource.BinarySI)
	}
	return out
}

// least is how little of something makes the node short of it: by the settings, or else usual.
func (m *machine) least(s evict.Signal, capacity, usual int64) int64 {
	if t, set := m.eviction.Hard[string(s)]; set {
		return t.Of(capacity)
	}
	return usual
}

func (m *machine) leastMemory() int64 { return m.least(evict.Memory, m.memory, leastMemory) }
func (m *machine) leastDisk() int64   { return m.least(evict.Disk, m.disk, min(m.disk/10, leastDisk)) }

// leastMemory is kept back from pods: with less than that available the node is under memory pressure.
const leastMemory = 100 << 20

func (m *machine) allocatable(maxPods int) corev1.ResourceList {
	out := m.capacity(maxPods)
	huge := int64(0)
	for _, bytes := range m.hugepages {
		huge += bytes
	}
	out[corev1.ResourceMemory] = *resource.NewQuantity(max(m.memory-m.leastMemory()-huge, 0), resource.BinarySI)
	out[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(max(m.disk-m.leastDisk(), 0), resource.DecimalSI)
	return out
}

// leastDisk is where disk pressure begins, or at a tenth of the disk if that's less: a small disk that is fairly full is no emergency.
const leastDisk = 1 << 30

// levels of what the host may run short of, for each threshold, in the order in which something is done against it; what cannot be measured is left out.
func (m *machine) levels() (out []evict.Level) {
	add := func(s evict.Signal, available, capacity, hard int64) {
		level := evict.Level{Signal: s, Available: available, Least: hard, Reclaim: m.eviction.Reclaim[string(s)].Of(capacity)}
		out = append(out, level)
		if soft, set := m.eviction.Soft[string(s)]; set {
			level.Least, level.Soft, level.Grace = soft.Of(capacity), true, m.eviction.Grace[string(s)]
			out = append(out, level)
		}
	}
	if _, available, err := memory(); err == nil && available > 0 {
		add(evict.Memory, available, m.memory, m.leastMemory())
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(m.root, &fs); err == nil {
		add(evict.Disk, int64(fs.Bavail)*fs.Bsize, m.disk, m.leastDisk())
		if fs.Files > 0 {
			add(evict.Inodes, int64(fs.Ffree), int64(fs.Files), m.least(evict.Inodes, int64(fs.Files), int64(fs.Files/100)))
		}
	}
	limit, err1 := strconv.ParseInt(firstOf("/proc/sys/kernel/pid_max"), 10, 64)
	var info unix.Sysinfo_t
	if err2 := unix.Sysinfo(&info); err1 == nil && err2 == nil {
		add(evict.Processes, limit-int64(info.Procs), limit, m.least(evict.Processes, limit, limit/50))
	}
	return out
}

// imageRoom is how much room unused images should make: they go long before the disk is so full that pods must.
func (m *machine) imageRoom() int64 {
	var fs unix.Statfs_t
	if err := unix.Statfs(m.root, &fs); err != nil {
		return 0
	}
	free := int64(fs.Bavail) * fs.Bsize
	begin := max(min(m.disk*15/100, 4*leastDisk), m.leastDisk())
	if free >= begin {
		return 0
	}
	return max(min(m.disk/5, 5*leastDisk), begin) - free
}
