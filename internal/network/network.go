// Package network connects a node's pods and carries packets to services. It owns, on this host and under the cluster's name, one nft table,
// one link that holds the gateway's address, one link a pod, the routes over them, and the CNI socket.
//
// Invariants: an address has one reservation, a file in StateDir that is older than its use and younger than its end; nothing but this
// package writes the table, and the table holds what package proxy decided.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/network/announce"
	"skiff.dev/skiff/internal/policy"
	"skiff.dev/skiff/internal/proxy"
)

// Config says whose network this is and where it keeps things. Remove needs no more than Cluster and the folders.
type Config struct {
	Cluster      string // the cluster's name, ≤ 11 characters: nft table and link ("<name>0") carry it
	NodeName     string
	NodeIPs      []netip.Addr   // this node's: one, or one of each family, the primary first
	PodCIDRs     []netip.Prefix // the whole cluster's: one, or one of each family, the primary first
	ServiceCIDRs []netip.Prefix // likewise
	DNSAddr      netip.Addr     // cluster DNS: answered on this node by package dns
	NodePorts    string         // "30000-32767"
	Healthz      string         // "0.0.0.0:10256": where load balancers ask for this node's health; "" for nowhere
	Metrics      string         // "127.0.0.1:10249": where figures are; "" for nowhere
	Overlay      Overlay
	StateDir     string // "<data-dir>/network": reservations of addresses survive a restart
	RunDir       string // "/run/skiff/<cluster>": the CNI socket
	CNIConfDir   string // the conflist is written here
	CNIBinDir    string // holds skiff-cni
	Client       client.Client
	Log          *slog.Logger
}

// Network is one node's.
type Network struct {
	cfg       Config
	rules     *ruleset
	pool      *pool
	forgetter forgetter
	announce  *announce.Announcer
	node      *nodeShare
	healthz   *proxyHealth
	mtu       int
	ready     chan struct{}
}

// New reads the reservations of earlier runs; it changes nothing on the host.
func New(cfg Config) (*Network, error) {
	if err := CheckFamilies(cfg.PodCIDRs); err != nil {
		return nil, err
	}
	p, err := openPool(reservationDir(cfg.StateDir))
	if err != nil {
		return nil, err
	}
	mtu, err := podMTU(cfg.nodeIP(), cfg.Overlay.on())
	if err != nil {
		return nil, err
	}
	f := newFacts(cfg.Cluster, cfg.PodCIDRs, cfg.ServiceCIDRs, cfg.DNSAddr)
	return &Network{
		announce: announce.New(cfg.NodeName, func(a netip.Addr) (int, error) { return linkOf(a, cfg.NodeIPs) }, cfg.Log),
		cfg:      cfg, pool: p, node: newNodeShare(cfg.PodCIDRs), rules: newRuleset(f, cfg.Log),
		healthz: newProxyHealth(time.Now),
		mtu:     mtu, ready: make(chan struct{}),
	}, nil
}

// nodeIP is the primary one; zero for a node without a network.
func (c *Config) nodeIP() netip.Addr {
	if len(c.NodeIPs) == 0 {
		return netip.Addr{}
	}
	return c.NodeIPs[0]
}

// Alive tells until when the cluster holds this node to be alive. Afterwards another node may answer for services' addresses on the link, so this
// one does not.
func (n *Network) Alive(until time.Time) { n.announce.Alive(until) }

// Ready is closed when CNI answers and the services are programmed. Pods can be connected once the node has its addresses; until then
// their ADD waits.
func (n *Network) Ready() <-chan struct{} { return n.ready }

// Run carries packets until ctx ends. It leaves everything as it is then: pods outlive the agent.
func (n *Network) Run(ctx context.Context) error {
	if err := forward(n.cfg.PodCIDRs); err != nil {
		return err
	}
	l, err := n.listen()
	if err != nil {
		return err
	}
	defer l.Close()
	defer n.rules.Close()
	// Host ports of pods that outlived an earlier agent come first: they were there before any service.
	n.rules.Prepare(func(t *proxy.Table, p *policy.Table) {
		for _, r := range n.pool.all() {
			setPod(t, p, r)
		}
	})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.guardTable(ctx) })
	g.Go(func() error { return n.rules.tries.run(ctx) })
	g.Go(func() error { return n.followNode(ctx, n.cfg.Client.Cache()) })
	g.Go(func() error {
		return serve(ctx, "proxy-healthz-bind-address", n.cfg.Healthz, n.healthz.health(), listenAgain, n.cfg.Log)
	})
	g.Go(func() error {
		return serve(ctx, "proxy-metrics-bind-address", n.cfg.Metrics, n.healthz.metrics(), listenAgain, n.cfg.Log)
	})
	g.Go(func() error {
		f := newFollower(n.rules, proxy.Node{Name: n.cfg.NodeName, Pods: n.cfg.PodCIDRs}, n.announce, n.healthz, n.cfg.Log)
		return f.Run(ctx, n.cfg.Client, func() {
			// Not earlier: a pod's host port would write the table, and take away the services that an earlier agent wrote.
			g.Go(func() error { return n.serveCNI(ctx, l) })
			close(n.ready)
		})
	})
	return g.Wait()
}

// serveCNI answers the plug-in, each command on its own.
func (n *Network) serveCNI(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("serve CNI: %w", err)
		}
		open.Go(func() { n.answer(ctx, conn) })
	}
}

// followNode waits for this node's share of the pods' addresses, and makes ready for pods when it is there.
func (n *Network) followNode(ctx context.Context, in Informers) error {
	learn := func(node *corev1.Node) {
		if node.Name == n.cfg.NodeName {
			n.node.learn(node)
		}
	}
	_, stop, err := subscribe(ctx, in, &corev1.Node{}, handler(learn, func(*corev1.Node) {}))
	if err != nil {
		return err
	}
	defer stop()
	select {
	case <-ctx.Done():
		return nil
	case <-n.node.given:
	}
	pods := n.node.pods
	for _, p := range pods {
		if least := p.Addr().BitLen() - 3; p.Bits() > least {
			return fmt.Errorf("this node's share of the pod addresses, %s, is too small; give nodes at least a /%d (node-cidr-mask-size)", p, least)
		}
	}
	if err := setUpHost(n.cfg.Cluster, pods, n.cfg.ServiceCIDRs); err != nil {
		return err
	}
	if err := n.rules.SetNode(pods); err != nil {
		return err
	}
	n.pool.setPods(pods)
	close(n.node.ready)
	if err := n.writeConflist(); err != nil {
		return err
	}
	n.cfg.Log.Info("pods can be connected", "addresses", pods)
	if n.cfg.Overlay.on() {
		return n.followPeers(ctx, in)
	}
	<-ctx.Done()
	return nil
}

// followPeers connects this node's pods with those of the other nodes.
func (n *Network) followPeers(ctx context.Context, in Informers) error {
	tunnel, err := setUpTunnel(n.cfg, n.node.pods, n.mtu)
	if err != nil {
		return err
	}
	o := newOverlay(n.cfg.NodeName, n.node.pods, familyOf(n.cfg.nodeIP()), tunnel.links(n.cfg.Overlay.Direct), tunnel, n.cfg.Log.Warn)
	synced, stop, err := subscribe(ctx, in, &corev1.Node{}, handler(o.see, o.gone))
	if err != nil {
		return err
	}
	defer stop()
	select {
	case <-ctx.Done():
		return nil
	case <-synced:
	}
	if err := o.begin(); err != nil {
		n.cfg.Log.Warn("ways to nodes that have gone could not all be removed", "err", err)
	}
	return o.run(ctx)
}
