package test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/test/cluster"
)

// TestServices: how pods are found and reached.
func TestServices(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	importPeer(t, c)
	subtests(t, c, map[string]func(*testing.T, *cluster.Cluster){
		"session affinity":    sessionAffinity,
		"UDP":                 udpService,
		"headless":            headlessService,
		"names":               serviceNames,
		"hairpin":             hairpin,
		"host port":           hostPort,
		"no endpoints":        noEndpoints,
		"changing endpoints":  changingEndpoints,
		"named and many":      namedPorts,
		"without selector":    withoutSelector,
		"not ready addresses": notReadyAddresses,
		"outside world":       outsideWorld,
		"proxy health":        proxyHealth,
		"changing type":       changingType,
		"load balancer":       loadBalancer,
		"two protocols":       twoProtocols,
		"host ports beside":   hostPortsBeside,
	})
}

// replicas starts n web servers labelled app=web.
func replicas(c *cluster.Cluster, n int) {
	c.Apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
        - name: web
          image: skiff.dev/web:1
          ports: [{name: http, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /healthz, port: http}}
          lifecycle: {preStop: {sleep: {seconds: 1}}} # requests that were on their way when it became known that it goes
`, n))
	c.Kubectl("rollout", "status", "deployment/web", "--timeout=3m")
}

func sessionAffinity(t *testing.T, c *cluster.Cluster) {
	replicas(c, 3)
	c.Apply(`
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {type: NodePort, selector: {app: web}, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: http, nodePort: 30500}]}
`)
	waitForEndpoints(t, c, "sticky", 3)
	for _, url := range []string{"http://" + serviceIP(c, "sticky"), "http://" + cluster.HostIP + ":30500"} {
		cluster.Eventually(t, func() error { _, err := c.HTTP(url); return err })
		if seen := answerers(t, 30, func() (string, error) { return c.HTTP(url) }); len(seen) != 1 {
			t.Errorf("%s: one client was answered by %v", url, seen)
		}
	}
	c.Kubectl("patch", "service", "sticky", "-p", `{"spec": {"sessionAffinity": "None"}}`)
	cluster.Eventually(t, func() error { // the rules follow the patch
		if n := len(answerers(t, 30, func() (string, error) { return c.HTTP("http://" + serviceIP(c, "sticky")) })); n == 1 {
			return fmt.Errorf("all of 30 connections without affinity went to one replica of 3")
		}
		return nil
	})
}

func udpService(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("create", "deployment", "echo", "--image="+peerName, "--replicas=2", "--", "/bin/peer", "udp")
	c.Kubectl("rollout", "status", "deployment/echo", "--timeout=3m")
	c.Apply(`
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {type: NodePort, selector: {app: echo}, ports: [{protocol: UDP, port: 500, targetPort: 5000, nodePort: 30501}]}
`)
	waitForEndpoints(t, c, "echo", 2)
	for _, addr := range []string{net.JoinHostPort(serviceIP(c, "echo"), "500"), cluster.HostIP + ":30501"} {
		seen := map[string]bool{}
		for range 40 {
			name, err := datagram(c, addr, "ping")
			if err != nil {
				t.Errorf("%s: %v", addr, err)
				break
			}
			seen[name] = true
		}
		if len(seen) != 2 {
			t.Errorf("%s: answers came from %v, want two", addr, seen)
		}
	}
}

// datagram sends one and returns who answered.
func datagram(c *cluster.Cluster, addr, text string) (string, error) {
	conn, err := c.Host().Dial(context.Background(), "udp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		return "", err
	}
	buf := make([]byte, 512)
	n, err := conn.Read(buf)
	name, said, _ := strings.Cut(string(buf[:n]), " ")
	if err == nil && said != text {
		err = fmt.Errorf("the answer is %q", buf[:n])
	}
	return name, err
}

// ask asks the cluster's DNS and returns the answers' data, sorted.
func ask(t *testing.T, c *cluster.Cluster, kind uint16, name string) []string {
	t.Helper()
	conn, err := c.Host().Dial(context.Background(), "udp", "10.43.0.10:53")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), kind)
	co := &dns.Conn{Conn: conn}
	if err := co.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := co.WriteMsg(q); err != nil {
		t.Fatal(err)
	}
	reply, err := co.ReadMsg()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var out []string
	for _, rr := range reply.Answer {
		out = append(out, strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	slices.Sort(out)
	return out
}

func headlessService(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 5432}]}
`)
	for _, name := range []string{"one", "two"} {
		c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `, labels: {app: db}}
spec: {hostname: ` + name + `, subdomain: db, terminationGracePeriodSeconds: 1, containers: [{name: main, image: "skiff.dev/web:1"}]}
`)
	}
	ips := []string{c.WaitPodReady("one").Status.PodIP, c.WaitPodReady("two").Status.PodIP}
	first := ips[0]
	slices.Sort(ips)
	cluster.Eventually(t, func() error {
		if got := ask(t, c, dns.TypeA, "db.headless.svc.cluster.local"); !slices.Equal(got, ips) {
			return fmt.Errorf("the service's name leads to %v, want %v", got, ips)
		}
		return nil
	})
	if got := ask(t, c, dns.TypeA, "one.db.headless.svc.cluster.local"); !slices.Equal(got, []string{first}) {
		t.Errorf("the pod's name leads to %v, want %s", got, first)
	}
	if got := ask(t, c, dns.TypeSRV, "_sql._tcp.db.headless.svc.cluster.local"); len(got) != 2 || !strings.HasSuffix(got[0], " 5432 one.db.headless.svc.cluster.local.") {
		t.Errorf("SRV gives %q", got)
	}
	if out := c.Kubectl("exec", "one", "--", "wget", "-q", "-O", "-", "http://two.db:8080/"); !strings.Contains(out, "two") {
		t.Errorf("one pod reaches the other by name: %s", out)
	}
	c.Kubectl("delete", "pod", "one")
	cluster.Eventually(t, func() error {
		if got := ask(t, c, dns.TypeA, "db.headless.svc.cluster.local"); len(got) != 1 {
			return fmt.Errorf("one pod is gone; the name still leads to %v", got)
		}
		return nil
	})
}

func serviceNames(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: none}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: away}
spec: {type: ExternalName, externalName: elsewhere.example}
`)
	ip := serviceIP(c, "web")
	cluster.Eventually(t, func() error {
		if got := ask(t, c, dns.TypeA, "web.names.svc.cluster.local"); !slices.Equal(got, []string{ip}) {
			return fmt.Errorf("A: %v, want %s", got, ip)
		}
		return nil
	})
	parts := strings.Split(ip, ".")
	slices.Reverse(parts)
	for _, q := range []struct {
		kind uint16
		name string
		want string
	}{
		{dns.TypeSRV, "_http._tcp.web.names.svc.cluster.local", ` 80 web.names.svc.cluster.local.`},
		{dns.TypePTR, strings.Join(parts, ".") + ".in-addr.arpa", "web.names.svc.cluster.local."},
		{dns.TypeCNAME, "away.names.svc.cluster.local", "elsewhere.example."},
		{dns.TypeA, "kubernetes.default.svc.cluster.local", "10.43.0.1"},
	} {
		if got := ask(t, c, q.kind, q.name); len(got) != 1 || !strings.HasSuffix(got[0], q.want) {
			t.Errorf("%s %s: %q, want %q", dns.TypeToString[q.kind], q.name, got, q.want)
		}
	}
	for _, name := range []string{"nonesuch.names.svc.cluster.local", "web.nowhere.svc.cluster.local"} {
		if got := ask(t, c, dns.TypeA, name); len(got) != 0 {
			t.Errorf("%s leads to %v", name, got)
		}
	}
}

// hairpin: a pod reaches itself through its own service, from inside and as a client whose address is its own.
func hairpin(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "p", "--image=skiff.dev/web:1", "--port=8080", "--expose", "--labels=app=p")
	c.WaitPodReady("p")
	waitForEndpoints(t, c, "p", 1)
	for range 3 {
		if out := c.Kubectl("exec", "p", "--", "wget", "-q", "-O", "-", "http://p:8080/self"); !strings.Contains(out, "/self") {
			t.Errorf("the answer is %q", out)
		}
	}
}

func hostPort(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: web, image: "skiff.dev/web:1", ports: [{containerPort: 8080, hostPort: 18081}]}
    - {name: echo, image: "` + peerName + `", args: [udp], ports: [{containerPort: 5000, hostPort: 15000, protocol: UDP}]}
`)
	c.WaitPodReady("p")
	for _, ip := range []string{cluster.HostIP, "127.0.0.1"} {
		cluster.Eventually(t, func() error {
			_, err := c.HTTP("http://" + ip + ":18081")
			return err
		})
	}
	cluster.Eventually(t, func() error { // the pod is ready when its containers run, which is before they listen
		if name, err := datagram(c, cluster.HostIP+":15000", "x"); err != nil || name != "p" {
			return fmt.Errorf("UDP: %q, %w", name, err)
		}
		return nil
	})
	c.Kubectl("run", "second", "--image=skiff.dev/web:1", `--overrides={"spec": {"containers": [{"name": "second", "image": "skiff.dev/web:1", "ports": [{"containerPort": 1, "hostPort": 18081}]}]}}`)
	c.WaitPod("second", "unschedulable", func(p *corev1.Pod) bool {
		for _, cond := range p.Status.Conditions {
			if cond.Reason == corev1.PodReasonUnschedulable {
				return strings.Contains(cond.Message, "didn't have free ports for the requested pod ports")
			}
		}
		return false
	})
	c.Kubectl("delete", "pod", "p")
	if body, err := c.HTTP("http://" + cluster.HostIP + ":18081"); err == nil && !strings.Contains(body, "second") {
		t.Errorf("the pod is gone, its host port answers: %s", body)
	}
	c.WaitPodReady("second")
}

// noEndpoints: nobody to answer is told at once, not after a time-out.
func noEndpoints(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {type: NodePort, selector: {app: none}, ports: [{port: 80, nodePort: 30502}]}
`)
	for _, url := range []string{"http://" + serviceIP(c, "s"), "http://" + cluster.HostIP + ":30502"} {
		cluster.Eventually(t, func() error {
			began := time.Now()
			_, err := c.HTTP(url)
			if took := time.Since(began); err == nil || took > time.Second || !strings.Contains(err.Error(), "refused") {
				return fmt.Errorf("%s: %v after %s", url, err, took)
			}
			return nil
		})
	}
}

// changingEndpoints: while replicas come and go, no request fails.
func changingEndpoints(t *testing.T, c *cluster.Cluster) {
	replicas(c, 2)
	c.Kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
	waitForEndpoints(t, c, "web", 2)
	url := "http://" + serviceIP(c, "web")
	cluster.Eventually(t, func() error { _, err := c.HTTP(url); return err })
	stop, ended := make(chan struct{}), make(chan []error)
	go func() {
		var failed []error
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				t.Logf("%d requests", n)
				ended <- failed
				return
			default:
			}
			if _, err := c.HTTP(url); err != nil {
				failed = append(failed, err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	for _, n := range []string{"5", "1", "4"} {
		c.Kubectl("scale", "deployment/web", "--replicas="+n)
		c.Kubectl("rollout", "status", "deployment/web", "--timeout=3m")
	}
	close(stop)
	if failed := <-ended; len(failed) > 0 {
		t.Errorf("%d requests failed, the first with %v", len(failed), failed[0])
	}
}

func namedPorts(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec:
  containers:
    - {name: one, image: "skiff.dev/web:1", ports: [{name: first, containerPort: 8080}]}
    - {name: two, image: "skiff.dev/web:1", env: [{name: PORT, value: "8081"}, {name: MESSAGE, value: second}], ports: [{name: second, containerPort: 8081}]}
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {selector: {app: p}, ports: [{name: a, port: 81, targetPort: first}, {name: b, port: 82, targetPort: second}]}
`)
	c.WaitPodReady("p")
	waitForEndpoints(t, c, "s", 1)
	ip := serviceIP(c, "s")
	cluster.Eventually(t, func() error {
		a, err1 := c.HTTP("http://" + ip + ":81")
		b, err2 := c.HTTP("http://" + ip + ":82")
		if err1 != nil || err2 != nil || strings.Contains(a, "second") || !strings.Contains(b, "second") {
			return fmt.Errorf("%q, %v; %q, %v", a, err1, b, err2)
		}
		return nil
	})
}

func withoutSelector(t *testing.T, c *cluster.Cluster) {
	c.Kubectl("run", "p", "--image=skiff.dev/web:1")
	ip := c.WaitPodReady("p").Status.PodIP
	c.Apply(`
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: by-hand, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
ports: [{port: 8080, protocol: TCP}]
endpoints: [{addresses: [` + ip + `]}]
---
apiVersion: v1
kind: Service
metadata: {name: old}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: old}
subsets: [{addresses: [{ip: ` + ip + `}], ports: [{port: 8080}]}]
`)
	for _, name := range []string{"s", "old"} {
		cluster.Eventually(t, func() error { _, err := c.HTTP("http://" + serviceIP(c, name)); return err })
	}
	mirrors := func(want string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			out, err := c.TryKubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=old,endpointslice.kubernetes.io/managed-by=endpointslicemirroring-controller.k8s.io",
				"-o", `jsonpath={range .items[*]}{.endpoints[*].addresses[0]} {.endpoints[*].conditions.ready} {.ports[*].port};{end}`)
			if err != nil || out != want {
				return fmt.Errorf("the Endpoints are mirrored as %q, want %q (%v)", out, want, err)
			}
			return nil
		})
	}
	mirrors(ip + " true 8080;")
	c.Kubectl("patch", "endpoints", "old", "--type=merge", "-p", `{"subsets":[{"notReadyAddresses":[{"ip":"`+ip+`"}],"ports":[{"port":8081}]}]}`)
	mirrors(ip + " false 8081;")
	cluster.Eventually(t, func() error {
		if _, err := c.HTTP("http://" + serviceIP(c, "old")); err == nil || !strings.Contains(err.Error(), "refused") {
			return fmt.Errorf("its only address is not ready: %v", err)
		}
		return nil
	})
	c.Kubectl("label", "endpoints", "old", "endpointslice.kubernetes.io/skip-mirror=true")
	mirrors("")
	c.Kubectl("label", "endpoints", "old", "endpointslice.kubernetes.io/skip-mirror-")
	mirrors(ip + " false 8081;")
	c.Kubectl("delete", "endpoints", "old")
	mirrors("")
}

func notReadyAddresses(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec: {containers: [{name: main, image: "skiff.dev/web:1", readinessProbe: {exec: {command: [cat, /nothing]}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {selector: {app: p}, publishNotReadyAddresses: true, ports: [{port: 80, targetPort: 8080}]}
`)
	cluster.Eventually(t, func() error { _, err := c.HTTP("http://" + serviceIP(c, "s")); return err })
}

// outsideWorld: what a pod sends elsewhere comes from its host, and what comes back finds it.
func outsideWorld(t *testing.T, c *cluster.Cluster) {
	l := listen(t, c, cluster.HostIP+":9000")
	from := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			t.Error(err)
		}
		from <- conn.RemoteAddr().String()
		fmt.Fprint(conn, "HTTP/1.0 200 OK\r\n\r\nhello\n")
	}()
	c.Kubectl("run", "p", "--image=skiff.dev/web:1")
	c.WaitPodReady("p")
	if out := c.Kubectl("exec", "p", "--", "wget", "-q", "-O", "-", "http://"+cluster.HostIP+":9000"); !strings.Contains(out, "hello") {
		t.Errorf("the host answers a pod: %q", out)
	}
	if addr := <-from; !regexp.MustCompile(`^(10\.42\.0\.|172\.31\.0\.2:)`).MatchString(addr) {
		t.Errorf("the request came from %s", addr)
	}
}

// proxyHealth: a load balancer outside is told to leave out a node that the autoscaler is about to remove, whose pods still serve.
func proxyHealth(t *testing.T, c *cluster.Cluster) {
	const port = "http://" + cluster.HostIP + ":10256"
	answers := func(path string, want ...string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			out, err := c.HTTP(port + path)
			for _, part := range want {
				if answer := fmt.Sprint(out, err); !strings.Contains(answer, part) {
					return fmt.Errorf("%s: %s lacks %s", path, answer, part)
				}
			}
			return nil
		})
	}
	node := strings.TrimSpace(c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	answers("/healthz", `{"lastUpdated": "20`, `"nodeEligible": true}`, "<nil>")
	c.Kubectl("taint", "node", node, "ToBeDeletedByClusterAutoscaler=now:PreferNoSchedule")
	answers("/healthz", "503")
	answers("/livez", `{"lastUpdated": "20`, "<nil>")
	c.Kubectl("taint", "node", node, "ToBeDeletedByClusterAutoscaler-")
	answers("/healthz", `"nodeEligible": true}`, "<nil>")
	if out, err := c.HTTP("http://127.0.0.1:10249/metrics"); err != nil || !strings.Contains(out, `kubeproxy_proxy_healthz_total{code="503"} `) {
		t.Errorf("the proxy's figures: %v\n%s", err, out)
	}
	if out, err := c.HTTP("http://" + cluster.HostIP + ":10249/metrics"); err == nil {
		t.Errorf("others read the proxy's figures:\n%s", out)
	}
}
