package serve

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// hostFiles are the files below a folder of the host. Links are followed, but not out of it: a pod that may write there, by a hostPath volume, is not to choose
// which of the host's files are shown. What is neither a file nor a folder is not opened: a pipe would be waited for, and a device might act.
type hostFiles string

// Open looks at what a handle leads to before the thing itself is opened, so that nobody can exchange it in between.
func (root hostFiles) Open(name string) (http.File, error) {
	no := func(err error) (http.File, error) { return nil, &fs.PathError{Op: "open", Path: name, Err: err} }
	top, err := filepath.EvalSymlinks(string(root))
	if err != nil {
		return no(err)
	}
	fd, err := unix.Open(filepath.Join(top, filepath.FromSlash(path.Clean("/"+name))), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return no(err)
	}
	defer unix.Close(fd)
	handle := fmt.Sprintf("/proc/self/fd/%d", fd)
	is, err := os.Readlink(handle)
	if err != nil {
		return no(err)
	}
	if is != top && !strings.HasPrefix(is, strings.TrimSuffix(top, "/")+"/") {
		return no(fmt.Errorf("it leads out of %s: %w", root, fs.ErrPermission))
	}
	info, err := os.Stat(handle)
	if err != nil {
		return no(err)
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return no(fmt.Errorf("it is neither a file nor a folder: %w", fs.ErrPermission))
	}
	opened, err := unix.Open(handle, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return no(err)
	}
	return os.NewFile(uintptr(opened), is), nil
}
