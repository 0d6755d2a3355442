// Package fairness makes requests wait for one another by FlowSchemas and PriorityLevelConfigurations, so that nobody's flood drowns the others.
//
// It is its own, not upstream's controller: that one adjusts borrowing on a clock, keeps samples of every request and needs informers; here a level borrows at
// the moment a request comes, a request that finds a seat costs one look at a list and one lock, and nothing runs while nobody waits. What the objects
// mean is upstream's: matching precedence, distinguishers, seats by nominal shares, lending and borrowing, shuffle-sharded queues, fair among flows.
// Its invariant: who got a seat gives it back, and a seat that is given back goes to somebody who waits, if anybody may have it.
//
// Package apiserver asks it before it answers a request.
package fairness

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/registry"
)

// Config of a controller.
type Config struct {
	Registry *registry.Registry
	Seats    int // for all levels together; 0 means upstream's 600
	Metrics  prometheus.Registerer
	Log      *slog.Logger
}

// Controller is safe for concurrent use.
type Controller struct {
	cfg   Config
	plan  atomic.Pointer[[]*schema]
	ready chan struct{}

	figures *figures

	mu     sync.Mutex // guards every level
	levels map[string]*level
}

// schema is a FlowSchema, ready for matching.
type schema struct {
	name        string
	uid         types.UID
	spec        flowcontrolv1.FlowSchemaSpec
	level       *level
	levelUID    types.UID // and exempt: the level's, which may be configured anew meanwhile
	exempt      bool
	figures     *flow
	byUser      bool
	byNamespace bool
}

const defaultSeats = 600

// New makes a controller that lets everybody through until Run.
func New(cfg Config) *Controller {
	if cfg.Seats == 0 {
		cfg.Seats = defaultSeats
	}
	c := &Controller{cfg: cfg, ready: make(chan struct{}), levels: map[string]*level{}, figures: newFigures()}
	c.plan.Store(&[]*schema{})
	if cfg.Metrics != nil {
		c.figures.register(cfg.Metrics)
		cfg.Metrics.MustRegister(c)
	}
	return c
}

// Ready is closed once the objects are known.
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// Pass is a request's seat, and which objects gave it.
type Pass struct {
	Schema, Level types.UID
	request       authorizer.Attributes
	schema        *schema
	at            *level // nil: it took no seat
	place         int    // among at.seated
	from          *queue // nil: it did not wait
	c             *Controller
	seats         int
	figures       *flow // nil: it was refused
	came, since   time.Time
}

// Waited says how long the request waited for its seat. It may be called on nil.
func (p *Pass) Waited() time.Duration {
	if p == nil {
		return 0
	}
	return p.since.Sub(p.came)
}

// Done gives the seat back. It may be called on nil.
func (p *Pass) Done() {
	if p == nil || p.figures == nil {
		return
	}
	p.figures.left(p.seats, time.Since(p.since))
	if p.at == nil {
		return
	}
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.at.leaves(p)
	p.c.dispatch()
}

// Refused says why a request got no seat: "queue-full", "concurrency-limit", "time-out", "cancelled".
type Refused struct{ Reason string }

func (r *Refused) Error() string { return "too many requests, please try again later" }

// Enter waits for a seat, or several for a request that costs more. The pass names the objects also when the request is refused; it is nil before Run.
func (c *Controller) Enter(ctx context.Context, at authorizer.Attributes, seats func() int, patience time.Duration) (*Pass, error) {
	s := c.match(at)
	if s == nil {
		return nil, nil
	}
	p := &Pass{Schema: s.uid, Level: s.levelUID, request: at, schema: s, c: c, came: time.Now()}
	if s.exempt {
		p.since = p.came
		p.seated()
		return p, nil
	}
	n := seats()
	c.mu.Lock()
	p.seats = max(1, min(n, s.level.nominal))
	if s.level.waiting == 0 && c.free(s.level, p.seats) {
		s.level.seat(p, nil)
		c.mu.Unlock()
		p.seated()
		return p, nil
	}
	w, reason := s.level.join(s.flow(at), p)
	c.mu.Unlock()
	if reason == "" {
		s.figures.queued.Inc()
		reason = c.wait(ctx, w, patience)
		s.figures.queued.Dec()
	}
	if reason != "" {
		s.figures.refused(reason, time.Since(p.came))
		return p, &Refused{reason}
	}
	p.seated()
	return p, nil
}

// seated: from here on Done is owed.
func (p *Pass) seated() {
	p.figures = p.schema.figures
	p.figures.seated(p.seats, p.since.Sub(p.came))
}

// wait returns "" once w has its seats, or why it didn't get them.
func (c *Controller) wait(ctx context.Context, w *waiter, patience time.Duration) string {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	reason := ""
	select {
	case <-w.seated:
		return ""
	case <-timer.C:
		reason = "time-out"
	case <-ctx.Done():
		reason = "cancelled"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-w.seated: // in the meantime
		return ""
	default:
	}
	w.at.leave(w)
	return reason
}

// match finds the first schema, by precedence, that a request fits.
func (c *Controller) match(at authorizer.Attributes) *schema {
	for _, s := range *c.plan.Load() {
		if s.matches(at) {
			return s
		}
	}
	return nil
}

// replan makes what the objects say the plan. Levels that stay keep their requests; a level that went takes no new ones.
func (c *Controller) replan(schemas []*flowcontrolv1.FlowSchema, configs []*flowcontrolv1.PriorityLevelConfiguration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	shares := int32(0)
	for _, p := range configs {
		shares += sharesOf(&p.Spec)
	}
	next := make(map[string]*level, len(configs))
	for _, p := range configs {
		l := c.levels[p.Name]
		if l == nil {
			l = &level{name: p.Name}
		}
		l.configure(p, c.cfg.Seats, shares)
		next[p.Name] = l
	}
	c.levels = next
	var plan []*schema
	for _, f := range schemas {
		l := next[f.Spec.PriorityLevelConfiguration.Name]
		if l == nil {
			continue // dangling
		}
		s := &schema{name: f.Name, uid: f.UID, spec: f.Spec, level: l, levelUID: l.uid, exempt: l.exempt, figures: c.figures.of(l.name, f.Name)}
		if d := f.Spec.DistinguisherMethod; d != nil {
			s.byUser, s.byNamespace = d.Type == flowcontrolv1.FlowDistinguisherMethodByUserType, d.Type == flowcontrolv1.FlowDistinguisherMethodByNamespaceType
		}
		plan = append(plan, s)
	}
	slices.SortFunc(plan, func(a, b *schema) int {
		return cmp.Or(cmp.Compare(a.spec.MatchingPrecedence, b.spec.MatchingPrecedence), cmp.Compare(a.name, b.name))
	})
	c.plan.Store(&plan)
	c.dispatch()
}
