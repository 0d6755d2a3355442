package store

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// EventType of an event.
type EventType int

// What can happen to an entry; Bookmark says only which revision has been reached.
const (
	Added EventType = iota
	Modified
	Deleted
	Bookmark // only Revision is set; InitialEnd marks the end of sendInitialEvents
)

// Event is one change. Entries are shared.
type Event struct {
	Type       EventType
	Entry      *Entry // Deleted: the last state, at the deletion's revision
	Prev       *Entry // Modified, Deleted: the state before
	Revision   int64
	InitialEnd bool
}

// eventLog is the newest events of a resource, within a budget of bytes. Events are numbered; first is the number of the oldest that is kept.
type eventLog struct {
	budget, bytes int
	events        []Event
	first         int64
	oldest        int64                 // everything after this revision is in the log, and maybe part of it
	last          int64                 // revision of the newest event
	grown         chan struct{}         // closed when an event comes; nil while nobody waits
	kept          map[*Watcher]struct{} // what these have not read yet stays, whatever the budget says
	narrow        narrow
}

// reset forgets everything: the log begins after rev.
func (l *eventLog) reset(rev int64) {
	l.first += int64(len(l.events))
	l.events, l.bytes, l.oldest, l.last = nil, 0, rev, rev
}

func (l *eventLog) append(e Event) {
	l.events = append(l.events, e)
	l.last = e.Revision
	l.bytes += eventSize(&e)
	drop := 0
	unread := l.unread()
	for l.bytes > l.budget && drop < len(l.events)-1 && l.first+int64(drop) < unread {
		l.bytes -= eventSize(&l.events[drop])
		l.oldest = l.events[drop].Revision
		l.events[drop] = Event{}
		drop++
	}
	if drop > 0 {
		l.first += int64(drop)
		l.events = l.events[drop:]
	}
	if l.grown != nil {
		close(l.grown)
		l.grown = nil
	}
}

// unread is the number of the first event that one of kept has yet to read.
func (l *eventLog) unread() int64 {
	n := l.end()
	for w := range l.kept {
		n = min(n, w.unread(n))
	}
	return n
}

// eventSize is what an event keeps alive beside what the tree holds anyway.
func eventSize(e *Event) int {
	n := 100
	if e.Prev != nil {
		n += e.Prev.size()
	}
	if e.Type == Deleted {
		n += e.Entry.size()
	}
	return n
}

// after is the index of the first event of a watch that resumes at a revision. Several events may share one, as what a transaction writes at once does: who
// has seen one of them need not have seen all, so these are shown again.
func (l *eventLog) after(rev int64) int {
	since := func(rev int64) int {
		return sort.Search(len(l.events), func(i int) bool { return l.events[i].Revision >= rev })
	}
	first, next := since(rev), since(rev+1)
	if next-first > 1 || next > first && l.oldest == rev {
		return first
	}
	return next
}

// announce puts an event into the log. Called with the store's lock held.
func (c *Collection) announce(e Event) {
	c.log.append(e)
	c.tell(&e, c.log.end()-1)
}

// end is the number of the event that comes next.
func (l *eventLog) end() int64 { return l.first + int64(len(l.events)) }

// WatchOptions of a watch. Revision 0 without FromNow: synthetic Added events for what exists (as of now, or with Any whatever memory holds), then what
// comes. Revision > 0: events after it, or 410 Expired; where several events share that revision, they come (again) too.
type WatchOptions struct {
	Predicate
	Revision  int64
	Any       bool // resourceVersion=0: whatever memory holds
	Initial   bool // sendInitialEvents: synthetic events, then a Bookmark with InitialEnd
	FromNow   bool // no synthetic events at all, only what comes after the current revision
	Bookmarks bool
	// Keep is for followers within the process, which must see everything: the log keeps what they have not read, until Stop.
	Keep bool
}

// bookmarkEvery is how often a quiet watch that asked for bookmarks gets one.
const bookmarkEvery = time.Minute

// Watcher is a cursor into the collection's event log. Next is not for concurrent use; Stop may be called from anywhere.
type Watcher struct {
	c         *Collection
	p         Predicate
	initial   []*Entry
	endMark   bool // the InitialEnd bookmark is still due
	bookmarks bool
	revision  int64 // of the newest event or bookmark delivered, or of the start
	from      int64 // a start that memory had not reached: what comes until then is not shown
	next      int64 // number of the next event in the log; see unread
	about     concern
	mine      []int64       // of a narrow watch: the numbers of the events that concern it, which it has yet to read
	wake      chan struct{} // of a narrow watch: there is one
	stopped   chan struct{}
	over      chan struct{} // the collection's, at the start; followers within the process go on until it is closed
}

// Watch starts a watch; see WatchOptions.
func (c *Collection) Watch(ctx context.Context, o WatchOptions) (*Watcher, error) {
	read := Read{Consistent: o.Revision == 0 && !o.Any}
	if o.Initial {
		read.MinRevision = o.Revision
	}
	if err := c.s.settle(ctx, read); err != nil {
		return nil, err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	w := &Watcher{c: c, p: o.Predicate, about: c.concernOf(&o.Predicate), bookmarks: o.Bookmarks, revision: c.s.revision, stopped: make(chan struct{})}
	w.next = c.log.end()
	switch {
	case o.FromNow:
	case o.Initial || o.Revision == 0:
		c.each(c.tree, &w.p, "", func(e *Entry) bool {
			w.initial = append(w.initial, e)
			return true
		})
		w.endMark = o.Initial && o.Bookmarks
	case o.Revision < c.log.oldest:
		return nil, apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", o.Revision, c.log.oldest))
	default:
		w.revision = o.Revision
		if o.Revision > c.s.revision {
			w.from = o.Revision
		}
		w.next = c.log.first + int64(c.log.after(o.Revision))
	}
	if w.about != (concern{}) {
		w.narrow()
	}
	if w.over = c.over; o.Keep {
		if c.log.kept == nil {
			c.log.kept = map[*Watcher]struct{}{}
		}
		c.log.kept[w] = struct{}{}
	}
	return w, nil
}

// narrow has the log tell the watch of events from now on. Those that are there already it has to look through.
func (w *Watcher) narrow() {
	l := &w.c.log
	w.wake = make(chan struct{}, 1)
	for ; w.next < l.end(); w.next++ {
		w.c.concerns(&l.events[w.next-l.first], w.about.index, func(value string) {
			if value == w.about.value {
				w.told(w.next)
			}
		})
	}
	l.narrow.add(w)
}

// unread is the number of the first event in the log that the watch has yet to look at; end if there is none.
func (w *Watcher) unread(end int64) int64 {
	switch {
	case w.wake == nil:
		return w.next
	case len(w.mine) > 0:
		return w.mine[0]
	}
	return end
}

// read goes past the event that unread names.
func (w *Watcher) read() {
	if w.wake == nil {
		w.next++
		return
	}
	if w.mine = w.mine[1:]; len(w.mine) == 0 {
		w.mine = nil
	}
}

// Stop ends the watch; Next returns.
func (w *Watcher) Stop() {
	w.c.s.mu.Lock()
	defer w.c.s.mu.Unlock()
	delete(w.c.log.kept, w)
	w.c.log.narrow.remove(w)
	select {
	case <-w.stopped:
	default:
		close(w.stopped)
	}
}

// Next blocks for at least one event and returns as many as are at hand, up to max, reusing buf; without buf it borrows one, only once there is
// something to put into it, and the caller may Recycle that. An error (410 Expired when the watcher fell
// behind the log; ctx's error) ends the watch. Selector watches see Added and Deleted on entering and leaving the selection.
func (w *Watcher) Next(ctx context.Context, buf []Event, max int) ([]Event, error) {
	if buf != nil {
		buf = buf[:0]
	}
	if out := w.takeInitial(buf, max); len(out) > 0 {
		return out, nil
	}
	var quiet <-chan time.Time
	if w.bookmarks {
		t := time.NewTimer(w.c.s.quiet)
		defer t.Stop()
		quiet = t.C
	}
	for {
		out, wait, err := w.take(buf, max)
		if len(out) > 0 || err != nil {
			return out, err
		}
		select {
		case <-wait:
		case <-w.over:
			if w.goesOn() {
				continue
			}
			return nil, ErrOver
		case <-quiet:
			w.revision = w.caughtUp()
			return append(buf, Event{Type: Bookmark, Revision: w.revision}), nil
		case <-w.stopped:
			return nil, context.Canceled
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ErrOver ends a watch of a custom resource that has changed or is gone.
var ErrOver = fmt.Errorf("the resource is defined anew: %w", context.Canceled)

// goesOn says that a follower stays although the row was replaced.
func (w *Watcher) goesOn() bool {
	w.c.s.mu.Lock()
	defer w.c.s.mu.Unlock()
	if _, follows := w.c.log.kept[w]; !follows || w.c.closed {
		return false
	}
	w.over = w.c.over
	return true
}

// spare are buffers for Next, so that a watch that is quiet holds none.
var spare = sync.Pool{New: func() any { b := make([]Event, 0, 16); return &b }}

// Recycle takes back what Next returned; its caller is done with it.
func Recycle(events []Event) {
	clear(events)
	events = events[:0]
	spare.Put(&events)
}

func (w *Watcher) takeInitial(buf []Event, max int) []Event {
	if buf == nil && (len(w.initial) > 0 || w.endMark) {
		buf = *spare.Get().(*[]Event)
	}
	for len(w.initial) > 0 && len(buf) < max {
		e := w.initial[0]
		w.initial[0] = nil
		w.initial = w.initial[1:]
		buf = append(buf, Event{Type: Added, Entry: e, Revision: e.rev})
	}
	if len(w.initial) == 0 {
		w.initial = nil
		if w.endMark && len(buf) < max {
			w.endMark = false
			buf = append(buf, Event{Type: Bookmark, Revision: w.revision, InitialEnd: true})
		}
	}
	return buf
}

// take copies the selected events at hand; where there are none it returns a channel that tells when there are more.
func (w *Watcher) take(buf []Event, max int) ([]Event, <-chan struct{}, error) {
	s, l, borrowed := w.c.s, &w.c.log, buf == nil
	s.mu.RLock()
	end := l.end()
	if w.unread(end) < l.first {
		oldest := l.oldest
		s.mu.RUnlock()
		return nil, nil, apierrors.NewResourceExpired(fmt.Sprintf("too old resource version: %d (%d)", w.revision, oldest))
	}
	if buf == nil && w.unread(end) < end {
		buf = *spare.Get().(*[]Event)
	}
	for at := w.unread(end); at < end && len(buf) < max; at = w.unread(end) {
		w.read()
		e := &l.events[at-l.first]
		if e.Revision <= w.from {
			continue
		}
		w.revision = e.Revision
		if seen, ok := w.see(e); ok {
			buf = append(buf, seen)
		}
	}
	if len(buf) > 0 || w.unread(end) < end {
		s.mu.RUnlock()
		return buf, closedChannel, nil
	}
	wait := l.grown
	s.mu.RUnlock()
	if cap(buf) > 0 && borrowed {
		Recycle(buf)
	}
	if w.wake != nil {
		return nil, w.wake, nil
	}
	if wait != nil {
		return nil, wait, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.next < l.end() {
		return nil, closedChannel, nil
	}
	if l.grown == nil {
		l.grown = make(chan struct{})
	}
	return nil, l.grown, nil
}

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// see is the event as this watch's selection sees it.
func (w *Watcher) see(e *Event) (Event, bool) {
	if !w.p.within(e.Entry.key) {
		return Event{}, false
	}
	if !w.p.selects() {
		return *e, true
	}
	now := e.Type != Deleted && w.p.match(w.c, e.Entry)
	return e.Selected(now, e.Prev != nil && w.p.match(w.c, e.Prev))
}

// Selected is the event as a selection sees it that holds the object now, and held it before.
func (e *Event) Selected(now, before bool) (Event, bool) {
	switch {
	case now && before:
		return *e, true
	case now:
		return Event{Type: Added, Entry: e.Entry, Revision: e.Revision}, true
	case before && e.Type == Deleted:
		return *e, true
	case before:
		return Event{Type: Deleted, Entry: e.Prev.at(e.Revision), Prev: e.Prev, Revision: e.Revision}, true
	}
	return Event{}, false
}

// Last is the bookmark of a watch that ends: how far it has seen. There is none if nobody asked for bookmarks, or before all of what there was at the start has been
// delivered.
func (w *Watcher) Last() (Event, bool) {
	if !w.bookmarks || len(w.initial) > 0 || w.endMark {
		return Event{}, false
	}
	return Event{Type: Bookmark, Revision: w.caughtUp()}, true
}

// caughtUp is the revision up to which this watch has seen everything.
func (w *Watcher) caughtUp() int64 {
	s, l := w.c.s, &w.c.log
	s.mu.RLock()
	defer s.mu.RUnlock()
	if w.unread(l.end()) < l.end() {
		return w.revision
	}
	return max(w.revision, s.revision)
}
