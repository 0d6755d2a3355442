package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/test/cluster"
)

// crashing is what is deployed while Skiff is killed again and again: servers, pods with volumes, and work that ends.
const crashing = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: skiff.dev/web:1, ports: [{containerPort: 8080}], readinessProbe: {httpGet: {path: /healthz, port: 8080}}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: db
        image: skiff.dev/web:1
        command: [sh, -c, "[ -e /data/id ] || hostname > /data/id; exec sleep 1000"]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  completions: 6
  parallelism: 2
  template:
    metadata: {labels: {app: work}}
    spec:
      restartPolicy: Never
      containers: [{name: main, image: "skiff.dev/web:1", command: [sh, -c, "sleep 0.5"]}]
`

// TestKilledAtAnyMoment: through a walk of deployments, rollouts, volumes and jobs Skiff is killed at random moments, also while it starts. In the end
// everything that was asked for is there, once. SKIFF_TEST_SEED repeats a run's moments.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	_, random := chance(t)
	c := cluster.New(t)
	c.Up()
	c.Kill()
	manifest := write(t, crashing)
	walked := make(chan error, 1)
	go func() { walked <- walk(c, slices.Concat([]string{"apply -f " + manifest}, walkSteps)...) }()
	for range 7 {
		c.Crash(300*time.Millisecond + time.Duration(random.IntN(4200))*time.Millisecond)
	}
	c.Up()
	if err := <-walked; err != nil {
		t.Fatal(err)
	}
	converged(t, c)
}

// chance is what moments are drawn from, by SKIFF_TEST_SEED or by a seed that the test's log names.
func chance(t *testing.T) (seed uint64, random *rand.Rand) {
	t.Helper()
	seed = uint64(time.Now().UnixNano())
	if text := os.Getenv("SKIFF_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("SKIFF_TEST_SEED: %v", err)
		}
	}
	t.Logf("seed %d", seed)
	return seed, rand.New(rand.NewPCG(seed, seed))
}

// walkSteps is what is done with what crashing deploys.
var walkSteps = []string{
	"rollout status deployment/web --timeout=3m",
	"set env deployment/web MESSAGE=second",
	"rollout status statefulset/db --timeout=3m",
	"delete pod db-0 --ignore-not-found --wait=false",
	"scale deployment/web --replicas=4",
	"rollout status deployment/web --timeout=3m",
	"set env deployment/web MESSAGE=third",
	"rollout status deployment/web --timeout=3m",
	"wait job/work --for=condition=Complete --timeout=3m",
}

// walk does one step after the other. Each is repeated until it succeeds, as somebody would who finds the server gone.
func walk(c *cluster.Cluster, steps ...string) error {
	for _, step := range steps {
		began := time.Now()
		for {
			out, err := c.TryKubectl(strings.Fields(step)...)
			if err == nil {
				break
			}
			if time.Since(began) > 90*time.Second {
				return fmt.Errorf("kubectl %s: %w\n%s", step, err, out)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return nil
}

// converged checks that what the walk asked for is there, and nothing twice.
func converged(t *testing.T, c *cluster.Cluster) {
	counted(t, c)
	cluster.Eventually(t, func() error { return answeredBy(c.HTTP, 4) })
	cluster.Eventually(t, func() error { return once(t, c) })
}

// counted checks what the API says of the job, and whose the volumes are.
func counted(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	c.Kubectl("rollout", "status", "statefulset/db", "--timeout=3m")
	if out := squeeze(c.Kubectl("get", "job", "work", "-o", "jsonpath={.status.succeeded} {.status.active}")); out != "6" {
		t.Errorf("of the job's six pods succeeded, and are active: %q", out)
	}
	for _, name := range []string{"db-0", "db-1"} {
		if out := squeeze(c.Kubectl("exec", name, "--", "cat", "/data/id")); out != name {
			t.Errorf("the volume of %s was written by %q", name, out)
		}
	}
	if out := c.Kubectl("get", "persistentvolumeclaims", "-o", "jsonpath={.items[*].status.phase}"); out != "Bound Bound" {
		t.Errorf("claims are %s", out)
	}
}

// answeredBy says whether the service is answered by that many pods, all of the last revision.
func answeredBy(get func(url string) (string, error), n int) error {
	seen := map[string]bool{}
	for range 60 {
		out, err := get("http://127.0.0.1:30080")
		if first, _, _ := strings.Cut(out, "\n"); err != nil || first != "third" {
			return fmt.Errorf("an older pod answered, or none did: %v: %s", err, out)
		}
		seen[answerer.FindString(out)] = true
	}
	if len(seen) != n {
		return fmt.Errorf("%d of %d replicas answered", len(seen), n)
	}
	return nil
}

// runningPods are those that match and have not ended, each of which has an address of its own.
func runningPods(t *testing.T, c *cluster.Cluster, selector string) (running []corev1.Pod, err error) {
	addresses := map[string]string{}
	for _, p := range pods(t, c, selector) {
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		running = append(running, p)
		if other := addresses[p.Status.PodIP]; other != "" {
			return nil, fmt.Errorf("%s and %s have the address %s", other, p.Name, p.Status.PodIP)
		}
		addresses[p.Status.PodIP] = p.Name
	}
	return running, nil
}

// once: every pod that runs has one sandbox, and nobody else has any.
func once(t *testing.T, c *cluster.Cluster) error {
	running, err := runningPods(t, c, "app in (web, db, work)")
	if err != nil {
		return err
	}
	if shims := c.Sandboxes(); len(running) != 6 || len(shims) != len(running) {
		return fmt.Errorf("%d pods run, want 6, in %d sandboxes:\n%s\n%s", len(running), len(shims), c.Kubectl("get", "pods", "-o", "wide"), strings.Join(shims, "\n"))
	}
	return nil
}
