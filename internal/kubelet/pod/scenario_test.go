package pod

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/scenariotest"
)

// TestScenarios replays testdata/*.txt: a pod, then commands ("$ …") each followed by what came of it. Actions succeed at once in the world
// of these scripts, unless a command says otherwise; what a reader sees is what the plan did and what the status says afterwards.
func TestScenarios(t *testing.T) { scenariotest.Run(t, replay) }

type world struct {
	t     *testing.T
	pod   *corev1.Pod
	s     State
	now   time.Time
	ids   int
	hold  map[string]string    // container → reason its start fails with
	stuck map[string]bool      // containers that don't end when killed
	kills map[string]time.Time // container ID → when its grace period is over
	out   bytes.Buffer
	gone  bool
}

func replay(t *testing.T, script string) []byte {
	head, rest, ok := strings.Cut(script, "\n---\n")
	if !ok {
		t.Fatal("a scenario is a pod, then --- on a line, then commands")
	}
	w := &world{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), hold: map[string]string{}, stuck: map[string]bool{}, kills: map[string]time.Time{}}
	w.pod = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p", UID: "u", Generation: 1}}
	if err := yaml.UnmarshalStrict([]byte(head), &w.pod.Spec); err != nil {
		t.Fatal(err)
	}
	if w.pod.Spec.RestartPolicy == "" {
		w.pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	w.s = State{
		NetworkReady: true, Waiting: map[string]Waiting{}, Backoff: map[string]Backoff{}, Health: map[string]Health{},
		Retry: map[string]time.Time{}, Busy: map[string]bool{}, StopHooks: map[string]bool{},
	}
	w.out.WriteString(head + "\n---\n")
	for line := range strings.Lines(rest) {
		if strings.HasPrefix(line, "#") {
			w.out.WriteString(line)
			continue
		}
		command, ok := strings.CutPrefix(strings.TrimSpace(line), "$ ")
		if !ok {
			continue
		}
		fmt.Fprintf(&w.out, "$ %s\n", command)
		w.command(strings.Fields(command))
		w.settle()
	}
	return w.out.Bytes()
}

func (w *world) command(f []string) {
	switch f[0] {
	case "start":
	case "refuse": // refuse NodePorts
		w.s.Verdict = &Verdict{Reason: f[1], Message: "because"}
	case "evict": // evict Evicted 10s
		within, err := time.ParseDuration(f[2])
		if err != nil {
			w.t.Fatal(err)
		}
		w.s.EndBy = w.now.Add(within)
		if w.s.Verdict == nil && w.pod.DeletionTimestamp == nil {
			w.s.Verdict, w.s.Disrupted = &Verdict{Reason: f[1], Message: "because"}, true
		}
	case "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			w.t.Fatal(err)
		}
		w.now = w.now.Add(d)
	case "exit": // exit web 1
		code, _ := strconv.Atoi(f[2])
		c, _ := w.s.newest(f[1])
		w.end(c, int32(code))
	case "lose": // lose web: the runtime has forgotten it
		var left []Container
		for _, c := range w.s.Containers {
			if c.Name != f[1] {
				left = append(left, c)
			}
		}
		w.s.Containers = left
	case "sandbox-dies":
		w.s.Sandboxes[0].Ready = false
	case "health": // health web started ready | unhealthy=liveness
		c, _ := w.s.newest(f[1])
		h := Health{}
		for _, word := range f[2:] {
			switch kind, what, _ := strings.Cut(word, "="); kind {
			case "started":
				h.Started = true
			case "ready":
				h.Ready = true
			case "unhealthy":
				h.Unhealthy = what
			}
		}
		w.s.Health[c.ID] = h
	case "hold": // hold web ErrImagePull
		w.hold[f[1]] = f[2]
	case "release":
		delete(w.hold, f[1])
	case "stuck":
		w.stuck[f[1]] = true
	case "delete": // delete 30
		grace, _ := strconv.ParseInt(f[1], 10, 64)
		at := metav1.NewTime(w.now.Add(time.Duration(grace) * time.Second))
		w.pod.DeletionTimestamp, w.pod.DeletionGracePeriodSeconds = &at, &grace
	case "gone":
		w.s.Gone = true
	case "restart-kubelet":
		w.s = State{
			Observed: w.s.Observed, Gone: w.s.Gone, NetworkReady: w.s.NetworkReady, Waiting: map[string]Waiting{}, Backoff: map[string]Backoff{},
			Health: map[string]Health{}, Retry: map[string]time.Time{}, Busy: map[string]bool{}, StopHooks: map[string]bool{},
		}
	case "image": // image web v2
		Spec(w.pod, f[1]).Image = f[2]
	case "network":
		w.s.NetworkReady = f[1] == "up"
	default:
		w.t.Fatalf("no such command: %v", f)
	}
}

// settle lets the plan be carried out until nothing is left to do.
func (w *world) settle() {
	var plan Plan
	for range 50 {
		w.probe()
		plan = Next(w.pod, &w.s, w.now)
		if plan.Verdict != nil {
			w.s.Verdict = plan.Verdict
		}
		if plan.Ending && w.s.StopSince.IsZero() {
			w.s.StopSince = w.now
			plan = Next(w.pod, &w.s, w.now)
		}
		did := false
		for _, a := range plan.Actions {
			did = w.act(a) || did
		}
		if w.gone {
			return
		}
		status := Status(w.pod, &w.s, &plan, NodeFacts{IPs: []string{"192.0.2.1"}, RuntimeName: "test"}, w.now)
		w.pod.Status = status
		if plan.Ending && w.s.Cleaned && !w.s.Settled {
			w.s.Settled = true
			did = true
		}
		if !did {
			w.show(plan)
			return
		}
	}
	w.t.Fatalf("no end of it; so far:\n%s", w.out.String())
}

// probe gives running containers the health they have without probes.
func (w *world) probe() {
	for i := range w.s.Containers {
		c := &w.s.Containers[i]
		if _, known := w.s.Health[c.ID]; c.Running() && !known {
			one := Spec(w.pod, c.Name)
			w.s.Health[c.ID] = Health{Started: one.StartupProbe == nil, Ready: one.ReadinessProbe == nil}
		}
	}
}

func (w *world) act(a Action) bool {
	say := func(format string, args ...any) { fmt.Fprintf(&w.out, "  "+format+"\n", args...) }
	w.ids++
	w.now = w.now.Add(time.Millisecond)
	switch a.Verb {
	case Prepare:
		say("prepare")
		w.s.Prepared = true
	case CreateSandbox:
		say("create sandbox, attempt %d", a.Attempt)
		w.s.Sandboxes = append([]Sandbox{{ID: fmt.Sprintf("sandbox%d", a.Attempt), Attempt: a.Attempt, Ready: true, Created: w.now, IPs: []string{"10.0.0.1"}}}, w.s.Sandboxes...)
	case StopSandbox:
		say("stop %s", a.ID)
		for i := range w.s.Sandboxes {
			if w.s.Sandboxes[i].ID == a.ID {
				w.s.Sandboxes[i].Ready = false
			}
		}
		for i := range w.s.Containers {
			if c := &w.s.Containers[i]; c.SandboxID == a.ID && c.Running() {
				w.end(c, 137)
			}
		}
	case RemoveSandbox:
		say("remove %s", a.ID)
		var boxes []Sandbox
		for _, sb := range w.s.Sandboxes {
			if sb.ID != a.ID {
				boxes = append(boxes, sb)
			}
		}
		w.s.Sandboxes = boxes
		var left []Container
		for _, c := range w.s.Containers {
			if c.SandboxID != a.ID {
				left = append(left, c)
			}
		}
		w.s.Containers = left
	case Start:
		if last, _ := w.s.newest(a.Container); last.Exited() {
			w.s.Backoff[a.Container] = w.s.Backoff[a.Container].Next(last.Finished, w.now)
		}
		if reason := w.hold[a.Container]; reason != "" {
			say("start %s: %s", a.Container, reason)
			w.s.Waiting[a.Container] = Waiting{Reason: reason, Message: "because", Retry: w.now.Add(startRetry)}
			return true
		}
		delete(w.s.Waiting, a.Container)
		say("start %s #%d", a.Container, a.Restarts)
		w.s.Containers = append([]Container{{
			ID: fmt.Sprintf("%s%d", a.Container, a.Restarts), Name: a.Container, SandboxID: w.s.Sandboxes[0].ID, Restarts: a.Restarts,
			State: runtimeapi.ContainerState_CONTAINER_RUNNING, Created: w.now, Started: w.now, Hash: containerHash(Spec(w.pod, a.Container)),
		}}, w.s.Containers...)
	case Kill:
		by := w.now.Add(time.Duration(a.Grace) * time.Second)
		if w.stuck[a.Container] && w.s.Busy[a.Key()] && !by.Before(w.kills[a.ID].Add(-1500*time.Millisecond)) {
			return false
		}
		w.kills[a.ID] = by
		say("kill %s, grace %d", a.ID, a.Grace)
		if w.stuck[a.Container] {
			w.s.Busy[a.Key()] = true
			return false
		}
		w.end(w.s.find(a.ID), 143)
	case PreStop:
		say("run the preStop hook of %s, grace %d", a.ID, a.Grace)
		w.s.StopHooks[a.ID] = true
	case RemoveContainer:
		say("remove %s", a.ID)
		if !a.Ended.IsZero() {
			w.s.Backoff[a.Container] = w.s.Backoff[a.Container].Next(a.Ended, w.now)
		}
		var left []Container
		for _, c := range w.s.Containers {
			if c.ID != a.ID {
				left = append(left, c)
			}
		}
		w.s.Containers = left
	case CleanUp:
		say("clean up")
		w.s.Cleaned = true
	case Delete:
		say("delete")
		w.s.Gone = true
	case Forget:
		say("forget")
		w.gone = true
	}
	return true
}

func (w *world) end(c *Container, code int32) {
	if c == nil {
		w.t.Fatal("no such container")
	}
	c.State, c.ExitCode, c.Finished = runtimeapi.ContainerState_CONTAINER_EXITED, code, w.now
	c.Reason = "Completed"
	if code != 0 {
		c.Reason = "Error"
	}
}

func (w *world) show(plan Plan) {
	st := &w.pod.Status
	fmt.Fprintf(&w.out, "  = %s", st.Phase)
	if st.Reason != "" {
		fmt.Fprintf(&w.out, " (%s)", st.Reason)
	}
	for _, c := range st.Conditions {
		if c.Status == corev1.ConditionTrue && c.Type != corev1.PodScheduled {
			fmt.Fprintf(&w.out, " %s", c.Type)
		}
	}
	if !plan.Wake.IsZero() {
		fmt.Fprintf(&w.out, "; again in %s", plan.Wake.Sub(w.now).Round(time.Second))
	}
	w.out.WriteByte('\n')
	for _, list := range [][]corev1.ContainerStatus{st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses} {
		for i := range list {
			cs := &list[i]
			fmt.Fprintf(&w.out, "    %s: %s", cs.Name, stateText(cs.State))
			if cs.LastTerminationState.Terminated != nil {
				fmt.Fprintf(&w.out, ", before: %s", stateText(cs.LastTerminationState))
			}
			if cs.RestartCount > 0 {
				fmt.Fprintf(&w.out, ", restarts %d", cs.RestartCount)
			}
			if cs.Ready {
				w.out.WriteString(", ready")
			}
			w.out.WriteByte('\n')
		}
	}
}

func stateText(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Terminated != nil:
		return fmt.Sprintf("ended %d %s", s.Terminated.ExitCode, s.Terminated.Reason)
	case s.Waiting != nil && s.Waiting.Message != "":
		return s.Waiting.Reason + ` "` + s.Waiting.Message + `"`
	case s.Waiting != nil:
		return s.Waiting.Reason
	}
	return "?"
}
