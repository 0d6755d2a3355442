package test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/test/cluster"
)

// onlyFriends keeps everybody but friends from the pods of the deployment.
const onlyFriends = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-friends}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
`

// TestDualStack: two hosts are a cluster in which pods and services have an address of each family.
func TestDualStack(t *testing.T) {
	t.Parallel()
	if !cluster.HasIPv6() {
		t.Skip("this machine has no IPv6")
	}
	c := cluster.StartNodes(t, 2, "--pod-cidr", "10.42.0.0/16,fd42::/56", "--service-cidr", "10.43.0.0/16,fd43::/112", "--lb-pool", "172.31.0.200/32,fd31::200/128")
	client := c.Link.NewHost(t) // of no cluster
	web := strings.Replace(spreadOverNodes, "replicas: 3", "replicas: 2", 1)
	c.Apply(strings.Replace(web, "type: NodePort", "type: NodePort\n  ipFamilyPolicy: PreferDualStack", 1))
	c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")
	byNode := podsByNode(t, c.Cluster, 2)
	service := strings.Fields(c.Kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIPs[0]} {.spec.clusterIPs[1]}"))
	if len(service) != 2 || !strings.HasPrefix(service[0], "10.43.") || !strings.HasPrefix(service[1], "fd43::") {
		t.Fatalf("the service has %q", service)
	}

	t.Run("nodes and pods have two addresses", func(t *testing.T) {
		for i, h := range c.Hosts() {
			node := fmt.Sprintf("node-%d", i+1)
			out := c.For(t).Kubectl("get", "node", node, "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`)
			p := byNode[node]
			if want := h.IP() + " " + h.IP6(); strings.TrimSpace(out) != want || fmt.Sprint(p.Status.HostIPs) != fmt.Sprintf("[{%s} {%s}]", h.IP(), h.IP6()) {
				t.Errorf("%s has %s, its pod's node %v; want %s", node, out, p.Status.HostIPs, want)
			}
			if ips := p.Status.PodIPs; len(ips) != 2 || ips[0].IP != p.Status.PodIP || !strings.HasPrefix(ips[0].IP, "10.42.") || !strings.HasPrefix(ips[1].IP, "fd42:") {
				t.Errorf("the pod on %s has %v", node, ips)
			}
		}
	})
	t.Run("pods talk to pods on other nodes", func(t *testing.T) {
		podToPod(t, c.For(t), byNode)
		for node, p := range byNode { // the same by the other family
			p.Status.PodIP = "[" + p.Status.PodIPs[1].IP + "]"
			byNode[node] = p
		}
		podToPod(t, c.For(t), byNode)
	})
	t.Run("a service answers at all its addresses", func(t *testing.T) {
		for i, h := range c.Hosts() {
			other := c.Hosts()[1-i]
			for _, url := range []string{"http://" + service[0], "http://[" + service[1] + "]", "http://" + other.IP() + ":30080", "http://[" + other.IP6() + "]:30080"} {
				allAnswer(t, url+" from "+h.IP(), 2, func() (string, error) { return h.HTTP(url) })
			}
		}
		for node, p := range byNode {
			allAnswer(t, "from a pod on "+node, 2, func() (string, error) { return fetch(c.For(t), p, "["+service[1]+"]") })
		}
	})
	t.Run("a client keeps its pod in each family", func(t *testing.T) {
		v := c.For(t)
		v.Kubectl("patch", "service", "web", "-p", `{"spec":{"sessionAffinity":"ClientIP"}}`)
		for i, h := range c.Hosts() {
			other := c.Hosts()[1-i]
			for _, urls := range [][]string{{"http://" + service[0], "http://" + other.IP() + ":30080"}, {"http://[" + service[1] + "]", "http://[" + other.IP6() + "]:30080"}} {
				for _, url := range urls {
					cluster.Eventually(t, func() error {
						seen := map[string]bool{}
						for range 15 {
							out, err := h.HTTP(url)
							if err != nil {
								return err
							}
							seen[answeringPod.FindString(out)] = true
						}
						if len(seen) != 1 {
							return fmt.Errorf("%s from %s was answered by %v", url, h.IP(), seen)
						}
						return nil
					})
				}
			}
		}
		v.Kubectl("patch", "service", "web", "-p", `{"spec":{"sessionAffinity":"None"}}`)
	})
	t.Run("a load balancer has an address of each on the link", func(t *testing.T) {
		v := c.For(t)
		v.Kubectl("patch", "service", "web", "-p", `{"spec":{"type":"LoadBalancer"}}`)
		v.Kubectl("wait", "service", "web", "--for=jsonpath={.status.loadBalancer.ingress[1].ip}=fd31::200", "--timeout=3m")
		hosts := map[string]string{}
		for i, h := range c.Hosts() {
			for _, ip := range []string{h.IP(), h.IP6()} {
				if _, err := client.HTTP("http://" + net.JoinHostPort(ip, "30080")); err != nil {
					t.Fatal(err)
				}
				mac, err := client.Neighbour(ip)
				if err != nil {
					t.Fatal(err)
				}
				hosts[mac.String()] = fmt.Sprintf("node-%d", i+1)
			}
		}
		elected := announcer(v, "web")
		for _, ip := range []string{"172.31.0.200", "fd31::200"} {
			if by := hosts[answersBy(t, client, ip).String()]; by != elected {
				t.Errorf("%q answers for %s, want %s", by, ip, elected)
			}
		}
	})
	t.Run("names have addresses of both families", func(t *testing.T) {
		for node, p := range byNode {
			out := c.For(t).Kubectl("exec", p.Name, "--", "nslookup", "web.default.svc.cluster.local")
			if !strings.Contains(out, service[0]) || !strings.Contains(out, service[1]) {
				t.Errorf("on %s: %s", node, out)
			}
		}
	})
	t.Run("a policy holds for both families", func(t *testing.T) {
		v := c.For(t)
		v.Apply(onlyFriends)
		from, to := byNode["node-1"], byNode["node-2"]
		reaches := func(ip string) bool { _, err := fetch(v, from, ip+":8080"); return err == nil }
		four, six := to.Status.PodIPs[0].IP, "["+to.Status.PodIPs[1].IP+"]"
		cluster.Eventually(t, func() error {
			if reaches(four) || reaches(six) {
				return fmt.Errorf("%s or %s is reached", four, six)
			}
			return nil
		})
		v.Kubectl("label", "pod", from.Name, "app=friend", "--overwrite")
		cluster.Eventually(t, func() error {
			if !reaches(four) || !reaches(six) {
				return fmt.Errorf("%s or %s is not reached by a friend", four, six)
			}
			return nil
		})
	})
}

// fetch a page in a pod.
func fetch(c *cluster.Cluster, p corev1.Pod, at string) (string, error) {
	return c.TryKubectl("exec", p.Name, "--", "wget", "-q", "-T", "2", "-O", "-", "http://"+at)
}

// TestIPv6Alone: two hosts are a cluster that has IPv6 alone, between its nodes too.
func TestIPv6Alone(t *testing.T) {
	t.Parallel()
	if !cluster.HasIPv6() {
		t.Skip("this machine has no IPv6")
	}
	// The harness joins hosts by the server's IPv4 address, which is not the node's here.
	c := cluster.StartNodes(t, 2, "--pod-cidr", "fd42::/56", "--service-cidr", "fd43::/112", "--tls-san", "172.31.0.11")
	c.Apply(strings.Replace(spreadOverNodes, "replicas: 3", "replicas: 2", 1))
	c.Kubectl("rollout", "status", "deployment", "web", "--timeout=3m")
	service := strings.TrimSpace(c.Kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIPs[*]}"))
	byNode := podsByNode(t, c.Cluster, 2)
	for node, p := range byNode {
		if len(p.Status.PodIPs) != 1 || !strings.HasPrefix(p.Status.PodIP, "fd42:") || !strings.HasPrefix(p.Status.HostIP, "fd31::") {
			t.Fatalf("the pod on %s has %v on a node with %s", node, p.Status.PodIPs, p.Status.HostIP)
		}
		p.Status.PodIP = "[" + p.Status.PodIP + "]"
		byNode[node] = p
	}
	podToPod(t, c.Cluster, byNode)
	for i, h := range c.Hosts() {
		for _, url := range []string{"http://[" + service + "]", "http://[" + c.Hosts()[1-i].IP6() + "]:30080"} {
			allAnswer(t, url+" from "+h.IP6(), 2, func() (string, error) { return h.HTTP(url) })
		}
	}
	for node, p := range byNode {
		if out, err := fetch(c.Cluster, p, "web.default.svc.cluster.local"); err != nil {
			t.Errorf("by name, on %s: %v: %s", node, err, out)
		}
		out, err := c.TryKubectl("exec", p.Name, "--", "sh", "-c", "wget -q -T 5 -O - https://kubernetes.default.svc/version 2>&1 || true")
		if err != nil || strings.Contains(out, "refused") || strings.Contains(out, "timed out") || strings.Contains(out, "bad address") {
			t.Errorf("the API server from a pod on %s: %v: %s", node, err, out)
		}
		if out := c.Kubectl("logs", p.Name); !strings.Contains(out, "GET /") {
			t.Errorf("logs show no request:\n%s", out)
		}
	}
}
