package local

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A directory with a limit takes so much and no more. It needs a kernel with project quotas, and a loop device.
func TestQuota(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	image, point := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	for _, args := range [][]string{
		{"truncate", "--size=64M", image}, {"mkfs.ext4", "-q", "-O", "project,quota", image}, {"mount", "-o", "loop,prjquota", image, point},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no filesystem with project quotas can be had here: %v: %v\n%s", args, err, out)
		}
	}
	defer func() {
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	q := findQuota(point)
	if q == nil {
		t.Fatal("the quota was not found")
	}
	dir := filepath.Join(point, "pvc-x")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := q.limit(dir, 4<<20); err != nil {
		t.Fatal(err)
	}
	bound(t)
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, make([]byte, 2<<20), 0o600); err != nil {
		t.Errorf("within the limit: %v", err)
	}
	if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("over the limit: %v", err)
	}
	if err := q.limit(dir, 16<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, make([]byte, 8<<20), 0o600); err != nil {
		t.Errorf("after it grew: %v", err)
	}
}

// bound lets quotas count for this thread, as they do in containers: CAP_SYS_RESOURCE is above them. The thread ends with the test.
func bound(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	header, caps := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&header, &caps[0]); err != nil {
		t.Fatal(err)
	}
	caps[0].Effective &^= 1 << unix.CAP_SYS_RESOURCE
	if err := unix.Capset(&header, &caps[0]); err != nil {
		t.Fatal(err)
	}
}

// A filesystem without quotas has none.
func TestNoQuota(t *testing.T) {
	if _, err := os.Stat("/proc/self/mountinfo"); err != nil {
		t.Skip(err)
	}
	if q := findQuota("/proc"); q != nil {
		t.Errorf("found %+v", q)
	}
}
