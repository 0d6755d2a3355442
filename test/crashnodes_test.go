package test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skiff.dev/skiff/test/cluster"
)

// identified is what is deployed, besides crashing, while processes of a cluster of three hosts are killed. Each pod of ids is one process, whose
// environment says which identity it runs under; each index of the job is to succeed once; the autoscaler has its least number to bring about.
const identified = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: ids}
spec:
  serviceName: ids
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: ids}}
  template:
    metadata: {labels: {app: ids}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: id
        image: skiff.dev/web:1
        command: [sleep, "100000"]
        env:
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: SKIFF_TEST_IDENTITY, value: "$(NAME).%d"}
---
apiVersion: batch/v1
kind: Job
metadata: {name: indexed}
spec:
  completions: 6
  parallelism: 3
  completionMode: Indexed
  backoffLimit: 100
  template:
    metadata: {labels: {app: indexed}}
    spec:
      restartPolicy: Never
      containers: [{name: main, image: "skiff.dev/web:1", command: [sh, -c, "sleep 1"]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: auto}
spec:
  selector: {matchLabels: {app: auto}}
  template:
    metadata: {labels: {app: auto}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: skiff.dev/web:1, resources: {requests: {cpu: 10m}}}]
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: auto}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: auto}
  minReplicas: 2
  maxReplicas: 2
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
`

// TestNodesKilledAtAnyMoment is TestKilledAtAnyMoment on three hosts: the server, which is etcd and a node too, an agent with its container runtime, or
// a shim, of which every pod has one, is killed while another may still be starting. Then all is deleted, and the hosts are as they were before.
func TestNodesKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	seed, random := chance(t)
	c := cluster.StartNodes(t, 3)
	// What the first pod on a node brings, and stays, is no trace of one.
	c.Apply(web("DaemonSet", "first", "      volumes: [{name: s, secret: {secretName: none, optional: true}}]\n"))
	c.Kubectl("rollout", "status", "daemonset/first", "--timeout=3m")
	before := map[*cluster.Cluster][]string{}
	for _, one := range c.All() {
		before[one] = traces(t, one)
	}
	c.Kubectl("delete", "daemonset", "first")
	// A killed shim takes its pod with it: what failed so is work's to do again.
	manifest := write(t, strings.Replace(crashing, "completions: 6", "completions: 6\n  backoffLimit: 100", 1)+"---"+fmt.Sprintf(identified, seed))
	walked := make(chan error, 1)
	go func() {
		walked <- walk(c.Cluster, slices.Concat([]string{"apply -f " + manifest}, walkSteps, []string{
			"delete pod ids-1 --ignore-not-found --wait=false",
			"rollout restart statefulset/ids",
			"rollout status statefulset/ids --timeout=3m",
			"wait job/indexed --for=condition=Complete --timeout=3m",
			"wait deployment/auto --for=jsonpath={.status.readyReplicas}=2 --timeout=3m",
		})...)
	}()
	watched := watchIdentities(t, strconv.FormatUint(seed, 10))
	for range 16 {
		time.Sleep(time.Duration(random.IntN(2500)) * time.Millisecond)
		killOne(t, c, random)
	}
	if err := <-walked; err != nil {
		t.Fatal(err)
	}
	nodesConverged(t, c)
	watched()

	c.Kubectl("delete", "-f", manifest, "--timeout=3m")
	c.Kubectl("delete", "persistentvolumeclaims", "--all", "--timeout=3m")
	c.Kubectl("create", "service", "clusterip", "last", "--tcp=80") // with a change of the tables, what was left in them for packets under way goes
	clean := func(ignored string) {
		t.Helper()
		for _, one := range c.All() {
			cluster.Eventually(t, func() error { // of what a kubelet has lost sight it looks for once a minute
				left := slices.DeleteFunc(traces(t, one), func(line string) bool {
					return slices.Contains(before[one], line) || ignored != "" && strings.Contains(line, ignored)
				})
				if len(left) > 0 {
					return fmt.Errorf("left on %s:\n%s", one.Host().IP(), strings.Join(left, "\n"))
				}
				return nil
			})
		}
	}
	clean("/run/skiff/") // what the runtime could not take back from a killed shim, its socket at least, goes with the next start
	for i, one := range c.All() {
		one.Kill()
		begin(one, i)
	}
	clean("")
}

// begin starts the process of a host again.
func begin(one *cluster.Cluster, index int) {
	if index == 0 {
		one.BeginServer()
	} else {
		one.BeginAgent()
	}
}

// killOne kills a process of the cluster. A server or an agent is started again, perhaps after a while.
func killOne(t *testing.T, c *cluster.Nodes, random *rand.Rand) {
	all := c.All()
	victim := random.IntN(len(all) + 2)
	if victim < len(all) {
		all[victim].Kill()
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		t.Logf("killed the process on node-%d", victim+1)
		begin(all[victim], victim)
		return
	}
	one := all[random.IntN(len(all))]
	shims := one.Shims()
	if len(shims) == 0 {
		return
	}
	pid := shims[random.IntN(len(shims))]
	t.Logf("killed a shim on %s", one.Host().IP())
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		t.Error(err)
	}
}

// watchIdentities looks which identities processes run under until the returned function is called. Two under one at a time are an error.
func watchIdentities(t *testing.T, seed string) (stop func()) {
	identity := regexp.MustCompile(`SKIFF_TEST_IDENTITY=(\S+\.` + seed + `)\x00`)
	of := func(dir string) string {
		raw, err := os.ReadFile(dir + "/environ")
		if err != nil {
			return "" // it is gone
		}
		if m := identity.FindSubmatch(raw); m != nil {
			return string(m[1])
		}
		return ""
	}
	ctx, cancel := context.WithCancel(t.Context())
	var looking sync.WaitGroup
	t.Cleanup(looking.Wait)
	seen := 0
	looking.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			dirs, _ := filepath.Glob("/proc/[0-9]*")
			first := map[string]string{}
			for _, dir := range dirs {
				id := of(dir)
				if id == "" {
					continue
				}
				seen++
				// The first may have ended since it was seen.
				if other := first[id]; other != "" && of(other) == id {
					t.Errorf("%s and %s run as %s", other, dir, id)
				}
				first[id] = dir
			}
		}
	})
	return func() {
		cancel()
		looking.Wait()
		if seen == 0 {
			t.Error("no process ran under an identity")
		}
	}
}

// nodesConverged is converged on several hosts: every node has the pods that the API gives it, and leads to all of them.
func nodesConverged(t *testing.T, c *cluster.Nodes) {
	c.Kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=3m")
	counted(t, c.Cluster)
	for _, h := range c.Hosts() {
		cluster.Eventually(t, func() error { return answeredBy(h.HTTP, 4) })
	}
	succeeded := map[string]int{}
	for _, p := range pods(t, c.Cluster, "app=indexed") {
		if p.Status.Phase == corev1.PodSucceeded {
			succeeded[p.Annotations["batch.kubernetes.io/job-completion-index"]]++
		}
	}
	if out := field(c.Cluster, "job/indexed", ".status.completedIndexes}/{.status.succeeded}/{.status.active"); out != "0-5/6/" || fmt.Sprint(succeeded) != "map[0:1 1:1 2:1 3:1 4:1 5:1]" {
		t.Errorf("the indexed job counts %s, pods that succeeded by index: %v", out, succeeded)
	}
	cluster.Eventually(t, func() error { return onceOnNodes(t, c) })
}

// onceOnNodes: every pod that runs has a sandbox on its node and an address of its own, and nobody else has any.
func onceOnNodes(t *testing.T, c *cluster.Nodes) error {
	running, err := runningPods(t, c.Cluster, "app in (web, db, work, ids, indexed, auto)")
	if err != nil {
		return err
	}
	byNode := map[string]int{}
	for _, p := range running {
		byNode[p.Spec.NodeName]++
	}
	for i, one := range c.All() {
		if node := fmt.Sprintf("node-%d", i+1); len(one.Shims()) != byNode[node] {
			return fmt.Errorf("%s has %d pods, and the sandboxes\n%s", node, byNode[node], strings.Join(one.Sandboxes(), "\n"))
		}
	}
	if len(running) != 10 {
		return fmt.Errorf("%d pods run, want 10:\n%s", len(running), c.Kubectl("get", "pods", "-o", "wide"))
	}
	return nil
}

var podAddress = regexp.MustCompile(`\b10\.42\.\d+\.\d+\b`)

// runtimeRecords are the sandboxes and containers that the runtime of a host knows.
func runtimeRecords(t *testing.T, run string) (found []string) {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+run+"/containerd/containerd.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := runtimeapi.NewRuntimeServiceClient(conn)
	sandboxes, err := client.ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return []string{"no answer of the runtime: " + err.Error()}
	}
	for _, s := range sandboxes.Items {
		found = append(found, fmt.Sprintf("sandbox %s of %s/%s, %s", s.Id, s.Metadata.Namespace, s.Metadata.Name, s.State))
	}
	containers, err := client.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil {
		return append(found, "no answer of the runtime: "+err.Error())
	}
	for _, c := range containers.Containers {
		found = append(found, fmt.Sprintf("container %s of sandbox %s, %s", c.Id, c.PodSandboxId, c.State))
	}
	return found
}

// traces are what pods have on a host: mounts, links, cgroups, addresses in the nft table, reservations, volumes, and the runtime's records and files.
func traces(t *testing.T, c *cluster.Cluster) (found []string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	run := "/run/skiff/" + c.Name()
	for line := range strings.Lines(string(mounts)) {
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, c.DataDir) || strings.HasPrefix(at, run+"/") {
			found = append(found, "mount "+at)
		}
	}
	found = append(found, runtimeRecords(t, run)...)
	links, err := c.Run("ip", "-brief", "link")
	if err != nil {
		t.Fatalf("%v: %s", err, links)
	}
	for line := range strings.Lines(links) {
		found = append(found, "link "+strings.Fields(line)[0])
	}
	table, err := c.Run("nft", "list", "table", "inet", c.Name())
	if err != nil {
		t.Fatalf("%v: %s", err, table)
	}
	for _, ip := range podAddress.FindAllString(table, -1) {
		found = append(found, "in the table: "+ip)
	}
	for _, root := range []string{run, c.DataDir + "/network", c.DataDir + "/kubelet/pods", c.DataDir + "/volumes", "/sys/fs/cgroup/" + c.Name(), "/sys/fs/cgroup/memory/" + c.Name()} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && (d.IsDir() || !strings.HasPrefix(root, "/sys/")) {
				found = append(found, path)
			}
			return nil // what goes meanwhile is no trace
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}
