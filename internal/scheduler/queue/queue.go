// Package queue holds the pods that have no node yet.
//
// A pod is in exactly one of five sets: active (to be tried now, the highest priority first, then who has waited longest since it was tried last), backing off
// (tried lately, and something that might help has changed since; active once its time is up, or when there is nothing else to do), failed (likewise, but it could
// not be found out or written what becomes of it, so it always waits), unschedulable (waits for a change that might help) or held (until the others of its group
// are there). The clock is the caller's. Only the scheduler's own goroutine uses it.
package queue

import (
	"container/heap"
	"time"

	"k8s.io/apimachinery/pkg/types"
	helpers "k8s.io/component-helpers/scheduling/corev1"

	"skiff.dev/skiff/internal/scheduler/class"
	"skiff.dev/skiff/internal/scheduler/cluster"
)

// Longest is how long a pod is left unschedulable without another try, in case no event told of what would help.
const Longest = 5 * time.Minute

// Patience is how long a pod is held back before that is worth telling: most groups are complete in a moment.
const Patience = 5 * time.Second

// Unit is what the pods of a group have in common.
type Unit struct {
	First    bool   // before all others
	Priority *int32 // instead of the pods' own
}

// Entry is a pod in the queue.
type Entry struct {
	Pod      *cluster.Pod
	Attempts int
	Verdict  string       // the last one that was written to the pod
	Told     time.Time    // an event of it
	Class    *class.Class // of the last try; nil: not known, or of no use any more
	Others   uint64       // the class' at that time
	Since    time.Time    // in the queue
	Unit     *Unit        // nil for most

	back     time.Time      // in the queue, after the last try if there was one
	refusals int            // tries that found no node
	failures int            // tries of which nothing came, since the last refusal
	tried    time.Time      // last
	due      time.Time      // backing off until, or unschedulable at the latest until
	refused  cluster.Change // what might help
	in       *set
	at       int // position in its set
}

// Queue of pods.
type Queue struct {
	entries                                map[types.UID]*Entry
	active, backoff, failed, unschedulable set
	held, told                             set            // of those that are held: not told yet, and told
	wanted                                 cluster.Change // by any unschedulable pod, or more
	first, last                            time.Duration  // back-off
	began                                  time.Time
}

// window is how exactly pods that back off are told apart: those that are due in the same one are in the order of active ones, and become active together.
const window = time.Second

// New returns an empty queue whose pods wait from first to last before another try.
func New(first, last time.Duration) *Queue {
	byDue := func(a, b *Entry) bool { return a.due.Before(b.due) }
	q := &Queue{
		first: first, last: last,
		entries:       map[types.UID]*Entry{},
		active:        set{less: Before},
		failed:        set{less: byDue},
		unschedulable: set{less: byDue},
		held:          set{less: byDue},
		told:          set{less: byDue},
	}
	q.backoff.less = func(a, b *Entry) bool {
		if x, y := q.window(a.due), q.window(b.due); x != y {
			return x < y
		}
		return Before(a, b)
	}
	return q
}

// window numbers windows, on the clock that the caller's times were read from.
func (q *Queue) window(t time.Time) int64 { return int64(t.Sub(q.began) / window) }

// Before is the order in which pods are tried.
func Before(a, b *Entry) bool {
	if a.Unit != nil || b.Unit != nil {
		if x, y := a.first(), b.first(); x != y {
			return x
		}
	}
	if p, q := a.priority(), b.priority(); p != q {
		return p > q
	}
	return a.back.Before(b.back)
}

func (e *Entry) first() bool { return e.Unit != nil && e.Unit.First }

func (e *Entry) priority() int32 {
	if e.Unit != nil && e.Unit.Priority != nil {
		return *e.Unit.Priority
	}
	return helpers.PodPriority(e.Pod.Pod)
}

// Len counts the pods in each set.
func (q *Queue) Len() (active, backoff, unschedulable int) {
	return len(q.active.list), len(q.backoff.list) + len(q.failed.list), len(q.unschedulable.list)
}

// Add puts a pod in, or brings the one that is in up to date. again says that what changed about it may let it be scheduled.
func (q *Queue) Add(p *cluster.Pod, again bool, now time.Time) {
	e := q.entries[p.UID]
	if e == nil {
		q.active.push(q.enter(p, now))
		return
	}
	e.Pod = p
	if e.in == &q.active || e.in == &q.backoff {
		heap.Fix(e.in, e.at)
	}
	if again && e.in == &q.unschedulable {
		q.retry(e, now)
	}
}

func (q *Queue) enter(p *cluster.Pod, now time.Time) *Entry {
	if q.began.IsZero() {
		q.began = now
	}
	e := &Entry{Pod: p, Since: now, back: now}
	q.entries[p.UID] = e
	return e
}

// Renew brings a pod up to date that was popped and is not back: it may come back.
func (q *Queue) Renew(p *cluster.Pod) {
	if e := q.entries[p.UID]; e != nil && e.in == nil {
		e.Pod = p
	}
}

// Remove forgets a pod.
func (q *Queue) Remove(uid types.UID) {
	if e := q.entries[uid]; e != nil {
		delete(q.entries, uid)
		e.leave()
	}
}

// Pop takes the next active pod, or if there is none, the next of those that back off; nil if there is none either. It stays known until Remove; it comes back
// with Refuse.
func (q *Queue) Pop(now time.Time) *Entry {
	for len(q.backoff.list) > 0 && q.window(q.backoff.list[0].due) < q.window(now) {
		q.move(q.backoff.list[0], &q.active)
	}
	for _, s := range []*set{&q.failed, &q.unschedulable} {
		for len(s.list) > 0 && !s.list[0].due.After(now) {
			q.move(s.list[0], &q.active)
		}
	}
	var e *Entry
	switch {
	case len(q.active.list) > 0:
		e = q.active.list[0]
	case len(q.backoff.list) > 0:
		e = q.backoff.list[0]
	default:
		return nil
	}
	e.leave()
	e.Attempts++
	e.tried = now
	return e
}

// Take takes a pod out as Pop does, whichever set it is in, because another of its group is tried; nil if it is in none.
func (q *Queue) Take(uid types.UID, now time.Time) *Entry {
	e := q.entries[uid]
	if e == nil || e.in == nil {
		return nil
	}
	e.leave()
	e.Attempts++
	e.tried = now
	return e
}

// Postpone puts a popped pod back untried: nothing is to be done about it before due.
func (q *Queue) Postpone(e *Entry, due time.Time) {
	e.Attempts--
	e.due = due
	q.move(e, &q.failed)
}

// Join says what unit a pod belongs to; it is called again when that changes.
func (q *Queue) Join(uid types.UID, u *Unit) {
	if e := q.entries[uid]; e != nil {
		e.Unit = u
		if e.in == &q.active || e.in == &q.backoff {
			heap.Fix(e.in, e.at)
		}
	}
}

// Hold keeps a pod back until Admit. anew says that what it waits for is another thing than before.
func (q *Queue) Hold(uid types.UID, anew bool, now time.Time) {
	e := q.entries[uid]
	if e == nil || (e.in == &q.held || e.in == &q.told) && !anew {
		return
	}
	e.due = now.Add(Patience)
	q.move(e, &q.held)
}

// Admit ends Hold.
func (q *Queue) Admit(uid types.UID) {
	if e := q.entries[uid]; e != nil && (e.in == &q.held || e.in == &q.told) {
		q.move(e, &q.active)
	}
}

// Held says that a pod is held back.
func (q *Queue) Held(e *Entry) bool { return e.in == &q.held || e.in == &q.told }

// Overdue returns a pod that has been held back for so long that it is to be told, nil if there is none. Each is returned once.
func (q *Queue) Overdue(now time.Time) *Entry {
	if len(q.held.list) == 0 || q.held.list[0].due.After(now) {
		return nil
	}
	e := q.held.list[0]
	q.move(e, &q.told)
	return e
}

// Stir gives an unschedulable pod another try, after its pause: something about its group changed.
func (q *Queue) Stir(uid types.UID, now time.Time) {
	if e := q.entries[uid]; e != nil && e.in == &q.unschedulable {
		q.retry(e, now)
	}
}

// Refuse puts a popped pod back: no node would do, and helps says which changes might alter that.
func (q *Queue) Refuse(e *Entry, helps cluster.Change, now time.Time) {
	e.refused = helps
	q.wanted |= helps
	e.due, e.back = now.Add(Longest), now
	e.refusals, e.failures = e.refusals+1, 0
	q.move(e, &q.unschedulable)
}

// Fail puts a pod back that could not be bound: it is tried again after a while.
func (q *Queue) Fail(p *cluster.Pod, attempts int, now time.Time) {
	e := q.entries[p.UID]
	if e == nil {
		e = q.enter(p, now)
	}
	e.Attempts, e.tried, e.back = max(attempts, 1), now, now
	e.failures++
	e.due = now.Add(q.Pause(e.failures))
	q.move(e, &q.failed)
}

// Wants says whether a change might help any unschedulable pod.
func (q *Queue) Wants(what cluster.Change) bool {
	return q.wanted&what != 0 && len(q.unschedulable.list) > 0
}

// Wake gives those pods another try that a change might help and of which helped says so too. A pod that the change did not help may now be refused
// for another reason: then helped also says what else might help it.
func (q *Queue) Wake(what cluster.Change, now time.Time, helped func(e *Entry) (yes bool, helps cluster.Change)) {
	var woken []*Entry
	q.wanted = 0
	for _, e := range q.unschedulable.list {
		if e.refused&what != 0 {
			yes, helps := helped(e)
			e.refused |= helps
			if yes {
				woken = append(woken, e)
			}
		}
		q.wanted |= e.refused
	}
	for _, e := range woken {
		q.retry(e, now)
	}
}

// Retry gives a pod that was just refused another try at once.
func (q *Queue) Retry(e *Entry) { q.move(e, &q.active) }

// Missed gives a pod that was just refused another try, after its pause: what might help it changed while it was being tried.
func (q *Queue) Missed(e *Entry, now time.Time) { q.retry(e, now) }

// Again is for a pod whose verdict could not be told: it is forgotten, and the pod tried anew after its pause.
func (q *Queue) Again(uid types.UID, now time.Time) {
	e := q.entries[uid]
	if e == nil {
		return
	}
	e.Verdict = ""
	switch e.in {
	case &q.unschedulable:
		e.due = now.Add(q.Pause(e.refusals))
		q.move(e, &q.failed)
	case &q.told:
		q.Hold(uid, true, now)
	}
}

// Get finds a pod's entry, nil if it is not in the queue.
func (q *Queue) Get(uid types.UID) *Entry { return q.entries[uid] }

// State says in which set an entry is, in words.
func (q *Queue) State(e *Entry) string {
	switch e.in {
	case &q.active:
		return "waits for its turn"
	case &q.backoff, &q.failed:
		return "waits before the next try"
	case &q.held, &q.told:
		return "waits for its group"
	case nil:
		return "is being looked at"
	}
	return "waits for a change that might help"
}

// Tried is when the last try was.
func (e *Entry) Tried() time.Time { return e.tried }

// Waits says until when a pod waits at the latest, and for which changes; false if it is about to be tried.
func (q *Queue) Waits(e *Entry) (until time.Time, helps cluster.Change, waits bool) {
	switch e.in {
	case &q.backoff, &q.failed:
		return e.due, 0, true
	case &q.unschedulable:
		return e.due, e.refused, true
	}
	return time.Time{}, 0, false
}

// Next is when a pod becomes active by itself; false if none will.
func (q *Queue) Next() (at time.Time, ok bool) {
	for _, s := range []*set{&q.backoff, &q.failed, &q.unschedulable, &q.held} {
		if len(s.list) > 0 && (!ok || s.list[0].due.Before(at)) {
			at, ok = s.list[0].due, true
		}
	}
	return at, ok
}

func (q *Queue) retry(e *Entry, now time.Time) {
	if due := e.back.Add(q.Pause(e.refusals)); due.After(now) {
		e.due = due
		q.move(e, &q.backoff)
		return
	}
	q.move(e, &q.active)
}

// Pause after so many tries.
func (q *Queue) Pause(tries int) time.Duration {
	if tries <= 0 {
		return 0
	}
	doublings := min(tries-1, 62)
	if q.first > q.last>>doublings {
		return q.last
	}
	return q.first << doublings
}

func (q *Queue) move(e *Entry, to *set) {
	e.leave()
	to.push(e)
}

func (e *Entry) leave() {
	if e.in != nil {
		heap.Remove(e.in, e.at)
	}
}

// set is a heap whose entries know their place.
type set struct {
	list []*Entry
	less func(a, b *Entry) bool
}

func (s *set) push(e *Entry)      { heap.Push(s, e) }
func (s *set) Len() int           { return len(s.list) }
func (s *set) Less(i, j int) bool { return s.less(s.list[i], s.list[j]) }
func (s *set) Swap(i, j int) {
	s.list[i], s.list[j] = s.list[j], s.list[i]
	s.list[i].at, s.list[j].at = i, j
}

// Push and Pop are container/heap's.
func (s *set) Push(x any) {
	e := x.(*Entry)
	e.in, e.at = s, len(s.list)
	s.list = append(s.list, e)
}

func (s *set) Pop() any {
	last := len(s.list) - 1
	e := s.list[last]
	s.list[last] = nil
	s.list = s.list[:last]
	e.in = nil
	return e
}
