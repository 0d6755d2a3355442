package volume

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Share readies a folder of this host for mounts to be passed on between it and a container. Runtimes refuse that where the mount that holds
// the folder is private, as all are on hosts whose init isn't systemd; so the mount is made shared, and only when a pod asks for it.
func (m *Manager) Share(path string, mode corev1.MountPropagationMode) error {
	if mode == corev1.MountPropagationNone {
		return nil
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	all, err := mountPoints()
	if err != nil {
		return err
	}
	at := holder(all, real)
	if at.shared || at.slave && mode == corev1.MountPropagationHostToContainer {
		return nil
	}
	if err := unix.Mount("", at.path, "", unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make %s a shared mount, as mountPropagation %s of %s needs it: %w", at.path, mode, path, err)
	}
	return nil
}

// holder is the mount that a path is on: of those that contain it the deepest, of several in one place the last.
func holder(all []mountPoint, path string) (found mountPoint) {
	for _, m := range all {
		if contains(m.path, path) && len(m.path) >= len(found.path) {
			found = m
		}
	}
	return found
}
