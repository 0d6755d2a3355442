package local

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quota holds directories of one filesystem to a size, by project: everything below a directory belongs to the directory's project, whose blocks the
// filesystem counts. ext4 and XFS have it, mounted with prjquota. A directory's project number is made of its name, so none need be remembered.
type quota struct{ device string }

// findQuota is the project quota of the filesystem that dir is on, nil if it has none.
func findQuota(dir string) *quota {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	best, device := "", ""
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, source := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(source) < 3 {
			continue
		}
		point := fields[4]
		if point != "/" && real != point && !strings.HasPrefix(real, point+"/") || len(point) < len(best) {
			continue
		}
		best, device = point, ""
		for option := range strings.SplitSeq(source[2], ",") {
			if option == "prjquota" || option == "pquota" {
				device = source[1]
			}
		}
	}
	if device == "" {
		return nil
	}
	return &quota{device}
}

// The kernel's interface: linux/fs.h, linux/quota.h.
const (
	getXattr       = 0x801c581f // FS_IOC_FSGETXATTR
	setXattr       = 0x401c5820 // FS_IOC_FSSETXATTR
	projectInherit = 0x00000200
	setQuota       = 0x800008 // Q_SETQUOTA
	projectQuota   = 2
	blockLimits    = 1 // QIF_BLIMITS
	blockSize      = 1024
)

type xattr struct {
	flags, extentSize, extents, project, cowExtentSize uint32
	_                                                  [8]byte
}

type diskQuota struct {
	hard, soft, space             uint64
	inodesHard, inodesSoft, nodes uint64
	blockTime, inodeTime          uint64
	valid                         uint32
	_                             uint32
}

// project numbers a directory by its name; numbers below a million are left to administrators.
func project(path string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(filepath.Base(path)))
	return h.Sum32()%(1<<31-1_000_000) + 1_000_000
}

// limit makes a directory its own project of at most so many bytes.
func (q *quota) limit(path string, bytes int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var x xattr
	if err := ioctl(f, getXattr, &x); err != nil {
		return fmt.Errorf("read its project: %w", err)
	}
	id := project(path)
	if x.project != id || x.flags&projectInherit == 0 {
		x.project, x.flags = id, x.flags|projectInherit
		if err := ioctl(f, setXattr, &x); err != nil {
			return fmt.Errorf("set its project: %w", err)
		}
	}
	blocks := uint64(bytes+blockSize-1) / blockSize
	return q.set(id, blocks)
}

// free takes a limit away. What cannot be taken away limits a project without files.
func (q *quota) free(path string) {
	_ = q.set(project(strings.Replace(path, leaving, "", 1)), 0)
}

func (q *quota) set(id uint32, blocks uint64) error {
	device, err := unix.BytePtrFromString(q.device)
	if err != nil {
		return err
	}
	d := diskQuota{hard: blocks, soft: blocks, valid: blockLimits}
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL, uintptr(setQuota<<8|projectQuota), uintptr(unsafe.Pointer(device)), uintptr(id), uintptr(unsafe.Pointer(&d)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("set its quota on %s: %w", q.device, errno)
	}
	return nil
}

func ioctl(f *os.File, request uintptr, x *xattr) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(x))); errno != 0 {
		return errno
	}
	return nil
}
