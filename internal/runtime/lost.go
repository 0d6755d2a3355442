package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/sandbox"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// endLostShims ends shims that hold no container and never will. Where a shim listens is written into its bundle by who started it; a Skiff that is
// killed in between leaves a shim which containerd, going by the bundles, would leave for ever. One that is killed a moment later, before the container
// is made, leaves a shim that containerd keeps if it takes it for a sandbox's.
func endLostShims(ctx context.Context, cfg Config) {
	empty := func(bundle, id string) bool {
		_, err := askShim(ctx, bundle, id)
		return status.Code(err) == codes.NotFound
	}
	n, err := killAll(ctx, func() ([]int, error) { return lostShims("/proc", cfg.State, empty) })
	if err != nil {
		cfg.Log.Warn("cannot end shims that an earlier start lost", "err", err)
	} else if n > 0 {
		cfg.Log.Info("ended shims that an earlier start lost", "shims", n)
	}
}

// removeDeadSockets removes those on which no shim listens any more: one that is killed leaves its own, and nobody else knows of it. It is for
// the time before shims are started, for one that has made its socket may not listen yet.
func removeDeadSockets(cfg Config) {
	sockets, _ := filepath.Glob(filepath.Join(cfg.State, "s", "*")) // containerd's name for the folder
	for _, socket := range sockets {
		conn, err := net.DialTimeout("unix", socket, time.Second)
		if err == nil {
			_ = conn.Close()
			continue
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			continue
		}
		if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			cfg.Log.Warn("cannot remove the socket of a shim that is gone", "err", err)
		}
	}
}

// removeLostNetworks removes pods' network namespaces that no sandbox names. A sandbox's is made first and named a moment later; when Skiff is killed in between,
// nobody else knows of it. It is for the time before sandboxes are made.
func removeLostNetworks(ctx context.Context, cfg Config, sandboxes sandbox.Store) {
	files, _ := filepath.Glob(filepath.Join(cfg.State, uriCRI, "netns", "*")) // containerd's name for the folder
	if len(files) == 0 {
		return
	}
	all, err := sandboxes.List(namespaces.WithNamespace(ctx, namespace))
	if err != nil {
		cfg.Log.Warn("cannot look for network namespaces that an earlier start lost", "err", err)
		return
	}
	named := map[string]bool{}
	for _, s := range all {
		path, err := networkOf(s)
		if err != nil {
			cfg.Log.Warn("cannot look for network namespaces that an earlier start lost", "sandbox", s.ID, "err", err)
			return
		}
		named[path] = true
	}
	for _, file := range files {
		if named[file] {
			continue
		}
		err := unix.Unmount(file, unix.MNT_DETACH)
		if err == nil || errors.Is(err, unix.EINVAL) { // nothing is mounted there
			err = os.Remove(file)
		}
		if err != nil {
			cfg.Log.Warn("cannot remove a network namespace that an earlier start lost", "file", file, "err", err)
			continue
		}
		cfg.Log.Info("removed a network namespace that an earlier start lost", "file", file)
	}
}

// networkOf is where the network namespace of a sandbox is mounted, as CRI has noted it; empty if it has none, or none yet.
func networkOf(s sandbox.Sandbox) (string, error) {
	noted := s.Extensions["metadata"]
	if noted == nil {
		return "", nil
	}
	var of struct{ Metadata struct{ NetNSPath string } }
	err := json.Unmarshal(noted.GetValue(), &of)
	return of.Metadata.NetNSPath, err
}

// lostShims finds those to end: no process is theirs, and their bundles do not say where they listen, or they say themselves that they are empty.
func lostShims(proc, state string, empty func(bundle, id string) bool) (pids []int, err error) {
	all, err := shims(proc, state)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	parents, err := parents(proc)
	if err != nil {
		return nil, err
	}
	for pid, id := range all {
		if parents[pid] {
			continue
		}
		bundle := filepath.Join(state, uriTasks, namespace, id)
		if _, err := os.Stat(filepath.Join(bundle, "bootstrap.json")); os.IsNotExist(err) || err == nil && empty(bundle, id) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// parents are the processes that have children.
func parents(proc string) (map[int]bool, error) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	found := map[int]bool{}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(proc, e.Name(), "stat"))
		if err != nil {
			continue // no process, or it has ended meanwhile
		}
		// The second field, the program's name, may hold anything; the parent is the second behind it.
		fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
		if len(fields) > 1 {
			if parent, err := strconv.Atoi(fields[1]); err == nil {
				found[parent] = true
			}
		}
	}
	return found, nil
}
