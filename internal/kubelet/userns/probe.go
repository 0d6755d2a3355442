package userns

import (
	"fmt"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// Probe tries whether this kernel can do what pods with users of their own need, and says what it cannot: mount the filesystem of dir, where
// layers and volumes are, and tmpfs, where secrets are, with ids mapped. Nothing is mounted anywhere.
func Probe(dir string) error {
	const some = "0:65536:65536"
	ns, err := mount.GetUsernsFD(some, some)
	if err != nil {
		return fmt.Errorf("the kernel makes no user namespace: %w", err)
	}
	defer ns.Close()
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("open a mount of %s: %w", dir, err)
	}
	defer unix.Close(tree)
	if err := idmap(tree, int(ns.Fd())); err != nil {
		return fmt.Errorf("the filesystem of %s cannot be mounted with ids mapped: %w", dir, err)
	}
	memory, err := tmpfs()
	if err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	defer unix.Close(memory)
	if err := idmap(memory, int(ns.Fd())); err != nil {
		return fmt.Errorf("tmpfs cannot be mounted with ids mapped, which takes Linux 6.3: %w", err)
	}
	return nil
}

func idmap(tree, ns int) error {
	return unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)})
}

// tmpfs is a mount of a new one, which goes with its descriptor.
func tmpfs() (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
}
