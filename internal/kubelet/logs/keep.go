package logs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Owner is whose logs a folder holds. It lies in the folder, because logs outlive their pod's object.
type Owner struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	UID       string            `json:"uid"`
	Labels    map[string]string `json:"labels,omitempty"`
}

const ownerFile = "pod.json"

// Folder of a pod's logs.
func Folder(namespace, name, uid string) string { return namespace + "_" + name + "_" + uid }

// Sign puts the pod's name and labels into the folder of its logs.
func Sign(dir string, pod *corev1.Pod) error {
	data, err := json.Marshal(Owner{pod.Namespace, pod.Name, string(pod.UID), pod.Labels})
	if err != nil {
		return err
	}
	temp := filepath.Join(dir, ownerFile+packing)
	if err := os.WriteFile(temp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, ownerFile))
}

// owner of a folder; where nobody signed it, what its name says.
func owner(dir string) Owner {
	var o Owner
	if data, err := os.ReadFile(filepath.Join(dir, ownerFile)); err == nil && json.Unmarshal(data, &o) == nil && o.UID != "" {
		return o
	}
	parts := strings.SplitN(filepath.Base(dir), "_", 3)
	for len(parts) < 3 {
		parts = append(parts, "")
	}
	return Owner{Namespace: parts[0], Name: parts[1], UID: parts[2]}
}

// Keeper holds the logs of pods that are gone: it compresses them, and removes them when they are too old or too many. It sleeps until
// a pod goes or the oldest log is due.
type Keeper struct {
	live, gone string // folders
	limits     Limits
	log        *slog.Logger

	mu    sync.Mutex
	fresh []string // folders in gone that haven't been looked at
	wake  chan struct{}
	kept  []kept // the oldest first; only Run touches it
}

type kept struct {
	dir  string
	gone time.Time
	size int64
}

// NewKeeper of the logs below live; those of pods that are gone are moved to the folder beside it.
func NewKeeper(live string, limits Limits, log *slog.Logger) *Keeper {
	return &Keeper{live: live, gone: filepath.Join(filepath.Dir(live), "gone"), limits: limits, log: log, wake: make(chan struct{}, 1)}
}

// Take over the logs of a pod that is gone for good. Its labels are those it had last, where the object is known.
func (k *Keeper) Take(pod *corev1.Pod) error {
	dir := filepath.Join(k.live, Folder(pod.Namespace, pod.Name, string(pod.UID)))
	if _, err := os.Stat(dir); err != nil {
		return ignoreGone(err)
	}
	if len(pod.Labels) > 0 && !maps.Equal(owner(dir).Labels, pod.Labels) {
		if err := Sign(dir, pod); err != nil {
			return err
		}
	}
	return k.take(dir)
}

// Searcher through the logs of pods that are gone and of those there are, which have these labels.
func (k *Keeper) Searcher(labels func() map[string]map[string]string) *Searcher {
	return &Searcher{live: k.live, gone: k.gone, labels: labels}
}

func (k *Keeper) take(dir string) error {
	if k.limits.Keep == 0 {
		return os.RemoveAll(dir)
	}
	if err := os.MkdirAll(k.gone, 0o755); err != nil {
		return err
	}
	now := time.Now()
	to := filepath.Join(k.gone, filepath.Base(dir))
	if err := errors.Join(os.Chtimes(dir, now, now), os.Rename(dir, to)); err != nil {
		return err
	}
	k.mu.Lock()
	k.fresh = append(k.fresh, to)
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
	return nil
}

// Sweep takes over the logs of pods that nobody knows any more.
func (k *Keeper) Sweep(known func(uid string) bool) error {
	dirs, err := os.ReadDir(k.live)
	for _, d := range dirs {
		dir := filepath.Join(k.live, d.Name())
		if d.IsDir() && !known(owner(dir).UID) {
			err = errors.Join(err, k.take(dir))
		}
	}
	return err
}

// Run until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	dirs, err := os.ReadDir(k.gone)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, d := range dirs {
		k.add(filepath.Join(k.gone, d.Name()))
	}
	slices.SortFunc(k.kept, func(a, b kept) int { return a.gone.Compare(b.gone) })
	for {
		k.takeIn()
		var due <-chan time.Time
		if next := k.prune(time.Now()); next > 0 {
			due = time.After(next)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		case <-due:
		}
	}
}

func (k *Keeper) takeIn() {
	k.mu.Lock()
	fresh := k.fresh
	k.fresh = nil
	k.mu.Unlock()
	for _, dir := range fresh {
		if !slices.ContainsFunc(k.kept, func(o kept) bool { return o.dir == dir }) {
			k.add(dir)
		}
	}
}

// block is what a file costs at least: compressing less gains nothing.
const block = 4096

// add a folder: its files are compressed. One without a line isn't kept.
func (k *Keeper) add(dir string) {
	info, err := os.Stat(dir)
	if err != nil {
		return
	}
	one, lines := kept{dir: dir, gone: info.ModTime(), size: 2 * block}, false
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.log*"))
	for _, path := range files {
		info, statErr := os.Stat(path)
		switch {
		case statErr != nil:
			err = errors.Join(err, statErr)
			continue
		case strings.HasSuffix(path, packing): // left by a process that was killed
			err = errors.Join(err, os.Remove(path))
			continue
		case !strings.HasSuffix(path, packed) && info.Size() > block:
			if err = errors.Join(err, compress(path)); err == nil {
				info, err = os.Stat(path + packed)
			}
		}
		if info != nil {
			lines = lines || info.Size() > 0
			one.size += (info.Size() + 2*block - 1) / block * block
		}
	}
	if err != nil {
		k.log.Warn("cannot compress the logs of a pod that is gone", "folder", dir, "err", err)
	}
	if !lines && err == nil {
		k.remove(dir)
		return
	}
	k.kept = append(k.kept, one)
}

func (k *Keeper) remove(dir string) {
	if err := os.RemoveAll(dir); err != nil {
		k.log.Warn("cannot remove the logs of a pod that is gone", "folder", dir, "err", err)
	}
}

// prune removes what is to go, and says how long it is until the next is due; zero: nothing is kept.
func (k *Keeper) prune(now time.Time) time.Duration {
	n := excess(k.kept, now, k.limits.Keep, min(k.limits.Room, share(k.gone)))
	for _, old := range k.kept[:n] {
		k.remove(old.dir)
	}
	k.kept = slices.Delete(k.kept, 0, n)
	if len(k.kept) == 0 {
		return 0
	}
	return max(k.kept[0].gone.Add(k.limits.Keep).Sub(now), time.Second)
}

// excess counts the oldest that are to go: those that are too old, and then as many as make the others fit.
func excess(all []kept, now time.Time, keep time.Duration, room int64) int {
	total := int64(0)
	for _, one := range all {
		total += one.size
	}
	n := 0
	for n < len(all) && (total > room || !now.Before(all[n].gone.Add(keep))) {
		total -= all[n].size
		n++
	}
	return n
}

// share of a filesystem that logs may have: on a small one, old logs must not be what fills it.
func share(dir string) int64 {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return 0
	}
	return int64(cmp.Or(fs.Blocks*uint64(fs.Bsize)/10, 1)) //nolint:gosec // no disk is that large
}
