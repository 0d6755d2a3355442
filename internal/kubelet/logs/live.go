package logs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// follow the logs there are and those that come.
func (s *Searcher) follow(ctx context.Context, q Query, found func(*Line) error) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close()
	f := &followers{s: s, q: q, watcher: watcher, found: found, by: map[string]*follower{}}
	defer f.close()
	if err := f.update(); err != nil {
		return err
	}
	for {
		err := error(nil)
		select {
		case <-ctx.Done():
			return nil
		case err = <-watcher.Errors:
			if errors.Is(err, fsnotify.ErrEventOverflow) { // anything may have happened
				err = errors.Join(f.update(), f.all())
			}
		case event := <-watcher.Events:
			err = f.event(event)
		}
		if err != nil {
			return err
		}
	}
}

// followers read the logs of the pods that a query is about. The folders of all pods, of each such pod and of its containers are watched.
type followers struct {
	s       *Searcher
	q       Query
	watcher *fsnotify.Watcher
	found   func(*Line) error
	by      map[string]*follower // by path
}

type follower struct {
	*tailer
	pick picker
}

func (f *followers) close() {
	for _, one := range f.by {
		one.Close()
	}
}

func (f *followers) event(e fsnotify.Event) error {
	if e.Has(fsnotify.Create) {
		if err := f.update(); err != nil {
			return err
		}
	}
	if one := f.by[e.Name]; one != nil {
		return f.read(one, false)
	}
	if e.Has(fsnotify.Rename | fsnotify.Remove) {
		return f.ended(e.Name)
	}
	return nil
}

// update begins to follow what is new. Each folder is watched before it is read, so that nothing slips in between.
func (f *followers) update() error {
	if err := f.watcher.Add(f.s.live); err != nil {
		return err
	}
	pods, err := f.s.pods(f.s.live, f.q)
	if err != nil {
		return err
	}
	for _, p := range pods {
		if err := f.watch(p.dir); err != nil {
			return err
		}
		dirs, _ := filepath.Glob(filepath.Join(p.dir, "*"))
		for _, dir := range dirs {
			if info, err := os.Stat(dir); err == nil && info.IsDir() {
				if err := f.watch(dir); err != nil {
					return err
				}
			}
		}
		for _, src := range containers(p, false) {
			if err := f.begin(src); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *followers) watch(dir string) error { return ignoreGone(f.watcher.Add(dir)) }

func (f *followers) begin(src source) error {
	if f.by[src.path] != nil {
		return nil
	}
	t, old, err := newTailer(src.path)
	if err != nil {
		return ignoreGone(err)
	}
	one := &follower{tailer: t, pick: picker{q: f.q, id: src.id}}
	f.by[src.path] = one
	for _, file := range old {
		if !endedBefore(file, f.q.Since) {
			if err := readOld(file, 0, f.pass(one)); err != nil {
				return err
			}
		}
	}
	return f.read(one, false)
}

func (f *followers) read(one *follower, over bool) error { return one.drain(over, f.pass(one)) }

func (f *followers) pass(one *follower) func(*entry) error {
	return func(e *entry) error {
		if line, ok := one.pick.line(e); ok {
			return f.found(&line)
		}
		return nil
	}
}

// ended reads the rest of what was in a folder that went away: its pod is gone.
func (f *followers) ended(dir string) error {
	for path, one := range f.by {
		if !strings.HasPrefix(path, dir+string(filepath.Separator)) {
			continue
		}
		_ = f.watcher.Remove(filepath.Dir(path)) // once for all files in it
		delete(f.by, path)
		if err := errors.Join(f.read(one, true), one.Close()); err != nil {
			return err
		}
	}
	return nil
}

// all logs are read.
func (f *followers) all() error {
	for _, one := range f.by {
		if err := f.read(one, false); err != nil {
			return err
		}
	}
	return nil
}
