package telemetry

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPressureOfRealGroups: what the kernel says of groups of cgroup v2 is read, of each its own: the one whose processes wait for a processor, and the one beside it.
func TestPressureOfRealGroups(t *testing.T) {
	mount := t.TempDir()
	if err := unix.Mount("none", mount, "cgroup2", 0, ""); err != nil {
		t.Fatalf("mount cgroup2: %v; this test needs root", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mount, unix.MNT_DETACH) })
	busy, idle := fmt.Sprintf("/skiff-busy-%d", os.Getpid()), fmt.Sprintf("/skiff-idle-%d", os.Getpid())
	for _, group := range []string{busy, idle} {
		dir := filepath.Join(mount, group)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeGroup(t, dir) })
	}
	spin(t, filepath.Join(mount, busy), 2*runtime.NumCPU()) // some of them wait at any time
	c := lookAtCgroups(mount)
	if !c.v2 {
		t.Fatal("a mount of cgroup2 is taken for version 1")
	}
	if _, err := os.Stat("/proc/pressure"); errors.Is(err, os.ErrNotExist) {
		if got := c.pressure(busy); len(got) != 0 {
			t.Errorf("the kernel measures no pressure, and yet there is %v", got)
		}
		return
	}
	const wanted = uint64(100 * time.Millisecond)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		used, err := c.cpu(busy)
		if got := c.pressure(busy); err == nil && len(got) == 3 && got["cpu"].Some.Total > wanted && got["cpu"].Some.Avg10 > 0 && used > wanted {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("pressure on the busy group: %v; it used %d ns, %v", got, used, err)
		}
	}
	if got := c.pressure(idle); len(got) != 3 || got["cpu"].Some.Total != 0 || got["memory"] == nil || got["io"] == nil {
		t.Errorf("pressure on the idle group: %v", got)
	}
}

// spin starts processes in a group that do nothing but keep a processor busy.
func spin(t *testing.T, group string, n int) {
	t.Helper()
	dir, err := os.Open(group)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for range n {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
}

// removeGroup once its processes have left it, which they do some time after they have ended.
func removeGroup(t *testing.T, dir string) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if err := os.Remove(dir); err == nil {
			return
		} else if time.Now().After(deadline) {
			t.Error(err)
			return
		}
	}
}
