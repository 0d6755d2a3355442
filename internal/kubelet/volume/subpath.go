package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// SubPath returns a path on this host that shows sub of the volume and can be handed to the runtime. The container owns what is in
// the volume and may swap a directory for a link to /etc at any moment, so the kernel resolves the path below the volume's own
// descriptor, and the very thing it found is bound to a place the container cannot reach.
func (m *Manager) SubPath(pod *corev1.Pod, v *corev1.Volume, container string, index int, sub string) (string, error) {
	if filepath.IsAbs(sub) || strings.Contains("/"+sub+"/", "/../") {
		return "", fmt.Errorf("subPath %q must be a relative path without ..", sub)
	}
	root, err := unix.Open(m.Path(pod, v), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open volume %s: %w", v.Name, err)
	}
	defer unix.Close(root)
	fd, err := openBelow(root, sub)
	if errors.Is(err, unix.ENOENT) {
		if err = mkdirBelow(root, sub, fsGroup(pod)); err == nil {
			fd, err = openBelow(root, sub)
		}
	}
	if err != nil {
		return "", fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w", v.Name, container, err)
	}
	defer unix.Close(fd)
	return m.bind(pod, v, container, index, fd)
}

func (m *Manager) bind(pod *corev1.Pod, v *corev1.Volume, container string, index, fd int) (string, error) {
	target := filepath.Join(m.PodDir(pod.UID), "volume-subpaths", v.Name, container, strconv.Itoa(index))
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if err := unmountBelow(target); err != nil {
		return "", err
	}
	if err := os.RemoveAll(target); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if err := os.Mkdir(target, 0o750); err != nil {
			return "", err
		}
	} else if err := os.WriteFile(target, nil, 0o640); err != nil {
		return "", err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(fd), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return "", fmt.Errorf("bind subPath: %w", err)
	}
	return target, nil
}

func openBelow(root int, path string) (int, error) {
	if path == "" {
		path = "."
	}
	return unix.Openat2(root, path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// mkdirBelow creates the missing directories of a path, none of them outside of root.
func mkdirBelow(root int, path string, group *int64) error {
	made := ""
	for _, name := range strings.Split(filepath.Clean(path), "/") {
		parent, err := openBelow(root, made)
		if err != nil {
			return err
		}
		err = unix.Mkdirat(parent, name, 0o750)
		if err == nil {
			// As a directory the volume's owner made: everybody who may use the volume may use it.
			err = shareNew(parent, name, group)
		}
		unix.Close(parent)
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		made = filepath.Join(made, name)
	}
	return nil
}

func shareNew(parent int, name string, group *int64) error {
	fd, err := unix.Openat(parent, name, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var up unix.Stat_t
	if err := unix.Fstatat(parent, "", &up, unix.AT_EMPTY_PATH); err != nil {
		return err
	}
	gid := int(up.Gid)
	if group != nil {
		gid = int(*group)
	}
	if err := unix.Fchown(fd, int(up.Uid), gid); err != nil {
		return err
	}
	return unix.Fchmod(fd, up.Mode&0o7777)
}
