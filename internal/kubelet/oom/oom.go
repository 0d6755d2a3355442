// Package oom hears from the kernel's log which processes were killed because memory ran out.
//
// The log names the process, the cgroup whose limit was reached, and what was in use: more than the counters of cgroups (memory.oom_control,
// memory.events) have, the same with cgroup v1 and v2, and still there when the container's cgroup has gone with it. Waiting for the log
// costs nothing. The kernel writes before the process dies, so a kill is known before the runtime tells of the end. Package kubelet
// matches kills to pods.
package oom

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
)

// Kill of one process.
type Kill struct {
	Process string
	PID     int
	Cgroup  string // the process's
	Limited string // the cgroup whose limit was reached; empty if the whole host's memory ran out
	// Bytes in use of that limit, the limit, and how often it was reached. Zero where the log does not say.
	Usage, Limit, Failures int64
	// Bytes that the process held.
	Anonymous, File, Shared int64
}

// Pod and container whose process was killed, by the names of their cgroups; empty if it was nobody's.
func (k *Kill) Pod() (pod types.UID, container string) { return owner(k.Cgroup) }

func owner(cgroup string) (pod types.UID, container string) {
	above := false
	for part := range strings.SplitSeq(cgroup, "/") {
		switch uid, isPod := strings.CutPrefix(part, "pod"); {
		case pod != "" && container == "":
			container = part
		case isPod && above:
			pod = types.UID(uid)
		}
		above = above || part == "kubepods"
	}
	return pod, container
}

// Kills that happened, by container: what a container's end is explained with.
type Kills struct {
	mu   sync.Mutex
	by   map[string]*Kill
	told []string // containers, the oldest first
}

// remembered is far more than end between a kill and its being told of.
const remembered = 1000

// Add the latest kill in a container.
func (k *Kills) Add(container string, kill *Kill) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.by == nil {
		k.by = map[string]*Kill{}
	}
	if k.by[container] == nil {
		k.told = append(k.told, container)
	}
	k.by[container] = kill
	if len(k.told) > remembered {
		delete(k.by, k.told[0])
		k.told = k.told[1:]
	}
}

// Of a container, the latest; nil if there was none.
func (k *Kills) Of(container string) *Kill {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.by[container]
}

// Message for people.
func (k *Kill) Message(container string) string {
	var whose string
	pod, limited := owner(k.Limited)
	switch {
	case k.Limited == "":
		whose = "the node ran out of memory"
	case limited != "":
		whose = "container " + container + " reached its memory limit"
	case pod != "":
		whose = "the pod reached its memory limit"
	default:
		whose = "the memory limit of cgroup " + k.Limited + " was reached"
	}
	if k.Limit > 0 {
		whose += fmt.Sprintf(" of %s (in use %s, reached %d times)", size(k.Limit), size(k.Usage), k.Failures)
	}
	return fmt.Sprintf("Process %s (%d) of container %s was killed: %s; it held %s anonymous, %s file and %s shared memory",
		k.Process, k.PID, container, whose, size(k.Anonymous), size(k.File), size(k.Shared))
}

func size(bytes int64) string { return resource.NewQuantity(bytes, resource.BinarySI).String() }

// reader makes kills of the log's lines.
type reader struct {
	usage, limit, failures int64
	kill                   *Kill // named, not yet told of as killed
}

// line takes the text of one record in; a kill is complete with its last line.
func (r *reader) line(text string) *Kill {
	switch {
	case strings.HasPrefix(text, "memory: usage "):
		_, err := fmt.Sscanf(text, "memory: usage %dkB, limit %dkB, failcnt %d", &r.usage, &r.limit, &r.failures)
		if err != nil || r.limit >= 1<<52 { // the largest number of pages, in kB: no limit
			r.usage, r.limit, r.failures = 0, 0, 0
		}
	case strings.HasPrefix(text, "oom-kill:"):
		f := fields(strings.TrimPrefix(text, "oom-kill:"))
		pid, _ := strconv.Atoi(f["pid"])
		r.kill = &Kill{Process: f["task"], PID: pid, Cgroup: path.Clean("/" + f["task_memcg"])}
		if limited, ok := f["oom_memcg"]; ok {
			r.kill.Limited = limited
			r.kill.Usage, r.kill.Limit, r.kill.Failures = r.usage<<10, r.limit<<10, r.failures
		}
		r.usage, r.limit, r.failures = 0, 0, 0
	case r.kill != nil && strings.Contains(text, "Killed process "+strconv.Itoa(r.kill.PID)+" "):
		k := r.kill
		r.kill = nil
		k.Anonymous, k.File, k.Shared = held(text, "anon-rss:"), held(text, "file-rss:"), held(text, "shmem-rss:")
		return k
	}
	return nil
}

// fields of "name=value,…"; the value of a name may have commas in it.
func fields(text string) map[string]string {
	out, last := map[string]string{}, ""
	for part := range strings.SplitSeq(text, ",") {
		if name, value, ok := strings.Cut(part, "="); ok {
			out[name], last = value, name
		} else if last != "" {
			out[last] += "," + part
		}
	}
	return out
}

func held(text, name string) int64 {
	_, rest, _ := strings.Cut(text, name)
	digits, _, _ := strings.Cut(rest, "kB")
	n, _ := strconv.ParseInt(digits, 10, 64)
	return n << 10
}

// record takes a record of the log apart: "priority,number,microseconds,flags;text", and lines of more about it.
func record(raw string) (since time.Duration, text string, ok bool) {
	head, text, ok := strings.Cut(raw, ";")
	parts := strings.SplitN(head, ",", 4)
	if !ok || len(parts) < 3 {
		return 0, "", false
	}
	micros, err := strconv.ParseInt(parts[2], 10, 64)
	text, _, _ = strings.Cut(text, "\n")
	return time.Duration(micros) * time.Microsecond, text, err == nil
}

// Watch tells of kills until ctx ends: first of those that the log still holds from before, which are old. Where the log may not be read,
// it says so once.
func Watch(ctx context.Context, log *slog.Logger, tell func(k *Kill, old bool)) error {
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		log.Info("the kernel's log cannot be read: events will not tell which process was killed for want of memory", "err", err)
		<-ctx.Done()
		return nil
	}
	defer context.AfterFunc(ctx, func() { _ = f.Close() })()
	began := uptime()
	var r reader
	buf := make([]byte, 8<<10) // a record is never longer
	for {
		n, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EPIPE): // records were overwritten before they were read; go on with the next there is
			continue
		case err != nil:
			log.Warn("the kernel's log cannot be read any more", "err", err)
			<-ctx.Done()
			return nil
		}
		at, text, ok := record(string(buf[:n]))
		if !ok {
			continue
		}
		if k := r.line(text); k != nil {
			tell(k, at < began)
		}
	}
}

// uptime by the clock that the kernel's log goes by.
func uptime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano()) - time.Second // the two clocks are not quite the same
}
