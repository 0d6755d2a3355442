// Package userns gives pods that have users of their own (hostUsers: false, KEP-127) ids of this host that nobody else has.
//
// The ids 0 to 65535 of such a pod are 65,536 of the host's: its range. Which one is written to pods/<uid>/userns below the kubelet's
// root, in upstream's format, before the runtime hears of it; it is the pod's until that folder goes. The invariant: no two pods of a node
// hold one range, whatever this process, its files or the host's settings went through.
package userns

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/containerd/continuity"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Length of a pod's range.
const Length = 1 << 16

// Ranges of a node's pods.
type Ranges struct {
	pods string
	pool Pool
	log  *slog.Logger

	mu   sync.Mutex
	held map[types.UID]uint32 // the first id of each pod's range
	next int                  // where in the pool the search begins
}

// New of a folder with one folder a pod. Clusters that share a host begin at places of their own, so that their pods seldom have equal
// ids.
func New(pods string, pool Pool, log *slog.Logger) *Ranges {
	r := &Ranges{pods: pods, pool: pool, log: log, held: map[types.UID]uint32{}}
	if n := pool.Len(); n > 0 {
		h := fnv.New32a()
		h.Write([]byte(pods))
		r.next = int(h.Sum32() % uint32(n))
	}
	return r
}

// Running says which range the runtime has made a pod with, by its first id; ok is false for a pod that has none, or doesn't run.
type Running func(uid types.UID) (first uint32, ok bool, err error)

// Load takes over what pods hold from a former process. A file that cannot be read, or that names the range of another pod, is written
// anew after what runs, and removed where nothing does. A range that the pool no longer has stays its pod's.
func (r *Ranges) Load(running Running) error {
	entries, err := os.ReadDir(r.pods)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	doubtful := map[types.UID]error{}
	for _, e := range entries {
		uid := types.UID(e.Name())
		first, err := r.read(uid)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if other, taken := r.holder(first); err == nil && taken {
			err = fmt.Errorf("its range is that of pod %s", other)
			doubtful[other] = fmt.Errorf("its range is that of pod %s", uid)
		}
		if err != nil {
			doubtful[uid] = err
			continue
		}
		r.held[uid] = first
	}
	for uid := range doubtful {
		delete(r.held, uid)
	}
	for uid, reason := range doubtful {
		if err := r.mend(uid, reason, running); err != nil {
			return err
		}
	}
	return nil
}

func (r *Ranges) mend(uid types.UID, reason error, running Running) error {
	first, runs, err := running(uid)
	if err != nil {
		return fmt.Errorf("find out which user namespace pod %s has: %w", uid, err)
	}
	if !runs {
		r.log.Warn("the file of a pod's user namespace was of no use and is removed; the pod has none", "file", r.file(uid), "reason", reason)
		return os.Remove(r.file(uid))
	}
	r.log.Warn("the file of a pod's user namespace was of no use and is written anew", "file", r.file(uid), "reason", reason, "first", first)
	r.held[uid] = first
	return r.write(uid, first)
}

// Of is the user namespace of a pod, which has its range from the first call on.
func (r *Ranges) Of(uid types.UID) (*runtimeapi.UserNamespace, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first, ok := r.held[uid]
	if !ok {
		var err error
		if first, err = r.pick(); err != nil {
			return nil, err
		}
		if err := r.write(uid, first); err != nil {
			return nil, fmt.Errorf("write down the pod's user namespace: %w", err)
		}
		r.held[uid] = first
	}
	ids := func() []*runtimeapi.IDMapping { return []*runtimeapi.IDMapping{{HostId: first, Length: Length}} }
	return &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD, Uids: ids(), Gids: ids()}, nil
}

// pick goes around the pool, so that a range rests before somebody else has it.
func (r *Ranges) pick() (uint32, error) {
	n := r.pool.Len()
	for i := range n {
		at := (r.next + i) % n
		first := r.pool.at(at)
		if _, taken := r.holder(first); !taken {
			r.next = (at + 1) % n
			return first, nil
		}
	}
	return 0, fmt.Errorf("all of the node's %d ranges of %d user ids are taken by other pods", n, Length)
}

// Release takes a pod's range back. The pod's folder, and with it the file, is gone by then.
func (r *Ranges) Release(uid types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, uid)
}

func (r *Ranges) holder(first uint32) (types.UID, bool) {
	for uid, f := range r.held {
		if f == first {
			return uid, true
		}
	}
	return "", false
}

// mappings is what a pod's file holds.
type mappings struct {
	UIDs []mapping `json:"uidMappings"`
	GIDs []mapping `json:"gidMappings"`
}

type mapping struct {
	Host      uint32 `json:"hostId"`
	Container uint32 `json:"containerId"`
	Length    uint32 `json:"length"`
}

func (r *Ranges) file(uid types.UID) string { return filepath.Join(r.pods, string(uid), "userns") }

func (r *Ranges) read(uid types.UID) (first uint32, err error) {
	raw, err := os.ReadFile(r.file(uid))
	if err != nil {
		return 0, err
	}
	var m mappings
	if err := json.Unmarshal(raw, &m); err != nil {
		return 0, err
	}
	if len(m.UIDs) != 1 || len(m.GIDs) != 1 || m.UIDs[0] != m.GIDs[0] {
		return 0, errors.New("it does not hold one mapping, the same for users and groups")
	}
	is := m.UIDs[0]
	if is.Container != 0 || is.Length != Length || is.Host%Length != 0 || is.Host == 0 {
		return 0, fmt.Errorf("it maps %d ids from %d on to %d", is.Length, is.Container, is.Host)
	}
	return is.Host, nil
}

func (r *Ranges) write(uid types.UID, first uint32) error {
	one := []mapping{{Host: first, Length: Length}}
	raw, err := json.Marshal(mappings{UIDs: one, GIDs: one})
	if err != nil {
		return err
	}
	return continuity.AtomicWriteFile(r.file(uid), raw, 0o600)
}
