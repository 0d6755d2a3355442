package test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"skiff.dev/skiff/test/cluster"
)

// pooled is a web server on every node behind two services with addresses of the pool, one of which keeps traffic on its node; and one too many.
const pooled = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: web, image: skiff.dev/web:1, ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: near}
spec: {type: LoadBalancer, loadBalancerIP: 172.31.0.201, externalTrafficPolicy: Local, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

const oneTooMany = `
apiVersion: v1
kind: Service
metadata: {name: late}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`

// TestAddressPool: services have addresses of their own on the link, which one node answers for and another when that one dies. Steps build on one another.
func TestAddressPool(t *testing.T) {
	t.Parallel()
	c := cluster.StartNodes(t, 3, "--lb-pool", "172.31.0.200-172.31.0.201")
	client := c.Link.NewHost(t) // of no cluster
	c.Apply(pooled)
	c.Kubectl("rollout", "status", "daemonset", "web", "--timeout=3m")
	c.Kubectl("wait", "service", "web", "near", "--for=jsonpath={.status.loadBalancer.ingress}", "--timeout=3m")

	addresses := func(service string) string {
		return strings.TrimSpace(c.Kubectl("get", "service", service, "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}"))
	}
	if web, near := addresses("web"), addresses("near"); web != "172.31.0.200" || near != "172.31.0.201" {
		t.Fatalf("web has %q, near has %q", web, near)
	}
	t.Run("a host on the link reaches them", func(t *testing.T) {
		for _, ip := range []string{"172.31.0.200", "172.31.0.201"} {
			answersBy(t, client, ip)
		}
		// Traffic that is kept on its node arrives with its sender's address.
		if out, err := client.HTTP("http://172.31.0.201"); err != nil || !strings.Contains(out, " "+client.IP()+":") {
			t.Errorf("%v: %s", err, out)
		}
		for i, h := range c.Hosts() {
			if _, err := h.HTTP("http://172.31.0.200"); err != nil {
				t.Errorf("from node-%d: %v", i+1, err)
			}
		}
	})
	t.Run("one too many waits and is told why", func(t *testing.T) {
		v := c.For(t)
		v.Apply(oneTooMany)
		cluster.Eventually(t, func() error {
			if out := v.Kubectl("describe", "service", "late"); !strings.Contains(out, "all addresses of the pool 172.31.0.200-172.31.0.201 are in use") {
				return fmt.Errorf("describe says\n%s", out)
			}
			return nil
		})
		v.Kubectl("patch", "service", "near", "-p", `{"spec":{"type":"ClusterIP","loadBalancerIP":null}}`)
		v.Kubectl("wait", "service", "late", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}=172.31.0.201", "--timeout=3m")
		if left := addresses("near"); left != "" {
			t.Errorf("a service of type ClusterIP still has %s", left)
		}
	})
	t.Run("another node answers at once when the first is stopped", func(t *testing.T) { announcerStops(t, c, client) })
	t.Run("another node answers when the first dies", func(t *testing.T) { announcerDies(t, c, client) })
	t.Run("a restart of the server changes nothing", func(t *testing.T) {
		before := addresses("web") + " " + addresses("late")
		server := c.For(t)
		server.Kill()
		server.Server()
		if after := addresses("web") + " " + addresses("late"); after != before {
			t.Errorf("before: %s, after: %s", before, after)
		}
		answersBy(t, client, "172.31.0.200")
	})
}

// announcer is the node that answers for a service's address, by what the service's status says.
func announcer(c *cluster.Cluster, service string) string {
	return strings.TrimSpace(c.Kubectl("get", "service", service, "-o", `jsonpath={.status.conditions[?(@.type=="skiff.dev/Announced")].message}`))
}

// answersBy fetches a page from an address until there is one, and returns the hardware address behind it.
func answersBy(t *testing.T, client *cluster.Host, ip string) net.HardwareAddr {
	t.Helper()
	cluster.Eventually(t, func() error {
		_, err := client.HTTP("http://" + net.JoinHostPort(ip, "80"))
		return err
	})
	mac, err := client.Neighbour(ip)
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// announcerOnAgent is a service whose address an agent answers for, and which. The server's host must live on, so that there is somebody to decide.
func announcerOnAgent(v *cluster.Cluster, t *testing.T, c *cluster.Nodes) (service string, agent *cluster.Cluster) {
	t.Helper()
	on := func(s string) *cluster.Cluster {
		for i, a := range c.Agents {
			if announcer(v, s) == fmt.Sprintf("node-%d", i+2) {
				return a
			}
		}
		return nil
	}
	for _, s := range []string{"web", "late"} {
		if a := on(s); a != nil {
			return s, a
		}
	}
	v.Kubectl("label", "node", "node-1", "node.kubernetes.io/exclude-from-external-load-balancers=")
	cluster.Eventually(t, func() error {
		if agent = on("web"); agent == nil {
			return fmt.Errorf("%q announces", announcer(v, "web"))
		}
		return nil
	})
	return "web", agent
}

// announcerStops: what an agent answered for is another's when it stops in order, long before it would be missed; its pods go on.
func announcerStops(t *testing.T, c *cluster.Nodes, client *cluster.Host) {
	v := c.For(t)
	service, agent := announcerOnAgent(v, t, c)
	ip, was := poolAddress[service], announcer(v, service)
	before := answersBy(t, client, ip)
	at := time.Now()
	agent.For(t).Stop()
	cluster.Eventually(t, func() error {
		if mac := answersBy(t, client, ip); mac.String() == before.String() {
			return fmt.Errorf("%s, which was stopped, answers for %s; %s should", was, ip, announcer(v, service))
		}
		return nil
	})
	t.Logf("%s took over from %s %s after that was told to stop", announcer(v, service), was, time.Since(at).Round(10*time.Millisecond))
	if out := v.Kubectl("get", "node", was, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`); strings.TrimSpace(out) != "True" {
		t.Errorf("it was not missed yet, and is Ready=%s", out)
	}
	agent.Agent()
	v.Kubectl("wait", "node/"+was, "--for=condition=Ready", "--timeout=3m")
	cluster.Eventually(t, func() error {
		if out := v.Kubectl("get", "node", was, "-o", `jsonpath={.status.conditions[*].type}`); strings.Contains(out, "AgentStopped") {
			return fmt.Errorf("it is back, and has the conditions %s", out)
		}
		return nil
	})
}

// poolAddress is what each service has while an announcer goes.
var poolAddress = map[string]string{"web": "172.31.0.200", "late": "172.31.0.201"}

func announcerDies(t *testing.T, c *cluster.Nodes, client *cluster.Host) {
	v := c.For(t)
	service, agent := announcerOnAgent(v, t, c)
	ip, dies, host := poolAddress[service], announcer(v, service), agent.Host()
	before := answersBy(t, client, ip)
	at := time.Now()
	host.Cut()
	var after net.HardwareAddr
	cluster.Eventually(t, func() error {
		if _, err := client.HTTP("http://" + ip); err != nil {
			return err
		}
		var err error
		after, err = client.Neighbour(ip)
		return err
	})
	took := time.Since(at)
	if t.Logf("%s answered for %s; %s after it was cut off, %s did", dies, ip, took.Round(100*time.Millisecond), announcer(v, service)); after.String() == before.String() || took > 20*time.Second {
		t.Errorf("before: %s, after: %s, after %s", before, after, took)
	}
	host.Mend()
	v.Kubectl("wait", "node/"+dies, "--for=condition=Ready", "--timeout=3m")
}
