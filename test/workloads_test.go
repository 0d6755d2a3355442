package test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"skiff.dev/skiff/test/cluster"
)

// TestWorkloads walks through every kind of workload but the Deployment (which has its own test) with kubectl, each in a namespace of its own.
func TestWorkloads(t *testing.T) {
	t.Parallel()
	whole := cluster.Start(t)
	t.Run("kinds", func(t *testing.T) {
		for name, walk := range map[string]func(*testing.T, *cluster.Cluster){
			"stateful": statefulSet, "stateful-partition": statefulSetPartition, "stateful-broken": statefulSetBroken, "stateful-claims": statefulSetClaims,
			"daemons": daemonSet, "jobs": jobCompletes, "jobs-indexed": jobIndexed, "jobs-fail": jobFails, "jobs-suspend": jobSuspends, "jobs-end": jobEnds,
			"cron": cronJob, "rc": replicationController, "budget": disruptionBudget, "deploy-pause": deploymentPauses, "deploy-recreate": deploymentRecreates, "deploy-grow": deploymentGrows,
			"deploy-stuck": deploymentStuck, "rs": replicaSet, "jobs-policies": jobPolicies, "jobs-restart": jobRestarts, "cron-missed": cronJobMisses,
			"failed-pods": failedPods,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				walk(t, whole.Space(t, name))
			})
		}
	})
	t.Run("drain", func(t *testing.T) { drain(t, whole.Space(t, "drain")) })
}

// web is a workload of the built-in web server.
func web(kind, name, spec string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: %s
metadata: {name: %[2]s}
spec:
  selector: {matchLabels: {app: %[2]s}}
  template:
    metadata: {labels: {app: %[2]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: skiff.dev/web:1}]
%[3]s`, kind, name, spec)
}

// task is a job that runs a script.
func task(name, script, spec string) string {
	return fmt.Sprintf(`
apiVersion: batch/v1
kind: Job
metadata: {name: %s}
spec:
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: skiff.dev/web:1, command: [sh, -c, %q]}]
%s`, name, script, spec)
}

// field reads one value.
func field(c *cluster.Cluster, object, path string) string {
	return strings.TrimSpace(c.Kubectl("get", object, "-o", "jsonpath={"+path+"}"))
}

func wantField(t *testing.T, c *cluster.Cluster, object, path, want string) {
	t.Helper()
	cluster.Eventually(t, func() error {
		got, err := c.TryKubectl("get", object, "-o", "jsonpath={"+path+"}")
		if err != nil || strings.TrimSpace(got) != want {
			return fmt.Errorf("%s of %s is %q, want %q (%v)", path, object, got, want, err)
		}
		return nil
	})
}

func wantEvent(t *testing.T, c *cluster.Cluster, object, pattern string) {
	t.Helper()
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("events", "--for", object); !regexp.MustCompile(pattern).MatchString(out) {
			return fmt.Errorf("no event of %s matches %q:\n%s", object, pattern, out)
		}
		return nil
	})
}

func rolledOut(t *testing.T, c *cluster.Cluster, object, want string) {
	t.Helper()
	if out := c.Kubectl("rollout", "status", object, "--timeout=3m"); !strings.Contains(out, want) {
		t.Errorf("rollout status of %s lacks %q:\n%s", object, want, out)
	}
}

func wantRevisions(t *testing.T, c *cluster.Cluster, object string, revisions ...int) {
	t.Helper()
	out := c.Kubectl("rollout", "history", object)
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^(\d+) `).FindAllStringSubmatch(out, -1) {
		got = append(got, m[1])
	}
	if fmt.Sprint(got) != fmt.Sprint(revisions) {
		t.Errorf("revisions of %s are %v, want %v", object, got, revisions)
	}
}

func statefulSet(t *testing.T, c *cluster.Cluster) {
	c.Apply("apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}\n" + "---" +
		web("StatefulSet", "db", "  serviceName: db\n  replicas: 3\n"))
	rolledOut(t, c, "statefulset/db", "partitioned roll out complete")
	out := c.Kubectl("get", "pods", "--sort-by=.metadata.creationTimestamp", "-L", "apps.kubernetes.io/pod-index,statefulset.kubernetes.io/pod-name")
	if !regexp.MustCompile(`(?s)db-0 .* 0 +db-0\n.*db-1 .* 1 +db-1\n.*db-2 .* 2 +db-2\n`).MatchString(out) {
		t.Errorf("pods in the order they were made:\n%s", out)
	}
	if out := c.Kubectl("exec", "db-1", "--", "sh", "-c", "hostname; wget -q -O - http://db-2.db:8080"); !strings.HasPrefix(out, "db-1\n") || !strings.Contains(out, "db-2") {
		t.Errorf("a pod's name is not its host name, or its sister's not known:\n%s", out)
	}
	if out := c.Kubectl("get", "statefulset", "db"); !regexp.MustCompile(`db +3/3 `).MatchString(out) {
		t.Errorf("get: %s", out)
	}
	ids := c.Kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.uid}")
	c.Kubectl("set", "env", "statefulset/db", "MESSAGE=ahoy")
	rolledOut(t, c, "statefulset/db", "partitioned roll out complete")
	if now := c.Kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.uid}"); now == ids {
		t.Error("the pods are the old ones")
	}
	wantRevisions(t, c, "statefulset/db", 1, 2)
	if out := c.Kubectl("rollout", "history", "statefulset/db", "--revision=2"); !strings.Contains(out, "ahoy") {
		t.Errorf("revision 2:\n%s", out)
	}
	c.Kubectl("rollout", "undo", "statefulset/db")
	rolledOut(t, c, "statefulset/db", "partitioned roll out complete")
	wantRevisions(t, c, "statefulset/db", 2, 3)
	if env := field(c, "pod/db-0", ".spec.containers[0].env"); strings.Contains(env, "ahoy") {
		t.Errorf("environment after the undo: %s", env)
	}
	if current := field(c, "statefulset/db", ".status.currentRevision"); current != field(c, "pod/db-0", ".metadata.labels.controller-revision-hash") {
		t.Errorf("the current revision %s is not the pods'", current)
	}
	c.Kubectl("scale", "statefulset/db", "--replicas=1")
	c.Kubectl("wait", "pod/db-1", "pod/db-2", "--for=delete", "--timeout=3m")
	wantField(t, c, "statefulset/db", ".status.replicas", "1")
	wantEvent(t, c, "statefulset/db", `SuccessfulDelete .* delete Pod db-2 in StatefulSet db successful`)
	c.Kubectl("delete", "pod", "db-0")
	c.Kubectl("wait", "pod/db-0", "--for=condition=Ready", "--timeout=3m")
	c.Kubectl("delete", "statefulset", "db", "--cascade=foreground")
	if out := c.Kubectl("get", "pods,controllerrevisions"); out != "" {
		t.Errorf("left after the set:\n%s", out)
	}
}

func statefulSetPartition(t *testing.T, c *cluster.Cluster) {
	c.Apply(web("StatefulSet", "db", "  replicas: 3\n  podManagementPolicy: Parallel\n  ordinals: {start: 5}\n  updateStrategy: {rollingUpdate: {partition: 2}}\n"))
	rolledOut(t, c, "statefulset/db", "partitioned roll out complete")
	old := field(c, "statefulset/db", ".status.currentRevision")
	c.Kubectl("set", "env", "statefulset/db", "MESSAGE=ahoy")
	rolledOut(t, c, "statefulset/db", "partitioned roll out complete: 1 new pods have been updated")
	hash := func(pod string) string { return field(c, "pod/"+pod, ".metadata.labels.controller-revision-hash") }
	if hash("db-5") != old || hash("db-6") != old || hash("db-7") == old {
		t.Errorf("revisions %s %s %s, the old is %s", hash("db-5"), hash("db-6"), hash("db-7"), old)
	}
	c.Kubectl("delete", "pod", "db-5")
	c.Kubectl("wait", "pod/db-5", "--for=create", "--timeout=3m")
	if hash("db-5") != old {
		t.Error("a pod below the partition came back with the new template")
	}
	c.Kubectl("patch", "statefulset", "db", "--type=merge", "-p", `{"spec":{"updateStrategy":{"rollingUpdate":{"partition":0,"maxUnavailable":2}}}}`)
	wantField(t, c, "statefulset/db", ".status.currentReplicas}/{.status.updatedReplicas}/{.status.readyReplicas", "3/3/3")
}

// A rollout that cannot succeed stays where it is, also when it is undone, until somebody deletes the pod: this is documented, and relied on.
func statefulSetBroken(t *testing.T, c *cluster.Cluster) {
	c.Apply(web("StatefulSet", "db", "  replicas: 2\n"))
	rolledOut(t, c, "statefulset/db", "partitioned roll out complete")
	c.Kubectl("set", "image", "statefulset/db", "c=nowhere.invalid/none:1")
	wantField(t, c, "pod/db-1", ".spec.containers[0].image", "nowhere.invalid/none:1")
	c.Kubectl("rollout", "undo", "statefulset/db")
	time.Sleep(time.Second)
	if image := field(c, "pod/db-1", ".spec.containers[0].image"); image != "nowhere.invalid/none:1" {
		t.Errorf("the broken pod was replaced by itself: %s", image)
	}
	c.Kubectl("delete", "pod", "db-1")
	rolledOut(t, c, "statefulset/db", "partitioned roll out complete")
}

// failedPods: a pod that has failed for good is replaced under its name, and on its node.
func failedPods(t *testing.T, c *cluster.Cluster) {
	node := strings.TrimSpace(c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	port := "ports: [{containerPort: 8080, hostPort: 18090}]"
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: first}
spec: {nodeName: ` + node + `, terminationGracePeriodSeconds: 1, containers: [{name: c, image: skiff.dev/web:1, ` + port + `}]}
`)
	c.WaitPodReady("first")
	c.Apply(strings.Replace(web("StatefulSet", "db", "      nodeName: "+node+"\n"), "image: skiff.dev/web:1", "image: skiff.dev/web:1, "+port, 1) +
		"---" + web("DaemonSet", "agent", ""))
	wantEvent(t, c, "statefulset/db", `RecreatingFailedPod .* StatefulSet failed-pods/db is recreating failed Pod db-0`)
	c.Kubectl("delete", "pod", "first")
	wantField(t, c, "statefulset/db", ".status.readyReplicas", "1")

	rolledOut(t, c, "daemonset/agent", "successfully rolled out")
	was := podNames(t, c, "app=agent")[0]
	c.Kubectl("patch", "pod", was, "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Failed"}}`)
	c.Kubectl("wait", "pod/"+was, "--for=delete", "--timeout=3m")
	wantField(t, c, "daemonset/agent", ".status.numberReady", "1")
	wantEvent(t, c, "daemonset/agent", `FailedDaemonPod .* Found failed daemon pod failed-pods/`+was)
}

func statefulSetClaims(t *testing.T, c *cluster.Cluster) {
	c.Apply(web("StatefulSet", "db", `  replicas: 2
  podManagementPolicy: Parallel
  persistentVolumeClaimRetentionPolicy: {whenScaled: Delete, whenDeleted: Retain}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}]
`))
	for _, claim := range []string{"data-db-0", "data-db-1"} {
		c.Kubectl("wait", "persistentvolumeclaim/"+claim, "--for=create", "--timeout=3m")
	}
	c.Kubectl("wait", "pod/db-0", "pod/db-1", "--for=create", "--timeout=3m")
	if claim := field(c, "pod/db-1", ".spec.volumes[?(@.name==\"data\")].persistentVolumeClaim.claimName"); claim != "data-db-1" {
		t.Errorf("the pod's claim is %q", claim)
	}
	c.Kubectl("scale", "statefulset/db", "--replicas=1")
	c.Kubectl("wait", "persistentvolumeclaim/data-db-1", "--for=delete", "--timeout=3m")
	c.Kubectl("delete", "statefulset", "db")
	c.Kubectl("wait", "pod/db-0", "--for=delete", "--timeout=3m")
	c.Kubectl("get", "persistentvolumeclaim", "data-db-0")

	c.Apply(web("StatefulSet", "brief", `  replicas: 1
  persistentVolumeClaimRetentionPolicy: {whenScaled: Retain, whenDeleted: Delete}
  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}]
`))
	c.Kubectl("wait", "pod/brief-0", "--for=create", "--timeout=3m")
	c.Kubectl("scale", "statefulset/brief", "--replicas=0")
	c.Kubectl("wait", "pod/brief-0", "--for=delete", "--timeout=3m")
	c.Kubectl("get", "persistentvolumeclaim", "data-brief-0")
	c.Kubectl("delete", "statefulset", "brief")
	c.Kubectl("wait", "persistentvolumeclaim/data-brief-0", "--for=delete", "--timeout=3m")
}

func daemonSet(t *testing.T, c *cluster.Cluster) {
	node := strings.TrimSpace(c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	c.Apply(web("DaemonSet", "agent", "") + "")
	rolledOut(t, c, "daemonset/agent", "successfully rolled out")
	if out := c.Kubectl("get", "daemonset", "agent"); !regexp.MustCompile(`agent +1 +1 +1 +1 +1 +<none>`).MatchString(out) {
		t.Errorf("get: %s", out)
	}
	if bound := field(c, "pod", ".items[0].spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].values[0]"); bound != node {
		t.Errorf("the pod is bound for %q, the node is %s", bound, node)
	}
	c.Kubectl("set", "env", "daemonset/agent", "MESSAGE=ahoy")
	rolledOut(t, c, "daemonset/agent", "successfully rolled out")
	wantRevisions(t, c, "daemonset/agent", 1, 2)
	c.Kubectl("rollout", "undo", "daemonset/agent", "--to-revision=1")
	rolledOut(t, c, "daemonset/agent", "successfully rolled out")
	wantRevisions(t, c, "daemonset/agent", 2, 3)
	c.Kubectl("patch", "daemonset", "agent", "--type=merge", "-p", `{"spec":{"updateStrategy":{"rollingUpdate":{"maxSurge":1,"maxUnavailable":0}}}}`)
	c.Kubectl("rollout", "restart", "daemonset/agent")
	rolledOut(t, c, "daemonset/agent", "successfully rolled out")
	wantEvent(t, c, "daemonset/agent", `SuccessfulCreate .* Created pod: agent-`)

	c.Kubectl("patch", "daemonset", "agent", "--type=merge", "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"agents":"wanted"}}}}}`)
	wantField(t, c, "daemonset/agent", ".status.desiredNumberScheduled}/{.status.currentNumberScheduled}/{.status.numberMisscheduled", "0/0/0")
	c.Kubectl("label", "node", node, "agents=wanted")
	wantField(t, c, "daemonset/agent", ".status.numberAvailable", "1")
	c.Kubectl("label", "node", node, "agents-")
	wantField(t, c, "daemonset/agent", ".status.desiredNumberScheduled}/{.status.numberMisscheduled", "0/0")
}

func jobCompletes(t *testing.T, c *cluster.Cluster) {
	c.Apply(task("count", "echo done", "  completions: 3\n  parallelism: 2\n"))
	c.Kubectl("wait", "job/count", "--for=condition=Complete", "--timeout=3m")
	wantField(t, c, "job/count", ".status.succeeded}/{.status.terminating}/{.status.ready}/{.status.uncountedTerminatedPods", "3/0/0/{}")
	if got := field(c, "job/count", ".status.conditions[*].type"); got != "SuccessCriteriaMet Complete" {
		t.Errorf("conditions %s", got)
	}
	if out := c.Kubectl("get", "job", "count"); !regexp.MustCompile(`count +Complete +3/3 `).MatchString(out) {
		t.Errorf("get: %s", out)
	}
	if held := c.Kubectl("get", "pods", "-o", "jsonpath={.items[*].metadata.finalizers}"); held != "" {
		t.Errorf("counted pods are held by %s", held)
	}
	if out := c.Kubectl("logs", "job/count", "--all-containers"); !strings.Contains(out, "done") {
		t.Errorf("logs: %s", out)
	}
	wantEvent(t, c, "job/count", `Completed .* Job completed`)
	c.Kubectl("delete", "job", "count")
	c.Kubectl("wait", "pod", "--all", "--for=delete", "--timeout=3m")

	// A pod of a job that is deleted while it runs is not held for ever.
	c.Apply(task("long", "sleep 600", ""))
	wantField(t, c, "job/long", ".status.ready", "1")
	c.Kubectl("delete", "job", "long")
	c.Kubectl("wait", "pod", "--all", "--for=delete", "--timeout=3m")
}

func jobIndexed(t *testing.T, c *cluster.Cluster) {
	c.Apply(task("indexed", "echo $JOB_COMPLETION_INDEX on $(hostname); test $JOB_COMPLETION_INDEX != 1",
		"  completions: 3\n  parallelism: 3\n  completionMode: Indexed\n  backoffLimitPerIndex: 0\n"))
	c.Kubectl("wait", "job/indexed", "--for=condition=Failed", "--timeout=3m")
	wantField(t, c, "job/indexed", ".status.completedIndexes}/{.status.failedIndexes}/{.status.succeeded}/{.status.failed", "0,2/1/2/1")
	if out := c.Kubectl("logs", "-l", "batch.kubernetes.io/job-completion-index=2"); out != "2 on indexed-2\n" {
		t.Errorf("index 2 said %q", out)
	}
	if got := field(c, "job/indexed", ".status.conditions[?(@.type==\"Failed\")].reason"); got != "FailedIndexes" {
		t.Errorf("reason %s", got)
	}
	c.Apply(task("leader", "test $JOB_COMPLETION_INDEX = 0 || sleep 600",
		"  completions: 2\n  parallelism: 2\n  completionMode: Indexed\n  successPolicy: {rules: [{succeededIndexes: \"0\"}]}\n"))
	c.Kubectl("wait", "job/leader", "--for=condition=Complete", "--timeout=3m")
	wantField(t, c, "job/leader", ".status.conditions[?(@.type==\"Complete\")].reason}/{.status.completedIndexes}/{.status.failed", "SuccessPolicy/0/")
}

func jobFails(t *testing.T, c *cluster.Cluster) {
	c.Apply(task("limit", "exit 3", "  backoffLimit: 0\n"))
	c.Kubectl("wait", "job/limit", "--for=condition=Failed", "--timeout=3m")
	wantField(t, c, "job/limit", ".status.conditions[?(@.type==\"Failed\")].reason}/{.status.failed", "BackoffLimitExceeded/1")
	wantEvent(t, c, "job/limit", `BackoffLimitExceeded .* Job has reached the specified backoff limit`)
	c.Apply(task("policy", "exit 42", "  podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}\n"))
	c.Kubectl("wait", "job/policy", "--for=condition=Failed", "--timeout=3m")
	if got := field(c, "job/policy", ".status.conditions[?(@.type==\"Failed\")].message"); !regexp.MustCompile(`Container c for pod jobs-fail/policy-\w+ failed with exit code 42 matching FailJob rule at index 0`).MatchString(got) {
		t.Errorf("message %q", got)
	}
	c.Apply(task("deadline", "sleep 600", "  activeDeadlineSeconds: 1\n"))
	c.Kubectl("wait", "job/deadline", "--for=condition=Failed", "--timeout=3m")
	wantField(t, c, "job/deadline", ".status.conditions[?(@.type==\"Failed\")].reason}/{.status.active", "DeadlineExceeded/")
	c.Kubectl("wait", "pod", "-l", "job-name=deadline", "--for=delete", "--timeout=3m")
}

func jobSuspends(t *testing.T, c *cluster.Cluster) {
	c.Apply(task("later", "test -e /proc/1 && sleep 1", "  suspend: true\n"))
	c.Kubectl("wait", "job/later", "--for=condition=Suspended", "--timeout=3m")
	if out := c.Kubectl("get", "pods,job"); !regexp.MustCompile(`later +Suspended +0/1 `).MatchString(out) || strings.Contains(out, "pod/") {
		t.Errorf("get: %s", out)
	}
	c.Kubectl("patch", "job", "later", "--type=merge", "-p", `{"spec":{"suspend":false}}`)
	c.Kubectl("wait", "job/later", "--for=condition=Complete", "--timeout=3m")
	wantEvent(t, c, "job/later", `Resumed .* Job resumed`)

	c.Apply(task("paused", "sleep 600", ""))
	wantField(t, c, "job/paused", ".status.ready", "1")
	c.Kubectl("patch", "job", "paused", "--type=merge", "-p", `{"spec":{"suspend":true}}`)
	c.Kubectl("wait", "pod", "-l", "job-name=paused", "--for=delete", "--timeout=3m")
	wantField(t, c, "job/paused", ".status.active}/{.status.failed}/{.status.startTime", "//")
}

func jobEnds(t *testing.T, c *cluster.Cluster) {
	c.Apply(task("brief", "true", "  ttlSecondsAfterFinished: 1\n"))
	c.Kubectl("wait", "job/brief", "--for=delete", "--timeout=3m")
	c.Kubectl("wait", "pod", "--all", "--for=delete", "--timeout=3m")
}

func cronJob(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("create", "cronjob", "tick", "--image=skiff.dev/web:1", "--schedule=@every 1s", "--", "sh", "-c", "echo tick")
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "jobs", "-o", "name")
		if !regexp.MustCompile(`job.batch/tick-\d{8}\n`).MatchString(out) {
			return fmt.Errorf("jobs:\n%s", out)
		}
		return nil
	})
	cluster.Eventually(t, func() error { // each minute has a job, and the next may have begun
		if field(c, "cronjob/tick", ".status.lastSuccessfulTime") == "" || field(c, "cronjob/tick", ".status.active") != "" {
			return fmt.Errorf("status %s", field(c, "cronjob/tick", ".status"))
		}
		return nil
	})
	wantEvent(t, c, "cronjob/tick", `SawCompletedJob .* Saw completed job: tick-\d+, condition: Complete`)
	c.Kubectl("create", "job", "by-hand", "--from=cronjob/tick")
	c.Kubectl("wait", "job/by-hand", "--for=condition=Complete", "--timeout=3m")
	c.Kubectl("patch", "cronjob", "tick", "--type=merge", "-p", `{"spec":{"suspend":true,"schedule":"0 0 * * *","timeZone":"Asia/Kolkata"}}`)
	cluster.Eventually(t, func() error { // a job that had begun before ends first
		if out := c.Kubectl("get", "cronjob", "tick"); !regexp.MustCompile(`tick +0 0 \* \* \* +Asia/Kolkata +True +0 `).MatchString(out) {
			return fmt.Errorf("get: %s", out)
		}
		return nil
	})
	if out, err := c.TryKubectl("patch", "cronjob", "tick", "--type=merge", "-p", `{"spec":{"schedule":"CRON_TZ=UTC 0 0 * * *"}}`); err == nil {
		t.Errorf("a zone in the schedule was taken: %s", out)
	}
	c.Kubectl("delete", "cronjob", "tick")
	c.Kubectl("wait", "jobs", "--all", "--for=delete", "--timeout=3m")
}

func replicationController(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 2
  selector: {app: old}
  template:
    metadata: {labels: {app: old}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: skiff.dev/web:1}]}
`)
	wantField(t, c, "rc/old", ".status.readyReplicas}/{.status.availableReplicas}/{.status.fullyLabeledReplicas", "2/2/2")
	pod := podNames(t, c, "app=old")[0]
	c.Kubectl("delete", "pod", pod)
	wantField(t, c, "rc/old", ".status.readyReplicas", "2")
	c.Kubectl("scale", "rc", "old", "--replicas=0")
	wantField(t, c, "rc/old", ".status.replicas", "0")
}

func disruptionBudget(t *testing.T, c *cluster.Cluster) {
	c.Apply(web("Deployment", "web", "  replicas: 2\n"))
	c.Kubectl("create", "poddisruptionbudget", "web", "--selector=app=web", "--max-unavailable=50%")
	wantField(t, c, "pdb/web", ".status.expectedPods}/{.status.desiredHealthy}/{.status.currentHealthy}/{.status.disruptionsAllowed", "2/1/2/1")
	wantField(t, c, "pdb/web", ".status.conditions[0].type}/{.status.conditions[0].status}/{.status.conditions[0].reason", "DisruptionAllowed/True/SufficientPods")
	c.Kubectl("scale", "deployment/web", "--replicas=1")
	wantField(t, c, "pdb/web", ".status.expectedPods}/{.status.disruptionsAllowed", "1/1")
	c.Kubectl("create", "poddisruptionbudget", "strict", "--selector=app=web", "--min-available=1")
	wantField(t, c, "pdb/strict", ".status.disruptionsAllowed}/{.status.conditions[0].reason", "0/InsufficientPods")
	// A pod that is not ready may go when the budget says so, and not otherwise as long as there are too few that are.
	c.Apply(strings.Replace(web("Deployment", "sick", "  replicas: 1\n"), "image: skiff.dev/web:1", `image: "skiff.dev/web:1", readinessProbe: {exec: {command: [cat, /nothing]}}`, 1))
	c.Kubectl("create", "poddisruptionbudget", "sick", "--selector=app=sick", "--min-available=1")
	wantField(t, c, "pdb/sick", ".status.expectedPods}/{.status.currentHealthy", "1/0")
	wantField(t, c, "pod", `.items[?(@.metadata.labels.app=="sick")].status.phase`, "Running")
	sick := podNames(t, c, "app=sick")[0]
	file := write(t, fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": "budget"}}`, sick))
	create := []string{"create", "--raw", "/api/v1/namespaces/budget/pods/" + sick + "/eviction", "-f", file}
	if out, err := c.TryKubectl(create...); err == nil || !strings.Contains(out, "Cannot evict pod as it would violate the pod's disruption budget.") {
		t.Errorf("a budget that is not kept let a pod go: %v\n%s", err, out)
	}
	c.Kubectl("patch", "pdb", "sick", "--type=merge", "-p", `{"spec":{"unhealthyPodEvictionPolicy":"AlwaysAllow"}}`)
	cluster.Eventually(t, func() error { // once the budget has been counted anew
		if out, err := c.TryKubectl(create...); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	c.Kubectl("wait", "pod", sick, "--for=delete", "--timeout=3m")
	if out := c.Kubectl("get", "pdb", "strict"); !regexp.MustCompile(`strict +1 +N/A +0 `).MatchString(out) {
		t.Errorf("get: %s", out)
	}
}

// drain empties the only node: the Deployment's pods go and wait, the daemon stays, a budget holds its pod until it is lifted.
func drain(t *testing.T, c *cluster.Cluster) {
	node := strings.TrimSpace(c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	c.Apply(web("Deployment", "web", "  replicas: 2\n") + "---" + web("Deployment", "held", "") + "---" + web("DaemonSet", "agent", ""))
	c.Kubectl("create", "poddisruptionbudget", "held", "--selector=app=held", "--min-available=1")
	for _, object := range []string{"deployment/web", "deployment/held", "daemonset/agent"} {
		rolledOut(t, c, object, "successfully rolled out")
	}
	wantField(t, c, "pdb/held", ".status.currentHealthy", "1")
	out, err := c.TryKubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--pod-selector=app in (web, held)", "--timeout=4s")
	if err == nil || !strings.Contains(out, "would violate the pod's disruption budget") {
		t.Errorf("drain went past the budget: %v\n%s", err, out)
	}
	wantField(t, c, "deployment/web", ".status.replicas}/{.status.readyReplicas", "2/")
	wantField(t, c, "daemonset/agent", ".status.numberReady", "1")
	c.Kubectl("delete", "pdb", "held")
	c.Kubectl("drain", node, "--ignore-daemonsets", "--pod-selector=app=held", "--timeout=3m")
	if pods := podNames(t, c, "app=agent"); len(pods) != 1 {
		t.Errorf("daemon pods %v", pods)
	}
	if out := c.Kubectl("get", "nodes"); !strings.Contains(out, "Ready,SchedulingDisabled") {
		t.Errorf("nodes: %s", out)
	}
	c.Kubectl("uncordon", node)
	rolledOut(t, c, "deployment/web", "successfully rolled out")
	rolledOut(t, c, "deployment/held", "successfully rolled out")
}
