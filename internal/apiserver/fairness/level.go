package fairness

import (
	"hash/fnv"
	"slices"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/types"
)

// level is a PriorityLevelConfiguration with the requests that are at it. The controller's lock guards it.
type level struct {
	name   string
	uid    types.UID
	exempt bool

	nominal  int // seats of its own
	lendable int // of them, what others may have while it doesn't need them
	borrow   int // seats it may have beyond its own; < 0 means any number

	queues   []*queue // none: requests that find no seat are refused
	hand     int
	longest  int
	seated   []*Pass // requests that have seats, in no order
	inUse    int     // what they have together
	waiting  int
	progress float64 // the least that a queue with requests has had
}

// queue holds the requests of a few flows. had is how many seats its requests have been given: the one that had least is next.
type queue struct {
	waiters []*waiter
	had     float64
}

type waiter struct {
	at     *level
	in     *queue
	pass   *Pass
	seated chan struct{}
}

// seat gives a request its seats.
func (l *level) seat(p *Pass, from *queue) {
	p.at, p.from, p.place, p.since = l, from, len(l.seated), time.Now()
	l.seated = append(l.seated, p)
	l.inUse += p.seats
}

// leaves takes a request's seats back.
func (l *level) leaves(p *Pass) {
	last := len(l.seated) - 1
	l.seated[p.place] = l.seated[last]
	l.seated[p.place].place = p.place
	l.seated[last] = nil
	l.seated = l.seated[:last]
	l.inUse -= p.seats
}

func sharesOf(s *flowcontrolv1.PriorityLevelConfigurationSpec) int32 {
	switch {
	case s.Limited != nil && s.Limited.NominalConcurrencyShares != nil:
		return *s.Limited.NominalConcurrencyShares
	case s.Exempt != nil && s.Exempt.NominalConcurrencyShares != nil:
		return *s.Exempt.NominalConcurrencyShares
	}
	return 0
}

// configure takes an object's settings. Who waits in a queue that is no more goes on waiting in it.
func (l *level) configure(p *flowcontrolv1.PriorityLevelConfiguration, seats int, shares int32) {
	l.uid, l.exempt = p.UID, p.Spec.Type == flowcontrolv1.PriorityLevelEnablementExempt
	if shares > 0 {
		l.nominal = (seats*int(sharesOf(&p.Spec)) + int(shares) - 1) / int(shares)
	}
	part := func(percent *int32) int {
		if percent == nil {
			return 0
		}
		return l.nominal * int(*percent) / 100
	}
	l.borrow = -1
	switch {
	case p.Spec.Exempt != nil:
		l.lendable = part(p.Spec.Exempt.LendablePercent)
	case p.Spec.Limited != nil:
		l.lendable = part(p.Spec.Limited.LendablePercent)
		if p.Spec.Limited.BorrowingLimitPercent != nil {
			l.borrow = part(p.Spec.Limited.BorrowingLimitPercent)
		}
	}
	q := &flowcontrolv1.QueuingConfiguration{}
	if p.Spec.Limited != nil && p.Spec.Limited.LimitResponse.Queuing != nil {
		q = p.Spec.Limited.LimitResponse.Queuing
	}
	l.hand, l.longest = int(q.HandSize), int(q.QueueLengthLimit)
	old := l.queues
	l.queues = slices.Clone(old[:min(len(old), int(q.Queues))])
	for len(l.queues) < int(min(q.Queues, mostQueues)) {
		l.queues = append(l.queues, &queue{})
	}
	for _, gone := range old[min(len(old), len(l.queues)):] {
		if len(gone.waiters) > 0 {
			l.queues = append(l.queues, gone)
		}
	}
}

// mostQueues bounds what a level's queues take of memory.
const mostQueues = 4096

// free says whether a level may have n more seats: of its own, or of what others can spare.
func (c *Controller) free(l *level, n int) bool {
	beyond := l.inUse + n - l.nominal
	if beyond <= 0 {
		return true
	}
	if l.borrow >= 0 && beyond > l.borrow {
		return false
	}
	spare := 0
	for _, other := range c.levels {
		if other != l {
			spare += min(other.lendable, max(0, other.nominal-other.inUse))
			spare -= max(0, other.inUse-other.nominal)
		}
	}
	return beyond <= spare
}

// join puts a request into the shortest queue of its flow's hand, or says why it is refused.
func (l *level) join(flow uint64, p *Pass) (*waiter, string) {
	if l.hand == 0 || len(l.queues) == 0 {
		return nil, "concurrency-limit"
	}
	q := l.shortest(flow)
	if len(q.waiters) >= l.longest {
		return nil, "queue-full"
	}
	if len(q.waiters) == 0 {
		q.had = max(q.had, l.progress) // a queue saves nothing up while it is empty
	}
	w := &waiter{at: l, in: q, pass: p, seated: make(chan struct{})}
	q.waiters = append(q.waiters, w)
	l.waiting++
	return w, ""
}

// shortest deals a flow its hand of queues, always the same, and picks one.
func (l *level) shortest(flow uint64) *queue {
	var best *queue
	for range min(l.hand, len(l.queues)) {
		q := l.queues[flow%uint64(len(l.queues))]
		if best == nil || len(q.waiters) < len(best.waiters) {
			best = q
		}
		flow = flow*6364136223846793005 + 1442695040888963407 // the next of Knuth's sequence
		flow ^= flow >> 29
	}
	return best
}

func (l *level) leave(w *waiter) {
	if at := slices.Index(w.in.waiters, w); at >= 0 {
		w.in.waiters = slices.Delete(w.in.waiters, at, at+1)
		l.waiting--
	}
}

// dispatch seats whoever may be seated now.
func (c *Controller) dispatch() {
	for _, l := range c.levels {
		for l.waiting > 0 {
			q := l.next()
			w := q.waiters[0]
			if !c.free(l, w.pass.seats) {
				break
			}
			q.waiters = slices.Delete(q.waiters, 0, 1)
			l.waiting--
			l.progress = q.had
			q.had += float64(w.pass.seats)
			l.seat(w.pass, q)
			close(w.seated)
		}
	}
}

// next is the queue with requests that has had least. There is one: somebody waits.
func (l *level) next() *queue {
	var best *queue
	for _, q := range l.queues {
		if len(q.waiters) > 0 && (best == nil || q.had < best.had) {
			best = q
		}
	}
	return best
}

// hash of a flow: its schema and what distinguishes it there.
func hash(parts ...string) uint64 {
	h := fnv.New64a()
	for _, p := range parts {
		_, _ = h.Write([]byte(p))
		_, _ = h.Write([]byte{0})
	}
	return h.Sum64()
}
