package job

import (
	"fmt"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

// task is a job; completions below zero are none.
func task(completions, parallelism int32, changes ...func(j *batchv1.Job)) *batchv1.Job {
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "task", UID: "job"}, Spec: batchv1.JobSpec{
		Completions: &completions, Parallelism: &parallelism, BackoffLimit: ptr[int32](6), CompletionMode: ptr(batchv1.NonIndexedCompletion),
		PodReplacementPolicy: ptr(batchv1.TerminatingOrFailed), Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c"}}}},
	}}
	if completions < 0 {
		j.Spec.Completions = nil
	}
	j.Status.StartTime = &metav1.Time{Time: noon.Add(-time.Minute)}
	for _, c := range changes {
		c(j)
	}
	return j
}

func inOrder(j *batchv1.Job) { j.Spec.CompletionMode = ptr(batchv1.IndexedCompletion) }

func paused(j *batchv1.Job) { j.Spec.Suspend = ptr(true) }

func perIndex(limit int32) func(j *batchv1.Job) {
	return func(j *batchv1.Job) {
		inOrder(j)
		j.Spec.BackoffLimitPerIndex, j.Spec.BackoffLimit = &limit, ptr[int32](1<<31-1)
	}
}

func policy(rules ...batchv1.PodFailurePolicyRule) func(j *batchv1.Job) {
	return func(j *batchv1.Job) {
		j.Spec.PodFailurePolicy, j.Spec.PodReplacementPolicy = &batchv1.PodFailurePolicy{Rules: rules}, ptr(batchv1.Failed)
	}
}

func onExit(action batchv1.PodFailurePolicyAction, code int32) batchv1.PodFailurePolicyRule {
	return batchv1.PodFailurePolicyRule{Action: action, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
		Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{code}}}
}

// pods are told as "a run", or "a run 3" with an index, or "a failed 3/1" after one failure of the index; "exit4" failed with code 4, a second ago;
// "-" at the end says that the finalizer is off.
func pods(told string) []*corev1.Pod {
	var list []*corev1.Pod
	for one := range strings.SplitSeq(told, ",") {
		one, off := strings.CutSuffix(strings.TrimSpace(one), "-")
		parts := strings.Fields(one)
		if len(parts) == 0 {
			continue
		}
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: parts[0], UID: types.UID(parts[0]), Annotations: map[string]string{}, Finalizers: []string{batchv1.JobTrackingFinalizer}}}
		if off {
			p.Finalizers = nil
		}
		if len(parts) > 2 {
			index, failures, _ := strings.Cut(parts[2], "/")
			p.Annotations[batchv1.JobCompletionIndexAnnotation], p.Annotations[batchv1.JobIndexFailureCountAnnotation] = index, failures
		}
		state := parts[1]
		switch {
		case state == "run":
			p.Status.Phase = corev1.PodRunning
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		case state == "ending":
			p.Status.Phase, p.DeletionTimestamp = corev1.PodRunning, &metav1.Time{Time: noon}
		case state == "done":
			p.Status.Phase = corev1.PodSucceeded
		case state == "failed":
			p.Status.Phase = corev1.PodFailed
			p.CreationTimestamp = metav1.NewTime(noon.Add(-time.Hour))
		case strings.HasPrefix(state, "exit"):
			p.Status.Phase = corev1.PodFailed
			var code int32
			_, _ = fmt.Sscanf(state, "exit%d", &code)
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", State: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: metav1.NewTime(noon.Add(-time.Second))}}}}
		}
		list = append(list, p)
	}
	return list
}

// describe says what a plan does and what the job is when it is done.
func describe(j *batchv1.Job, p plan) string {
	var parts []string
	made := []string{}
	for _, pod := range p.create {
		text := strings.TrimSuffix(strings.TrimPrefix(pod.GenerateName, "task-"), "-")
		if n := pod.Annotations[batchv1.JobIndexFailureCountAnnotation]; n != "" {
			text += "/" + n
		}
		made = append(made, text)
	}
	if len(made) > 0 {
		parts = append(parts, fmt.Sprintf("create %d", len(made)))
		if text := strings.Join(made, " "); strings.TrimSpace(text) != "" {
			parts[0] = "create " + text
		}
	}
	for what, pods := range map[string][]*corev1.Pod{"remove": p.remove, "end": p.end} {
		for _, pod := range pods {
			parts = append(parts, what+" "+pod.Name)
		}
	}
	for _, pod := range p.count {
		parts = append(parts, "count "+pod.Name)
	}
	s, _ := settle(j, &p, func(types.UID) bool { return false })
	for _, c := range s.Conditions {
		if c.Status == corev1.ConditionTrue {
			parts = append(parts, string(c.Type)+"="+c.Reason)
		}
	}
	return strings.Join(parts, ", ")
}

func TestDecide(t *testing.T) {
	limit := func(n int32) func(j *batchv1.Job) { return func(j *batchv1.Job) { j.Spec.BackoffLimit = &n } }
	deadline := func(s int64) func(j *batchv1.Job) { return func(j *batchv1.Job) { j.Spec.ActiveDeadlineSeconds = &s } }
	had := func(succeeded, failed int32) func(j *batchv1.Job) {
		return func(j *batchv1.Job) { j.Status.Succeeded, j.Status.Failed = succeeded, failed }
	}
	completed := func(text string) func(j *batchv1.Job) {
		return func(j *batchv1.Job) {
			j.Status.CompletedIndexes, j.Status.Succeeded = text, int32(parseIndexes(text, 1000).total())
		}
	}
	maxFailed := func(n int32) func(j *batchv1.Job) { return func(j *batchv1.Job) { j.Spec.MaxFailedIndexes = &n } }
	succeedWith := func(text string, count int32) func(j *batchv1.Job) {
		return func(j *batchv1.Job) {
			rule := batchv1.SuccessPolicyRule{}
			if text != "" {
				rule.SucceededIndexes = &text
			}
			if count > 0 {
				rule.SucceededCount = &count
			}
			j.Spec.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{rule}}
		}
	}
	onlyEnded := func(j *batchv1.Job) { j.Spec.PodReplacementPolicy = ptr(batchv1.Failed) }
	inPlace := func(j *batchv1.Job) { j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyOnFailure }
	condition := func(kind batchv1.JobConditionType, reason string) func(j *batchv1.Job) {
		return func(j *batchv1.Job) {
			j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason})
		}
	}
	const reached = "SuccessCriteriaMet=CompletionsReached, Complete=CompletionsReached"
	for _, tt := range []struct {
		name, pods, want string
		job              *batchv1.Job
		after            time.Duration
		unseen           bool
	}{
		{name: "the first pods", job: task(5, 3), want: "create 3"},
		{name: "not more than are left", job: task(5, 3, had(4, 0)), want: "create 1"},
		{name: "busy", job: task(5, 3), pods: "a run, b run, c run"},
		{name: "own creations not seen yet", job: task(5, 3), unseen: true},
		{name: "one done, the next at once", job: task(5, 2), pods: "a run, b done", want: "create 1, count b"},
		{name: "all done", job: task(2, 2, had(1, 0)), pods: "a done-, b done", want: "count b, " + reached},
		{name: "a work queue: one is done, no new ones", job: task(-1, 3), pods: "a run, b done, c run", want: "count b"},
		{name: "a work queue: all are done", job: task(-1, 3, had(2, 0)), pods: "c done", want: "count c, " + reached},
		{name: "parallelism shrinks", job: task(5, 1), pods: "a run, b run", want: "remove a"},
		{name: "failed: counted, and after a while replaced", job: task(1, 1), pods: "a exit1", want: "count a", after: 9 * time.Second},
		{name: "failed long ago", job: task(1, 1), pods: "a failed", want: "create 1, count a"},
		{name: "deleted: replaced at once, but for the delay", job: task(1, 1), pods: "a ending", want: "count a", after: 10 * time.Second},
		{name: "deleted: replaced when ended", job: task(1, 1, onlyEnded), pods: "a ending"},
		{name: "too many failures", job: task(3, 2, limit(2), had(0, 2)), pods: "a exit1, b run", want: "end b, count a, count b, FailureTarget=BackoffLimitExceeded"},
		{name: "the target is failure and nothing is left", job: task(3, 2, condition(batchv1.JobFailureTarget, "DeadlineExceeded")), want: "FailureTarget=DeadlineExceeded, Failed=DeadlineExceeded"},
		{name: "the target is failure and a pod still ends", job: task(3, 2, condition(batchv1.JobFailureTarget, "X")), pods: "a ending-", want: "FailureTarget=X"},
		{name: "no limit at all", job: task(1, 1, limit(0)), pods: "a exit1", want: "count a, FailureTarget=BackoffLimitExceeded, Failed=BackoffLimitExceeded"},
		{name: "restarts in place count", job: task(1, 1, limit(2), inPlace), pods: "a run", want: ""},
		{name: "past the deadline", job: task(1, 1, deadline(60)), pods: "a run", want: "end a, count a, FailureTarget=DeadlineExceeded"},
		{name: "before the deadline", job: task(1, 1, deadline(90)), pods: "a run", after: 30 * time.Second},
		{name: "suspended", job: task(2, 2, paused), pods: "a run", want: "remove a, Suspended=JobSuspended"},
		{name: "suspended from the start", job: task(2, 2, paused), want: "Suspended=JobSuspended"},
		{name: "indexes", job: task(4, 3, inOrder), pods: "a run 1, b done 0", want: "create 2 3, count b"},
		{name: "indexes: known ones are not made again", job: task(6, 6, inOrder, completed("0-2,4")), want: "create 3 5"},
		{name: "indexes: doubles go", job: task(4, 4, inOrder), pods: "a run 0, b run 0, c run 1, d run 7", want: "remove d, remove a"},
		{name: "indexes: all", job: task(2, 2, inOrder, completed("0")), pods: "b done 1", want: "count b, " + reached},
		{name: "indexes: fewer completions", job: task(2, 2, inOrder, completed("0-5")), want: reached},
		{name: "per index: the failure is remembered by the pod", job: task(2, 2, perIndex(1)), pods: "a exit1 0, b run 1", after: 9 * time.Second},
		{name: "per index: the next", job: task(2, 2, perIndex(1)), pods: "a failed 0, b run 1", want: "create 0/1"},
		{name: "per index: the next is there", job: task(2, 2, perIndex(1)), pods: "a failed 0, c run 0/1, b run 1", want: "count a"},
		{name: "per index: lost", job: task(2, 2, perIndex(1)), pods: "c exit1 0/1, b run 1", want: "count c"},
		{name: "per index: all are decided", job: task(2, 2, perIndex(1), completed("1")), pods: "c exit1 0/1", want: "count c, FailureTarget=FailedIndexes, Failed=FailedIndexes"},
		{name: "per index: too many lost", job: task(4, 4, perIndex(0), maxFailed(1)), pods: "a exit1 0, b exit1 1, c run 2", want: "end c, count a, count b, count c, FailureTarget=MaxFailedIndexesExceeded"},
		{name: "success policy: some", job: task(4, 4, inOrder, succeedWith("0,2-3", 2), completed("0")), pods: "a run 1, b done 2", want: "end a, count a, count b, SuccessCriteriaMet=SuccessPolicy"},
		{name: "success policy: all of some", job: task(4, 4, inOrder, succeedWith("0,2", 0)), pods: "a done 0, b run 1, c run 2, d run 3", want: "count a"},
		{name: "success policy: any two", job: task(4, 4, inOrder, succeedWith("", 2), completed("0")), pods: "a done 3", want: "count a, SuccessCriteriaMet=SuccessPolicy, Complete=SuccessPolicy"},
		{name: "policy: fail the job", job: task(4, 2, policy(onExit(batchv1.PodFailurePolicyActionFailJob, 42))), pods: "a exit42, b run", want: "end b, count a, count b, FailureTarget=PodFailurePolicy"},
		{name: "policy: another code", job: task(1, 1, policy(onExit(batchv1.PodFailurePolicyActionFailJob, 42))), pods: "a exit1", want: "count a", after: 9 * time.Second},
		{name: "policy: ignored", job: task(1, 1, limit(0), policy(onExit(batchv1.PodFailurePolicyActionIgnore, 3))), pods: "a exit3", want: "count a", after: 9 * time.Second},
		{name: "policy: fail the index", job: task(2, 2, perIndex(5), policy(onExit(batchv1.PodFailurePolicyActionFailIndex, 9))), pods: "a exit9 0, b run 1", want: "count a"},
		{name: "being deleted: all pods are let go", job: task(2, 2, func(j *batchv1.Job) { j.DeletionTimestamp = &metav1.Time{Time: noon} }), pods: "a run", want: "count a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := decide(observed{job: tt.job, pods: pods(tt.pods), mayAct: !tt.unseen, now: noon})
			if got := describe(tt.job, p); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if p.after != tt.after {
				t.Errorf("again after %s, want %s", p.after, tt.after)
			}
		})
	}
}

func TestAccounting(t *testing.T) {
	j := task(10, 5)
	j.Status.Succeeded = 2
	j.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: []types.UID{"a", "gone"}, Failed: []types.UID{"f-"}}
	p := decide(observed{job: j, pods: pods("a done, b done, c exit1, d run, e ending, f exit1-"), mayAct: true, now: noon})
	u := p.status.UncountedTerminatedPods
	if fmt.Sprint(u.Succeeded, u.Failed) != "[a gone b] [f- c e]" || len(p.count) != 4 {
		t.Errorf("uncounted %v %v, %d pods", u.Succeeded, u.Failed, len(p.count))
	}
	// b's finalizer could not be taken off: it stays uncounted.
	s, _ := settle(j, &p, func(uid types.UID) bool { return uid == "b" })
	if s.Succeeded != 4 || s.Failed != 3 || fmt.Sprint(s.UncountedTerminatedPods.Succeeded) != "[b]" || s.UncountedTerminatedPods.Failed != nil {
		t.Errorf("status %+v", s)
	}
	if *s.Ready != 1 || *s.Terminating != 1 || s.Active != 1 {
		t.Errorf("active %d, ready %d, terminating %d", s.Active, *s.Ready, *s.Terminating)
	}
}

func TestSuspendAndResume(t *testing.T) {
	j := task(1, 1, paused)
	p := decide(observed{job: j, mayAct: true, now: noon})
	if p.status.StartTime != nil || len(p.events) != 1 || p.events[0].reason != "Suspended" {
		t.Errorf("start %v, events %v", p.status.StartTime, p.events)
	}
	j.Status = p.status
	j.Spec.Suspend = ptr(false)
	p = decide(observed{job: j, mayAct: true, now: noon.Add(time.Hour)})
	c := p.status.Conditions[0]
	if !p.status.StartTime.Equal(&metav1.Time{Time: noon.Add(time.Hour)}) || c.Status != corev1.ConditionFalse || c.Reason != "JobResumed" || p.events[0].reason != "Resumed" || len(p.create) != 1 {
		t.Errorf("start %v, condition %+v, events %v", p.status.StartTime, c, p.events)
	}
}

func TestIndexes(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "1,3-5,7": "1,3-5,7", "0,1": "0,1", "0,1,2": "0-2", "3-4": "3,4", "0-9": "0-7", "1,oops,3": "1", "7,9": "7", "2-3,4": "2-4",
	} {
		if got := parseIndexes(text, 8).String(); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	s := parseIndexes("1,3-5,7", 100)
	for i, want := range []bool{false, true, false, true, true, true, false, true, false} {
		if s.has(i) != want {
			t.Errorf("has %d: %v", i, !want)
		}
	}
	if got := s.with([]int{2, 9, 8, 0}).String(); got != "0-5,7-9" || s.total() != 5 || s.common(parseIndexes("4-8", 100)) != 3 {
		t.Errorf("%s, %d, %d", got, s.total(), s.common(parseIndexes("4-8", 100)))
	}
}

func TestStreak(t *testing.T) {
	failedAt := func(ago time.Duration) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(noon.Add(-ago))}}
	}
	s := streak{}
	for i, want := range []time.Duration{10, 20, 40, 80, 160, 320, 360, 360} {
		s = s.next(nil, []*corev1.Pod{failedAt(0)})
		if got := s.wait(noon); got != want*time.Second {
			t.Errorf("after %d failures: %s", i+1, got)
		}
	}
	if s = s.next([]*corev1.Pod{failedAt(0)}, nil); s.wait(noon) != 0 {
		t.Errorf("after a success: %s", s.wait(noon))
	}
	if s = s.next([]*corev1.Pod{failedAt(time.Minute)}, []*corev1.Pod{failedAt(2 * time.Minute), failedAt(4 * time.Second)}); s.wait(noon) != 6*time.Second {
		t.Errorf("one failure after the success: %s", s.wait(noon))
	}
}

func TestNewPod(t *testing.T) {
	j := task(2, 2, perIndex(3))
	j.Name = strings.Repeat("x", 60)
	p := newPod(j, 11, pods("a exit1 11/2")[0])
	if len(p.GenerateName) != longestPrefix || !strings.HasSuffix(p.GenerateName, "x-11-") || p.Annotations[batchv1.JobIndexFailureCountAnnotation] != "3" ||
		p.Labels[batchv1.JobCompletionIndexAnnotation] != "11" || p.Spec.Hostname != j.Name+"-11" || !tracked(p) {
		t.Errorf("pod %+v", p)
	}
	if e := p.Spec.Containers[0].Env; len(e) != 1 || e[0].Name != "JOB_COMPLETION_INDEX" || e[0].ValueFrom.FieldRef.FieldPath != "metadata.labels['batch.kubernetes.io/job-completion-index']" {
		t.Errorf("env %+v", e)
	}
	if len(j.Spec.Template.Spec.Containers[0].Env) != 0 {
		t.Error("the template was changed")
	}
}
