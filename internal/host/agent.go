package host

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/addon"
	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/join"
	"skiff.dev/skiff/internal/network"
	"skiff.dev/skiff/internal/pki"
	skiffruntime "skiff.dev/skiff/internal/runtime"
)

// member is what a host knows as a member of a cluster whose server is elsewhere.
type member struct {
	conf      *config.Config
	o         Options
	authority []byte // PEM
	client    *join.Certificate
	access    *rest.Config
	api       crclient.WithWatch // past the cache, for certificates
	nodeIPs   []net.IP
}

// RunAgent runs a node of a cluster whose server is on another host, until ctx ends. Containers outlive it. With a token it joins first; once it
// has, it comes back by the certificates that it was given.
func RunAgent(ctx context.Context, o Options) error {
	if err := preflight(o.Config, o.BinDir); err != nil {
		return err
	}
	l, err := takeLock(o.Config.DataDir)
	if err != nil {
		return err
	}
	defer l.release()
	c := &cluster{Options: o, conf: o.Config, metrics: prometheus.NewRegistry(), switches: addon.NewSwitches()}
	if l.made {
		c.undo = append(c.undo, func() error { return os.RemoveAll(o.Config.DataDir) })
	}
	if err := c.prepareAgent(ctx); err != nil {
		if c.member == nil { // it has not joined, so there is nothing to come back to
			c.undoStart()
		}
		return err
	}
	_, err = c.run(ctx)
	return err
}

// prepareAgent does what must have succeeded before anything is started.
func (c *cluster) prepareAgent(ctx context.Context) error {
	if err := c.probeKubeletPort(); err != nil {
		return err
	}
	if err := skiffruntime.Probe(ctx, c.conf.CRIEndpoint); err != nil {
		return err
	}
	if err := c.findNodeIPs(); err != nil {
		return err
	}
	if c.nodeIP.IsLoopback() {
		return errors.New("node-ip: this host has no address that other nodes could reach; connect it to a network, or give --node-ip")
	}
	if err := network.CheckLink(c.nodeIP); err != nil {
		return err
	}
	if err := c.prepareMember(ctx); err != nil {
		return err
	}
	if err := c.findNodeIPs(); err != nil { // now that it is known which families the cluster has
		return err
	}
	c.member.nodeIPs = addressesOf(c.nodeIPs)
	if err := meetNeighbours(c.conf); err != nil {
		return err
	}
	return makeRunDir(c.conf.RunDir())
}

func addressesOf(list []netip.Addr) (out []net.IP) {
	for _, a := range list {
		out = append(out, a.AsSlice())
	}
	return out
}

func agentDir(conf *config.Config) string { return filepath.Join(conf.DataDir, "agent") }

// prepareMember joins, or finds what an earlier join left.
func (c *cluster) prepareMember(ctx context.Context) error {
	m := &member{conf: c.conf, o: c.Options, nodeIPs: addressesOf(c.nodeIPs)}
	rec, err := loadRecord(c.conf)
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case err == nil && !rec.Agent:
		return fmt.Errorf("data-dir: %s is that of a server; start it with 'skiff server', or give another --data-dir", c.conf.DataDir)
	case err == nil && rec.NodeName != c.conf.NodeName:
		return fmt.Errorf("node-name: this host has joined as %q and cannot become %q; give the old name, or leave with 'skiff down --purge' first", rec.NodeName, c.conf.NodeName)
	case err == nil && rec.ClusterName != c.conf.ClusterName:
		return fmt.Errorf("cluster-name: this host has joined with %q and cannot change to %q; give the old value, or leave with 'skiff down --purge' first", rec.ClusterName, c.conf.ClusterName)
	}
	if c.conf.Server == "" {
		c.conf.Server = rec.Server
	}
	if c.conf.Server, err = join.ServerURL(c.conf.Server); err != nil {
		return err
	}
	if m.client, err = join.Open(filepath.Join(agentDir(c.conf), "client.pem"), join.NodeClient(c.conf.NodeName), c.Log); err != nil {
		return err
	}
	if err := m.join(ctx, rec.Agent); err != nil {
		return err
	}
	if err := m.connect(); err != nil {
		return err
	}
	if err := m.settle(ctx, rec); err != nil {
		return err
	}
	block, _ := pem.Decode(m.authority)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("%s is damaged: %w; remove it and join again with a token", m.authorityFile(), err)
	}
	c.member, c.trust, c.number = m, x509.NewCertPool(), pki.Number(ca)
	c.trust.AddCert(ca)
	return nil
}

func (m *member) authorityFile() string { return filepath.Join(agentDir(m.conf), "ca.crt") }

// join gets the node's first certificate, unless there is one that is good.
func (m *member) join(ctx context.Context, joined bool) (err error) {
	m.authority, err = os.ReadFile(m.authorityFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read the cluster's authority: %w", err)
	}
	if m.client.Good(time.Now()) {
		if block, _ := pem.Decode(m.authority); block != nil {
			return nil
		}
	}
	if m.conf.Token == "" && m.conf.TokenFile == "" {
		if joined {
			return errors.New("token: this node's certificate has expired or is damaged, so it must join again; give a token (on a server: skiff token create)")
		}
		return errors.New("token: this host has not joined a cluster yet; give a token (on a server: skiff token create)")
	}
	token, err := join.ReadToken(m.conf.Token, m.conf.TokenFile)
	if err != nil {
		return err
	}
	authority, err := join.FetchAuthority(ctx, m.conf.Server, token.Pin)
	if err != nil {
		return err
	}
	anon, err := join.WithToken(m.conf.Server, authority, token)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = m.client.Request(ctx, anon)
	var denied *join.DeniedError
	switch {
	case apierrors.IsUnauthorized(err):
		return errors.New("token: the server does not take it: it has expired, was deleted, or never was; make another with 'skiff token create' there")
	case errors.As(err, &denied):
		return fmt.Errorf("node-name: %w", denied)
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("the server did not give this node a certificate within a minute; see 'kubectl get csr' there")
	case err != nil:
		return fmt.Errorf("join %s: %w", m.conf.Server, err)
	}
	m.authority = authority
	if err := pki.WriteFile(m.authorityFile(), authority, 0o644); err != nil {
		return err
	}
	m.o.Progress(Progress{"joined", m.conf.Server})
	return nil
}

func (m *member) connect() error {
	access, reconnect, err := join.WithCertificate(m.conf.Server, m.authority, m.client)
	if err != nil {
		return err
	}
	m.client.Renewed = reconnect
	m.access = access
	m.api, err = crclient.NewWithWatch(access, crclient.Options{Scheme: api.Scheme()})
	return err
}

// settle takes over what the cluster goes by, which the record remembers from then on: a node can start while its server is away.
func (m *member) settle(ctx context.Context, rec record) error {
	if !rec.Agent {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		s, err := join.FetchSettings(ctx, m.api)
		if err != nil {
			return err
		}
		rec = record{
			ClusterName: m.conf.ClusterName, PodCIDR: s.PodCIDR, ServiceCIDR: s.ServiceCIDR, ClusterDomain: s.Domain, NodePorts: s.NodePorts,
			CRIEndpoint: m.conf.CRIEndpoint, Agent: true, NodeName: m.conf.NodeName,
		}
	}
	if rec.CRIEndpoint != m.conf.CRIEndpoint {
		return fmt.Errorf("cri-endpoint: this node was made with %q and cannot change to %q; give the old value, or leave with 'skiff down --purge' first", rec.CRIEndpoint, m.conf.CRIEndpoint)
	}
	m.conf.PodCIDR, m.conf.ServiceCIDR, m.conf.ClusterDomain, m.conf.NodePorts = rec.PodCIDR, rec.ServiceCIDR, rec.ClusterDomain, rec.NodePorts
	if rec.Server == m.conf.Server {
		return nil
	}
	if err := apartFromPods(m.conf, m.nodeIPs); err != nil {
		return err
	}
	rec.Server = m.conf.Server
	return writeRecord(m.conf, rec)
}

// makeRemoteClient makes the client of the node's parts.
func (c *cluster) makeRemoteClient() (runner, error) {
	var err error
	c.nodeClient, err = client.Remote(c.member.access, client.NodeOptions(c.conf.NodeName), c.Log.With("client", "node"))
	if err != nil {
		return nil, err
	}
	return task(c.nodeClient.Run), nil
}

func (c *cluster) makeClientCertificate() (runner, error) {
	return task(func(ctx context.Context) error { return c.member.client.Run(ctx, c.member.api) }), nil
}

// serving is the certificate that the node's kubelet answers with.
func (m *member) serving() (func(*tls.ClientHelloInfo) (*tls.Certificate, error), task, error) {
	s, err := join.Open(filepath.Join(agentDir(m.conf), "serving.pem"), join.NodeServing(m.conf.NodeName, m.nodeIPs...), m.o.Log)
	if err != nil {
		return nil, nil, err
	}
	return s.GetCertificate, func(ctx context.Context) error { return s.Run(ctx, m.api) }, nil
}

// publishSettings tells those who join what the cluster goes by, then waits for ctx to end.
func (c *cluster) publishSettings(ctx context.Context) error {
	cl := c.localClient("system:skiff:server", "system:masters")
	want := join.Settings{PodCIDR: c.conf.PodCIDR, ServiceCIDR: c.conf.ServiceCIDR, Domain: c.conf.ClusterDomain, NodePorts: c.conf.NodePorts}.ConfigMap()
	for pause := 100 * time.Millisecond; ctx.Err() == nil; pause = min(pause*2, 10*time.Second) {
		err := cl.Create(ctx, want.DeepCopy())
		if apierrors.IsAlreadyExists(err) {
			err = cl.Update(ctx, want.DeepCopy())
		}
		if err == nil {
			break
		}
		if pause > time.Second {
			c.Log.Warn("cannot publish the cluster's settings; trying again", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	<-ctx.Done()
	return nil
}
