package userns

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

func nobody(types.UID) (uint32, bool, error) { return 0, false, nil }

// start is a kubelet's start: what pods hold is read from their folders, and no two hold one range.
func start(t *testing.T, dir string, pool Pool, running Running) *Ranges {
	t.Helper()
	r := New(dir, pool, slog.New(slog.DiscardHandler))
	if err := r.Load(running); err != nil {
		t.Fatal(err)
	}
	return r
}

func give(t *testing.T, r *Ranges, uid types.UID) uint32 {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(r.pods, string(uid)), 0o755); err != nil {
		t.Fatal(err)
	}
	ns, err := r.Of(uid)
	if err != nil {
		t.Fatal(err)
	}
	if len(ns.Uids) != 1 || len(ns.Gids) != 1 || ns.Uids[0].ContainerId != 0 || ns.Uids[0].Length != 65536 || ns.Uids[0].HostId%65536 != 0 || ns.Gids[0].HostId != ns.Uids[0].HostId {
		t.Errorf("pod %s has %v", uid, ns)
	}
	seen := map[uint32]types.UID{}
	for other, first := range r.held {
		if seen[first] != "" {
			t.Errorf("pods %s and %s have the range from %d on", seen[first], other, first)
		}
		seen[first] = other
	}
	return ns.Uids[0].HostId
}

func drop(t *testing.T, r *Ranges, uid types.UID) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(r.pods, string(uid))); err != nil {
		t.Fatal(err)
	}
	r.Release(uid)
}

func TestRestartKeepsRanges(t *testing.T) {
	dir, pool := t.TempDir(), Pool{parts: []span{{4, 3}}}
	r := start(t, dir, pool, nobody)
	a, b := give(t, r, "a"), give(t, r, "b")
	if again := give(t, r, "a"); again != a {
		t.Errorf("asked again, the pod has %d, not %d", again, a)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "a", "userns")); err != nil ||
		string(raw) != fmt.Sprintf(`{"uidMappings":[{"hostId":%d,"containerId":0,"length":65536}],"gidMappings":[{"hostId":%d,"containerId":0,"length":65536}]}`, a, a) {
		t.Errorf("the file holds %s, %v", raw, err)
	}
	r = start(t, dir, pool, nobody)
	c := give(t, r, "c")
	if give(t, r, "a") != a || give(t, r, "b") != b || c == a || c == b {
		t.Errorf("after a restart %v; before a had %d, b had %d", r.held, a, b)
	}
}

func TestExhausted(t *testing.T) {
	r := start(t, t.TempDir(), Pool{parts: []span{{1, 1}, {9, 1}}}, nobody)
	give(t, r, "a")
	b := give(t, r, "b")
	if ns, err := r.Of("c"); err == nil || !strings.Contains(err.Error(), "all of the node's 2 ranges of 65536 user ids are taken") {
		t.Errorf("%v, %v", ns, err)
	}
	drop(t, r, "b")
	if c := give(t, r, "c"); c != b {
		t.Errorf("the pod has %d, not %d, which another has given back", c, b)
	}
}

// TestLeftovers: pods that ended while nobody looked hold their ranges until they are cleaned up.
func TestLeftovers(t *testing.T) {
	dir, pool := t.TempDir(), Pool{parts: []span{{1, 2}}}
	left := give(t, start(t, dir, pool, nobody), "left")
	r := start(t, dir, pool, nobody)
	if got := give(t, r, "a"); got == left {
		t.Error("a range that a pod left behind is given to another")
	}
	if _, err := r.Of("b"); err == nil {
		t.Error("a range that a pod left behind is given to another")
	}
	drop(t, r, "left")
	if got := give(t, r, "b"); got != left {
		t.Errorf("%d, not %d", got, left)
	}
}

// TestDamagedFile: what runs is asked from the runtime; what doesn't, begins anew.
func TestDamagedFile(t *testing.T) {
	for _, text := range []string{"", "{", `{"uidMappings":[]}`, strings.ReplaceAll(valid, "65536,", "70000,"), strings.ReplaceAll(valid, `"length":65536`, `"length":1`),
		strings.Replace(valid, `"hostId":65536`, `"hostId":131072`, 1), strings.ReplaceAll(valid, `"hostId":65536`, `"hostId":0`)} {
		dir, pool := t.TempDir(), Pool{parts: []span{{1, 2}}}
		for _, uid := range []string{"runs", "dead"} {
			put(t, dir, uid, text)
		}
		r := start(t, dir, pool, func(uid types.UID) (uint32, bool, error) { return 2 * Length, uid == "runs", nil })
		if _, err := os.Stat(filepath.Join(dir, "dead", "userns")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the file of a pod that does not run is there: %v", text, err)
		}
		if other := give(t, r, "other"); other != Length {
			t.Errorf("%s: another pod has %d", text, other)
		}
		r = start(t, dir, pool, nobody)
		if runs := give(t, r, "runs"); runs != 2*Length {
			t.Errorf("%s: the pod has %d", text, runs)
		}
	}
	put(t, t.TempDir(), "a", valid)
	dir := t.TempDir()
	put(t, dir, "a", "{")
	err := New(dir, Pool{}, slog.New(slog.DiscardHandler)).Load(func(types.UID) (uint32, bool, error) { return 0, false, errors.New("gone") })
	if err == nil || !strings.Contains(err.Error(), "user namespace pod a has: gone") {
		t.Errorf("a range that nobody can find out is given away: %v", err)
	}
}

const valid = `{"uidMappings":[{"hostId":65536,"containerId":0,"length":65536}],"gidMappings":[{"hostId":65536,"containerId":0,"length":65536}]}`

func put(t *testing.T, dir, uid, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, uid), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, uid, "userns"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOneRangeTwice: of two files with one range, the runtime says whose it is.
func TestOneRangeTwice(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a", valid)
	put(t, dir, "b", valid)
	r := start(t, dir, Pool{parts: []span{{1, 2}}}, func(uid types.UID) (uint32, bool, error) { return Length, uid == "b", nil })
	if a, b := give(t, r, "a"), give(t, r, "b"); a != 2*Length || b != Length {
		t.Errorf("a has %d, b has %d", a, b)
	}
}

// TestPoolChanged: a pod keeps a range that is no longer for pods; the next one has another.
func TestPoolChanged(t *testing.T) {
	dir := t.TempDir()
	old := give(t, start(t, dir, Pool{parts: []span{{1, 1}}}, nobody), "a")
	r := start(t, dir, Pool{parts: []span{{7, 1}}}, nobody)
	if a, b := give(t, r, "a"), give(t, r, "b"); a != old || b != 7*Length {
		t.Errorf("a has %d, b has %d", a, b)
	}
}
