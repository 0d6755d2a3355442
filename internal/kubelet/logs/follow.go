package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
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
	if errors.Is(err, errFull) {
		return nil
	}
	return err
}

type copier struct {
	o    Options
	w    io.Writer
	left int64
	mid  bool // in the middle of a partial line
}

func (c *copier) run(ctx context.Context, path string, ended <-chan struct{}) error {
	// Watch before reading, so that nothing slips in between.
	var watcher *fsnotify.Watcher
	if c.o.Follow {
		var err error
		if watcher, err = fsnotify.NewWatcher(); err != nil {
			return err
		}
		defer watcher.Close()
		if err := watcher.Add(filepath.Dir(path)); err != nil {
			return err
		}
	}
	files, err := c.files(path)
	if err != nil {
		return err
	}
	for _, one := range files[:len(files)-1] {
		if err := c.old(one); err != nil {
			return err
		}
	}
	last := files[len(files)-1]
	f, err := os.Open(last.path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	if _, err := f.Seek(last.from, io.SeekStart); err != nil {
		return err
	}
	r := &lineReader{r: bufio.NewReaderSize(f, 32<<10)}
	if err := c.lines(ctx, r, !c.o.Follow); err != nil || !c.o.Follow {
		return err
	}
	for {
		over := false
		select {
		case <-ctx.Done():
			return nil
		case <-ended:
			over, ended = true, nil
		case err := <-watcher.Errors:
			return err
		case _, ok := <-watcher.Events:
			if !ok {
				return nil
			}
		}
		if err := c.lines(ctx, r, over); err != nil {
			return err
		}
		next, err := replaced(f, path)
		if err != nil {
			return err
		}
		if next != nil {
			// What was written up to the moment of rotation is still in the old file.
			if err := c.lines(ctx, r, true); err != nil {
				next.Close()
				return err
			}
			f.Close()
			f, r = next, &lineReader{r: bufio.NewReaderSize(next, 32<<10)}
			if err := c.lines(ctx, r, over); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
	}
}

type part struct {
	path string
	from int64
}

// files to read, and where to begin in the first of them.
func (c *copier) files(path string) ([]part, error) {
	old, err := rotated(path)
	if err != nil {
		return nil, err
	}
	all := append(old, path)
	if c.o.Tail < 0 {
		out := make([]part, len(all))
		for i := range all {
			out[i].path = all[i]
		}
		return out, nil
	}
	// From the newest file back, until there are lines enough.
	var out []part
	need := int(c.o.Tail)
	for i := len(all) - 1; i >= 0; i-- {
		from, have, err := tailOf(all[i], need)
		if err != nil {
			return nil, err
		}
		out = append([]part{{all[i], from}}, out...)
		if need -= have; need <= 0 {
			break
		}
	}
	return out, nil
}

func tailOf(path string, n int) (from int64, have int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
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

func (c *copier) old(p part) error {
	f, err := os.Open(p.path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // rotated away meanwhile
		}
		return err
	}
	defer f.Close()
	if _, err := f.Seek(p.from, io.SeekStart); err != nil {
		return err
	}
	return c.lines(context.Background(), &lineReader{r: bufio.NewReaderSize(f, 32<<10)}, true)
}

// replaced opens the file that took the place of f, if one did.
func replaced(f *os.File, path string) (*os.File, error) {
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // about to come
	}
	if err != nil {
		return nil, err
	}
	have, err := f.Stat()
	if err != nil || os.SameFile(now, have) {
		return nil, err
	}
	return os.Open(path)
}

// lineReader keeps what it has of a line that isn't complete yet.
type lineReader struct {
	r    *bufio.Reader
	rest []byte
}

func (l *lineReader) next(final bool) ([]byte, error) {
	line, err := l.r.ReadBytes('\n')
	if err == nil {
		if len(l.rest) > 0 {
			line = append(l.rest, line...)
			l.rest = nil
		}
		return line, nil
	}
	l.rest = append(l.rest, line...)
	if err == io.EOF && final && len(l.rest) > 0 {
		line, l.rest = l.rest, nil
		return line, nil
	}
	return nil, err
}

// lines copies all complete lines; at the end of a file, an incomplete one as well.
func (c *copier) lines(ctx context.Context, r *lineReader, final bool) error {
	wrote := false
	defer func() {
		if f, ok := c.w.(interface{ Flush() }); ok && wrote {
			f.Flush()
		}
	}()
	for ctx.Err() == nil {
		line, err := r.next(final)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		e, ok := parse(line)
		if !ok || (c.o.Stream != "" && e.stream != c.o.Stream) {
			continue
		}
		if !c.o.Since.IsZero() && e.time().Before(c.o.Since) {
			continue
		}
		wrote = true
		if err := c.write(&e); err != nil {
			return err
		}
	}
	return nil
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
