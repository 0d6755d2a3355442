package host

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lock is held by the one Skiff process that runs on a data dir. It is the kernel's, so that a killed process leaves none behind.
type lock struct {
	f    *os.File
	made bool // the data dir is new
}

// errLocked says that another process holds the data dir.
type errLocked struct {
	dir string
	pid int
}

func (e *errLocked) Error() string {
	return fmt.Sprintf("data-dir: %s is in use by another skiff (pid %d); stop that one, or give another --data-dir", e.dir, e.pid)
}

// takeLock creates the data dir if need be and locks it for this process.
func takeLock(dir string) (*lock, error) {
	_, err := os.Stat(dir)
	made := errors.Is(err, os.ErrNotExist)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data-dir: cannot create %s: %w; give a folder that can be written to", dir, pathless(err))
	}
	f, err := os.OpenFile(filepath.Join(dir, "skiff.pid"), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data-dir: cannot write below %s: %w; give a folder that can be written to", dir, pathless(err))
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &errLocked{dir, readPID(f)}
		}
		return nil, fmt.Errorf("data-dir: cannot lock %s: %w", f.Name(), err)
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	if err := errors.Join(f.Truncate(0), writeAt(f, pid)); err != nil {
		f.Close()
		return nil, fmt.Errorf("data-dir: cannot write %s: %w", f.Name(), err)
	}
	return &lock{f, made}, nil
}

// release lets go of the data dir. The file stays: removing it would let two processes lock two different files.
func (l *lock) release() { l.f.Close() }

// waitForLock takes the lock as soon as its holder has gone.
func waitForLock(dir string, patience time.Duration) (*lock, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		l, err := takeLock(dir)
		var held *errLocked
		if !errors.As(err, &held) || time.Now().After(deadline) {
			return l, err
		}
	}
}

func readPID(f *os.File) int {
	raw, _ := io.ReadAll(io.NewSectionReader(f, 0, 32))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(raw)))
	return pid
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// pathless drops the path that an error of package os repeats.
func pathless(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
