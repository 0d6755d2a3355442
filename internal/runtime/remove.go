package runtime

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// removePatience is how long killed processes may take to be gone.
const removePatience = 20 * time.Second

// Remove removes what a cluster's runtime left on this host: containers, shims, mounts, network namespaces, cgroups. Skiff isn't running
// then, so nothing is asked of anybody: processes are found by their cgroup, shims by the bundles they serve. Doing it twice does no harm.
func Remove(ctx context.Context, cfg Config, progress func(string)) error {
	if progress == nil {
		progress = func(string) {}
	}
	if cfg.CRIEndpoint != "" {
		return removeExternal(ctx, cfg, progress)
	}
	if cfg.Root == "" || cfg.State == "" {
		return errors.New("remove containers: root and state folders are both needed")
	}
	groups := cgroupDirs("/sys/fs/cgroup", cfg.CgroupRoot)
	// Containers before shims: a shim whose container ends may still tidy up, one that is gone cannot.
	if n, err := killAll(ctx, func() ([]int, error) { return pidsIn(groups) }); err != nil {
		return fmt.Errorf("end the containers: %w", err)
	} else if n > 0 {
		progress(fmt.Sprintf("ended %d processes of containers", n))
	}
	if n, err := killAll(ctx, func() ([]int, error) {
		found, err := shims("/proc", cfg.State)
		return slices.Collect(maps.Keys(found)), err
	}); err != nil {
		return fmt.Errorf("end the shims: %w", err)
	} else if n > 0 {
		progress(fmt.Sprintf("ended %d shims", n))
	}
	var errs []error
	n, err := unmountBelow(cfg.Root, cfg.State)
	errs = append(errs, err)
	if n > 0 {
		progress(fmt.Sprintf("unmounted %d file systems", n))
	}
	for _, dir := range groups {
		errs = append(errs, removeCgroup(ctx, dir))
	}
	if err == nil { // never delete through a mount
		// State is all about running things. Images and the records of containers stay below Root: they are data, and the next Run
		// finds the containers of these records ended.
		errs = append(errs, os.RemoveAll(cfg.State))
	}
	return errors.Join(errs...)
}

// cgroupDirs are the cluster's top cgroups: one in each v1 hierarchy, or the one in v2.
func cgroupDirs(mount, root string) (dirs []string) {
	root = filepath.Clean("/" + root)
	if root == "/" {
		return nil // that would be everybody's
	}
	candidates := []string{mount}
	var st unix.Statfs_t
	if err := unix.Statfs(mount, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		// The one tree: folders below are other people's cgroups.
	} else if entries, err := os.ReadDir(mount); err == nil {
		candidates = nil
		for _, e := range entries {
			if e.Type()&fs.ModeSymlink == 0 && e.IsDir() {
				candidates = append(candidates, filepath.Join(mount, e.Name()))
			}
		}
	}
	for _, c := range candidates {
		dir := filepath.Join(c, root)
		_, isGroup := os.Stat(filepath.Join(dir, "cgroup.procs"))
		if isGroup == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// pidsIn lists the processes in the given cgroups and all below them.
func pidsIn(dirs []string) (pids []int, err error) {
	for _, top := range dirs {
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !d.IsDir() {
				return err
			}
			raw, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			// A threaded v2 cgroup has its processes listed further up; one that is going away has none.
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EOPNOTSUPP) {
				return err
			}
			for field := range strings.FieldsSeq(string(raw)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 1 && pid != os.Getpid() {
					pids = append(pids, pid)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// shims finds the shim processes that publish to this cluster's socket, by their command line: `-address <socket>`, and what they were started for: `-id
// <sandbox>`. A bundle's files name no process, and what is not known to be a shim of this cluster is not killed.
func shims(proc, state string) (ids map[int]string, err error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	ids = map[int]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		if err != nil {
			continue // it ended meanwhile
		}
		args := strings.Split(string(raw), "\x00")
		if strings.HasSuffix(args[0], "containerd-shim-runc-v2") && flagOf(args, "-address") == Socket(state) {
			ids[pid] = flagOf(args, "-id")
		}
	}
	return ids, nil
}

// flagOf is what a command line gives for a flag; "" if it doesn't.
func flagOf(args []string, flag string) string {
	if at := slices.Index(args, flag); at > 0 && at+1 < len(args) {
		return args[at+1]
	}
	return ""
}

// killAll kills until nobody is left: what is being killed may still start others.
func killAll(ctx context.Context, list func() ([]int, error)) (killed int, err error) {
	ctx, cancel := context.WithTimeout(ctx, removePatience)
	defer cancel()
	seen := map[int]bool{}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		pids, err := list()
		if err != nil {
			return killed, err
		}
		left := pids[:0]
		for _, pid := range pids {
			if zombie(pid) {
				continue // dead; it waits for its parent, which is no cluster's business
			}
			left = append(left, pid)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return killed, fmt.Errorf("kill process %d: %w", pid, err)
			}
			if !seen[pid] {
				seen[pid] = true
				killed++
			}
		}
		if len(left) == 0 {
			return killed, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return killed, fmt.Errorf("processes %v do not end; if they wait for a dead disk or server, mend that and try again", left)
		}
	}
}

func zombie(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// unmountBelow unmounts everything below the given folders, the deepest first. Network namespaces are mounts too and go with them.
func unmountBelow(dirs ...string) (n int, err error) {
	points, err := mountsBelow(dirs...)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, p := range slices.Backward(points) {
		if err := unix.Unmount(p, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			// Busy: everybody who used it was killed, so the last user lets go by itself.
			if err := unix.Unmount(p, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
				errs = append(errs, fmt.Errorf("unmount %s: %w", p, err))
				continue
			}
		}
		n++
	}
	return n, errors.Join(errs...)
}

// mountsBelow lists mount points in the order they were made.
func mountsBelow(dirs ...string) (points []string, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		for _, dir := range dirs {
			if dir = filepath.Clean(dir); dir != "." && dir != "/" && strings.HasPrefix(point, dir+"/") {
				points = append(points, point)
				break
			}
		}
	}
	return points, lines.Err()
}

// unescape reads mountinfo's octal escapes, \040 for a space.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// removeCgroup removes a cgroup and all below it, leaves first. The kernel lets go of a dead process a moment after it is gone.
func removeCgroup(ctx context.Context, top string) error {
	ctx, cancel := context.WithTimeout(ctx, removePatience)
	defer cancel()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		var dirs []string
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
		for _, dir := range slices.Backward(dirs) {
			if e := unix.Rmdir(dir); e != nil && !errors.Is(e, unix.ENOENT) {
				err = errors.Join(err, fmt.Errorf("remove the cgroup %s: %w", dir, e))
			}
		}
		if err == nil {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}
