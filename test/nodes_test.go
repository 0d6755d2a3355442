package test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/test/cluster"
)

// spreadOverNodes is one pod for each node, behind a Service with a node port; a pod whose node is lost is replaced after 3 s.
const spreadOverNodes = `
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
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 3}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 3}
      containers:
      - name: web
        image: skiff.dev/web:1
        ports: [{containerPort: 8080}]
        env: [{name: MESSAGE, valueFrom: {configMapKeyRef: {name: words, key: greeting}}}]
        volumeMounts: [{name: words, mountPath: /words}]
      volumes: [{name: words, configMap: {name: words}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {greeting: hello}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
`

// TestNodes: three hosts are one cluster. Steps build on one another.
func TestNodes(t *testing.T) {
	t.Parallel()
	c := cluster.StartNodes(t, 3)
	c.Apply(spreadOverNodes)
	c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")

	t.Run("volumes", func(t *testing.T) { agentVolume(t, c) })
	t.Run("nodes", func(t *testing.T) {
		out := c.For(t).Kubectl("get", "nodes", "-o", "wide")
		for i, h := range c.Hosts() {
			if want := fmt.Sprintf(`(?m)^node-%d +Ready +.*%s +<none> .*containerd://`, i+1, regexp.QuoteMeta(h.IP())); !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("no match for %q in\n%s", want, out)
			}
		}
		out = c.For(t).Kubectl("get", "csr")
		for _, want := range []string{`kube-apiserver-client-kubelet +system:bootstrap:[a-z0-9]{6} +<none> +Approved,Issued`, `kubelet-serving +system:node:node-3 +<none> +Approved,Issued`} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("no match for %q in\n%s", want, out)
			}
		}
	})
	byNode := podsByNode(t, c.For(t), 3)
	t.Run("pods talk to pods on other nodes", func(t *testing.T) { podToPod(t, c.For(t), byNode) })
	t.Run("services and DNS answer on every node", func(t *testing.T) { servedEverywhere(t, c, byNode) })
	t.Run("streams to a pod on an agent", func(t *testing.T) { agentStreams(t, c, byNode["node-2"]) })
	t.Run("a changed ConfigMap reaches a pod on an agent", func(t *testing.T) {
		v := c.For(t)
		v.Kubectl("patch", "configmap", "words", "-p", `{"data":{"greeting":"ahoy"}}`)
		cluster.Eventually(t, func() error {
			if out, err := v.TryKubectl("exec", byNode["node-3"].Name, "--", "cat", "/words/greeting"); err != nil || strings.TrimSpace(out) != "ahoy" {
				return fmt.Errorf("%q, %v", out, err)
			}
			return nil
		})
	})
	t.Run("an agent that restarts keeps its containers", func(t *testing.T) { restartAgent(t, c, byNode["node-2"]) })
	t.Run("a server that restarts is found again", func(t *testing.T) { restartServer(t, c, byNode) })
	t.Run("over nodes", func(t *testing.T) { overNodes(t, c) })
	t.Run("who may not join", func(t *testing.T) { mayNotJoin(t, c) })
	t.Run("a host that dies", func(t *testing.T) { hostDies(t, c, byNode["node-3"]) })
	t.Run("down leaves nothing", func(t *testing.T) {
		for _, one := range append([]*cluster.Cluster{c.Cluster}, c.Agents...) {
			at := time.Now()
			out, err := one.Skiff("down")
			if took := time.Since(at); err != nil || took > 15*time.Second {
				t.Errorf("skiff down on %s took %s, %v\n%s\nthe process said:\n%s", one.Host().IP(), took, err, out, one.Output())
			}
			for _, left := range one.Leftovers() {
				t.Errorf("left behind on %s: %s", one.Host().IP(), left)
			}
		}
	})
}

// TestDirectRouting: nodes on one link reach each other's pods without an overlay.
func TestDirectRouting(t *testing.T) {
	t.Parallel()
	c := cluster.StartNodes(t, 2, "--direct-routing")
	c.Apply(strings.Replace(spreadOverNodes, "replicas: 3", "replicas: 2", 1))
	c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")
	if out, err := c.Run("ip", "-4", "route", "show", "proto", "211"); err != nil || !strings.Contains(out, "via 172.31.0.12 dev eth0") {
		t.Errorf("%v: %s", err, out)
	}
	podToPod(t, c.Cluster, podsByNode(t, c.Cluster, 2))
	for _, h := range c.Hosts() {
		for _, node := range c.Hosts() {
			allAnswer(t, node.IP()+" from "+h.IP(), 2, func() (string, error) { return h.HTTP("http://" + node.IP() + ":30080") })
		}
	}
}

// podsByNode waits until n pods of the deployment are ready, and returns them by the names of their nodes.
func podsByNode(t *testing.T, c *cluster.Cluster, n int) map[string]corev1.Pod {
	t.Helper()
	found := map[string]corev1.Pod{}
	for _, p := range pods(t, c, "app=web") {
		if cluster.Ready(&p) {
			found[p.Spec.NodeName] = p
		}
	}
	if len(found) != n {
		t.Fatalf("pods are on %d nodes, not on %d:\n%s", len(found), n, c.Kubectl("get", "pods", "-o", "wide"))
	}
	return found
}

// podToPod fetches a page from each pod in each, by address. Question and answer are larger than any packet, and who asks is seen as what it is.
func podToPod(t *testing.T, c *cluster.Cluster, byNode map[string]corev1.Pod) {
	long := strings.Repeat("x", 20000)
	for from, a := range byNode {
		for to, b := range byNode {
			if from == to {
				continue
			}
			out, err := c.TryKubectl("exec", a.Name, "--", "wget", "-q", "-T", "5", "-O", "-", "http://"+b.Status.PodIP+":8080/"+long)
			if err != nil || !strings.Contains(out, b.Name) || !strings.Contains(out, long) || !strings.Contains(out, " "+a.Status.PodIP+":") {
				t.Errorf("from %s (%s) to %s: %v\n%.500s … %.200s", from, a.Status.PodIP, to, err, out, out[max(0, len(out)-200):])
			}
		}
	}
}

func servedEverywhere(t *testing.T, c *cluster.Nodes, byNode map[string]corev1.Pod) {
	v := c.For(t)
	ip := strings.TrimSpace(v.Kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"))
	for i, h := range c.Hosts() {
		for _, url := range []string{"http://" + ip, "http://127.0.0.1:30080", "http://" + h.IP() + ":30080", "http://" + c.Hosts()[(i+1)%3].IP() + ":30080"} {
			allAnswer(t, url+" from "+h.IP(), 3, func() (string, error) { return h.HTTP(url) })
		}
	}
	for node, p := range byNode {
		byName := func() (string, error) {
			return v.TryKubectl("exec", p.Name, "--", "wget", "-q", "-T", "5", "-O", "-", "http://web.default.svc.cluster.local")
		}
		allAnswer(t, "by name from a pod on "+node, 3, byName)
		// The API server's own Service leads to the server's host.
		out, err := v.TryKubectl("exec", p.Name, "--", "sh", "-c", "wget -q -T 5 -O - https://kubernetes.default.svc/version 2>&1 || true")
		if err != nil || strings.Contains(out, "refused") || strings.Contains(out, "timeout") || strings.Contains(out, "timed out") || strings.Contains(out, "no such host") {
			t.Errorf("the API server from a pod on %s: %v: %s", node, err, out)
		}
	}
}

func agentStreams(t *testing.T, c *cluster.Nodes, p corev1.Pod) {
	v := c.For(t)
	if out := v.Kubectl("exec", p.Name, "--", "hostname"); strings.TrimSpace(out) != p.Name {
		t.Errorf("exec says %q", out)
	}
	if out := v.Kubectl("logs", p.Name); !strings.Contains(out, "GET /") {
		t.Errorf("logs show no request:\n%s", out)
	}
	portForward(t, v)
	port := strings.TrimSpace(v.Kubectl("get", "node", "node-2", "-o", "jsonpath={.status.daemonEndpoints.kubeletEndpoint.Port}"))
	for _, node := range []string{"node-2", "node-2:" + port, "https:node-2:" + port} {
		if out := v.Kubectl("get", "--raw", "/api/v1/nodes/"+node+"/proxy/healthz"); !strings.Contains(out, "ok") {
			t.Errorf("the kubelet at %s says %q", node, out)
		}
	}
	if out := v.Kubectl("get", "--raw", "/api/v1/nodes/node-2/proxy/logs/"); !strings.Contains(out, "<pre>") {
		t.Errorf("the host's logs: %q", out)
	}
}

// containers of a pod, by their IDs and start times.
func containers(t *testing.T, c *cluster.Cluster, pod string) string {
	t.Helper()
	return c.Kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[*].containerID} {.status.containerStatuses[*].state.running.startedAt}")
}

func restartAgent(t *testing.T, c *cluster.Nodes, p corev1.Pod) {
	v, agent := c.For(t), c.Agents[0].For(t)
	before := containers(t, v, p.Name)
	agent.Kill()
	for range 20 { // what it has set up goes on without it
		if _, err := agent.Host().HTTP("http://127.0.0.1:30080"); err != nil {
			t.Fatalf("the node port does not answer without the agent: %v", err)
		}
	}
	agent.Agent() // neither server nor token: it knows
	v.Kubectl("wait", "node/node-2", "--for=condition=Ready", "--timeout=3m")
	if after := containers(t, v, p.Name); after != before {
		t.Errorf("before: %s, after: %s", before, after)
	}
	podToPod(t, v, podsByNode(t, v, 3))
}

// restartServer: without the server, services go on; with it, the nodes are back and nothing was moved.
func restartServer(t *testing.T, c *cluster.Nodes, byNode map[string]corev1.Pod) {
	server := c.For(t)
	server.Kill()
	for range 20 {
		if _, err := c.Agents[0].Host().HTTP("http://127.0.0.1:30080"); err != nil {
			t.Fatalf("the node port on an agent does not answer without the server: %v", err)
		}
	}
	server.Server()
	server.Kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=3m")
	for node, before := range byNode {
		if out := strings.TrimSpace(server.Kubectl("exec", before.Name, "--", "hostname")); out != before.Name {
			t.Errorf("the pod on %s says %q", node, out)
		}
	}
}

// mayNotJoin: tokens that were deleted, have expired, are another cluster's or no tokens at all; a name that is taken.
func mayNotJoin(t *testing.T, c *cluster.Nodes) {
	v := c.For(t)
	deleted := c.Token("--description", "to be deleted")
	id, _, _ := strings.Cut(deleted[strings.Index(deleted, "::")+2:], ".")
	if out, err := v.Skiff("token", "list"); err != nil || !strings.Contains(out, id) || strings.Contains(out, deleted[len(deleted)-16:]) {
		t.Errorf("token list, %v:\n%s", err, out)
	}
	if out, err := v.Skiff("token", "delete", id); err != nil {
		t.Errorf("token delete: %v\n%s", err, out)
	}
	good := c.Token()
	other := "skiff1" + strings.Repeat("0", 64) + good[70:]
	cases := []struct{ name, node, token, want string }{
		{"deleted token", "node-9", deleted, "the server does not take it"},
		{"another cluster's authority", "node-9", other, "CA hash mismatch"},
		{"token without a pin", "node-9", good[72:], "does not say which cluster"},
		{"no token", "node-9", "", "has not joined a cluster yet"},
		{"taken name", "node-2", good, `has a node "node-2" already`},
		{"the server's name", "node-1", good, `has a node "node-1" already`},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			h := c.NewAgent(t, tc.node)
			out, err := h.TryAgent("--server", c.URL(), "--token", tc.token)
			if err == nil || !strings.Contains(out, tc.want) || strings.Count(strings.TrimSpace(out), "\n") > 0 {
				t.Errorf("want one line with %q, got %v:\n%s", tc.want, err, out)
			}
			if tc.token != "" && strings.Contains(out, tc.token[len(tc.token)-16:]) {
				t.Errorf("the token's secret is in the message:\n%s", out)
			}
			if _, err := os.Stat(h.DataDir); err == nil {
				t.Error("a join that failed left its data dir behind")
			}
		})
	}
	t.Run("expired token", func(t *testing.T) {
		short := c.Token("--ttl", "1s")
		time.Sleep(1100 * time.Millisecond)
		h := c.NewAgent(t, "node-9")
		if out, err := h.TryAgent("--server", c.URL(), "--token", short); err == nil || !strings.Contains(out, "the server does not take it") {
			t.Errorf("got %v:\n%s", err, out)
		}
	})
	t.Run("one name, two hosts at once", func(t *testing.T) { joinTogether(t, c, good) })
	t.Run("a link too narrow for pods", func(t *testing.T) {
		h := c.NewAgent(t, "node-9")
		if out, err := h.Run("ip", "link", "set", "eth0", "mtu", "1300"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out, err := h.TryAgent("--server", c.URL(), "--token", good)
		if err == nil || !strings.Contains(out, "give it an MTU of at least 1330") || strings.Count(strings.TrimSpace(out), "\n") > 0 {
			t.Errorf("got %v:\n%s", err, out)
		}
		if _, err := os.Stat(h.DataDir); err == nil {
			t.Error("a join that failed left its data dir behind")
		}
	})
	t.Run("a host whose address is among the pods'", func(t *testing.T) {
		h := c.NewAgent(t, "node-9")
		if out, err := h.Run("ip", "addr", "add", "10.42.77.1/24", "dev", "eth0"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		out, err := h.TryAgent("--server", c.URL(), "--token", good, "--node-ip", "10.42.77.1")
		if err == nil || !strings.Contains(out, "skiff: pod-cidr: 10.42.0.0/16 holds this host's own address 10.42.77.1") {
			t.Errorf("got %v:\n%s", err, out)
		}
		if out, err := h.Run("ip", "addr", "del", "10.42.77.1/24", "dev", "eth0"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if _, err := os.Stat(h.DataDir); err == nil {
			t.Error("a join that failed left its data dir behind")
		}
	})
	t.Run("join command", func(t *testing.T) {
		out, err := v.Skiff("token", "create", "--print-join-command")
		if err != nil || !regexp.MustCompile(`^skiff agent --server `+c.URL()+` --token skiff1[0-9a-f]{64}::[a-z0-9]{6}\.[a-z0-9]{16}\n$`).MatchString(out) {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// joinTogether: of two hosts that ask for one unused name at the same time, one becomes that node and the other is told so.
func joinTogether(t *testing.T, c *cluster.Nodes, token string) {
	both := []*cluster.Cluster{c.NewAgent(t, "node-9"), c.NewAgent(t, "node-9")}
	joined := make(chan bool, len(both))
	for _, h := range both {
		h.BeginAgent("--server", c.URL(), "--token", token)
		go func() { joined <- h.Joined() }()
	}
	if first, second := <-joined, <-joined; first == second {
		t.Errorf("both joined: %t; they said\n%s\nand\n%s", first, both[0].Output(), both[1].Output())
	}
	if said := both[0].Output() + both[1].Output(); !regexp.MustCompile(`node-name: .*node "?node-9"?`).MatchString(said) {
		t.Errorf("nobody was told that the name is taken:\n%s", said)
	}
	for _, h := range both {
		h.Remove()
	}
	c.For(t).Kubectl("delete", "node", "node-9", "--timeout=3m")
}

// hostDies: a host that loses its link is noticed within 15 s and its pod runs elsewhere; when it comes back it is taken in, and does not run
// what was replaced.
func hostDies(t *testing.T, c *cluster.Nodes, p corev1.Pod) {
	v, host := c.For(t), c.Agents[1].Host()
	v.Apply(database)
	db := *v.WaitPodReady("db-0")
	if db.Spec.NodeName != "node-3" {
		t.Fatalf("db-0 is on %s", db.Spec.NodeName)
	}
	at := time.Now()
	host.Cut()
	v.Kubectl("wait", "node/node-3", "--for=condition=Ready=Unknown", "--timeout=3m")
	if took := time.Since(at); took > 15*time.Second {
		t.Errorf("it took %s to notice", took)
	} else {
		t.Logf("noticed after %s", took.Round(100*time.Millisecond))
	}
	cluster.Eventually(t, func() error {
		var ready int
		for _, one := range pods(t, v, "app=web") {
			if one.Spec.NodeName != "node-3" && cluster.Ready(&one) {
				ready++
			}
		}
		if ready != 3 {
			return fmt.Errorf("%d of 3 pods are ready on the nodes that are left", ready)
		}
		return nil
	})
	t.Logf("replaced after %s", time.Since(at).Round(100*time.Millisecond))
	for i, h := range c.Hosts()[:2] {
		for range 10 {
			if _, err := h.HTTP("http://127.0.0.1:30080"); err != nil {
				t.Errorf("the service from node-%d: %v", i+1, err)
			}
		}
	}
	heldIdentity(t, v, db)
	host.Mend()
	v.Kubectl("wait", "node/node-3", "--for=condition=Ready", "--timeout=3m")
	replacedIdentity(t, v, db)
	v.Kubectl("wait", "pod/"+p.Name, "--for=delete", "--timeout=3m")
	cluster.Eventually(t, func() error {
		var node corev1.Node
		if err := json.Unmarshal([]byte(v.Kubectl("get", "node", "node-3", "-o", "json")), &node); err != nil {
			return err
		}
		if len(node.Spec.Taints) > 0 {
			return fmt.Errorf("node-3 has taints %v", node.Spec.Taints)
		}
		return nil
	})
}
