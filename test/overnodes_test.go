package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"skiff.dev/skiff/test/cluster"
)

// everywhere is a web server on each node, one that is on node-2 alone, and services that keep to a node or to an endpoint.
const everywhere = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: skiff.dev/web:1, ports: [{containerPort: 8080}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: second}
spec:
  selector: {matchLabels: {app: second}}
  template:
    metadata: {labels: {app: second}}
    spec:
      nodeSelector: {kubernetes.io/hostname: node-2}
      terminationGracePeriodSeconds: 1
      containers: [{name: web, image: skiff.dev/web:1, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {selector: {app: web}, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: inside}
spec: {selector: {app: web}, internalTrafficPolicy: Local, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: near}
spec: {selector: {app: web}, trafficDistribution: PreferSameNode, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: zoned}
spec: {selector: {app: web}, trafficDistribution: PreferSameZone, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {selector: {app: second}, trafficDistribution: PreferSameNode, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: NodePort, selector: {app: second}, externalTrafficPolicy: Local, ports: [{port: 80, targetPort: 8080, nodePort: 30081}]}
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec: {type: LoadBalancer, selector: {app: second}, externalTrafficPolicy: Local, ports: [{port: 80, targetPort: 8080}]}
`

// overNodes walks what differs when pods are on several nodes, in a namespace of its own. Steps build on one another.
func overNodes(t *testing.T, nodes *cluster.Nodes) {
	c := nodes.Space(t, "over")
	c.Apply(everywhere)
	c.Kubectl("rollout", "status", "daemonset", "web", "--timeout=3m")
	c.Kubectl("rollout", "status", "deployment", "second", "--timeout=3m")
	t.Run("figures", func(t *testing.T) { figuresOfNodes(t, c.For(t)) })
	t.Run("services that keep to a node", func(t *testing.T) { keptServices(t, nodes, c.For(t)) })
	t.Run("health checks of load balancers", func(t *testing.T) { healthNodePorts(t, nodes, c.For(t)) })
	t.Run("search in logs", func(t *testing.T) { searchNodes(t, nodes, c.For(t)) })
	t.Run("search in a namespace's logs", func(t *testing.T) { searchNamespace(t, nodes, c.For(t)) })
	t.Run("policies", func(t *testing.T) { policiesOverNodes(t, c.For(t), podsByNode(t, nodes.For(t), 3)["node-1"]) })
	t.Run("nodes are drained under load", func(t *testing.T) { drainUnderLoad(t, nodes, c.For(t)) })
	c.Kubectl("delete", "namespace", "over", "--wait=false")
}

// figuresOfNodes: every node, and pods on all of them, have theirs.
func figuresOfNodes(t *testing.T, c *cluster.Cluster) {
	for what, pattern := range map[string]string{"nodes": `(?m)^node-\d +\d+m +\d+% +\d+Mi +\d+%`, "pods": `(?m)^web-\S+ +\d+m +\d+Mi`} {
		cluster.Eventually(t, func() error {
			out, err := c.TryKubectl("top", what)
			if n := len(regexp.MustCompile(pattern).FindAllString(out, -1)); err != nil || n != 3 {
				return fmt.Errorf("top %s: %d of 3, %v\n%s", what, n, err, out)
			}
			return nil
		})
	}
}

// healthNodePorts: a balancer outside asks each node whether it has a pod of the service.
func healthNodePorts(t *testing.T, nodes *cluster.Nodes, c *cluster.Cluster) {
	port := field(c, "service/balanced", ".spec.healthCheckNodePort")
	client := nodes.Link.NewHost(t)
	for i, h := range nodes.Hosts() {
		cluster.Eventually(t, func() error {
			out, err := client.HTTP("http://" + h.IP() + ":" + port + "/healthz")
			if has := regexp.MustCompile(`"localEndpoints": ?1\b`).MatchString(out); has != (i == 1) || has != (err == nil) {
				return fmt.Errorf("node-%d: %v\n%s", i+1, err, out)
			}
			if !strings.Contains(out, `"name": "balanced"`) && !strings.Contains(out, `"name":"balanced"`) {
				return fmt.Errorf("node-%d says\n%s", i+1, out)
			}
			return nil
		})
	}
	c.Kubectl("delete", "service", "balanced")
}

var answeringPod = regexp.MustCompile(`(?m)^pod +\S+`)

func keptServices(t *testing.T, nodes *cluster.Nodes, c *cluster.Cluster) {
	byNode := podsByNode(t, c, 3)
	sticky, inside := "http://"+serviceIP(c, "sticky"), "http://"+serviceIP(c, "inside")
	near, elsewhere := "http://"+serviceIP(c, "near"), "http://"+serviceIP(c, "elsewhere")
	for i, h := range nodes.Hosts() {
		node := fmt.Sprintf("node-%d", i+1)
		cluster.Eventually(t, func() error { _, err := h.HTTP(sticky); return err })
		seen := map[string]bool{}
		for range 20 {
			out, err := h.HTTP(sticky)
			if err != nil {
				t.Fatal(err)
			}
			seen[answeringPod.FindString(out)] = true
		}
		if len(seen) != 1 {
			t.Errorf("session affinity: %s was answered by %v", node, seen)
		}
		for range 10 {
			for what, url := range map[string]string{"internalTrafficPolicy Local": inside, "trafficDistribution PreferSameNode": near} {
				if out, err := h.HTTP(url); err != nil || !strings.Contains(out, byNode[node].Name) {
					t.Fatalf("%s on %s: %v\n%s", what, node, err, out)
				}
			}
		}
		if _, err := h.HTTP(elsewhere); err != nil {
			t.Errorf("%s has no endpoint of a service that prefers the same node, and is led to none: %v", node, err)
		}
	}
	keptInZone(t, nodes, c, byNode)
	client := nodes.Link.NewHost(t) // of no cluster
	cluster.Eventually(t, func() error {
		out, err := client.HTTP("http://" + nodes.Hosts()[1].IP() + ":30081")
		if err == nil && !strings.Contains(out, " "+client.IP()+":") {
			err = fmt.Errorf("the client's address did not arrive:\n%s", out)
		}
		return err
	})
	for _, other := range []*cluster.Host{nodes.Hosts()[0], nodes.Hosts()[2]} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		conn, err := client.Dial(ctx, "tcp", other.IP()+":30081")
		cancel()
		if err == nil {
			conn.Close()
			t.Errorf("externalTrafficPolicy Local: %s, which has no such pod, answers", other.IP())
		}
	}
}

// keptInZone: with a zone for each node's label, packets stay in the zone they come from.
func keptInZone(t *testing.T, nodes *cluster.Nodes, c *cluster.Cluster, byNode map[string]corev1.Pod) {
	zones := map[string]string{"node-1": "a", "node-2": "a", "node-3": "b"}
	for node, zone := range zones {
		c.Kubectl("label", "node", node, "topology.kubernetes.io/zone="+zone)
	}
	url := "http://" + serviceIP(c, "zoned")
	for i, h := range nodes.Hosts() {
		want := map[string]bool{}
		for node, zone := range zones {
			if zone == zones[fmt.Sprintf("node-%d", i+1)] {
				want["pod "+byNode[node].Name] = true
			}
		}
		cluster.Eventually(t, func() error {
			for range 20 {
				out, err := h.HTTP(url)
				if who := strings.Join(strings.Fields(answeringPod.FindString(out)), " "); err != nil || !want[who] {
					return fmt.Errorf("node-%d was answered by %q, want one of %v: %v", i+1, who, want, err)
				}
			}
			return nil
		})
	}
	c.Kubectl("label", "nodes", "--all", "topology.kubernetes.io/zone-")
	cluster.Eventually(t, func() error {
		for range 40 {
			if out, err := nodes.Hosts()[0].HTTP(url); err == nil && strings.Contains(out, byNode["node-3"].Name) {
				return nil
			}
		}
		return fmt.Errorf("there are no zones any more, and packets keep to one")
	})
}

// searchNodes: one search finds what was written on every node, also by a pod that is gone.
func searchNodes(t *testing.T, nodes *cluster.Nodes, c *cluster.Cluster) {
	found := map[string]string{}
	for _, p := range pods(t, c, "app=web") {
		if _, err := nodes.Host().HTTP("http://" + p.Status.PodIP + ":8080/needle"); err != nil {
			t.Fatal(err)
		}
		found[p.Spec.NodeName] = p.Name
	}
	search := func(names ...string) func() error {
		return func() error {
			out, err := c.Skiff("logs", "-n", "over", "-l", "app=web", "--search", "needle")
			for _, name := range names {
				if !strings.Contains(out, "over/"+name+"/web") {
					return fmt.Errorf("nothing of %s, %v:\n%s", name, err, out)
				}
			}
			if n := strings.Count(out, "\n"); err != nil || n != len(names) {
				return fmt.Errorf("%d lines, not %d, %v:\n%s", n, len(names), err, out)
			}
			return nil
		}
	}
	all := []string{found["node-1"], found["node-2"], found["node-3"]}
	cluster.Eventually(t, search(all...))
	c.Kubectl("delete", "pod", found["node-3"])
	cluster.Eventually(t, search(all...))
	c.Kubectl("rollout", "status", "daemonset", "web", "--timeout=3m")
}

// searchNamespace: somebody who may view one namespace searches its pods on all nodes, live ones and those that come, and no others.
func searchNamespace(t *testing.T, nodes *cluster.Nodes, c *cluster.Cluster) {
	c.Kubectl("create", "serviceaccount", "viewer")
	c.Kubectl("create", "rolebinding", "viewer", "--clusterrole=view", "--serviceaccount=over:viewer")
	as := viewerKubeconfig(t, c, strings.TrimSpace(c.Kubectl("create", "token", "viewer")))
	search := func(args ...string) *exec.Cmd {
		cmd := c.Command(append([]string{"logs"}, args...)...)
		cmd.Env = append(cmd.Env, "KUBECONFIG="+as)
		return cmd
	}
	said := func(word string) {
		t.Helper()
		for _, p := range pods(t, c, "app=web") {
			if _, err := nodes.Host().HTTP("http://" + p.Status.PodIP + ":8080/" + word); err != nil {
				t.Fatal(err)
			}
		}
	}
	said("haystack")
	cluster.Eventually(t, func() error {
		var out, notes bytes.Buffer
		cmd := search("-n", "over", "daemonset/web", "--search", "haystack")
		cmd.Stdout, cmd.Stderr = &out, &notes
		err := cmd.Run()
		if err != nil || notes.String() != "pods that are gone are not searched: that takes the right to get nodes/proxy\n" {
			return fmt.Errorf("%v\n%s", err, &notes)
		}
		for _, p := range pods(t, c, "app=web") {
			if strings.Count(out.String(), "Z over/"+p.Name+"/web ") != 1 {
				return fmt.Errorf("not once of %s:\n%s", p.Name, &out)
			}
		}
		if n := strings.Count(out.String(), "\n"); n != 3 {
			return fmt.Errorf("%d lines:\n%s", n, &out)
		}
		return nil
	})
	follow := start(t, search("-n", "over", "-l", "app=web", "--search", "haystack|needles|fresh", "--follow"))
	for range 3 {
		follow.waitFor(t, regexp.MustCompile(`^\S+Z over/web-\S+/web .*haystack`))
	}
	said("needles")
	for range 3 {
		follow.waitFor(t, regexp.MustCompile(`^\S+Z over/web-\S+/web .*needles`))
	}
	gone := pods(t, c, "app=web")[0].Name
	c.Kubectl("delete", "pod", gone)
	c.Kubectl("rollout", "status", "daemonset", "web", "--timeout=60s")
	said("fresh")
	for range 3 {
		follow.waitFor(t, regexp.MustCompile(`^\S+Z over/web-\S+/web .*fresh`))
	}
	follow.stop()
	if n := strings.Count(follow.String(), "needles"); n != 3 || strings.Count(follow.String(), "haystack") != 3 {
		t.Errorf("lines come more than once:\n%s", follow)
	}

	for want, args := range map[string][]string{
		`pods is forbidden: User "system:serviceaccount:over:viewer" cannot list resource "pods" in API group "" in the namespace "default"`: {"-n", "default"},
		`deployments.apps "none" not found`:     {"-n", "over", "deploy/none"},
		"frobs/web: no workload is called that": {"-n", "over", "frobs/web"},
		"configmap/kube-root-ca.crt: ":          {"-n", "over", "configmap/kube-root-ca.crt"},
		"selector: daemonset/web has its own":   {"-n", "over", "daemonset/web", "-l", "a"},
	} {
		if out, err := search(args...).CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: %v, %s; want %s", args, err, out, want)
		}
	}
	cluster.Eventually(t, func() error { // an administrator reads of it yet
		out, err := c.Skiff("logs", "-n", "over", gone, "--search", "haystack")
		if err != nil || strings.Count(out, "\n") != 1 {
			return fmt.Errorf("%v\n%s", err, out)
		}
		return nil
	})
}

// viewerKubeconfig is for whoever has the token.
func viewerKubeconfig(t *testing.T, c *cluster.Cluster, token string) string {
	t.Helper()
	cfg, err := clientcmd.LoadFromFile(c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	for name := range cfg.AuthInfos {
		cfg.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*cfg, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// guarded lets only callers in, and lets callers go nowhere but to the guarded pods.
const guarded = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: in}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {caller: "yes"}}}], ports: [{port: 8080}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out}
spec:
  podSelector: {matchLabels: {caller: "yes"}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}]
`

// policiesOverNodes: who asks is known by its pod on every node, whether it asks a pod or a service, and however late it gets its label. other is no guarded
// pod, and of another namespace.
func policiesOverNodes(t *testing.T, c *cluster.Cluster, other corev1.Pod) {
	byNode := podsByNode(t, c, 3)
	from := pods(t, c, "app=second")[0].Name // on node-2
	near, far, service := byNode["node-2"].Status.PodIP+":8080", byNode["node-3"].Status.PodIP+":8080", serviceIP(c, "sticky")
	elsewhere := other.Status.PodIP + ":8080"
	reach := func(want bool, from string, all ...string) {
		t.Helper()
		for _, ip := range all {
			cluster.Eventually(t, func() error {
				out, err := c.TryKubectl("exec", from, "--", "wget", "-q", "-T", "1", "-O", "-", "http://"+ip)
				if (err == nil) != want {
					return fmt.Errorf("from %s to %s: reached: %t, want %t: %s", from, ip, err == nil, want, out)
				}
				return nil
			})
		}
	}
	c.Apply(guarded)
	reach(false, from, near, far, service)
	reach(true, from, elsewhere)
	c.Kubectl("label", "pod", from, "caller=yes")
	reach(true, from, near, far, service)
	reach(false, from, elsewhere)
	reach(false, byNode["node-2"].Name, far)
	c.Kubectl("delete", "networkpolicy", "in", "out")
	reach(true, byNode["node-2"].Name, far)
	reach(true, from, elsewhere)
}

// drainUnderLoad empties two nodes, one after the other. The budget lets pods go one by one, and no request is lost meanwhile.
func drainUnderLoad(t *testing.T, nodes *cluster.Nodes, c *cluster.Cluster) {
	c.Apply(cluster.Shop)
	c.Kubectl("create", "poddisruptionbudget", "shop", "--selector=app=shop", "--min-available=2")
	c.Kubectl("rollout", "status", "deployment/shop", "--timeout=3m")
	url := "http://" + serviceIP(c, "shop")
	cluster.Eventually(t, func() error { _, err := nodes.Host().HTTP(url); return err })
	stop := nodes.Host().Load(url, 100)
	for _, node := range []string{"node-2", "node-3"} {
		c.Kubectl("drain", node, "--ignore-daemonsets", "--pod-selector=app=shop", "--timeout=3m")
		for _, p := range pods(t, c, "app=shop") {
			if p.Spec.NodeName == node && p.DeletionTimestamp == nil {
				t.Errorf("%s is on %s, which was drained", p.Name, node)
			}
		}
		c.Kubectl("rollout", "status", "deployment/shop", "--timeout=3m")
		c.Kubectl("uncordon", node)
	}
	if sent, failed := stop(); len(failed) > 0 || sent < 50 {
		t.Errorf("%d of %d requests failed, the first: %v", len(failed), sent, failed[:min(len(failed), 10)])
	}
}

// database is a StatefulSet of one, on node-3 if it can be.
const database = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [
        {weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node-3]}]}}]}}
      tolerations:
      - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 1}
      containers: [{name: db, image: skiff.dev/web:1}]
`

// heldIdentity says what the cluster has under the identity: that pod of the lost node, marked for deletion, and nothing else.
func heldIdentity(t *testing.T, c *cluster.Cluster, was corev1.Pod) {
	t.Helper()
	out := c.Kubectl("get", "pods", "-l", "app=db", "-o", `jsonpath={range .items[*]}{.metadata.uid} deleted:{.metadata.deletionTimestamp}{"\n"}{end}`)
	if !regexp.MustCompile(`^` + string(was.UID) + ` deleted:\S+\n$`).MatchString(out) {
		t.Errorf("the pod of a StatefulSet whose node is lost, %s: %s", was.UID, out)
	}
}

// replacedIdentity: once the node is back the old pod ends, and only then another has its name.
func replacedIdentity(t *testing.T, c *cluster.Cluster, was corev1.Pod) {
	t.Helper()
	cluster.Eventually(t, func() error {
		var now corev1.Pod
		if err := json.Unmarshal([]byte(c.Kubectl("get", "pod", "db-0", "-o", "json", "--ignore-not-found")), &now); err != nil {
			return err
		}
		if now.UID == was.UID || !cluster.Ready(&now) {
			return fmt.Errorf("db-0 is %s on %q, ready: %t", now.UID, now.Spec.NodeName, cluster.Ready(&now))
		}
		return nil
	})
}
