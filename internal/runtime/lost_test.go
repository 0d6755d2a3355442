package runtime

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Of a cluster's shims those are lost whose bundle does not say where they listen, or that say they are empty, unless a process is theirs.
func TestLostShims(t *testing.T) {
	proc, state := t.TempDir(), t.TempDir()
	process := func(pid, parent int, id, socket string) {
		dir := filepath.Join(proc, fmt.Sprint(pid))
		put(t, filepath.Join(dir, "stat"), fmt.Sprintf("%d (a name) with) S %d 1 1", pid, parent))
		put(t, filepath.Join(dir, "cmdline"), "/bin/containerd-shim-runc-v2\x00-namespace\x00k8s.io\x00-id\x00"+id+"\x00-address\x00"+socket+"\x00")
	}
	bundle := func(id, file string) { put(t, filepath.Join(state, uriTasks, namespace, id, file), "{}") }
	process(101, 1, "known", Socket(state))
	bundle("known", "bootstrap.json")
	process(106, 1, "empty", Socket(state))
	bundle("empty", "bootstrap.json")
	process(107, 1, "beginning", Socket(state))
	bundle("beginning", "bootstrap.json")
	put(t, filepath.Join(proc, "202", "stat"), "202 (runc) S 107 1 1")
	process(102, 1, "lost", Socket(state))
	bundle("lost", "config.json")
	process(103, 1, "no-bundle", Socket(state))
	process(104, 1, "serving", Socket(state))
	process(105, 1, "elsewhere", "/run/other.sock")
	put(t, filepath.Join(proc, "201", "stat"), "201 (pause) S 104 1 1")
	pids, err := lostShims(proc, state, func(_, id string) bool { return id != "known" })
	slices.Sort(pids)
	if err != nil || !slices.Equal(pids, []int{102, 103, 106}) {
		t.Errorf("%v, %v", pids, err)
	}
}

// A socket goes when nobody listens on it, and stays while somebody does.
func TestDeadSockets(t *testing.T) {
	state := t.TempDir()
	if err := os.Mkdir(filepath.Join(state, "s"), 0o700); err != nil {
		t.Fatal(err)
	}
	alive, dead := filepath.Join(state, "s", "alive"), filepath.Join(state, "s", "dead")
	for _, socket := range []string{alive, dead} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		defer l.Close()
		if socket == dead {
			l.Close()
		}
	}
	removeDeadSockets(Config{State: state, Log: slog.New(slog.DiscardHandler)})
	if _, err := os.Stat(alive); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("the dead one is there: %v", err)
	}
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
