// Package probe asks containers how they are.
//
// A Worker repeats one probe of one container at its period and reports changes; between two attempts it costs a timer, no goroutine.
// Its invariant: after Stop nothing is reported any more. The pod's actor owns the workers.
package probe

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Target is whom to ask.
type Target struct {
	Container *corev1.Container
	ID        string
	Address   string // the pod's
	Started   time.Time
	Runtime   runtimeapi.RuntimeServiceClient
}

// Report is called from the worker's goroutine.
type Report struct {
	Result func(ok bool)        // the verdict changed, after as many attempts as the thresholds ask for; once more for each further failure verdict
	Failed func(message string) // one attempt failed
	Warned func(message string) // one attempt succeeded in an odd way
	// Attempted, if set, is told of each attempt that counts.
	Attempted func(ok bool)
}

// Worker repeats a probe.
type Worker struct {
	spec   *corev1.Probe
	target Target
	report Report
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex
	timer   *time.Timer
	verdict counter
	active  bool
	// Until it first succeeds, an eager probe is also asked between its periods: a container that takes 200 ms to listen need not wait for the next
	// period to be ready. Such attempts count only if they succeed.
	eager time.Duration // until the next attempt of that kind; 0: never
	due   time.Time     // when the next regular attempt is
}

// firstEager is the wait before the first attempt between periods; each further one waits twice as long.
const firstEager = 50 * time.Millisecond

// Eager makes a probe that waits for a first success ask more often at first. Call it before Begin; it is for readiness and startup probes.
func (w *Worker) Eager() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.verdict.ok && w.verdict.success == 1 {
		w.eager = firstEager
	}
}

// New makes a worker that believes what initially says until it knows better. It does nothing before Begin.
func New(spec *corev1.Probe, target Target, initially bool, report Report) *Worker {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Worker{spec: spec, target: target, report: report, ctx: ctx, cancel: cancel}
	w.verdict = counter{success: max(spec.SuccessThreshold, 1), failure: max(spec.FailureThreshold, 1), ok: initially}
	return w
}

// Begin starts probing, once the initial delay is over.
func (w *Worker) Begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.active || w.ctx.Err() != nil {
		return
	}
	w.active = true
	first := time.Until(w.target.Started.Add(time.Duration(w.spec.InitialDelaySeconds) * time.Second))
	if first < 0 {
		first = 0
		// Taking over many containers at once: don't ask all of them in the same instant.
		if time.Since(w.target.Started) > w.period()+time.Duration(w.spec.InitialDelaySeconds)*time.Second {
			first = rand.N(min(w.period(), time.Second))
		}
	}
	w.due = time.Now().Add(first)
	if w.eager > 0 {
		w.due = w.due.Add(w.period()) // a container that has just begun is not unhealthy for not listening yet
	}
	w.timer = time.AfterFunc(first, w.attempt)
}

// Stop ends the worker; an attempt that runs is called off.
func (w *Worker) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancel()
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *Worker) period() time.Duration {
	return time.Duration(max(w.spec.PeriodSeconds, 1)) * time.Second
}

func (w *Worker) attempt() {
	begin := time.Now()
	ctx, cancel := context.WithTimeout(w.ctx, time.Duration(max(w.spec.TimeoutSeconds, 1))*time.Second)
	warning, err := Ask(ctx, &w.spec.ProbeHandler, w.target)
	cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		return
	}
	regular := !begin.Before(w.due)
	if regular {
		w.due = begin.Add(w.period())
	}
	if err != nil && regular {
		w.report.Failed(err.Error())
	}
	if warning != "" && regular {
		w.report.Warned(warning)
	}
	if err == nil || regular {
		if w.report.Attempted != nil {
			w.report.Attempted(err == nil)
		}
		if ok, tell := w.verdict.add(err == nil); tell {
			w.report.Result(ok)
		}
	}
	w.timer.Reset(max(w.pause(err == nil), 0))
}

// pause is how long to wait for the next attempt.
func (w *Worker) pause(succeeded bool) time.Duration {
	next := time.Until(w.due)
	if succeeded || w.eager >= w.period() {
		w.eager = 0
	}
	if w.eager == 0 {
		return next
	}
	wait := w.eager
	w.eager *= 2
	return min(wait, next)
}

// counter turns attempts into verdicts: as many equal results in a row as the threshold asks for.
type counter struct {
	success, failure int32
	ok               bool // the present verdict
	said             bool // at least one verdict was told
	last             bool
	run              int32
}

// add counts one attempt. tell is set when the verdict changes, is the first, or is a failure again.
func (c *counter) add(ok bool) (verdict, tell bool) {
	if c.run == 0 || c.last != ok {
		c.last, c.run = ok, 0
	}
	c.run++
	need := c.success
	if !ok {
		need = c.failure
	}
	if c.run < need {
		return c.ok, false
	}
	tell = !c.said || c.ok != ok || (!ok && c.run%need == 0)
	c.ok, c.said = ok, true
	return ok, tell
}
