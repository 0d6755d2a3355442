// Package volume gives pods their volumes: it turns what a pod's spec names into directories on this host.
//
// On disk, below the kubelet's root: pods/<uid>/volumes/<plugin>/<name>, pods/<uid>/volume-subpaths/<volume>/<container>/<index>; and
// what must never reach a disk (secrets, tokens) in memory/<uid>/<plugin>/<name> on one tmpfs. Content made of API objects is
// replaced as a whole or not at all (see write). The pod's actor calls it, one call at a time for a pod.
package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/kubelet/csi"
)

// Source is where content comes from.
type Source interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Token asks for a service account token bound to the pod.
	Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (token string, expires time.Time, err error)
	Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	Volume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
	Trust
	Certificates
}

// Facts about the node that downward API files can ask for.
type Facts struct {
	Allocatable corev1.ResourceList
}

// Manager serves all pods of a node.
type Manager struct {
	root   string
	source Source
	facts  func() Facts
	Locals Local     // of this node; to be set before the first pod
	CSI    *csi.Node // likewise
	// Grown, if set, is told of a claim whose volume was enlarged under a pod.
	Grown  func(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim)
	places sync.Map // where volumes with claims were found, by pod and volume
	memory sync.Once
	memErr error
}

func New(root string, source Source, facts func() Facts) *Manager {
	return &Manager{root: root, source: source, facts: facts}
}

// Pod is what is kept of one pod's volumes between calls.
type Pod struct {
	tokens      map[string]token
	credentials map[string]*credentials
	republish   bool // a volume is to be looked at again now and then
}

type token struct {
	text    string
	refresh time.Time
}

// PodDir is everything a pod has on this host's disk, but for its logs.
func (m *Manager) PodDir(uid types.UID) string { return filepath.Join(m.root, "pods", string(uid)) }

// Error names the volume that failed.
type Error struct {
	Volume string
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.Volume, e.Err)
}
func (e *Error) Unwrap() error { return e.Err }

// Mount makes every volume of the pod be there with its present content. It can be called again at any time to bring content up to
// date, and must be at refresh, if that isn't zero.
func (m *Manager) Mount(ctx context.Context, pod *corev1.Pod, p *Pod, now time.Time) (refresh time.Time, err error) {
	if p.tokens == nil {
		p.tokens, p.credentials = map[string]token{}, map[string]*credentials{}
	}
	var errs []error
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if err := m.mount(ctx, pod, v, p, now); err != nil {
			errs = append(errs, &Error{v.Name, err})
		}
	}
	for _, t := range p.tokens {
		if refresh.IsZero() || t.refresh.Before(refresh) {
			refresh = t.refresh
		}
	}
	for _, c := range p.credentials {
		if due := c.due(); !due.IsZero() && (refresh.IsZero() || due.Before(refresh)) {
			refresh = due
		}
	}
	if again := now.Add(republishEvery); p.republish && (refresh.IsZero() || again.Before(refresh)) {
		refresh = again
	}
	return refresh, errors.Join(errs...)
}

func (m *Manager) mount(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, p *Pod, now time.Time) error {
	switch {
	case v.EmptyDir != nil:
		return m.emptyDir(pod, v)
	case v.HostPath != nil:
		return checkHostPath(v.HostPath)
	case v.Image != nil:
		return nil // the runtime mounts it
	case v.PersistentVolumeClaim != nil, v.Ephemeral != nil:
		return m.claimed(ctx, pod, v, p)
	case v.CSI != nil:
		return m.csiInline(ctx, pod, v, p)
	case v.ConfigMap != nil, v.Secret != nil, v.DownwardAPI != nil, v.Projected != nil:
		files, err := m.payload(ctx, pod, v, p, now)
		if errors.Is(err, errNotIssued) {
			if _, old := os.Lstat(filepath.Join(m.Path(pod, v), dataLink)); old == nil {
				return nil // what a former kubelet put there serves until then
			}
		}
		if err != nil {
			return err
		}
		if inMemory(v) {
			if err := m.mountMemory(); err != nil {
				return err
			}
		}
		return write(m.Path(pod, v), files, fsGroup(pod))
	}
	return fmt.Errorf("%s volumes are not supported by this node", plugin(v))
}

// Path is where a volume is on this host.
func (m *Manager) Path(pod *corev1.Pod, v *corev1.Volume) string {
	if v.HostPath != nil {
		return v.HostPath.Path
	}
	if p, ok := m.placeOf(pod.UID, v.Name); ok {
		return p.path
	}
	if inMemory(v) {
		return filepath.Join(m.root, "memory", string(pod.UID), plugin(v), v.Name)
	}
	return filepath.Join(m.PodDir(pod.UID), "volumes", plugin(v), v.Name)
}

// inMemory: what may hold secrets isn't written to disk.
func inMemory(v *corev1.Volume) bool { return v.Secret != nil || v.Projected != nil }

func plugin(v *corev1.Volume) string {
	switch {
	case v.EmptyDir != nil:
		return "kubernetes.io~empty-dir"
	case v.HostPath != nil:
		return "kubernetes.io~host-path"
	case v.ConfigMap != nil:
		return "kubernetes.io~configmap"
	case v.Secret != nil:
		return "kubernetes.io~secret"
	case v.DownwardAPI != nil:
		return "kubernetes.io~downward-api"
	case v.Projected != nil:
		return "kubernetes.io~projected"
	case v.NFS != nil:
		return "nfs"
	case v.ISCSI != nil:
		return "iscsi"
	case v.FC != nil:
		return "fc"
	}
	return "such"
}

func (m *Manager) mountMemory() error {
	m.memory.Do(func() {
		dir := filepath.Join(m.root, "memory")
		if m.memErr = os.MkdirAll(dir, 0o755); m.memErr != nil {
			return
		}
		if mounted, err := isMountpoint(dir); err != nil || mounted {
			m.memErr = err
			return
		}
		m.memErr = unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755")
	})
	return m.memErr
}

func (m *Manager) emptyDir(pod *corev1.Pod, v *corev1.Volume) error {
	dir := m.Path(pod, v)
	ready := filepath.Join(m.PodDir(pod.UID), "volumes-ready", v.Name)
	if _, err := os.Stat(ready); err == nil {
		if v.EmptyDir.Medium == corev1.StorageMediumDefault {
			return nil
		}
		if mounted, err := isMountpoint(dir); err == nil && mounted {
			return nil
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	switch v.EmptyDir.Medium {
	case corev1.StorageMediumDefault:
	case corev1.StorageMediumMemory:
		if mounted, err := isMountpoint(dir); err != nil {
			return err
		} else if !mounted {
			options := "mode=0777"
			if size := memorySize(pod, v.EmptyDir); size > 0 {
				options += fmt.Sprintf(",size=%d", size)
			}
			if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
				return fmt.Errorf("mount tmpfs: %w", err)
			}
		}
	default:
		return fmt.Errorf("unknown storage medium %q", v.EmptyDir.Medium)
	}
	// Mkdir minds the umask; the mode is promised.
	if err := os.Chmod(dir, 0o777); err != nil {
		return err
	}
	if group := fsGroup(pod); group != nil {
		if err := own(dir, *group); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Dir(ready), 0o750); err != nil {
		return err
	}
	return os.WriteFile(ready, nil, 0o640)
}

// memorySize bounds a memory-backed directory by its own limit and the pod's memory limit.
func memorySize(pod *corev1.Pod, e *corev1.EmptyDirVolumeSource) int64 {
	var total int64
	for i := range pod.Spec.Containers {
		limit := pod.Spec.Containers[i].Resources.Limits.Memory().Value()
		if limit == 0 {
			total = 0
			break
		}
		total += limit
	}
	if e.SizeLimit != nil && e.SizeLimit.Value() > 0 && (total == 0 || e.SizeLimit.Value() < total) {
		return e.SizeLimit.Value()
	}
	return total
}

// own gives a directory and all in it to the pod's group, as fsGroup promises.
func own(dir string, group int64) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(path, -1, int(group)); err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode()&fs.ModeSymlink != 0 {
			return err
		}
		mode := info.Mode() | 0o660
		if d.IsDir() {
			mode |= 0o770 | fs.ModeSetgid
		}
		return os.Chmod(path, mode)
	})
}

func fsGroup(pod *corev1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// Unmount removes all of a pod's volumes and its directory. It never crosses into what is still mounted.
func (m *Manager) Unmount(ctx context.Context, uid types.UID) error {
	dir := m.PodDir(uid)
	if m.CSI != nil {
		if err := m.CSI.Unmount(ctx, dir); err != nil {
			return err
		}
	}
	if err := unmountBelow(dir); err != nil {
		return err
	}
	if left, err := mountsBelow(dir); err != nil {
		return err
	} else if len(left) > 0 { // what is deleted next must be nobody else's data
		return fmt.Errorf("%d mounts are left below %s", len(left), dir)
	}
	m.places.Range(func(key, _ any) bool {
		if strings.HasPrefix(key.(string), string(uid)+"/") {
			m.places.Delete(key)
		}
		return true
	})
	if err := os.RemoveAll(filepath.Join(m.root, "memory", string(uid))); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// Pods lists the pods that have something on this host.
func (m *Manager) Pods() map[types.UID]bool {
	found := map[types.UID]bool{}
	for _, dir := range []string{"pods", "memory"} {
		entries, _ := os.ReadDir(filepath.Join(m.root, dir))
		for _, e := range entries {
			found[types.UID(e.Name())] = true
		}
	}
	return found
}

// RemoveAll unmounts everything below root and deletes it.
func RemoveAll(root string) error {
	if err := unmountBelow(root); err != nil {
		return err
	}
	return os.RemoveAll(root)
}
