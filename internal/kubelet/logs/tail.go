package logs

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"
)

// lineReader keeps what it has of a line that isn't complete yet.
type lineReader struct {
	r    *bufio.Reader
	rest []byte
}

func newLineReader(r io.Reader) *lineReader { return &lineReader{r: bufio.NewReaderSize(r, 32<<10)} }

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

// each complete entry there is now; at the end of a file (final), an incomplete one as well. What is no entry is passed over.
func (l *lineReader) each(final bool, do func(*entry) error) error {
	for {
		line, err := l.next(final)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if e, ok := parse(line); ok {
			if err := do(&e); err != nil {
				return err
			}
		}
	}
}

// tailer reads a log that is being written, from one rotation to the next.
type tailer struct {
	path string
	f    *os.File
	r    *lineReader
	seen string // the stem of the newest rotated file when f was opened
}

// newTailer opens the live file, and says which files were rotated before it.
func newTailer(path string) (t *tailer, old []string, err error) {
	for wait := time.Millisecond; ; {
		if old, err = rotated(path); err != nil {
			return nil, nil, err
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) && len(old) > 0 && wait < 100*time.Millisecond {
			time.Sleep(wait) // it was just rotated, and the runtime is about to make the next
			wait *= 2
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		// If the log was rotated in between, the live file isn't the successor of what was listed.
		again, err := rotated(path)
		if err == nil && newestStem(again) == newestStem(old) {
			return &tailer{path: path, f: f, r: newLineReader(f), seen: newestStem(old)}, old, nil
		}
		f.Close()
		if err != nil {
			return nil, nil, err
		}
	}
}

func newestStem(files []string) string {
	if len(files) == 0 {
		return ""
	}
	return stem(files[len(files)-1])
}

func (t *tailer) Close() error { return t.f.Close() }

// drain reads all there is, also what was rotated since the last time; the end of a log that nobody writes to any more is read
// whether it is complete or not.
func (t *tailer) drain(over bool, do func(*entry) error) error {
	if err := t.r.each(over, do); err != nil {
		return err
	}
	moved, err := replaced(t.f, t.path)
	if err != nil || !moved {
		return err
	}
	next, old, err := newTailer(t.path)
	if err != nil {
		return ignoreGone(err)
	}
	// What was written up to the moment of rotation is still in the old file; after it come those that were rotated while nobody looked.
	if err := t.r.each(true, do); err != nil {
		next.Close()
		return err
	}
	// The first of them, compressed or not, is the file that is open here.
	missed := after(old, t.seen)
	for _, name := range missed[min(1, len(missed)):] {
		if err := readOld(name, 0, do); err != nil {
			next.Close()
			return err
		}
	}
	t.f.Close()
	*t = *next
	return t.r.each(over, do)
}

// after lists the files that were rotated later than the one with that stem.
func after(files []string, seen string) []string {
	for i, name := range files {
		if stem(name) > seen {
			return files[i:]
		}
	}
	return nil
}

// replaced says whether another file took the place of f.
func replaced(f *os.File, path string) (bool, error) {
	now, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // about to come
	}
	if err != nil {
		return false, err
	}
	have, err := f.Stat()
	return err == nil && !os.SameFile(now, have), err
}

// readOld reads a rotated file, without its first lines. One that is gone was the oldest, and too old to be kept.
func readOld(path string, skip int, do func(*entry) error) error {
	f, err := open(path)
	if err != nil {
		return ignoreGone(err)
	}
	defer f.Close()
	r := newLineReader(f)
	for ; skip > 0; skip-- {
		if _, err := r.next(true); err != nil {
			return nil
		}
	}
	return r.each(true, do)
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
