package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/test/cluster"
)

// stopSignals: a container is asked to end by the signal that it names, else by the image's or SIGTERM; its status says which.
func stopSignals(t *testing.T, c *cluster.Cluster) {
	dir := t.TempDir()
	container := func(name, lifecycle string) string {
		return fmt.Sprintf(`{name: %[1]s, image: %[2]q, args: [asked], env: [{name: NAME, value: %[1]s}], volumeMounts: [{name: v, mountPath: /v}]%[3]s}`, name, peerName, lifecycle)
	}
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  os: {name: linux}
  volumes: [{name: v, hostPath: {path: "` + dir + `"}}]
  containers:
  - ` + container("usual", "") + `
  - ` + container("named", ", lifecycle: {stopSignal: SIGUSR1}") + `
`)
	p := c.WaitPodReady("p")
	for _, name := range []string{"usual", "named"} {
		cluster.Eventually(t, func() error { // it heeds signals
			if out, err := c.TryKubectl("logs", "p", "-c", name); err != nil || out != "waiting\n" {
				return fmt.Errorf("%s says %q (%v)", name, out, err)
			}
			return nil
		})
	}
	for _, s := range p.Status.ContainerStatuses {
		if s.Name == "named" && (s.StopSignal == nil || *s.StopSignal != corev1.SIGUSR1) {
			t.Errorf("the status of the container says %v", s.StopSignal)
		}
	}
	c.Kubectl("delete", "pod", "p")
	if got := endings(t, dir); got != "named 10, usual 15" && got != "usual 15, named 10" {
		t.Errorf("containers ended by the signals %q", got)
	}
	file := write(t, `{apiVersion: v1, kind: Pod, metadata: {name: q}, spec: {containers: [`+container("q", ", lifecycle: {stopSignal: SIGUSR1}")+`], volumes: [{name: v, emptyDir: {}}]}}`)
	if out, err := c.TryKubectl("create", "-f", file); err == nil || !strings.Contains(out, "may not be set for containers with empty `spec.os.name`") {
		t.Errorf("a signal of no system: %v\n%s", err, out)
	}
}

// endings are the lines that containers wrote as they ended.
func endings(t *testing.T, dir string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "ends"))
	if err != nil {
		t.Error(err)
	}
	return strings.ReplaceAll(strings.TrimSpace(string(raw)), "\n", ", ")
}

// sidecarsEnd: sidecars are asked to end when all else has ended, from the last to the first; their preStop hooks however begin at once.
func sidecarsEnd(t *testing.T, c *cluster.Cluster) {
	dir := t.TempDir()
	container := func(name, hook string) string {
		return fmt.Sprintf(`{name: %[1]s, image: %[2]q, args: [asked], env: [{name: NAME, value: %[1]s}], volumeMounts: [{name: v, mountPath: /v}], lifecycle: {preStop: {exec: {command: [sh, -c, %[3]q]}}}`,
			name, peerName, hook)
	}
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  volumes: [{name: v, hostPath: {path: "` + dir + `"}}]
  initContainers:
  - ` + container("one", "echo hook of one >> /v/ends") + `, restartPolicy: Always}
  - ` + container("two", "echo hook of two >> /v/ends") + `, restartPolicy: Always}
  containers:
  - ` + container("main", "sleep 2; echo hook of main >> /v/ends") + `}
`)
	c.WaitPodReady("p")
	c.Kubectl("delete", "pod", "p")
	got := endings(t, dir)
	if !regexp.MustCompile(`^(hook of one, hook of two|hook of two, hook of one), hook of main, main 15, two 15, one 15$`).MatchString(got) {
		t.Errorf("the pod ended so: %s", got)
	}
}

// preStopSleep: a container goes on to answer while its hook sleeps, and is asked to end then.
func preStopSleep(t *testing.T, c *cluster.Cluster) {
	dir := t.TempDir()
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  volumes: [{name: v, hostPath: {path: "` + dir + `"}}]
  containers:
  - {name: main, image: "` + peerName + `", args: [asked], env: [{name: NAME, value: main}], volumeMounts: [{name: v, mountPath: /v}], lifecycle: {preStop: {sleep: {seconds: 3}}}}
`)
	c.WaitPodReady("p")
	began := time.Now()
	c.Kubectl("delete", "pod", "p")
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("it was gone after %s", took)
	}
	if got := endings(t, dir); got != "main 15" {
		t.Errorf("the container ended so: %q", got)
	}
}

// probeGrace: a container that fails a probe has the probe's grace period to end, not the pod's.
func probeGrace(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 3600
  containers:
  - {name: main, image: "` + peerName + `", args: [stubborn], livenessProbe: {exec: {command: [cat, /nothing]}, periodSeconds: 1, failureThreshold: 1, terminationGracePeriodSeconds: 1}}
`)
	p := c.WaitPod("p", "restarted", func(p *corev1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) == 1 && s[0].RestartCount > 0 && s[0].LastTerminationState.Terminated != nil
	})
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last.ExitCode != 137 {
		t.Errorf("it ended so: %+v", last)
	}
	c.Kubectl("delete", "pod", "p", "--force", "--grace-period=0")
}

// restartRules: a container's own policy and rules go before the pod's, and a rule before the policy.
func restartRules(t *testing.T, c *cluster.Cluster) {
	const container = `
  - name: %[1]s
    image: skiff.dev/web:1
    command: [sh, -c, "echo x >> /v/%[1]s; [ $(wc -l < /v/%[1]s) = 1 ] && exit 42; exit %[2]d"]
    volumeMounts: [{name: v, mountPath: /v}]
    %[3]s
`
	rule := `restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]`
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  restartPolicy: Never
  volumes: [{name: v, emptyDir: {}}]
  containers:` + fmt.Sprintf(container, "ruled", 7, "restartPolicy: Never\n    "+rule) + fmt.Sprintf(container, "own", 0, "restartPolicy: OnFailure") + fmt.Sprintf(container, "pods", 0, "") +
		fmt.Sprintf(container, "unruled", 0, "restartPolicy: Never\n    "+strings.Replace(rule, "operator: In", "operator: NotIn", 1)))
	p := c.WaitPodDone("p")
	for _, s := range p.Status.ContainerStatuses {
		want := map[string][2]int32{"ruled": {1, 7}, "own": {1, 0}, "pods": {0, 42}, "unruled": {0, 42}}[s.Name]
		if s.State.Terminated == nil || [2]int32{s.RestartCount, s.State.Terminated.ExitCode} != want {
			t.Errorf("%s: restarts and exit code are to be %v: %+v", s.Name, want, s)
		}
	}
	if p.Status.Phase != corev1.PodFailed {
		t.Errorf("the pod is %s", p.Status.Phase)
	}
}

// strictGroups: a process has the groups that the pod names, and with the policy Strict none that the image's /etc/group gives its user.
func strictGroups(t *testing.T, c *cluster.Cluster) {
	web := cluster.Binary(t, "skiff-web")
	dir := t.TempDir()
	for name, text := range map[string]string{"passwd": "app:x:1234:1234::/:/bin/sh\n", "group": "app:x:1234:\nextra:x:5678:app\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	img := cluster.BuildImage(t, map[string]string{"bin/id": web, "etc/passwd": filepath.Join(dir, "passwd"), "etc/group": filepath.Join(dir, "group")}, "/bin/id")
	if out, err := c.Skiff("image", "import", cluster.SaveImage(t, img, "test.example/groups:1")); err != nil {
		t.Fatal(err, out)
	}
	for policy, extra := range map[string]bool{"Merge": true, "Strict": false} {
		name := strings.ToLower(policy)
		c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
  restartPolicy: Never
  securityContext: {runAsUser: 1234, runAsGroup: 1234, supplementalGroups: [4567], supplementalGroupsPolicy: ` + policy + `}
  containers: [{name: main, image: "test.example/groups:1"}]
`)
		p := c.WaitPodDone(name)
		out := c.Kubectl("logs", name)
		if !strings.Contains(out, "4567") || strings.Contains(out, "5678") != extra {
			t.Errorf("%s: %s", policy, out)
		}
		if u := p.Status.ContainerStatuses[0].User; u == nil || u.Linux == nil || u.Linux.UID != 1234 || (len(u.Linux.SupplementalGroups) == 3) != extra {
			t.Errorf("%s: the status says %+v", policy, u)
		}
	}
}

// debugCopies: kubectl debug makes a copy of a pod with another command, or a pod that sees its node.
func debugCopies(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "p", "--image=skiff.dev/web:1", "--labels=app=p", "--command", "--", "sh", "-c", "exit 9")
	c.Kubectl("debug", "p", "--copy-to=copy", "--container=p", "--share-processes", "--", "sleep", "1000")
	copied := c.WaitPodReady("copy")
	if s := copied.Spec; s.ShareProcessNamespace == nil || !*s.ShareProcessNamespace || fmt.Sprint(s.Containers[0].Command) != "[sleep 1000]" || len(copied.Labels) > 0 {
		t.Errorf("the copy is %+v, labels %v", s, copied.Labels)
	}
	if out := c.Kubectl("exec", "copy", "--", "ps"); !strings.Contains(out, "sleep") || !strings.Contains(out, "/pause") {
		t.Errorf("the copy's processes: %s", out)
	}
	out := c.Kubectl("debug", "node/"+copied.Spec.NodeName, "--image=skiff.dev/web:1", "--profile=general", "--", "sh", "-c", "cat /host/etc/hostname /proc/1/comm; ls /host/proc/1")
	name := regexp.MustCompile(`node-debugger-\S+`).FindString(out)
	if name == "" {
		t.Fatalf("debug of a node says %q", out)
	}
	p := c.WaitPodDone(name)
	first, err := os.ReadFile("/proc/1/comm")
	if err != nil {
		t.Fatal(err)
	}
	if out := c.Kubectl("logs", name); !strings.Contains(out, string(first)) || !strings.Contains(out, "cmdline") || !p.Spec.HostNetwork || !p.Spec.HostPID {
		t.Errorf("a pod that debugs a node saw %q; %+v", out, p.Spec)
	}
}
