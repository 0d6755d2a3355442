package telemetry

import (
	"os"

	"golang.org/x/sys/unix"
)

// files keeps the small files open that are read again and again: on a cgroup file, opening takes several times as long as reading. The zero value
// opens anew each time. It is guarded by the sampler's mutex.
type files struct {
	open map[string]*kept
	turn int
}

type kept struct{ fd, turn int }

func keepFiles() *files { return &files{open: map[string]*kept{}} }

// read fills buf from the start of a file.
func (f *files) read(path string, buf []byte) ([]byte, error) {
	if f == nil {
		return slurp(path, buf)
	}
	k := f.open[path]
	if k == nil {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
		k = &kept{fd: fd}
		f.open[path] = k
	}
	k.turn = f.turn
	n := 0
	for n < len(buf) {
		m, err := unix.Pread(k.fd, buf[n:], int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil { // its cgroup is gone
			f.drop(path)
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if m == 0 {
			break
		}
		n += m
	}
	return buf[:n], nil
}

func (f *files) drop(path string) {
	_ = unix.Close(f.open[path].fd)
	delete(f.open, path)
}

// sweep closes what was not read since the last sweep.
func (f *files) sweep() {
	for path, k := range f.open {
		if k.turn != f.turn {
			f.drop(path)
		}
	}
	f.turn++
}

func (f *files) close() {
	for path := range f.open {
		f.drop(path)
	}
}
