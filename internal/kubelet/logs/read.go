// Package logs reads and rotates container logs in the runtime's format: a line is "<RFC 3339 time> <stdout|stderr> <F|P> <text>", where P
// says that the line goes on in the next entry.
//
// On disk, rotated files are beside the live one: 0.log, then 0.log.<time>.gz or 0.log.<time>. Readers go through all of them, the oldest
// first, so rotation loses nothing for them. The folder of a pod that is gone moves, with pod.json that says whose it is, from logs/pods to
// logs/gone, where the Keeper looks after it.
package logs

import (
	"bytes"
	"io"
	"os"
	"time"
)

// entry is one line of a file.
type entry struct {
	stamp   []byte // as written
	stream  string
	partial bool
	text    []byte // with its newline, unless partial
}

// parse reads one line, including its newline.
func parse(line []byte) (entry, bool) {
	stamp, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return entry{}, false
	}
	stream, rest, ok := bytes.Cut(rest, []byte{' '})
	if !ok || (string(stream) != "stdout" && string(stream) != "stderr") {
		return entry{}, false
	}
	tag, text, ok := bytes.Cut(rest, []byte{' '})
	if !ok {
		return entry{}, false
	}
	e := entry{stamp: stamp, stream: string(stream), text: text, partial: len(tag) > 0 && tag[0] == 'P'}
	if e.partial {
		e.text = bytes.TrimSuffix(text, []byte{'\n'})
	}
	return e, true
}

func (e *entry) time() time.Time {
	t, err := time.Parse(time.RFC3339Nano, string(e.stamp))
	if err != nil {
		return time.Time{}
	}
	return t
}

// Last returns the text of a file's last lines, limited in number and bytes.
func Last(path string, lines, limit int) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	start, err := tailOffset(f, lines)
	if err != nil {
		return nil
	}
	if size, err := f.Seek(0, io.SeekEnd); err == nil && size-start > int64(limit)*4 {
		start = size - int64(limit)*4
	}
	raw := make([]byte, 0, limit)
	if _, err := f.Seek(start, io.SeekStart); err != nil {
		return nil
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil
	}
	for line := range bytes.Lines(data) {
		if e, ok := parse(line); ok {
			raw = append(raw, e.text...)
		}
	}
	if len(raw) > limit {
		raw = raw[len(raw)-limit:]
	}
	return raw
}

// tailOffset is where the last n lines of a file begin.
func tailOffset(f io.ReadSeeker, n int) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n <= 0 {
		return end, err
	}
	const block = 32 << 10
	buf := make([]byte, block)
	seen := 0
	for pos := end; pos > 0; {
		size := min(int64(block), pos)
		pos -= size
		if _, err := f.Seek(pos, io.SeekStart); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(f, buf[:size]); err != nil {
			return 0, err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || pos+i == end-1 {
				continue
			}
			if seen++; seen == n {
				return pos + i + 1, nil
			}
		}
	}
	return 0, nil
}
