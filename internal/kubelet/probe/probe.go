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
}

// New makes a worker that believes what initially says until it knows better. It begins at once, or when Begin is called.
func New(spec *corev1.Probe, target Target, begin, initially bool, report Report) *Worker {
	ctx, cancel := context.WithCancel(context.Background())
	w := &Worker{spec: spec, target: target, report: report, ctx: ctx, cancel: cancel}
	w.verdict = counter{success: max(spec.SuccessThreshold, 1), failure: max(spec.FailureThreshold, 1), ok: initially}
	if begin {
		w.Begin()
	}
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
	err := Ask(ctx, &w.spec.ProbeHandler, w.target)
	cancel()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		return
	}
	if err != nil {
		w.report.Failed(err.Error())
	}
	if ok, tell := w.verdict.add(err == nil); tell {
		w.report.Result(ok)
	}
	w.timer.Reset(max(w.period()-time.Since(begin), 0))
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
