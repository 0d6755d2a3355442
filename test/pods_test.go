package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/test/cluster"
)

// subtests run beside each other, each in a namespace of its own that is called like the test; only a few at a time, for all of them would be at work at
// once otherwise.
func subtests(t *testing.T, c *cluster.Cluster, tests map[string]func(*testing.T, *cluster.Cluster)) {
	const together = 4
	places := make(chan struct{}, together)
	var all sync.WaitGroup
	for name, do := range tests {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			t.Run(name, func(t *testing.T) {
				do(t, c.Space(t, strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-"), "-")))
			})
		})
	}
	all.Wait()
}

// TestPods: what the kubelet does for a pod, seen from outside.
func TestPods(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	importPeer(t, c)
	subtests(t, c, map[string]func(*testing.T, *cluster.Cluster){
		"init containers":         initContainers,
		"failing init container":  failingInit,
		"sidecar":                 sidecar,
		"restart never":           restartNever,
		"restart on failure":      restartOnFailure,
		"restart all containers":  restartAll,
		"termination message":     terminationMessage,
		"environment":             environment,
		"hooks":                   hooks,
		"failing hook":            failingHook,
		"graceful end":            gracefulEnd,
		"stubborn container":      stubbornContainer,
		"forced end":              forcedEnd,
		"deadline":                deadline,
		"quality of service":      qualityOfService,
		"out of memory":           outOfMemory,
		"log rotation":            logRotation,
		"missing config heals":    missingConfig,
		"wrong command":           wrongCommand,
		"identity":                identity,
		"must not be root":        mustNotBeRoot,
		"confined":                confined,
		"runtime class":           runtimeClass,
		"names and hosts":         namesAndHosts,
		"shared processes":        sharedProcesses,
		"host network":            hostNetwork,
		"ephemeral container":     ephemeralContainer,
		"eviction":                eviction,
		"does not fit":            doesNotFit,
		"refused by the node":     refused,
		"the API from inside":     apiFromInside,
		"changed image":           changedImage,
		"conditions and restarts": conditions,
		"gRPC probes":             grpcProbes,
		"host names":              hostNames,
		"readiness gates":         readinessGates,
		"trust bundles":           trustBundles,
		"block volume":            blockVolume,
		"stop signals":            stopSignals,
		"sidecars end":            sidecarsEnd,
		"preStop sleep":           preStopSleep,
		"grace of a probe":        probeGrace,
		"restart rules":           restartRules,
		"strict groups":           strictGroups,
		"debug copies":            debugCopies,
	})
}

func initContainers(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
    - {name: one, image: "skiff.dev/web:1", command: [sh, -c, "sleep 1; echo one >> /v/f"], volumeMounts: [{name: v, mountPath: /v}]}
    - {name: two, image: "skiff.dev/web:1", command: [sh, -c, "echo two >> /v/f"], volumeMounts: [{name: v, mountPath: /v}]}
  containers:
    - {name: main, image: "skiff.dev/web:1", command: [cat, /v/f], volumeMounts: [{name: v, mountPath: /v}]}
`)
	c.WaitPod("p", "initializing", func(p *corev1.Pod) bool {
		return len(p.Status.InitContainerStatuses) == 2 && p.Status.InitContainerStatuses[0].State.Running != nil
	})
	if out := c.Kubectl("get", "pod", "p"); !strings.Contains(out, "Init:0/2") {
		t.Errorf("while the first init container runs:\n%s", out)
	}
	p := c.WaitPodDone("p")
	if out := c.Kubectl("logs", "p"); out != "one\ntwo\n" || p.Status.Phase != corev1.PodSucceeded {
		t.Errorf("%s: %q", p.Status.Phase, out)
	}
}

func failingInit(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  initContainers: [{name: one, image: "skiff.dev/web:1", command: [sh, -c, "exit 5"]}]
  containers: [{name: main, image: "skiff.dev/web:1"}]
`)
	p := c.WaitPodDone("p")
	if s := p.Status.InitContainerStatuses[0].State.Terminated; p.Status.Phase != corev1.PodFailed || s == nil || s.ExitCode != 5 {
		t.Errorf("%s: %+v", p.Status.Phase, p.Status.InitContainerStatuses[0])
	}
	if out := c.Kubectl("get", "pod", "p"); !strings.Contains(out, "Init:Error") {
		t.Errorf("get shows\n%s", out)
	}
}

// sidecar: an init container that always restarts runs beside the others and doesn't keep the pod from ending.
func sidecar(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 5
  initContainers:
    - {name: side, image: "skiff.dev/web:1", restartPolicy: Always, startupProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}
  containers: [{name: main, image: "skiff.dev/web:1", command: [wget, -q, -O, "-", "http://127.0.0.1:8080/beside"]}]
`)
	if p := c.WaitPodDone("p"); p.Status.Phase != corev1.PodSucceeded {
		t.Errorf("%s: %+v", p.Status.Phase, p.Status.ContainerStatuses)
	}
	if out := c.Kubectl("logs", "p", "-c", "main"); !strings.Contains(out, "/beside") {
		t.Errorf("the sidecar did not answer: %q", out)
	}
}

func restartNever(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "p", "--image=skiff.dev/web:1", "--restart=Never", "--command", "--", "sh", "-c", "echo bye; exit 93")
	p := c.WaitPodDone("p")
	s := p.Status.ContainerStatuses[0]
	if p.Status.Phase != corev1.PodFailed || s.RestartCount != 0 || s.State.Terminated.ExitCode != 93 || s.State.Terminated.Reason != "Error" {
		t.Errorf("%s: %+v", p.Status.Phase, s)
	}
	if out := c.Kubectl("logs", "p"); out != "bye\n" {
		t.Errorf("the log of a pod that ended: %q", out)
	}
	if out := c.Kubectl("get", "--raw", "/api/v1/nodes/"+p.Spec.NodeName+"/proxy/metrics"); !strings.Contains(out, `kubelet_terminated_containers_total{container_type="container",exit_code="93",reason="Error"} 1`+"\n") {
		t.Errorf("the kubelet does not count the container's end:\n%s", out)
	}
	if out := c.Kubectl("get", "pod", "p"); !regexp.MustCompile(`0/1 +Error +0`).MatchString(out) {
		t.Errorf("get shows\n%s", out)
	}
}

// restartOnFailure: the first restart comes at once, the second after ten seconds of back-off.
func restartOnFailure(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: OnFailure
  volumes: [{name: v, emptyDir: {}}]
  containers:
    - name: main
      image: skiff.dev/web:1
      command: [sh, -c, "echo x >> /v/n; [ $(wc -l < /v/n) -ge 3 ]"]
      volumeMounts: [{name: v, mountPath: /v}]
`)
	p := c.WaitPod("p", "in back-off", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CrashLoopBackOff"
	})
	if m := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, "back-off 10s restarting failed container=main") {
		t.Errorf("the status says %q", m)
	}
	if p.Status.ContainerStatuses[0].LastTerminationState.Terminated == nil {
		t.Error("the status does not say how the container ended last")
	}
	p = c.WaitPodDone("p")
	if s := p.Status.ContainerStatuses[0]; p.Status.Phase != corev1.PodSucceeded || s.RestartCount != 2 {
		t.Errorf("%s: %+v", p.Status.Phase, s)
	}
	if out := c.Kubectl("get", "events", "--field-selector=reason=BackOff"); !strings.Contains(out, "Back-off restarting failed container main in pod p_") || !strings.Contains(out, "it ended with exit code 1 (Error)") {
		t.Errorf("events:\n%s", out)
	}
}

// restartAll: a container that ends as its rule says has all of the pod's containers begin anew, those that have ended included, without hooks or
// grace, in the same sandbox and with the same volumes; at once the first time, then after a back-off.
func restartAll(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 100
  volumes: [{name: v, emptyDir: {}}]
  initContainers:
    - name: setup
      image: skiff.dev/web:1
      command: [sh, -c, "echo $IP >> /v/setup"]
      env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]
      volumeMounts: [{name: v, mountPath: /v}]
  containers:
    - name: once
      image: skiff.dev/web:1
      command: [sh, -c, "echo x >> /v/once"]
      volumeMounts: [{name: v, mountPath: /v}]
    - name: web
      image: skiff.dev/web:1
      volumeMounts: [{name: v, mountPath: /v}]
      lifecycle: {preStop: {exec: {command: [sh, -c, "echo x >> /v/hook; sleep 50"]}}}
    - name: watch
      image: skiff.dev/web:1
      command: [sh, -c, "sleep 1; echo x >> /v/watch; [ $(wc -l < /v/watch) -ge 3 ] && sleep 1000; exit 42"]
      volumeMounts: [{name: v, mountPath: /v}]
      restartPolicy: Never
      restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]
`)
	condition := func(p *corev1.Pod) corev1.PodCondition {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.AllContainersRestarting {
				return c
			}
		}
		return corev1.PodCondition{}
	}
	p := c.WaitPod("p", "all containers in back-off", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 3 && s[2].State.Waiting != nil && s[2].State.Waiting.Reason == "CrashLoopBackOff"
	})
	if got := condition(p); got.Status != corev1.ConditionTrue || got.Reason != "RestartAllContainersStarted" || got.Message != "container watch exited with code 42" {
		t.Errorf("while it waits: %+v", got)
	}
	if s := p.Status.ContainerStatuses[1]; s.RestartCount != 1 || s.State.Terminated == nil || s.State.Terminated.ExitCode != 137 {
		t.Errorf("while it waits, web is %+v", s)
	}
	p = c.WaitPod("p", "running anew", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 3 && s[1].RestartCount == 2 && s[1].Ready && s[2].RestartCount == 2 && s[2].Ready && s[0].RestartCount == 2 && s[0].State.Terminated != nil
	})
	if got := condition(p); got.Status != corev1.ConditionFalse || p.Status.Phase != corev1.PodRunning {
		t.Errorf("afterwards: %s, %+v", p.Status.Phase, got)
	}
	if s := p.Status.InitContainerStatuses[0]; s.RestartCount != 2 {
		t.Errorf("the init container: %+v", s)
	}
	if got, want := c.Kubectl("exec", "p", "-c", "web", "--", "cat", "/v/setup", "/v/once"), strings.Repeat(p.Status.PodIP+"\n", 3)+strings.Repeat("x\n", 3); got != want {
		t.Errorf("the volume holds %q, want %q", got, want)
	}
	if out, err := c.TryKubectl("exec", "p", "-c", "web", "--", "cat", "/v/hook"); err == nil {
		t.Errorf("a preStop hook ran: %q", out)
	}
	c.Kubectl("delete", "pod", "p", "--force", "--grace-period=0")
}

func terminationMessage(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  containers:
    - {name: file, image: "skiff.dev/web:1", command: [sh, -c, "echo -n for the record > /dev/termination-log"]}
    - {name: path, image: "skiff.dev/web:1", command: [sh, -c, "echo -n elsewhere > /tmp/note"], terminationMessagePath: /tmp/note}
    - {name: log, image: "skiff.dev/web:1", command: [sh, -c, "echo last words; exit 1"], terminationMessagePolicy: FallbackToLogsOnError}
`)
	p := c.WaitPodDone("p")
	want := map[string]string{"file": "for the record", "path": "elsewhere", "log": "last words\n"}
	for _, s := range p.Status.ContainerStatuses {
		if s.State.Terminated == nil || s.State.Terminated.Message != want[s.Name] {
			t.Errorf("%s: %+v, want %q", s.Name, s.State, want[s.Name])
		}
	}
}

func environment(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: ConfigMap
metadata: {name: cm}
data: {COLOUR: blue, SIZE: big}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {TOKEN: hush}
---
apiVersion: v1
kind: Service
metadata: {name: some-service}
spec: {ports: [{port: 99}], selector: {a: b}}
`)
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: env}, annotations: {note: hi}}
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: skiff.dev/web:1
      command: [sh, -c, "env; echo $(WHO) '$$(WHO)'"]
      envFrom: [{configMapRef: {name: cm}, prefix: CM_}, {secretRef: {name: s}}, {configMapRef: {name: none, optional: true}}]
      env:
        - {name: WHO, value: me}
        - {name: GREETING, value: "hello $(WHO) $(NOBODY)"}
        - {name: ONE, valueFrom: {configMapKeyRef: {name: cm, key: COLOUR}}}
        - {name: HIDDEN, valueFrom: {secretKeyRef: {name: s, key: TOKEN}}}
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
        - {name: NOTE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['note']"}}}
        - {name: ACCOUNT, valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}}
        - {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
        - {name: CPU, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}}
        - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
      resources: {requests: {cpu: 20m}, limits: {memory: 32Mi}}
`)
	c.WaitPodDone("p")
	lines := "\n" + c.Kubectl("logs", "p")
	for _, want := range []string{
		"CM_COLOUR=blue", "CM_SIZE=big", "TOKEN=hush", "WHO=me", "GREETING=hello me $(NOBODY)", "ONE=blue", "HIDDEN=hush", "NAME=p", "LABEL=env", "NOTE=hi",
		"ACCOUNT=default", "HOST=" + cluster.HostIP, "CPU=20", "MEMORY=32", "HOSTNAME=p", "KUBERNETES_SERVICE_HOST=10.43.0.1", "KUBERNETES_SERVICE_PORT=443",
		"SOME_SERVICE_SERVICE_PORT=99", "me $(WHO)",
	} {
		if !strings.Contains(lines, "\n"+want+"\n") {
			t.Errorf("no line %q in%s", want, lines)
		}
	}
}

func hooks(t *testing.T, c *cluster.Cluster) {
	dir := t.TempDir()
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  volumes: [{name: v, hostPath: {path: "` + dir + `"}}]
  containers:
    - name: main
      image: skiff.dev/web:1
      volumeMounts: [{name: v, mountPath: /v}]
      lifecycle:
        postStart: {exec: {command: [sh, -c, "echo started > /v/start"]}}
        preStop: {exec: {command: [sh, -c, "sleep 1; echo stopping > /v/stop"]}}
`)
	c.WaitPodReady("p")
	if raw, err := os.ReadFile(filepath.Join(dir, "start")); err != nil || string(raw) != "started\n" {
		t.Errorf("the container is ready, but its postStart has not run: %q, %v", raw, err)
	}
	c.Kubectl("delete", "pod", "p")
	if raw, err := os.ReadFile(filepath.Join(dir, "stop")); err != nil || string(raw) != "stopping\n" {
		t.Errorf("the container is gone, but its preStop has not run: %q, %v", raw, err)
	}
}

func failingHook(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: main, image: "skiff.dev/web:1", lifecycle: {postStart: {exec: {command: [sh, -c, "exit 9"]}}}}
`)
	c.WaitPod("p", "restarted", func(p *corev1.Pod) bool {
		return len(p.Status.ContainerStatuses) == 1 && (p.Status.ContainerStatuses[0].RestartCount > 0 || p.Status.ContainerStatuses[0].State.Waiting != nil &&
			p.Status.ContainerStatuses[0].State.Waiting.Reason == "CrashLoopBackOff")
	})
	if out := c.Kubectl("get", "events", "--field-selector=reason=FailedPostStartHook"); !strings.Contains(out, "PostStartHook failed") {
		t.Errorf("events:\n%s", out)
	}
}

// gracefulEnd: a container that needs half a second to tidy up gets it, and no more time passes than it needs.
func gracefulEnd(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "p", "--image="+peerName, "--", "tidy")
	c.WaitPodReady("p")
	logs := start(t, c.KubectlCommand("logs", "-f", "p"))
	logs.waitFor(t, regexp.MustCompile("waiting"))
	began := time.Now()
	c.Kubectl("delete", "pod", "p")
	if took := time.Since(began); took < 500*time.Millisecond || took > 8*time.Second {
		t.Errorf("it took %s", took)
	}
	logs.waitFor(t, regexp.MustCompile("tidied up"))
	if code := logs.exitCode(t); code != 0 {
		t.Errorf("logs -f ended with %d:\n%s", code, logs)
	}
}

func stubbornContainer(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 2
  containers: [{name: main, image: "` + peerName + `", args: [stubborn]}]
`)
	c.WaitPodReady("p")
	time.Sleep(200 * time.Millisecond) // it has heard of the signal that it will ignore
	began := time.Now()
	c.Kubectl("delete", "pod", "p")
	if took := time.Since(began); took < 1900*time.Millisecond || took > 10*time.Second {
		t.Errorf("a grace of 2 s took %s", took)
	}
}

func forcedEnd(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "p", "--image="+peerName, "--", "stubborn")
	c.WaitPodReady("p")
	began := time.Now()
	c.Kubectl("delete", "pod", "p", "--grace-period=0", "--force")
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
}

func deadline(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  activeDeadlineSeconds: 2
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "skiff.dev/web:1"}]
`)
	if p := c.WaitPodDone("p"); p.Status.Phase != corev1.PodFailed || p.Status.Reason != "DeadlineExceeded" {
		t.Errorf("%s, %s: %s", p.Status.Phase, p.Status.Reason, p.Status.Message)
	}
}

// qualityOfService: the class is right, and so is what the kernel was told; either version of cgroups.
func qualityOfService(t *testing.T, c *cluster.Cluster) {
	cases := []struct {
		name, resources, folder string
		class                   corev1.PodQOSClass
		files                   map[string][2]string // file of v1, of v2 → content
	}{
		{"guaranteed", "{limits: {cpu: 100m, memory: 32Mi}}", "", corev1.PodQOSGuaranteed, map[string][2]string{
			"memory/memory.limit_in_bytes|memory.max": {"33554432", "33554432"}, "cpu/cpu.cfs_quota_us|cpu.max": {"10000", "10000 100000"}, "cpu/cpu.shares|": {"102", ""},
		}},
		{"burstable", "{requests: {cpu: 50m}, limits: {memory: 64Mi}}", "burstable", corev1.PodQOSBurstable, map[string][2]string{
			"memory/memory.limit_in_bytes|memory.max": {"67108864", "67108864"}, "cpu/cpu.shares|": {"51", ""},
		}},
		{"besteffort", "{}", "besteffort", corev1.PodQOSBestEffort, map[string][2]string{"cpu/cpu.shares|": {"2", ""}}},
	}
	for _, q := range cases {
		c.Apply("apiVersion: v1\nkind: Pod\nmetadata: {name: " + q.name + "}\nspec: {containers: [{name: main, image: \"skiff.dev/web:1\", resources: " + q.resources + "}]}\n")
	}
	for _, q := range cases {
		p := c.WaitPodReady(q.name)
		if p.Status.QOSClass != q.class {
			t.Errorf("%s: its class is %s", q.name, p.Status.QOSClass)
		}
		id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
		for files, want := range q.files {
			v1, v2, _ := strings.Cut(files, "|")
			controller, file, _ := strings.Cut(v1, "/")
			root, value := "/sys/fs/cgroup", want[1]
			if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
				root, v2, value = "/sys/fs/cgroup/"+controller, file, want[0]
			}
			if value == "" {
				continue
			}
			below := filepath.Join(root, c.Name(), "kubepods", q.folder, "pod"+string(p.UID))
			for _, dir := range []string{below, filepath.Join(below, id)} {
				if raw, err := os.ReadFile(filepath.Join(dir, v2)); err != nil || strings.TrimSpace(string(raw)) != value {
					t.Errorf("%s: %s of %s is %q, want %q (%v)", q.name, v2, dir, strings.TrimSpace(string(raw)), value, err)
				}
			}
		}
	}
}

func outOfMemory(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  containers:
    - name: main
      image: skiff.dev/web:1
      command: [sort, /dev/zero]
      resources: {limits: {memory: 24Mi}}
`)
	p := c.WaitPodDone("p")
	if s := p.Status.ContainerStatuses[0].State.Terminated; s == nil || s.Reason != "OOMKilled" || s.ExitCode != 137 {
		t.Errorf("its end was %+v", p.Status.ContainerStatuses[0].State)
	}
	told := regexp.MustCompile(`Process sort \(\d+\) of container main was killed: (container main|the pod) reached its memory limit of 24Mi \(in use 24\S*, reached \d+ times\); it held \d+Ki anonymous`)
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "events", "--field-selector=reason=OOMKilling,involvedObject.name=p"); !told.MatchString(out) {
			return fmt.Errorf("events:\n%s", out)
		}
		return nil
	})
}

// logRotation: a log grows to no more than its files may hold, and nothing of what is left gets lost on the way to a reader.
func logRotation(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "p", "--image="+peerName, "--", "chatter")
	p := c.WaitPodReady("p")
	dir := filepath.Join(c.DataDir, "logs", "pods", p.Namespace+"_p_"+string(p.UID), "p")
	logs := start(t, c.KubectlCommand("logs", "-f", "p", "--tail=1"))
	var files []string
	cluster.Eventually(t, func() error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		files = files[:0]
		for _, e := range entries {
			files = append(files, e.Name())
		}
		if len(files) < 2 {
			return fmt.Errorf("log files are %v", files)
		}
		return nil
	})
	// The follower goes from the old file to the new one without missing or repeating a line.
	last := -1
	for range 20 {
		n := 0
		if _, err := fmt.Sscanf(logs.waitFor(t, regexp.MustCompile(`^(\d{8})`))[1], "%d", &n); err != nil {
			t.Fatal(err)
		}
		if last >= 0 && n != last+1 {
			t.Fatalf("line %d comes after line %d", n, last)
		}
		last = n
	}
	if out := c.Kubectl("logs", "p", "--tail=3"); strings.Count(out, "\n") != 3 {
		t.Errorf("the last three lines after a rotation: %q", out)
	}
}

// missingConfig: a pod whose config map is not there waits for it, and says so.
func missingConfig(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers: [{name: main, image: "skiff.dev/web:1", env: [{name: A, valueFrom: {configMapKeyRef: {name: late, key: a}}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: v}
spec:
  volumes: [{name: v, configMap: {name: late}}]
  containers: [{name: main, image: "skiff.dev/web:1", volumeMounts: [{name: v, mountPath: /v}]}]
`)
	c.WaitPod("p", "in CreateContainerConfigError", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CreateContainerConfigError" &&
			s[0].State.Waiting.Message == `configmap "late" not found`
	})
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("describe", "pod", "v"); !strings.Contains(out, "FailedMount") || !strings.Contains(out, `configmap "late" not found`) {
			return fmt.Errorf("describe does not say what is missing:\n%s", out)
		}
		return nil
	})
	c.Kubectl("create", "configmap", "late", "--from-literal=a=b")
	c.WaitPodReady("p")
	c.WaitPodReady("v")
}

func wrongCommand(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "p", "--image=skiff.dev/web:1", "--restart=Never", "--command", "--", "/nonesuch")
	p := c.WaitPodDone("p")
	s := p.Status.ContainerStatuses[0].State.Terminated
	if s == nil || s.Reason != "StartError" || s.ExitCode != 128 || !strings.Contains(s.Message, "/nonesuch") {
		t.Errorf("its end was %+v", p.Status.ContainerStatuses[0].State)
	}
}

func identity(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  securityContext: {runAsUser: 1234, runAsGroup: 2345, fsGroup: 3456, supplementalGroups: [4567]}
  volumes: [{name: v, emptyDir: {}}]
  containers:
    - name: main
      image: skiff.dev/web:1
      command: [sh, -c, "id; ls -l / | grep ' v$'; echo x > /v/f && echo x > /f || echo read-only; grep -E 'CapEff|NoNewPrivs' /proc/self/status"]
      securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumeMounts: [{name: v, mountPath: /v}]
    - name: able
      image: skiff.dev/web:1
      command: [grep, CapBnd, /proc/self/status]
      securityContext: {runAsUser: 0, capabilities: {drop: [ALL], add: [NET_ADMIN]}}
`)
	c.WaitPodDone("p")
	out := c.Kubectl("logs", "p", "-c", "main")
	for _, want := range []string{"uid=1234", "gid=2345", "3456", "4567", "drwxrws", "read-only", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out := c.Kubectl("logs", "p", "-c", "able"); !strings.Contains(out, "0000000000001000") {
		t.Errorf("capabilities: %s", out)
	}
}

func mustNotBeRoot(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {securityContext: {runAsNonRoot: true}, containers: [{name: main, image: "skiff.dev/web:1"}]}
`)
	c.WaitPod("p", "refused", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == "CreateContainerConfigError" &&
			strings.Contains(s[0].State.Waiting.Message, "container has runAsNonRoot and image will run as root")
	})
}

// grpcProbes: a server is asked for its own health or for that of one of its services; one that is not there, or asked at the wrong port, is not ready.
func grpcProbes(t *testing.T, c *cluster.Cluster) {
	for name, probe := range map[string]string{"well": "{port: 6000}", "ill": "{port: 6000, service: ill}", "none": "{port: 6000, service: none}", "deaf": "{port: 6001}"} {
		c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: ` + peerName + `
      args: [health]
      startupProbe: {grpc: {port: 6000}, periodSeconds: 1}
      readinessProbe: {grpc: ` + probe + `, periodSeconds: 1}
`)
	}
	c.WaitPodReady("well")
	wantEvent(t, c, "pod/ill", `Unhealthy .*Readiness probe failed: service unhealthy \(responded with "NOT_SERVING"\)`)
	wantEvent(t, c, "pod/none", `Unhealthy .*Readiness probe failed: error: health rpc probe failed: .*unknown service`)
	wantEvent(t, c, "pod/deaf", `Unhealthy .*Readiness probe failed: .*connection refused`)
	for _, name := range []string{"ill", "none", "deaf"} {
		p, err := c.Client().CoreV1().Pods("grpc-probes").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil || cluster.Ready(p) || len(p.Status.ContainerStatuses) != 1 || p.Status.ContainerStatuses[0].Started == nil || !*p.Status.ContainerStatuses[0].Started {
			t.Errorf("%s: %v, %+v", name, err, p.Status.ContainerStatuses)
		}
	}
}

// confined: a pod gets the seccomp profile and the sysctls that it asks for, and no sysctl that reaches beyond it.
func confined(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  securityContext:
    seccompProfile: {type: RuntimeDefault}
    sysctls: [{name: net.ipv4.ip_local_port_range, value: "20000 20100"}]
  containers:
    - {name: confined, image: "skiff.dev/web:1", command: [cat, /proc/self/status, /proc/sys/net/ipv4/ip_local_port_range]}
    - {name: free, image: "skiff.dev/web:1", command: [cat, /proc/self/status], securityContext: {seccompProfile: {type: Unconfined}}}
---
apiVersion: v1
kind: Pod
metadata: {name: far}
spec:
  securityContext: {sysctls: [{name: kernel.msgmax, value: "65536"}]}
  containers: [{name: main, image: "skiff.dev/web:1"}]
`)
	c.WaitPodDone("p")
	for container, want := range map[string][]string{"confined": {"Seccomp:\t2\n", "20000\t20100\n"}, "free": {"Seccomp:\t0\n"}} {
		for _, text := range want {
			if out := c.Kubectl("logs", "p", "-c", container); !strings.Contains(out, text) {
				t.Errorf("%s: no %q in\n%s", container, text, out)
			}
		}
	}
	c.WaitPod("far", "refused", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "SysctlForbidden" && strings.Contains(p.Status.Message, `forbidden sysctl: "kernel.msgmax" not allowlisted`)
	})
}

// runtimeClass: the class names the runtime's handler and what its pods cost besides; one that is not there is refused, and so is a handler by the runtime.
func runtimeClass(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: named}
handler: runc
overhead: {podFixed: {memory: 12Mi}}
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: unknown}
handler: none
`)
	const of = `
apiVersion: v1
kind: Pod
metadata: {name: %[1]s}
spec: {runtimeClassName: %[1]s, containers: [{name: main, image: "skiff.dev/web:1"}]}
`
	c.Apply(fmt.Sprintf(of, "named"))
	c.Apply(fmt.Sprintf(of, "unknown"))
	if p := c.WaitPodReady("named"); p.Spec.Overhead.Memory().String() != "12Mi" {
		t.Errorf("its overhead is %v", p.Spec.Overhead)
	}
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "events", "--field-selector=reason=FailedCreatePodSandBox,involvedObject.name=unknown", "-o", "jsonpath={.items[*].message}"); !strings.Contains(out, `no runtime for "none" is configured`) {
			return fmt.Errorf("of the unknown handler the events say %q", out)
		}
		return nil
	})
	file := filepath.Join(t.TempDir(), "absent.yaml")
	if err := os.WriteFile(file, []byte(fmt.Sprintf(of, "absent")), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := c.TryKubectl("create", "-f", file); err == nil || !strings.Contains(out, `RuntimeClass "absent" not found`) {
		t.Errorf("a class that is not there: %v, %q", err, out)
	}
}

func namesAndHosts(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  hostname: other
  subdomain: sub
  hostAliases: [{ip: 192.0.2.7, hostnames: [alias.example]}]
  dnsConfig: {searches: [more.example], options: [{name: attempts, value: "3"}]}
  containers: [{name: main, image: "skiff.dev/web:1", command: [sh, -c, "hostname; cat /etc/hosts /etc/resolv.conf"]}]
`)
	c.WaitPodDone("p")
	out := c.Kubectl("logs", "p")
	for _, want := range []string{"other\n", "other.sub." + "names-and-hosts.svc.cluster.local", "192.0.2.7\talias.example", "nameserver 10.43.0.10",
		"search names-and-hosts.svc.cluster.local svc.cluster.local cluster.local", "more.example", "ndots:5", "attempts:3"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func sharedProcesses(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  shareProcessNamespace: true
  terminationGracePeriodSeconds: 1
  containers:
    - {name: one, image: "skiff.dev/web:1"}
    - {name: two, image: "skiff.dev/web:1", command: [sleep, "1000"]}
`)
	c.WaitPodReady("p")
	if out := c.Kubectl("exec", "p", "-c", "two", "--", "ps"); !strings.Contains(out, "/pause") || !strings.Contains(out, "skiff-web") {
		t.Errorf("one container does not see the other's processes:\n%s", out)
	}
}

func hostNetwork(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  containers: [{name: main, image: "skiff.dev/web:1", env: [{name: PORT, value: "18080"}], ports: [{containerPort: 18080}]}]
`)
	if p := c.WaitPodReady("p"); p.Status.PodIP != cluster.HostIP || p.Status.HostIP != cluster.HostIP {
		t.Errorf("its address is %s on host %s", p.Status.PodIP, p.Status.HostIP)
	}
	cluster.Eventually(t, func() error {
		_, err := c.HTTP("http://127.0.0.1:18080")
		return err
	})
	if out := c.Kubectl("exec", "p", "--", "nslookup", "kubernetes.default.svc.cluster.local"); !strings.Contains(out, "10.43.0.1") {
		t.Errorf("names on the host's network: %s", out)
	}
}

func ephemeralContainer(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "p", "--image=skiff.dev/web:1")
	c.WaitPodReady("p")
	c.Kubectl("debug", "p", "--image=skiff.dev/web:1", "--target=p", "--container=look", "--", "sh", "-c", "wget -q -O - http://127.0.0.1:8080/from-inside; ps")
	p := c.WaitPod("p", "debugged", func(p *corev1.Pod) bool {
		s := p.Status.EphemeralContainerStatuses
		return len(s) == 1 && s[0].State.Terminated != nil
	})
	if s := p.Status.EphemeralContainerStatuses[0].State.Terminated; s.ExitCode != 0 || !cluster.Ready(p) {
		t.Errorf("its end was %+v", s)
	}
	if out := c.Kubectl("logs", "p", "-c", "look"); !strings.Contains(out, "/from-inside") || !strings.Contains(out, "skiff-web") {
		t.Errorf("it saw\n%s", out)
	}
}

func eviction(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("create", "deployment", "d", "--image=skiff.dev/web:1")
	c.Kubectl("rollout", "status", "deployment/d", "--timeout=3m")
	c.Kubectl("create", "poddisruptionbudget", "b", "--selector=app=d", "--min-available=0")
	name := podNames(t, c, "app=d")[0]
	file := write(t, fmt.Sprintf(`{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": %q, "namespace": "eviction"}}`, name))
	c.Kubectl("create", "--raw=/api/v1/namespaces/eviction/pods/"+name+"/eviction", "-f", file)
	c.WaitPodGone(name)
	c.Kubectl("rollout", "status", "deployment/d", "--timeout=3m")
}

func doesNotFit(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: big}
spec: {containers: [{name: main, image: "skiff.dev/web:1", resources: {requests: {cpu: "1000"}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: elsewhere}
spec: {nodeSelector: {nowhere: "true"}, containers: [{name: main, image: "skiff.dev/web:1"}]}
`)
	for name, want := range map[string]string{
		"big":       "0/1 nodes are available: 1 Insufficient cpu.",
		"elsewhere": "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
	} {
		c.WaitPod(name, "unschedulable", func(p *corev1.Pod) bool {
			for _, cond := range p.Status.Conditions {
				if cond.Type == corev1.PodScheduled && cond.Reason == corev1.PodReasonUnschedulable {
					return strings.Contains(cond.Message, want)
				}
			}
			return false
		})
	}
	c.Kubectl("label", "nodes", "--all", "nowhere=true")
	c.WaitPodReady("elsewhere")
}

// refused: pods that go past the scheduler are held to the node's room; a controller makes another in a refused one's place.
func refused(t *testing.T, c *cluster.Cluster) {
	node := strings.TrimSpace(c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	spec := fmt.Sprintf(`{nodeName: %s, terminationGracePeriodSeconds: 0, containers: [{name: main, image: "skiff.dev/web:1", ports: [{containerPort: 80, hostPort: 47113}]}]}`, node)
	c.Apply("{apiVersion: v1, kind: Pod, metadata: {name: one}, spec: " + spec + "}")
	c.WaitPodReady("one")
	c.Apply("{apiVersion: v1, kind: Pod, metadata: {name: two}, spec: " + spec + "}")
	c.WaitPod("two", "refused", func(p *corev1.Pod) bool {
		return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "NodePorts" && len(p.Status.PodIPs) == 0 &&
			p.Status.Message == "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
	})
	c.Kubectl("wait", "--for=create", "event", "--field-selector=involvedObject.name=two,reason=NodePorts", "--timeout=3m")
	if got := c.Kubectl("get", "node", node, "-o", "jsonpath={.status.declaredFeatures}"); got !=
		`["InPlacePodLevelResourcesVerticalScaling","InPlacePodVerticalScalingInitContainers","RestartAllContainersOnContainerExits"]` {
		t.Errorf("the node declares %s", got)
	}
	c.Apply(`{apiVersion: v1, kind: Pod, metadata: {name: three}, spec: {nodeName: ` + node + `, volumes: [{name: v, emptyDir: {}}], containers: [{name: main, image: "skiff.dev/web:1",
		volumeMounts: [{name: v, mountPath: /v, bindMountOptions: [noexec]}]}]}}`)
	c.WaitPodReady("three")
	if got := c.Kubectl("get", "pod", "three", "-o", "jsonpath={..bindMountOptions}"); got != "" {
		t.Errorf("a field of a feature that is off was kept: %s", got)
	}
	c.Apply(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: set}
spec:
  serviceName: set
  selector: {matchLabels: {app: set}}
  template: {metadata: {labels: {app: set}}, spec: ` + spec + `}
`)
	c.Kubectl("wait", "--for=create", "event", "--field-selector=involvedObject.name=set-0,reason=NodePorts", "--timeout=3m")
	c.Kubectl("delete", "pod", "one")
	c.WaitPodReady("set-0")
}

// apiFromInside: a pod reaches the API under its service's name, with its token, and may do what its account may.
func apiFromInside(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("create", "rolebinding", "view", "--clusterrole=view", "--serviceaccount=the-api-from-inside:default")
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  containers: [{name: main, image: "skiff.dev/web:1"}]
`)
	p := c.WaitPodReady("p")
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	token := c.Kubectl("exec", "p", "--", "cat", dir+"token")
	if out := c.Kubectl("exec", "p", "--", "sh", "-c", "cat "+dir+"namespace; echo; head -n 1 "+dir+"ca.crt"); out != p.Namespace+"\n-----BEGIN CERTIFICATE-----\n" {
		t.Errorf("beside the token: %q", out)
	}
	// The image's wget knows no authorities; so kubectl does it from the host, through the service's address and with the pod's token.
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, []byte(c.Kubectl("exec", "p", "--", "cat", dir+"ca.crt")), 0o600); err != nil {
		t.Fatal(err)
	}
	as := []string{"--kubeconfig=/dev/null", "--server=https://10.43.0.1", "--certificate-authority=" + ca, "--token=" + token}
	if out := c.Kubectl(append(as, "get", "pods")...); !strings.Contains(out, "p ") {
		t.Errorf("with the pod's token: %s", out)
	}
	out, err := c.TryKubectl(append(as, "get", "secrets")...)
	if want := `secrets is forbidden: User "system:serviceaccount:the-api-from-inside:default" cannot list resource "secrets"`; err == nil || !strings.Contains(out, want) {
		t.Errorf("what the account may not: %v: %s", err, out)
	}
	if out := c.Kubectl("exec", "p", "--", "nslookup", "kubernetes.default"); !strings.Contains(out, "10.43.0.1") {
		t.Errorf("the API's name: %s", out)
	}
}

// changedImage: of a running pod the image may change; the container is replaced, the pod stays.
func changedImage(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: p, image: "skiff.dev/web:1", args: [], command: [sleep, "1000"]}]}
`)
	before := c.WaitPodReady("p")
	web := cluster.Binary(t, "skiff-web")
	img := cluster.BuildImage(t, map[string]string{"bin/sleep": web, "bin/cat": web}, "/bin/sleep")
	if out, err := c.Skiff("image", "import", cluster.SaveImage(t, img, "test.example/changed:1")); err != nil {
		t.Fatal(err, out)
	}
	c.Kubectl("set", "image", "pod/p", "p=test.example/changed:1")
	after := c.WaitPod("p", "restarted with the other image", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses[0]
		return s.RestartCount == 1 && s.State.Running != nil && s.Image == "test.example/changed:1"
	})
	if before.Status.PodIP != after.Status.PodIP || before.UID != after.UID {
		t.Errorf("the pod is another: %s, %s", before.Status.PodIP, after.Status.PodIP)
	}
}

func conditions(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "p", "--image=skiff.dev/web:1")
	p := c.WaitPodReady("p")
	for _, want := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		found := false
		for _, cond := range p.Status.Conditions {
			found = found || cond.Type == want && cond.Status == corev1.ConditionTrue && !cond.LastTransitionTime.IsZero()
		}
		if !found {
			t.Errorf("condition %s is not there or not true: %+v", want, p.Status.Conditions)
		}
	}
	if p.Status.StartTime == nil || len(p.Status.PodIPs) != 1 || p.Status.ContainerStatuses[0].ImageID == "" {
		t.Errorf("the status lacks something: %+v", p.Status)
	}
	node, err := c.Client().CoreV1().Nodes().Get(context.Background(), p.Spec.NodeName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if node.Status.NodeInfo.KubeletVersion == "" || node.Status.Capacity.Cpu().IsZero() { // its images are reported a while later
		t.Errorf("the node's status lacks something: %+v", node.Status)
	}
}
