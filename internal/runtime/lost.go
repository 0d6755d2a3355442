package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

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

// lostShims finds them: no process is theirs, and their bundles do not say where they listen, or they say themselves that they are empty.
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
