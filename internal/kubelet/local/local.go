// Package local keeps the directories behind the local volumes of this node (see package localvolume): it makes them, holds them to their size where the
// filesystem can, and deletes them with what is in them.
//
// On disk: <dir>/<volume's name>, and <dir>/.leaving-<volume's name> while one is being deleted, so that what a crash leaves is known for what it
// is. Nothing outside <dir> is ever touched: a volume whose path is not its own name in <dir> is refused. The kubelet runs it.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api/localvolume"
	"skiff.dev/skiff/internal/client"
)

const leaving = ".leaving-"

// Volumes of a node.
type Volumes struct {
	dir    string
	node   string
	client client.Client
	events record.EventRecorder
	log    *slog.Logger
	quota  *quota // nil: the filesystem has none
}

// New returns the keeper of a node's volumes, below dir.
func New(dir, node string, c client.Client, events record.EventRecorder, log *slog.Logger) *Volumes {
	return &Volumes{dir: dir, node: node, client: c, events: events, log: log}
}

// Run looks after the volumes until ctx ends.
func (v *Volumes) Run(ctx context.Context) error {
	if err := v.open(); err != nil {
		return err
	}
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, time.Minute))
	informer, err := v.client.Cache().GetInformer(ctx, &corev1.PersistentVolume{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch volumes: %w", err)
	}
	see := func(o any) {
		if pv, ok := o.(*corev1.PersistentVolume); ok && v.ours(pv) {
			queue.Add(pv.Name)
		}
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{AddFunc: see, UpdateFunc: func(_, o any) { see(o) }})
	if err != nil {
		return fmt.Errorf("watch volumes: %w", err)
	}
	defer func() { _ = informer.RemoveEventHandler(registration) }()
	go func() { <-ctx.Done(); queue.ShutDown() }()
	for {
		name, down := queue.Get()
		if down {
			return nil
		}
		if err := v.look(ctx, name); err != nil && ctx.Err() == nil {
			v.log.Warn("look after a local volume; trying again", "volume", name, "err", err)
			queue.AddRateLimited(name)
		} else {
			queue.Forget(name)
		}
		queue.Done(name)
	}
}

func (v *Volumes) ours(pv *corev1.PersistentVolume) bool {
	return localvolume.Of(pv) && pv.Labels[localvolume.NodeLabel] == v.node
}

// open makes the folder and finishes what a crash interrupted.
func (v *Volumes) open() error {
	if err := os.MkdirAll(v.dir, 0o711); err != nil {
		return fmt.Errorf("make the folder of local volumes: %w", err)
	}
	v.quota = findQuota(v.dir)
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), leaving) {
			if err := os.RemoveAll(filepath.Join(v.dir, e.Name())); err != nil {
				v.log.Warn("delete what is left of a volume", "err", err)
			}
		}
	}
	return nil
}

// step is what a volume needs next.
type step int

const (
	nothing step = iota
	setUp        // a directory of this size
	remove       // the directory and what is in it, then the finalizer
	release      // only the finalizer: the data are to stay
)

// next decides by the object alone.
func next(pv *corev1.PersistentVolume) step {
	size := pv.Spec.Capacity[corev1.ResourceStorage]
	switch {
	case pv.DeletionTimestamp == nil && pv.Annotations[localvolume.SizeAnnotation] != size.String():
		return setUp
	case pv.DeletionTimestamp == nil, pv.Status.Phase == corev1.VolumeBound, !slices.Contains(pv.Finalizers, localvolume.Finalizer):
		return nothing
	case pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
		return remove
	}
	return release
}

func (v *Volumes) look(ctx context.Context, name string) error {
	var pv corev1.PersistentVolume
	key := crclient.ObjectKey{Name: name}
	if err := v.client.Cache().Get(ctx, key, &pv); err != nil { // it is gone; a node may not even ask the server for what is not there
		return crclient.IgnoreNotFound(err)
	}
	if err := v.client.Live().Get(ctx, key, &pv); err != nil {
		return crclient.IgnoreNotFound(err)
	}
	if !v.ours(&pv) {
		return nil
	}
	switch next(&pv) {
	case setUp:
		_, err := v.set(ctx, &pv)
		return err
	case remove:
		if err := v.delete(&pv); err != nil {
			v.events.Eventf(&pv, corev1.EventTypeWarning, "VolumeFailedDelete", "%v", err)
			return err
		}
		return v.letGo(ctx, &pv)
	case release:
		return v.letGo(ctx, &pv)
	}
	return nil
}

// Prepare returns where a volume's directory is, which it makes if the volume is new. A directory that was there once and is gone is an error: an
// empty one in its place would look like the data.
func (v *Volumes) Prepare(ctx context.Context, pv *corev1.PersistentVolume) (string, error) {
	if !v.ours(pv) {
		return "", fmt.Errorf("volume %s is kept by node %q", pv.Name, pv.Labels[localvolume.NodeLabel])
	}
	if pv.Annotations[localvolume.SizeAnnotation] == "" {
		return v.set(ctx, pv)
	}
	path, err := v.path(pv)
	if err != nil {
		return "", err
	}
	return path, checkDirectory(pv, path)
}

// checkDirectory refuses what stands in a directory's place: the data behind a link would not be deleted with the volume, nor held to its size.
func checkDirectory(pv *corev1.PersistentVolume, path string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return fmt.Errorf("the directory of volume %s is gone: %w", pv.Name, err)
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("the directory of volume %s is a symbolic link; move the data there, or mount their file system there", pv.Name)
	case !info.IsDir():
		return fmt.Errorf("the directory of volume %s is a file", pv.Name)
	}
	return nil
}

func (v *Volumes) path(pv *corev1.PersistentVolume) (string, error) {
	path := filepath.Join(v.dir, pv.Name)
	if pv.Spec.Local.Path != path {
		return "", fmt.Errorf("volume %s is at %s, which is not among this node's volumes in %s", pv.Name, pv.Spec.Local.Path, v.dir)
	}
	return path, nil
}

// set makes the directory, holds it to its size, and says so on the object.
func (v *Volumes) set(ctx context.Context, pv *corev1.PersistentVolume) (string, error) {
	path, err := v.path(pv)
	if err != nil {
		return "", err
	}
	if pv.Annotations[localvolume.SizeAnnotation] == "" {
		if err := os.Mkdir(path, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("make the directory of volume %s: %w", pv.Name, err)
		}
		if err := checkDirectory(pv, path); err != nil {
			return "", err
		}
		// Mkdir minds the umask; whoever the pod runs as is to write here.
		if err := os.Chmod(path, 0o777); err != nil {
			return "", err
		}
	}
	size := pv.Spec.Capacity[corev1.ResourceStorage]
	limit := "none"
	if v.quota != nil {
		if err := v.quota.limit(path, size.Value()); err != nil {
			return "", fmt.Errorf("limit volume %s to %s: %w", pv.Name, size.String(), err)
		}
		limit = "project-quota"
	}
	err = v.change(ctx, pv, func(changed *corev1.PersistentVolume) {
		changed.Annotations[localvolume.SizeAnnotation], changed.Annotations[localvolume.LimitAnnotation] = size.String(), limit
	})
	if err != nil {
		return "", fmt.Errorf("tell that volume %s is set up: %w", pv.Name, err)
	}
	return path, nil
}

// delete moves the directory out of the way first: a volume is there as a whole, or not at all.
func (v *Volumes) delete(pv *corev1.PersistentVolume) error {
	path, err := v.path(pv)
	if err != nil {
		return err
	}
	gone := filepath.Join(v.dir, leaving+pv.Name)
	if err := os.Rename(path, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete volume %s: %w", pv.Name, err)
	}
	if v.quota != nil {
		v.quota.free(gone)
	}
	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("delete volume %s: %w", pv.Name, err)
	}
	return nil
}

func (v *Volumes) letGo(ctx context.Context, pv *corev1.PersistentVolume) error {
	return crclient.IgnoreNotFound(v.change(ctx, pv, func(changed *corev1.PersistentVolume) {
		changed.Finalizers = slices.DeleteFunc(changed.Finalizers, func(f string) bool { return f == localvolume.Finalizer })
	}))
}

// change writes to the object; the binder may be writing to it at the same time.
func (v *Volumes) change(ctx context.Context, pv *corev1.PersistentVolume, f func(changed *corev1.PersistentVolume)) error {
	changed := pv.DeepCopy()
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		f(changed)
		err := v.client.Update(ctx, changed)
		if apierrors.IsConflict(err) {
			var live corev1.PersistentVolume // shared: not to be changed
			if err := v.client.Live().Get(ctx, crclient.ObjectKeyFromObject(pv), &live); err != nil {
				return err
			}
			changed = live.DeepCopy()
		}
		return err
	})
}
