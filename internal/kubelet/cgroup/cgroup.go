// Package cgroup keeps the cgroups above the containers: one for each pod, below one for each class of service.
//
// It owns <root>/kubepods. Guaranteed pods are directly below it, the others in burstable/ and besteffort/; what is below a pod's
// directory belongs to the container runtime. Whether the host has cgroup v2 or the separate hierarchies of v1 is decided by looking.
// Its invariant: a pod's cgroup exists from before its sandbox until after its last container. The kubelet's pod actors call it.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const mountpoint = "/sys/fs/cgroup"

// Manager knows the host's hierarchies.
type Manager struct {
	root        string // "/skiff/kubepods"
	mount       string
	v2          bool
	hierarchies []string // v1: a directory each, such as /sys/fs/cgroup/memory
}

// Limits of a cgroup; zero leaves a thing alone.
type Limits struct {
	CPUShares uint64
	CPUQuota  int64 // microseconds in every 100 ms
	Memory    int64 // bytes
}

// Period is that of CPU quotas, in microseconds.
const Period = 100000

// v1 hierarchies whose directories this package creates; the runtime makes its own in the others.
var created = []string{"cpu", "memory", "pids"}

// New looks at the host and creates the three top cgroups below root.
func New(root string) (*Manager, error) {
	m, err := Open(root)
	if err != nil {
		return nil, err
	}
	top := Limits{CPUShares: uint64(numCPU()) * 1024}
	if err := m.create(m.root, top); err != nil {
		return nil, err
	}
	for _, class := range []string{"burstable", "besteffort"} {
		if err := m.create(filepath.Join(m.root, class), Limits{CPUShares: minShares}); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// Open is New without creating anything.
func Open(root string) (*Manager, error) {
	return open(mountpoint, root)
}

func open(mount, root string) (*Manager, error) {
	m := &Manager{root: filepath.Join("/", root, "kubepods"), mount: mount}
	var st unix.Statfs_t
	if err := unix.Statfs(mount, &st); err != nil {
		return nil, fmt.Errorf("look at %s: %w", mount, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		m.v2 = true
		return m, nil
	}
	entries, err := os.ReadDir(mount)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		// cpu and cpuacct are often links to cpu,cpuacct; the links come along, and creating twice does no harm.
		dir := filepath.Join(mount, e.Name())
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			m.hierarchies = append(m.hierarchies, dir)
		}
	}
	if len(m.hierarchies) == 0 {
		return nil, fmt.Errorf("no cgroups below %s: mount cgroup2 there", mount)
	}
	return m, nil
}

// Root of all pods' cgroups.
func (m *Manager) Root() string { return m.root }

// Path is the pod's cgroup, as the runtime wants its parent named.
func (m *Manager) Path(uid types.UID, class corev1.PodQOSClass) string {
	name := "pod" + string(uid)
	switch class {
	case corev1.PodQOSGuaranteed:
		return filepath.Join(m.root, name)
	case corev1.PodQOSBurstable:
		return filepath.Join(m.root, "burstable", name)
	}
	return filepath.Join(m.root, "besteffort", name)
}

// Create makes a pod's cgroup, or sets its limits anew.
func (m *Manager) Create(uid types.UID, class corev1.PodQOSClass, l Limits) error {
	return m.create(m.Path(uid, class), l)
}

// Grow sets those limits of a pod's cgroup that are above what it has.
func (m *Manager) Grow(uid types.UID, class corev1.PodQOSClass, l Limits) error {
	path := m.Path(uid, class)
	for _, s := range m.settings(l) {
		file := filepath.Join(m.mount, s.controller, path, s.file)
		has, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read cgroup limit: %w", err)
		}
		// What is no number ("max") or negative is no limit.
		if now, ok := first(string(has)); !ok || now < 0 {
			continue
		} else if want, _ := first(s.value); want <= now {
			continue
		}
		if err := os.WriteFile(file, []byte(s.value), 0); err != nil {
			return fmt.Errorf("set cgroup limit: %w", err)
		}
	}
	return nil
}

func first(text string) (int64, bool) {
	text, _, _ = strings.Cut(strings.TrimSpace(text), " ")
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// MemoryUsed is what a container in a pod's cgroup uses, in bytes; 0 if nobody knows.
func (m *Manager) MemoryUsed(uid types.UID, class corev1.PodQOSClass, container string) int64 {
	file := filepath.Join(m.mount, "memory", m.Path(uid, class), container, "memory.usage_in_bytes")
	if m.v2 {
		file = filepath.Join(m.mount, m.Path(uid, class), container, "memory.current")
	}
	text, _ := os.ReadFile(file)
	used, _ := first(string(text))
	return used
}

// SetBurstable gives all burstable pods together the CPU weight of what they request.
func (m *Manager) SetBurstable(milliCPU int64) error {
	return m.limit(filepath.Join(m.root, "burstable"), Limits{CPUShares: Shares(milliCPU)})
}

// Pods lists the pods that have a cgroup.
func (m *Manager) Pods() map[types.UID]bool {
	found := map[types.UID]bool{}
	for _, base := range m.bases() {
		for _, class := range []string{"", "burstable", "besteffort"} {
			entries, _ := os.ReadDir(filepath.Join(base, m.root, class))
			for _, e := range entries {
				if uid, ok := strings.CutPrefix(e.Name(), "pod"); ok && e.IsDir() {
					found[types.UID(uid)] = true
				}
			}
		}
	}
	return found
}

// Remove kills what is left in a pod's cgroup, whatever its class, and removes it.
func (m *Manager) Remove(uid types.UID) error {
	var errs []error
	for _, class := range []string{"", "burstable", "besteffort"} {
		errs = append(errs, m.remove(filepath.Join(m.root, class, "pod"+string(uid))))
	}
	return errors.Join(errs...)
}

// RemoveAll removes everything this package ever creates.
func (m *Manager) RemoveAll() error { return m.remove(m.root) }

func (m *Manager) bases() []string {
	if m.v2 {
		return []string{m.mount}
	}
	return m.hierarchies
}

func (m *Manager) create(path string, l Limits) error {
	if m.v2 {
		if err := m.createV2(path); err != nil {
			return err
		}
		return m.limit(path, l)
	}
	for _, c := range created {
		base := filepath.Join(m.mount, c)
		if _, err := os.Stat(base); err != nil {
			continue
		}
		if err := os.MkdirAll(filepath.Join(base, path), 0o755); err != nil {
			return fmt.Errorf("create cgroup: %w", err)
		}
	}
	return m.limit(path, l)
}

// createV2 makes every level and hands the controllers down to it.
func (m *Manager) createV2(path string) error {
	dir := m.mount
	for _, name := range strings.Split(strings.Trim(path, "/"), "/") {
		for _, c := range []string{"cpu", "memory", "pids", "cpuset", "io", "hugetlb"} {
			// A controller that this level doesn't have is no error: limits that need it fail below, by name.
			_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
		}
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create cgroup: %w", err)
		}
	}
	return nil
}

type setting struct{ controller, file, value string }

func (m *Manager) settings(l Limits) []setting {
	var s []setting
	if m.v2 {
		if l.CPUShares != 0 {
			s = append(s, setting{"", "cpu.weight", strconv.FormatUint(weight(l.CPUShares), 10)})
		}
		if l.CPUQuota != 0 {
			s = append(s, setting{"", "cpu.max", fmt.Sprintf("%d %d", l.CPUQuota, Period)})
		}
		if l.Memory != 0 {
			s = append(s, setting{"", "memory.max", strconv.FormatInt(l.Memory, 10)})
		}
		return s
	}
	if l.CPUShares != 0 {
		s = append(s, setting{"cpu", "cpu.shares", strconv.FormatUint(l.CPUShares, 10)})
	}
	if l.CPUQuota != 0 {
		s = append(s, setting{"cpu", "cpu.cfs_period_us", strconv.Itoa(Period)},
			setting{"cpu", "cpu.cfs_quota_us", strconv.FormatInt(l.CPUQuota, 10)})
	}
	if l.Memory != 0 {
		s = append(s, setting{"memory", "memory.limit_in_bytes", strconv.FormatInt(l.Memory, 10)})
	}
	return s
}

func (m *Manager) limit(path string, l Limits) error {
	for _, s := range m.settings(l) {
		file := filepath.Join(m.mount, s.controller, path, s.file)
		if err := os.WriteFile(file, []byte(s.value), 0); err != nil {
			return fmt.Errorf("set cgroup limit: %w", err)
		}
	}
	return nil
}

func (m *Manager) remove(path string) error {
	var errs []error
	for _, base := range m.bases() {
		errs = append(errs, removeTree(filepath.Join(base, path)))
	}
	return errors.Join(errs...)
}

// removeTree removes a cgroup and all below it. Processes in it are killed first; the kernel takes a moment to let go of them.
func removeTree(dir string) error {
	var err error
	for wait := time.Millisecond; wait < time.Second; wait *= 2 {
		if _, statErr := os.Lstat(dir); errors.Is(statErr, fs.ErrNotExist) {
			return nil
		}
		if err = rmdirs(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		kill(dir)
		time.Sleep(wait)
	}
	return err
}

func rmdirs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := rmdirs(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	// os.Remove would try unlink first and tell the wrong error.
	return unix.Rmdir(dir)
}

func kill(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		procs, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for _, field := range strings.Fields(string(procs)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 1 && pid != os.Getpid() {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		return nil
	})
}
