package host

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// settlePages is how long after the start the program's pages are let go: by then what only a start needs has run.
const settlePages = 10 * time.Second

// releasePages gives back, once, the pages of the program file that the start has touched. Most of them hold what runs once (every package's tables and
// initialisation), and the kernel maps sixteen pages for each that is used. What is needed again comes back from the page cache by a minor fault.
func (c *cluster) releasePages(ctx context.Context) {
	select {
	case <-time.After(settlePages):
	case <-ctx.Done():
		return
	}
	if err := dropProgramPages(); err != nil {
		c.Log.Debug("the program's pages were not given back", "err", err)
	}
}

// dropProgramPages unmaps the resident pages of the running program that are not writable: they equal the file, which is mapped on.
func dropProgramPages() error {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		low, high, ok := readOnlyMapping(lines.Text(), self)
		if !ok {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, low, high-low, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise: %w", errno)
		}
	}
	return nil
}

// readOnlyMapping is where a line of /proc/self/maps says that file is mapped, privately and without being written to.
func readOnlyMapping(line, file string) (low, high uintptr, ok bool) {
	var perms, offset, device, inode, name string
	if n, _ := fmt.Sscanf(line, "%x-%x %s %s %s %s %s", &low, &high, &perms, &offset, &device, &inode, &name); n != 7 {
		return 0, 0, false
	}
	return low, high, name == file && (perms == "r-xp" || perms == "r--p")
}
