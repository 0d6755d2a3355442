package logs

import (
	"container/heap"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/labels"
)

// Query of a search through all logs of a node.
type Query struct {
	Namespace string          // empty: all
	Selector  labels.Selector // of pods, by the labels they have or had last
	Match     *regexp.Regexp  // nil: every line
	Since     time.Time
	Follow    bool
}

// Line that was found.
type Line struct {
	Time      time.Time `json:"time"`
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
	UID       string    `json:"uid"`
	Container string    `json:"container"`
	Restart   int       `json:"restart"`
	Stream    string    `json:"stream,omitempty"`
	Text      string    `json:"text"`
	Gone      bool      `json:"gone,omitempty"` // the pod isn't any more
	// Live, without anything else, says that what comes after it is new; lines before it are in the order of their times.
	Live bool `json:"live,omitempty"`
}

// Searcher looks through the logs of a node.
type Searcher struct {
	live, gone string                              // folders
	labels     func() map[string]map[string]string // of the pods there are, by uid
}

// source is one container's log: all its files.
type source struct {
	id   Line // what its lines have in common
	path string
}

// settle is how long after its time stamp a line is in its file for sure.
const settle = time.Second

// Search hands lines to found, the oldest first. When following, it goes on until ctx ends.
func (s *Searcher) Search(ctx context.Context, q Query, found func(*Line) error) error {
	now := time.Now()
	until := time.Time{}
	if q.Follow {
		until = now.Add(-settle)
	}
	sources, err := s.sources(q)
	if err != nil {
		return err
	}
	if err := merge(ctx, sources, q, until, found); err != nil || !q.Follow {
		return err
	}
	if err := found(&Line{Time: now, Live: true}); err != nil {
		return err
	}
	q.Since = latest(q.Since, until.Add(1))
	return s.follow(ctx, q, found)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sources that a query is about.
func (s *Searcher) sources(q Query) ([]source, error) {
	var out []source
	for _, root := range []string{s.gone, s.live} {
		pods, err := s.pods(root, q)
		if err != nil {
			return nil, err
		}
		for _, p := range pods {
			out = append(out, containers(p, root == s.gone)...)
		}
	}
	return out, nil
}

// folder of a pod's logs.
type folder struct {
	dir string
	Owner
}

// pods below root that a query is about.
func (s *Searcher) pods(root string, q Query) (out []folder, err error) {
	dirs, err := os.ReadDir(root)
	if err != nil {
		return nil, ignoreGone(err)
	}
	now := s.labels()
	for _, d := range dirs {
		if q.Namespace != "" && !strings.HasPrefix(d.Name(), q.Namespace+"_") {
			continue
		}
		p := folder{dir: filepath.Join(root, d.Name())}
		p.Owner = owner(p.dir)
		if known, ok := now[p.UID]; ok {
			p.Labels = known
		}
		if q.Selector == nil || q.Selector.Matches(labels.Set(p.Labels)) {
			out = append(out, p)
		}
	}
	return out, nil
}

// containers whose logs a pod's folder holds, each restart for itself.
func containers(p folder, gone bool) (out []source) {
	files, _ := filepath.Glob(filepath.Join(p.dir, "*", "*.log*"))
	seen := map[string]bool{}
	for _, file := range files {
		stem, _, ok := strings.Cut(filepath.Base(file), ".log")
		path := filepath.Join(filepath.Dir(file), stem+".log")
		restart, err := strconv.Atoi(stem)
		if !ok || err != nil || seen[path] {
			continue
		}
		seen[path] = true
		out = append(out, source{path: path, id: Line{
			Namespace: p.Namespace, Pod: p.Name, UID: p.UID, Container: filepath.Base(filepath.Dir(file)), Restart: restart, Gone: gone,
		}})
	}
	return out
}

// longest line that is put together from its parts; what is longer comes in pieces.
const longest = 256 << 10

// picker makes lines of entries and keeps those that a query asks for.
type picker struct {
	q     Query
	until time.Time // zero: no end
	id    Line
	parts map[string][]byte // by stream: the two don't wait for one another's ends
}

// line that ends with this entry, if it is asked for.
func (p *picker) line(e *entry) (Line, bool) {
	text := e.text
	if before := p.parts[e.stream]; len(before) > 0 || e.partial {
		text = append(before, text...)
		if e.partial && len(text) < longest {
			if p.parts == nil {
				p.parts = map[string][]byte{}
			}
			p.parts[e.stream] = text
			return Line{}, false
		}
		delete(p.parts, e.stream)
	}
	at := e.time()
	if at.Before(p.q.Since) || !p.until.IsZero() && at.After(p.until) {
		return Line{}, false
	}
	if n := len(text); n > 0 && text[n-1] == '\n' {
		text = text[:n-1]
	}
	if p.q.Match != nil && !p.q.Match.Match(text) {
		return Line{}, false
	}
	out := p.id
	out.Time, out.Stream, out.Text = at, e.stream, string(text)
	return out, true
}

// cursor stands in one file of a source. Before it is opened all that is known is that it has nothing before its first line's time.
type cursor struct {
	file string
	pick *picker
	next Line
	f    io.ReadCloser
	r    *lineReader
}

// advance to the next line that is asked for; false at the end.
func (c *cursor) advance() (bool, error) {
	if c.r == nil {
		f, err := open(c.file)
		if err != nil {
			return false, ignoreGone(err)
		}
		c.f, c.r = f, newLineReader(f)
	}
	for {
		raw, err := c.r.next(true)
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return false, err
		}
		e, ok := parse(raw)
		if !ok {
			continue
		}
		if line, ok := c.pick.line(&e); ok {
			c.next = line
			return true, nil
		}
	}
}

// begin is the time of a file's first line.
func begin(file string) (time.Time, bool) {
	f, err := open(file)
	if err != nil {
		return time.Time{}, false
	}
	defer f.Close()
	raw, err := newLineReader(f).next(true)
	if err != nil {
		return time.Time{}, false
	}
	e, ok := parse(raw)
	return e.time(), ok
}

type cursors []*cursor

func (c cursors) Len() int           { return len(c) }
func (c cursors) Less(i, j int) bool { return c[i].next.Time.Before(c[j].next.Time) }
func (c cursors) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }
func (c *cursors) Push(x any)        { *c = append(*c, x.(*cursor)) }
func (c *cursors) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

// merge the lines of all sources by their times. A file is open only while lines of its time are handed out.
func merge(ctx context.Context, sources []source, q Query, until time.Time, found func(*Line) error) error {
	var open cursors
	defer func() {
		for _, c := range open {
			if c.f != nil {
				c.f.Close()
			}
		}
	}()
	for _, s := range sources {
		pick := &picker{q: q, until: until, id: s.id} // the files of a source follow one another, and so do a line's parts
		for _, file := range s.files() {
			if endedBefore(file, q.Since) {
				continue
			}
			if at, ok := begin(file); ok {
				open = append(open, &cursor{file: file, pick: pick, next: Line{Time: at}})
			}
		}
	}
	heap.Init(&open)
	for len(open) > 0 && ctx.Err() == nil {
		c := open[0]
		if c.r != nil {
			if err := found(&c.next); err != nil {
				return err
			}
		}
		more, err := c.advance()
		if err != nil {
			return err
		}
		if more {
			heap.Fix(&open, 0)
			continue
		}
		if heap.Pop(&open); c.f != nil {
			c.f.Close()
		}
	}
	return ctx.Err()
}

// files of a source, the oldest first.
func (s *source) files() []string {
	files, _ := rotated(s.path)
	return append(files, s.path)
}
