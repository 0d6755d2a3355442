package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"skiff.dev/skiff/test/cluster"
)

// servedBy is a pod of its own behind the services of a test.
const servedBy = `
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: p}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - {name: web, image: "skiff.dev/web:1"}
    - {name: echo, image: "` + peerName + `", args: [udp]}
`

// changingType: what a service was reached by goes with its type, and what it is reached by comes.
func changingType(t *testing.T, c *cluster.Cluster) {
	c.Apply(servedBy + `---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {selector: {app: p}, ports: [{port: 80, targetPort: 8080}]}
`)
	c.WaitPodReady("p")
	reach := func(url string, want bool) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if _, err := c.HTTP(url); (err == nil) != want {
				return fmt.Errorf("%s answers: %t, want %t: %v", url, err == nil, want, err)
			}
			return nil
		})
	}
	ip := serviceIP(c, "s")
	reach("http://"+ip, true)
	change := func(spec string) {
		t.Helper()
		c.Kubectl("patch", "service", "s", "--type=merge", "-p", `{"spec":`+spec+`}`)
	}
	change(`{"type":"NodePort","ports":[{"port":80,"targetPort":8080,"nodePort":30510}]}`)
	reach("http://"+cluster.HostIP+":30510", true)
	reach("http://"+ip, true)
	change(`{"type":"ClusterIP","ports":[{"port":80,"targetPort":8080}]}`)
	reach("http://"+cluster.HostIP+":30510", false)
	reach("http://"+ip, true)
	change(`{"type":"ExternalName","externalName":"elsewhere.example","clusterIP":"","clusterIPs":null,"ports":null}`)
	reach("http://"+ip, false)
	cluster.Eventually(t, func() error {
		if got := ask(t, c, dns.TypeCNAME, "s."+field(c, "service/s", ".metadata.namespace")+".svc.cluster.local"); len(got) != 1 || got[0] != "elsewhere.example." {
			return fmt.Errorf("the name is an alias of %q", got)
		}
		return nil
	})
	change(`{"type":"ClusterIP","externalName":null,"ports":[{"port":80,"targetPort":8080}]}`)
	reach("http://"+serviceIP(c, "s"), true)
}

// loadBalancer: without a pool of addresses the nodes' own are the balancer's. Who is not among the source ranges is kept out.
func loadBalancer(t *testing.T, c *cluster.Cluster) {
	c.Apply(servedBy + `---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {type: LoadBalancer, selector: {app: p}, allocateLoadBalancerNodePorts: false, externalIPs: [192.0.2.7], ports: [{port: 8091, targetPort: 8080}]}
`)
	c.WaitPodReady("p")
	wantField(t, c, "service/s", ".status.loadBalancer.ingress[*].ip}/{.spec.ports[0].nodePort", cluster.HostIP+"/")
	fetch := func(from, url string) (string, error) {
		if from == "" {
			return c.HTTP(url)
		}
		return c.TryKubectl("exec", from, "-c", "web", "--", "wget", "-q", "-T", "2", "-O", "-", url)
	}
	reach := func(want bool, from, url string) {
		t.Helper()
		cluster.Eventually(t, func() error {
			if out, err := fetch(from, url); (err == nil) != want {
				return fmt.Errorf("%s from %q answers: %t, want %t: %s", url, from, err == nil, want, out)
			}
			return nil
		})
	}
	address, external := "http://"+cluster.HostIP+":8091", "http://192.0.2.7:8091"
	reach(true, "", address)
	reach(true, "p", external)
	pod := field(c, "pod/p", ".status.podIP")
	c.Kubectl("patch", "service", "s", "-p", `{"spec":{"loadBalancerSourceRanges":["`+pod+`/32"]}}`)
	reach(false, "", address)
	reach(true, "p", address)
	reach(true, "p", external) // the ranges are for the balancer's addresses
	c.Kubectl("patch", "service", "s", "-p", `{"spec":{"type":"ClusterIP","loadBalancerSourceRanges":null,"allocateLoadBalancerNodePorts":null}}`)
	wantField(t, c, "service/s", ".status.loadBalancer.ingress", "")
	reach(false, "p", address)
}

// twoProtocols: one port is two for TCP and UDP, and slices made by hand have ports of their own.
func twoProtocols(t *testing.T, c *cluster.Cluster) {
	c.Apply(servedBy + `---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {selector: {app: p}, ports: [{name: t, port: 500, targetPort: 8080}, {name: u, protocol: UDP, port: 500, targetPort: 5000}]}
`)
	c.WaitPodReady("p")
	ip := serviceIP(c, "s")
	cluster.Eventually(t, func() error { _, err := c.HTTP("http://" + ip + ":500"); return err })
	cluster.Eventually(t, func() error {
		if name, err := datagram(c, ip+":500", "ping"); err != nil || name != "p" {
			return fmt.Errorf("%q answers: %w", name, err)
		}
		return nil
	})
	c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: q, labels: {app: q}}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: web, image: "skiff.dev/web:1", env: [{name: PORT, value: "8081"}]}]}
`)
	slice := func(name, ip string, port int) string {
		return fmt.Sprintf(`
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: %s, labels: {kubernetes.io/service-name: hand}}
addressType: IPv4
ports: [{name: http, port: %d, protocol: TCP}]
endpoints: [{addresses: [%s]}]
---`, name, port, ip)
	}
	c.Apply(slice("one", field(c, "pod/p", ".status.podIP"), 8080) + slice("two", c.WaitPodReady("q").Status.PodIP, 8081) + `
apiVersion: v1
kind: Service
metadata: {name: hand}
spec: {ports: [{name: http, port: 80}]}
`)
	url := "http://" + serviceIP(c, "hand")
	seen := map[string]bool{}
	cluster.Eventually(t, func() error {
		out, err := c.HTTP(url)
		if err != nil {
			return err
		}
		if seen[answeringPod.FindString(out)] = true; len(seen) < 2 {
			return fmt.Errorf("only %v answered", seen)
		}
		return nil
	})
}

// hostPortsBeside: one port of the host is several, by address and protocol.
func hostPortsBeside(t *testing.T, c *cluster.Cluster) {
	for name, port := range map[string]string{
		"near": "containerPort: 8080, hostPort: 18082, hostIP: 127.0.0.1", "far": "containerPort: 8080, hostPort: 18082, hostIP: " + cluster.HostIP,
		"echo": "containerPort: 5000, hostPort: 18082, protocol: UDP, hostIP: " + cluster.HostIP,
	} {
		image, args := "skiff.dev/web:1", ""
		if name == "echo" {
			image, args = peerName, ", args: [udp]"
		}
		c.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "` + image + `", ports: [{` + port + `}]` + args + `}]}
`)
	}
	for _, name := range []string{"near", "far", "echo"} {
		c.WaitPodReady(name)
	}
	for ip, name := range map[string]string{"127.0.0.1": "near", cluster.HostIP: "far"} {
		cluster.Eventually(t, func() error {
			if out, err := c.HTTP("http://" + ip + ":18082"); err != nil || !strings.Contains(out, name) {
				return fmt.Errorf("%s is answered by %q, want %s: %v", ip, out, name, err)
			}
			return nil
		})
	}
	cluster.Eventually(t, func() error {
		if name, err := datagram(c, cluster.HostIP+":18082", "x"); err != nil || name != "echo" {
			return fmt.Errorf("UDP: %q, %w", name, err)
		}
		return nil
	})
}
