package test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"skiff.dev/skiff/test/cluster"
)

// jobPolicies: what becomes of failures by their causes, and when enough has succeeded.
func jobPolicies(t *testing.T, c *cluster.Cluster) {
	c.Apply(task("index", "exit $((JOB_COMPLETION_INDEX * 7))", `  completions: 2
  parallelism: 2
  completionMode: Indexed
  backoffLimitPerIndex: 5
  podFailurePolicy: {rules: [{action: FailIndex, onExitCodes: {operator: In, values: [7]}}]}
`) + "---" + task("enough", "test $JOB_COMPLETION_INDEX = 2 || sleep 600", `  completions: 3
  parallelism: 3
  completionMode: Indexed
  successPolicy: {rules: [{succeededCount: 1}]}
`) + "---" + task("disturbed", "sleep 600", `  backoffLimit: 0
  podFailurePolicy: {rules: [{action: Ignore, onPodConditions: [{type: DisruptionTarget}]}]}
`))
	c.Kubectl("wait", "job/index", "--for=condition=Failed", "--timeout=3m")
	wantField(t, c, "job/index", ".status.completedIndexes}/{.status.failedIndexes}/{.status.failed", "0/1/1")
	c.Kubectl("wait", "job/enough", "--for=condition=Complete", "--timeout=3m")
	wantField(t, c, "job/enough", `.status.completedIndexes}/{.status.conditions[?(@.type=="Complete")].reason`, "2/SuccessPolicy")

	wantField(t, c, "job/disturbed", ".status.ready", "1")
	pod := podNames(t, c, "job-name=disturbed")[0]
	evict(t, c, pod)
	cluster.Eventually(t, func() error {
		if now := pods(t, c, "job-name=disturbed"); len(now) == 1 && now[0].Name != pod {
			return nil
		}
		return fmt.Errorf("%s has not been replaced:\n%s", pod, c.Kubectl("get", "pods"))
	})
	wantField(t, c, "job/disturbed", ".status.ready}/{.status.failed}/{.status.conditions", "1//")
	c.Kubectl("delete", "job", "disturbed")

	c.Apply(task("indexes", "exit 1", "  completions: 4\n  parallelism: 1\n  completionMode: Indexed\n  backoffLimitPerIndex: 0\n  maxFailedIndexes: 1\n") + "---" +
		strings.Replace(task("patient", "sleep 600", "  podReplacementPolicy: Failed\n"), "terminationGracePeriodSeconds: 1\n      containers: [{name: c,",
			"terminationGracePeriodSeconds: 30\n      containers: [{name: c, lifecycle: {preStop: {sleep: {seconds: 15}}},", 1))
	c.Kubectl("wait", "job/indexes", "--for=condition=Failed", "--timeout=3m")
	wantField(t, c, "job/indexes", `.status.failedIndexes}/{.status.conditions[?(@.type=="Failed")].reason`, "0,1/MaxFailedIndexesExceeded")
	// A pod that is on its way out is not replaced before it has failed.
	wantField(t, c, "job/patient", ".status.ready", "1")
	pod = podNames(t, c, "job-name=patient")[0]
	c.Kubectl("delete", "pod", pod, "--wait=false")
	wantField(t, c, "job/patient", ".status.active}/{.status.terminating", "/1")
	if now := strings.TrimSpace(c.Kubectl("get", "pods", "-l", "job-name=patient", "-o", "name")); now != "pod/"+pod {
		t.Errorf("%s ends, and there are %s", pod, now)
	}
	wantField(t, c, "job/patient", ".status.active}/{.status.terminating}/{.status.failed", "1/0/1")
	c.Kubectl("delete", "job", "patient", "--wait=false")
}

// evict has a pod evicted by the API, as kubectl drain does.
func evict(t *testing.T, c *cluster.Cluster, pod string) {
	t.Helper()
	namespace := field(c, "pod/"+pod, ".metadata.namespace")
	file := write(t, fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": %q}}`, pod, namespace))
	c.Kubectl("create", "--raw", "/api/v1/namespaces/"+namespace+"/pods/"+pod+"/eviction", "-f", file)
}

// jobRestarts: a pod that restarts its containers itself is the same pod, and no failure; pods that match are taken over.
func jobRestarts(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: batch/v1
kind: Job
metadata: {name: again}
spec:
  template:
    spec:
      restartPolicy: OnFailure
      volumes: [{name: kept, emptyDir: {}}]
      containers:
      - name: c
        image: skiff.dev/web:1
        command: [sh, -c, "test -e /kept/once && exit 0; : > /kept/once; exit 1"]
        volumeMounts: [{name: kept, mountPath: /kept}]
`)
	c.Kubectl("wait", "job/again", "--for=condition=Complete", "--timeout=3m")
	if got := field(c, "job/again", ".status.succeeded}/{.status.failed"); got != "1/" {
		t.Errorf("succeeded and failed: %s", got)
	}
	if got := c.Kubectl("get", "pods", "-l", "job-name=again", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}"); got != "1" {
		t.Errorf("restarts of its pods: %s", got)
	}
	c.Apply(task("kept", "sleep 600", ""))
	wantField(t, c, "job/kept", ".status.ready", "1")
	uid := field(c, "job/kept", ".metadata.uid")
	adopts(t, c, "job/kept", "batch.kubernetes.io/controller-uid="+uid, "batch.kubernetes.io/controller-uid")
}

// cronJobMisses: of starts that were missed the last is made up for, unless that is too late; while a job runs the next waits, or takes its place.
func cronJobMisses(t *testing.T, c *cluster.Cluster) {
	cron := func(name, spec string) string {
		return fmt.Sprintf(`
apiVersion: batch/v1
kind: CronJob
metadata: {name: %s}
spec:
  schedule: "0 0 * * *"
  suspend: true
%s
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          terminationGracePeriodSeconds: 1
          containers: [{name: c, image: "skiff.dev/web:1", command: [sleep, "600"]}]
`, name, spec)
	}
	c.Apply(cron("late", "  startingDeadlineSeconds: 1") + "---" + cron("waits", "  concurrencyPolicy: Forbid") + "---" + cron("replaces", "  concurrencyPolicy: Replace"))
	miss := func(name, schedule string) { // two days of starts
		t.Helper()
		c.Kubectl("patch", "cronjob", name, "--subresource=status", "--type=merge", "-p",
			fmt.Sprintf(`{"status":{"lastScheduleTime":%q}}`, time.Now().Add(-48*time.Hour).UTC().Format(time.RFC3339)))
		c.Kubectl("patch", "cronjob", name, "--type=merge", "-p", fmt.Sprintf(`{"spec":{"suspend":false,"schedule":%q}}`, schedule))
	}
	// Six hours from now is a time of day that is not about to come.
	hour := (time.Now().UTC().Hour() + 6) % 24
	first, second := fmt.Sprintf("0 %d * * *", hour), fmt.Sprintf("30 %d * * *", hour)
	for _, name := range []string{"late", "waits", "replaces"} {
		miss(name, first)
	}
	jobs := func(name string) []string {
		out := c.Kubectl("get", "jobs", "-o", `jsonpath={range .items[?(@.metadata.ownerReferences[0].name=="`+name+`")]}{.metadata.name}{" "}{end}`)
		return strings.Fields(out)
	}
	// A schedule is read in its time zone.
	c.Apply(cron("zoned", "  timeZone: Asia/Kolkata"))
	there := (time.Now().In(time.FixedZone("", 5*3600+1800)).Hour() + 6) % 24
	miss("zoned", fmt.Sprintf("0 %d * * *", there))
	cluster.Eventually(t, func() error {
		at := c.Kubectl("get", "jobs", "-o", `jsonpath={.items[?(@.metadata.ownerReferences[0].name=="zoned")].metadata.annotations.batch\.kubernetes\.io/cronjob-scheduled-timestamp}`)
		if !strings.HasSuffix(at, fmt.Sprintf("T%02d:00:00+05:30", there)) {
			return fmt.Errorf("the job was due at %q, want hour %d of Kolkata", at, there)
		}
		return nil
	})
	for _, name := range []string{"waits", "replaces"} {
		wantField(t, c, "cronjob/"+name, ".status.active[*].kind", "Job")
	}
	wantEvent(t, c, "cronjob/late", "MissSchedule .* Missed scheduled time to start a job")
	if made := jobs("late"); len(made) > 0 {
		t.Errorf("jobs that were too late: %v", made)
	}
	waited, replaced := jobs("waits"), jobs("replaces")
	miss("waits", second)
	miss("replaces", second)
	wantEvent(t, c, "cronjob/waits", "JobAlreadyActive .* Not starting job because prior execution is running and concurrency policy is Forbid")
	cluster.Eventually(t, func() error {
		if now := jobs("replaces"); len(now) != 1 || now[0] == replaced[0] {
			return fmt.Errorf("%v were to be replaced, and there are %v", replaced, now)
		}
		return nil
	})
	if now := jobs("waits"); fmt.Sprint(now) != fmt.Sprint(waited) || len(now) != 1 {
		t.Errorf("the policy forbids another, there were %v and are %v", waited, now)
	}
	c.Kubectl("delete", "cronjobs", "--all")
}
