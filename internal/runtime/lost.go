package runtime

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// endLostShims ends shims that nobody can find any more. Where a shim listens is written into its bundle by who started it; a Skiff that is killed in
// between leaves a shim which holds no container yet, and which containerd, going by the bundles, would leave for ever.
func endLostShims(ctx context.Context, cfg Config) {
	n, err := killAll(ctx, func() ([]int, error) { return lostShims("/proc", cfg.State) })
	if err != nil {
		cfg.Log.Warn("cannot end shims that an earlier start lost", "err", err)
	} else if n > 0 {
		cfg.Log.Info("ended shims that an earlier start lost", "shims", n)
	}
}

// lostShims finds them: their bundles do not say where they listen, and no process is theirs.
func lostShims(proc, state string) (pids []int, err error) {
	all, err := shims(proc, state)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	parents, err := parents(proc)
	if err != nil {
		return nil, err
	}
	for pid, id := range all {
		_, err := os.Stat(filepath.Join(state, uriTasks, namespace, id, "bootstrap.json"))
		if os.IsNotExist(err) && !parents[pid] {
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
