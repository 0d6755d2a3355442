package logs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
)

// Options of a reader.
type Options struct {
	Follow     bool
	Timestamps bool
	Tail       int64 // lines; negative for all
	Limit      int64 // bytes; negative for no limit
	Since      time.Time
	Stream     string // "stdout" or "stderr"; empty for both
}

// OptionsFrom those of the API.
func OptionsFrom(o *corev1.PodLogOptions, now time.Time) Options {
	out := Options{Follow: o.Follow, Timestamps: o.Timestamps, Tail: -1, Limit: -1}
	if o.TailLines != nil {
		out.Tail = *o.TailLines
	}
	if o.LimitBytes != nil {
		out.Limit = *o.LimitBytes
	}
	if o.SinceSeconds != nil {
		out.Since = now.Add(-time.Duration(*o.SinceSeconds) * time.Second)
	}
	if o.SinceTime != nil {
		out.Since = o.SinceTime.Time
	}
	if o.Stream != nil && *o.Stream != corev1.LogStreamAll {
		out.Stream = map[string]string{corev1.LogStreamStdout: "stdout", corev1.LogStreamStderr: "stderr"}[*o.Stream]
	}
	return out
}

// errFull ends a reader that has written all it may.
var errFull = errors.New("limit reached")

// Copy writes a container's log to w: rotated files and the live one. When following, it goes on until ctx ends or ended is closed
// and all that was written until then has been read.
func Copy(ctx context.Context, path string, o Options, ended <-chan struct{}, w io.Writer) error {
	c := &copier{o: o, w: w, left: o.Limit}
	err := c.run(ctx, path, ended)
	if errors.Is(err, errFull) || ctx.Err() != nil {
		return nil
	}
	return err
}

type copier struct {
	o    Options
	w    io.Writer
	left int64
	mid  bool // in the middle of a partial line
	had  bool // something was written since the last flush
}

func (c *copier) run(ctx context.Context, path string, ended <-chan struct{}) error {
	// Watch before reading, so that nothing slips in between.
	var events chan fsnotify.Event
	var failed chan error
	if c.o.Follow {
		watcher, err := fsnotify.NewWatcher()
		if err != nil {
			return err
		}
		defer watcher.Close()
		if err := watcher.Add(filepath.Dir(path)); err != nil {
			return err
		}
		events, failed = watcher.Events, watcher.Errors
	}
	t, old, err := newTailer(path)
	if err != nil {
		return err
	}
	defer func() { t.Close() }()
	var seen int64
	each := func(e *entry) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// What was written after the last lines were looked for is for those who follow.
		if seen++; !c.o.Follow && c.o.Tail >= 0 && seen > c.o.Tail {
			return errFull
		}
		return c.entry(e)
	}
	if err := c.history(t, old, each); err != nil {
		return err
	}
	for over := !c.o.Follow; ; {
		err := t.drain(over, each)
		c.flush()
		if err != nil || over {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			over = true
		case err := <-failed:
			if !errors.Is(err, fsnotify.ErrEventOverflow) { // too many to count; all that matters is that there are some
				return err
			}
		case _, ok := <-events:
			if !ok {
				return nil
			}
		}
	}
}

// history reads what of the rotated files is asked for, and puts the live one where reading begins.
func (c *copier) history(t *tailer, old []string, each func(*entry) error) error {
	skip := 0
	if c.o.Tail >= 0 {
		from, have, err := tailOf(t.f, int(c.o.Tail))
		if err != nil {
			return err
		}
		if _, err := t.f.Seek(from, io.SeekStart); err != nil {
			return err
		}
		if old, skip, err = lastLines(old, int(c.o.Tail)-have); err != nil {
			return err
		}
	}
	for _, name := range old {
		if !endedBefore(name, c.o.Since) {
			if err := readOld(name, skip, each); err != nil {
				return err
			}
		}
		skip = 0
	}
	return nil
}

// lastLines are the files that hold the last n lines, and how many lines of the first of them come before those.
func lastLines(files []string, n int) (in []string, skip int, err error) {
	for i := len(files) - 1; i >= 0 && n > 0; i-- {
		have, err := countLines(files[i])
		if err != nil {
			return nil, 0, err
		}
		in, skip = files[i:], max(have-n, 0)
		n -= have
	}
	return in, skip, nil
}

func countLines(path string) (n int, err error) {
	f, err := open(path)
	if err != nil {
		return 0, ignoreGone(err)
	}
	defer f.Close()
	buf := make([]byte, 32<<10)
	for {
		k, err := f.Read(buf)
		n += bytes.Count(buf[:k], []byte{'\n'})
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// tailOf says where the last n lines of a plain file begin, and how many of them it has.
func tailOf(f io.ReadSeeker, n int) (from int64, have int, err error) {
	if from, err = tailOffset(f, n); err != nil || from > 0 || n == 0 {
		return from, n, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, 0, err
	}
	buf := make([]byte, 32<<10)
	for {
		k, err := f.Read(buf)
		have += bytes.Count(buf[:k], []byte{'\n'})
		if err != nil {
			return 0, have, nil
		}
	}
}

func (c *copier) flush() {
	if f, ok := c.w.(interface{ Flush() }); ok && c.had {
		f.Flush()
	}
	c.had = false
}

// entry writes what is asked for.
func (c *copier) entry(e *entry) error {
	if c.o.Stream != "" && e.stream != c.o.Stream || !c.o.Since.IsZero() && e.time().Before(c.o.Since) {
		return nil
	}
	c.had = true
	return c.write(e)
}

func (c *copier) write(e *entry) error {
	if c.o.Timestamps && !c.mid {
		if err := c.put(append(bytes.Clone(e.stamp), ' ')); err != nil {
			return err
		}
	}
	c.mid = e.partial
	return c.put(e.text)
}

func (c *copier) put(b []byte) error {
	full := false
	if c.o.Limit >= 0 {
		if full = int64(len(b)) >= c.left; full {
			b = b[:c.left]
		}
		c.left -= int64(len(b))
	}
	if _, err := c.w.Write(b); err != nil {
		return err
	}
	if full {
		return errFull
	}
	return nil
}
