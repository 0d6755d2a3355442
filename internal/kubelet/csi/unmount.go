package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
)

const podVolumes = "kubernetes.io~csi"

// Unmount takes back all CSI volumes of the pod whose directory this is, by what was written down; and has those unstaged that no other pod uses.
func (n *Node) Unmount(ctx context.Context, podDir string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	dirs, err := filepath.Glob(filepath.Join(podDir, "volumes", podVolumes, "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		if err := n.unmount(ctx, dir); err != nil {
			errs = append(errs, fmt.Errorf("UnmountVolume.TearDown failed for volume %q : %w", filepath.Base(dir), err))
		}
	}
	return errors.Join(errs...)
}

func read(dir string) (*data, error) {
	raw, err := os.ReadFile(filepath.Join(dir, dataFile))
	if err != nil {
		return nil, err
	}
	var info data
	return &info, json.Unmarshal(raw, &info)
}

func (n *Node) unmount(ctx context.Context, dir string) error {
	info, err := read(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the driver was not asked yet
	}
	if err != nil {
		return fmt.Errorf("read what was mounted: %w", err)
	}
	d, err := n.driver(info.Driver)
	if err != nil {
		return err
	}
	defer n.alone(info.Driver + "/" + info.Handle)()
	if _, err := d.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: info.Handle, TargetPath: info.Target}); err != nil {
		return fmt.Errorf("NodeUnpublishVolume: %w", err)
	}
	if info.Staged != "" && !n.shared(dir, info) {
		if _, err := d.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: info.Handle, StagingTargetPath: info.Staged}); err != nil {
			return fmt.Errorf("NodeUnstageVolume: %w", err)
		}
		// Only what is empty: should the driver have left its mount, its data are not ours to delete.
		if err := os.Remove(info.Staged); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		_ = os.Remove(filepath.Dir(info.Staged))
	}
	if err := os.Remove(info.Target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the driver has left %s: %w", info.Target, err)
	}
	if err := os.Remove(filepath.Join(dir, dataFile)); err != nil {
		return err
	}
	n.forget(dir)
	return os.Remove(dir)
}

// shared says that another pod has the volume, too.
func (n *Node) shared(own string, info *data) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for dir, other := range n.all() {
		if dir != own && other.Driver == info.Driver && other.Handle == info.Handle {
			return true
		}
	}
	return false
}

// all is every volume of every pod, by directory: an earlier run's are read once. Called with mu held.
func (n *Node) all() map[string]*data {
	if n.volumes != nil {
		return n.volumes
	}
	found := map[string]*data{}
	dirs, _ := filepath.Glob(filepath.Join(n.root, "pods", "*", "volumes", podVolumes, "*"))
	for _, dir := range dirs {
		if info, err := read(dir); err == nil {
			found[dir] = info
		}
	}
	n.volumes = found
	return found
}

func (n *Node) remember(dir string, info *data) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all()[dir] = info
}

func (n *Node) forget(dir string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.all(), dir)
}

// InUse lists the volumes that must not be detached from the node, as the node's status does.
func (n *Node) InUse() (list []corev1.UniqueVolumeName) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, info := range n.all() {
		name := corev1.UniqueVolumeName("kubernetes.io/csi/" + info.Driver + "^" + info.Handle)
		if info.Mode == "Persistent" && !slices.Contains(list, name) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}
