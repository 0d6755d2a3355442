package kubelet

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// reserve is a file that holds some of the disk back: on a full one neither can the container runtime record that a container ended, nor the API
// server that its pod was evicted, so that nothing would ever make room again.
type reserve struct {
	path string
	size int64
	held bool
}

const reserveSize = 64 << 20

func newReserve(path string, disk int64) *reserve {
	_, err := os.Stat(path)
	return &reserve{path: path, size: min(reserveSize, disk/50), held: err == nil}
}

// release it; false if it was released before.
func (r *reserve) release() bool {
	if !r.held {
		return false
	}
	r.held = false
	return os.Remove(r.path) == nil
}

// restore it.
func (r *reserve) restore() error {
	if r.held {
		return nil
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, r.size)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = nil // such a filesystem has to do without
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(r.path))
	}
	r.held = true
	return nil
}
