package cluster

import (
	"fmt"
	"strings"
	"time"
)

// Nodes is a cluster of several hosts on one link: the first runs the server and is a node too, the others run agents.
type Nodes struct {
	*Cluster // the server; Kubectl and the like go there
	Link     *Link
	Agents   []*Cluster
}

// StartNodes starts a cluster of n hosts, named node-1 to node-n, and returns when all nodes are Ready. The flags are for all of them.
func StartNodes(t T, n int, flags ...string) *Nodes {
	t.Helper()
	link := NewLink(t)
	c := &Nodes{Link: link, Cluster: link.NewHost(t).New(t, append([]string{"--node-name", "node-1"}, flags...)...)}
	c.Server()
	token := c.Token()
	started := make(chan struct{}, n)
	for i := 2; i <= n; i++ {
		agent := c.NewAgent(t, fmt.Sprintf("node-%d", i), flags...)
		c.Agents = append(c.Agents, agent)
		agent.BeginAgent("--server", c.URL(), "--token", token)
		go func() { <-agent.out.ready; started <- struct{}{} }()
	}
	for range c.Agents {
		select {
		case <-started:
		case <-time.After(Patience):
			for _, a := range c.Agents {
				t.Logf("agent on %s said:\n%s", a.host.ip, a.out)
			}
			t.Fatalf("the agents were not ready within %s; the server said:\n%s", Patience, c.out)
		}
	}
	c.Kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=3m")
	return c
}

// NewAgent prepares one more host with an agent.
func (c *Nodes) NewAgent(t T, node string, flags ...string) *Cluster {
	t.Helper()
	return c.Link.NewHost(t).New(t, append([]string{"--node-name", node}, flags...)...)
}

// URL is where other hosts reach the server.
func (c *Nodes) URL() string { return "https://" + c.host.ip + ":6443" }

// Token makes a token.
func (c *Nodes) Token(flags ...string) string {
	c.t.Helper()
	out, err := c.Skiff(append([]string{"token", "create"}, flags...)...)
	if err != nil {
		c.t.Fatalf("skiff token create: %v\n%s", err, out)
	}
	return strings.TrimSpace(out)
}

// BeginAgent starts the process as an agent and does not wait. The flags are for this start alone.
func (c *Cluster) BeginAgent(flags ...string) {
	c.t.Helper()
	own := c.flags
	c.flags = append(append([]string{}, own...), flags...)
	c.spawn("agent")
	c.flags = own
}

// Joined waits until an agent is Ready, or has given up.
func (c *Cluster) Joined() bool {
	select {
	case <-c.out.ready:
		return true
	case <-c.exited:
	case <-time.After(Patience):
	}
	return false
}

// Agent starts the process as an agent and waits until it is Ready. The flags are for this start alone.
func (c *Cluster) Agent(flags ...string) {
	c.t.Helper()
	c.BeginAgent(flags...)
	c.WaitReady()
}

// TryAgent runs an agent that is expected to give up, and returns what it said.
func (c *Cluster) TryAgent(flags ...string) (string, error) {
	c.t.Helper()
	return c.Skiff(append(append([]string{"agent", "--data-dir", c.DataDir}, c.flags...), flags...)...)
}

// All are the processes of all hosts, the server first.
func (c *Nodes) All() []*Cluster { return append([]*Cluster{c.Cluster}, c.Agents...) }

// Hosts are all hosts of the cluster, the server's first.
func (c *Nodes) Hosts() []*Host {
	all := []*Host{c.host}
	for _, a := range c.Agents {
		all = append(all, a.host)
	}
	return all
}
