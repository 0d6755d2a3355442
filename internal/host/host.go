package host

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"skiff.dev/skiff/internal/addon"
	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/apiserver/admission/dynamic"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/apiserver/crd"
	"skiff.dev/skiff/internal/apiserver/usage"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/encryption"
	"skiff.dev/skiff/internal/etcd"
	"skiff.dev/skiff/internal/network"
	"skiff.dev/skiff/internal/pki"
	"skiff.dev/skiff/internal/registry"
	skiffruntime "skiff.dev/skiff/internal/runtime"
	"skiff.dev/skiff/internal/scheduler"
	"skiff.dev/skiff/internal/store"
)

// Options of a run.
type Options struct {
	Config   *config.Config // complete
	BinDir   string         // where skiff's other programs lie
	Log      *slog.Logger
	Progress func(Progress)
}

// Progress tells of a part that has become ready (or was removed), or of AllReady and Stopping.
type Progress struct{ Part, Detail string }

// What Progress.Part says besides names of parts.
const (
	AllReady = "all"
	Stopping = "stopping"
)

// cluster is one server with its agent, or an agent alone. Its fields are filled by the parts as they are made; a part reads only what those it comes
// after have filled.
type cluster struct {
	Options
	conf       *config.Config
	listen     net.Listener
	pods       net.Listener // where pods reach an API server that listens on loopback only; may be nil
	nodeIP     netip.Addr   // the primary one
	nodeIPs    []netip.Addr
	trust      *x509.CertPool // the cluster's authority, and what comes from it
	number     uint32         // the cluster's, for the overlay
	ca         *pki.Authority // a server's
	serving    *pki.Renewed   // a server's
	frontProxy *pki.Authority // a server's: whom the API servers behind it believe
	member     *member        // an agent's; nil on a server
	metrics    *prometheus.Registry
	encryption *encryption.Config // a server's
	switches   *addon.Switches    // which parts' add-ons are enabled
	undo       []func() error     // takes away what this start has made

	scheduler atomic.Pointer[scheduler.Scheduler] // nil until it is made
	api       atomic.Pointer[apiserver.Server]    // likewise

	etcd       *etcd.Member
	store      *store.Store
	registry   *registry.Registry
	asked      *dynamic.Plugins // what users configured of admission
	authorizer *authz.Authorizer
	usage      *usage.Source  // a server's
	custom     *crd.Resources // likewise
	published  chan struct{}  // closed once API servers behind this one can know whom to believe
	runtime    *skiffruntime.Runtime
	nodeClient client.Client
	network    atomic.Pointer[network.Network] // nil until it is made; the kubelet does not wait for it
}

// Run runs a server, and its agent unless the settings say no, until ctx ends. Containers outlive it.
func Run(ctx context.Context, o Options) error {
	if err := preflight(o.Config, o.BinDir); err != nil {
		return err
	}
	l, err := takeLock(o.Config.DataDir)
	if err != nil {
		return err
	}
	defer l.release()
	c := &cluster{Options: o, conf: o.Config, metrics: prometheus.NewRegistry(), published: make(chan struct{}), switches: addon.NewSwitches()}
	if l.made {
		c.undo = append(c.undo, func() error { return os.RemoveAll(o.Config.DataDir) })
	}
	served, err := false, c.prepare(ctx)
	if err == nil {
		served, err = c.run(ctx)
	}
	if err != nil && !served {
		c.undoStart()
	}
	return err
}

// run runs the parts until ctx ends or one fails. served says whether the API server has ever been ready, for then there may be something in it.
func (c *cluster) run(parent context.Context) (served bool, err error) {
	defer c.close()
	ctx, stop := context.WithCancel(parent)
	parts := c.parts()
	waiting := make(map[string]bool, len(parts))
	for _, p := range parts {
		waiting[p.name] = true
	}
	readied := make(chan string, len(parts))
	g := &group{parts: parts, log: c.Log, stopPatience: 20 * time.Second, ready: func(name string) { readied <- name }}
	told := make(chan struct{})
	go func() {
		defer close(told)
		for len(waiting) > 0 && ctx.Err() == nil {
			select {
			case name := <-readied:
				delete(waiting, name)
				served = served || name == apiServer
				if detail, visible := c.detail(name); visible {
					c.Progress(Progress{name, detail})
				}
			case <-ctx.Done():
			}
		}
		if len(waiting) == 0 {
			c.Progress(Progress{Part: AllReady})
			c.releasePages(ctx)
		}
		<-ctx.Done()
		if parent.Err() != nil {
			c.Progress(Progress{Part: Stopping})
		}
	}()
	err = g.Run(ctx)
	stop()
	<-told
	return served, err
}

// undoStart takes away what a start that failed has made, newest first, so that it can be tried again in another way.
func (c *cluster) undoStart() {
	for i := len(c.undo) - 1; i >= 0; i-- {
		if err := c.undo[i](); err != nil {
			c.Log.Warn("something is left of this start; 'skiff down --purge' removes it", "err", err)
		}
	}
}

// prepare does what must have succeeded before anything is started, and leaves nothing behind when it fails.
func (c *cluster) prepare(ctx context.Context) (err error) {
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	if c.listen, err = listen("listen", c.conf.Listen); err != nil {
		return err
	}
	if !c.conf.NoAgent {
		if err := c.probeKubeletPort(); err != nil {
			return err
		}
		if err := skiffruntime.Probe(ctx, c.conf.CRIEndpoint); err != nil {
			return err
		}
	}
	if err := c.findNodeIPs(); err != nil {
		return err
	}
	if err := apartFromPods(c.conf, addressesOf(c.nodeIPs)); err != nil {
		return err
	}
	if c.ca, err = pki.OpenAuthority(c.pkiDir(), "ca", "skiff", time.Now()); err != nil {
		return err
	}
	if c.frontProxy, err = pki.OpenAuthority(c.pkiDir(), "front-proxy-ca", "skiff-front-proxy", time.Now()); err != nil {
		return err
	}
	c.trust, c.number = c.ca.Pool(), pki.Number(c.ca.Cert)
	if err := c.readEncryption(ctx); err != nil {
		return err
	}
	if !c.conf.NoAgent {
		if err := meetNeighbours(c.conf); err != nil {
			return err
		}
	}
	if _, err := os.Stat(recordFile(c.conf)); errors.Is(err, os.ErrNotExist) {
		c.undo = append(c.undo, c.removeStarted) // this cluster had nothing on this host before
	}
	if err := saveRecord(c.conf); err != nil {
		return err
	}
	if err := makeRunDir(c.conf.RunDir()); err != nil {
		return err
	}
	if err := c.listenForPods(); err != nil {
		return err
	}
	if c.serving, err = c.ca.Renew(c.servingLeaf(), c.Log); err != nil {
		return err
	}
	return writeKubeconfig(c.conf.Kubeconfig(), c.serverURL(), c.conf.ClusterName, c.ca, time.Now())
}

// removeStarted removes what a start that has never been ready left on this host. It runs no pods yet, so somebody else's runtime need not be
// asked.
func (c *cluster) removeStarted() error {
	conf := *c.conf
	conf.CRIEndpoint = ""
	return errors.Join(remove(context.Background(), Options{Config: &conf, BinDir: c.BinDir, Log: c.Log, Progress: func(Progress) {}}),
		os.Remove(recordFile(c.conf)))
}

// findNodeIPs learns this host's addresses, and whether it can carry the cluster's families.
func (c *cluster) findNodeIPs() (err error) {
	pods := c.conf.ClusterCIDRs()
	if c.nodeIPs = c.conf.NodeIPs(); len(c.nodeIPs) == 0 {
		if c.nodeIPs, err = nodeIPs(pods); err != nil {
			return err
		}
	}
	c.nodeIP = c.nodeIPs[0]
	return network.CheckFamilies(pods)
}

func (c *cluster) close() {
	for _, l := range []net.Listener{c.listen, c.pods} {
		if l != nil {
			l.Close()
		}
	}
}

// probeKubeletPort finds a taken port before anything has started.
func (c *cluster) probeKubeletPort() error {
	l, err := listen("kubelet-listen", c.conf.KubeletListen)
	if err != nil {
		return err
	}
	return l.Close()
}

// keyFile holds the keys for values at rest of a cluster that was told of none.
func (c *cluster) keyFile() string { return filepath.Join(c.pkiDir(), "encryption.yaml") }

// readEncryption reads how values are encrypted in etcd, if that is written down already.
func (c *cluster) readEncryption(ctx context.Context) (err error) {
	file := c.conf.EncryptionProviderConfig
	if file == "" {
		file = c.keyFile()
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			return nil // makeKeys does, once etcd can be asked
		}
	}
	c.encryption, err = encryption.Load(ctx, file, c.conf.NodeName)
	return err
}

// makeKeys makes the keys of a cluster that has none. One whose values are encrypted has lost its own: with new ones it would come up without them.
func (c *cluster) makeKeys() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	key, by, err := store.Sealed(ctx, c.etcd.Client(), "/registry/")
	if err != nil {
		return fmt.Errorf("look for encrypted values in etcd: %w", err)
	}
	if key != "" {
		return fmt.Errorf("etcd holds encrypted values (%s with %s) and there is no %s; restore it from a backup, or name the file with their keys with --encryption-provider-config",
			key, by, c.keyFile())
	}
	file, err := encryption.Own(c.keyFile())
	if err != nil {
		return err
	}
	c.encryption, err = encryption.Load(ctx, file, c.conf.NodeName)
	return err
}

func (c *cluster) pkiDir() string { return filepath.Join(c.conf.DataDir, "pki") }

// listenAddr is the address that the API server listens on.
func (c *cluster) listenAddr() netip.AddrPort {
	return c.listen.Addr().(*net.TCPAddr).AddrPort()
}

// serverURL is where this host's own programs reach the API server.
func (c *cluster) serverURL() string {
	a := c.listenAddr()
	host := a.Addr().Unmap()
	if host.IsUnspecified() {
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return "https://" + netip.AddrPortFrom(host, a.Port()).String()
}

// advertise is where pods and other nodes reach the API server. One that listens on loopback alone is reached under the API service's own
// address, which this host holds on its loopback link.
func (c *cluster) advertise() netip.AddrPort {
	a := c.listenAddr()
	host := a.Addr().Unmap()
	switch {
	case c.conf.AdvertiseAddress != "":
		host = netip.MustParseAddr(c.conf.AdvertiseAddress)
	case host.IsLoopback() || host.IsUnspecified() && c.nodeIP.IsLoopback():
		host = c.conf.ServiceAddr(1)
	case host.IsUnspecified():
		host = c.nodeIP
	}
	return netip.AddrPortFrom(host, a.Port())
}

// listenForPods opens the second listener that advertise speaks of.
func (c *cluster) listenForPods() error {
	addr := c.advertise()
	if c.conf.NoAgent || addr.Addr() != c.conf.ServiceAddr(1) {
		return nil
	}
	if err := network.AddLocal(addr.Addr()); err != nil {
		return fmt.Errorf("put the API service's address on this host: %w", err)
	}
	if c.listenAddr().Addr().Unmap().IsUnspecified() {
		return nil // the first listener hears it already
	}
	l, err := net.Listen("tcp", addr.String())
	if err != nil {
		return fmt.Errorf("listen where pods reach the API server: %w; another cluster here may use service-cidr %s, give another", err, c.conf.ServiceCIDR)
	}
	c.pods = l
	return nil
}

// presented is the server's certificate with the authority behind it: a host that joins has nothing but the authority's hash.
func (c *cluster) presented(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	chain := *c.serving.Current()
	chain.Certificate = [][]byte{chain.Certificate[0], c.ca.Cert.Raw}
	return &chain, nil
}

// overlay connects the pods of several nodes. A server that listens on loopback alone can have none but its own.
func (c *cluster) overlay() network.Overlay {
	if c.member == nil && c.listenAddr().Addr().Unmap().IsLoopback() || c.nodeIP.IsLoopback() {
		return network.Overlay{}
	}
	return network.Overlay{Number: c.number, Port: c.conf.VXLANPort, Direct: c.conf.DirectRouting}
}

const servingLife = 90 * 24 * time.Hour

func (c *cluster) servingLeaf() pki.Leaf {
	leaf := pki.Leaf{
		CommonName: "kube-apiserver",
		DNSNames: []string{"localhost", c.conf.NodeName, "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc." + c.conf.ClusterDomain},
		IPs:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		Life: servingLife,
	}
	for _, a := range slices.Concat(c.nodeIPs, c.conf.ServiceAddrs(1), []netip.Addr{c.listenAddr().Addr().Unmap(), c.advertise().Addr()}) {
		if !a.IsUnspecified() && !a.IsLoopback() {
			leaf.IPs = append(leaf.IPs, a.AsSlice())
		}
	}
	for _, san := range c.conf.TLSSAN {
		if a, err := netip.ParseAddr(san); err == nil {
			leaf.IPs = append(leaf.IPs, a.AsSlice())
		} else {
			leaf.DNSNames = append(leaf.DNSNames, san)
		}
	}
	return leaf
}

// kubeletTLS is how the API server shows itself to kubelets, and whom it takes for one.
func (c *cluster) kubeletTLS(self *pki.Renewed) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.ca.Pool(), GetClientCertificate: self.GetClientCertificate}
}
