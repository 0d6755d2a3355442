// Package kubelet runs the pods of one node.
//
// It owns the node's object and lease, everything below Root and LogDir, and one actor for each pod of this node (see package pod). It
// feeds the actors: objects from the API, events from the container runtime, and now and then a look at the whole runtime as a safety
// net. Its invariant: what runs can be derived from the API and the runtime alone, so that this process may die at any moment.
// Package host starts it.
package kubelet

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"skiff.dev/skiff/internal/api/shutdown"
	"skiff.dev/skiff/internal/api/threshold"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/kubelet/cgroup"
	"skiff.dev/skiff/internal/kubelet/csi"
	"skiff.dev/skiff/internal/kubelet/device"
	"skiff.dev/skiff/internal/kubelet/dra"
	"skiff.dev/skiff/internal/kubelet/evict"
	"skiff.dev/skiff/internal/kubelet/image"
	"skiff.dev/skiff/internal/kubelet/local"
	"skiff.dev/skiff/internal/kubelet/logs"
	"skiff.dev/skiff/internal/kubelet/plugin"
	"skiff.dev/skiff/internal/kubelet/pod"
	"skiff.dev/skiff/internal/kubelet/podresources"
	"skiff.dev/skiff/internal/kubelet/probe"
	"skiff.dev/skiff/internal/kubelet/serve"
	"skiff.dev/skiff/internal/kubelet/userns"
	"skiff.dev/skiff/internal/kubelet/volume"
)

// Config of a kubelet.
type Config struct {
	NodeName   string
	NodeIPs    []netip.Addr // one, or one of each family, the primary first
	Listen     string       // "0.0.0.0:10250"; port 0 picks a free one, reported in Node.status.daemonEndpoints
	Root       string       // "<data-dir>/kubelet": pods/<uid>/volumes …
	LogDir     string       // "<data-dir>/logs/pods"
	Logs       logs.Limits  // zero: logs.Default
	LogQuery   bool         // administrators may ask for the logs of the host's services
	VolumeDir  string       // "<data-dir>/volumes": this node's local volumes
	CgroupRoot string       // "/skiff": pods live in <root>/kubepods/…
	ClusterDNS netip.Addr
	Domain     string // "cluster.local"
	ResolvConf string // the host's resolvers; "" for /etc/resolv.conf
	MaxPods    int
	StaticPods string              // folder of static pods' manifests; "" for none
	Eviction   *threshold.Settings // nil: as usual
	Shutdown   shutdown.Periods    // what pods get to end when the host shuts down; none: nothing is done then
	Cluster    string              // the cluster's name, which files outside its folders carry
	Client     client.Client
	CRI        grpc.ClientConnInterface
	Telemetry  Telemetry
	TLS        *tls.Certificate // serving certificate
	// Certificate, if set, goes before TLS: it is asked at each handshake.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	ClientCA    *x509.CertPool // who may ask: API server's client certificate, admins
	// Withdraw, if set, returns when no new connection is led to these addresses of this node's pods, or after a while.
	Withdraw func(ctx context.Context, addrs []netip.Addr)
	// Renewed, if set, is told until when the cluster holds this node to be alive, each time that is put off.
	Renewed func(until time.Time)
	Log     *slog.Logger
}

// Telemetry is what the kubelet's HTTP API shows of package telemetry.
type Telemetry interface {
	Summary(ctx context.Context) (any, error) // *statsv1alpha1.Summary
	Containers() http.Handler                 // /metrics/cadvisor
	History() http.Handler                    // /stats/history
}

// Kubelet of one node.
type Kubelet struct {
	cfg      Config
	log      *slog.Logger
	runtime  runtimeapi.RuntimeServiceClient
	images   runtimeapi.ImageServiceClient
	events   record.EventRecorder
	machine  machine
	version  *runtimeapi.VersionResponse
	pods     *pods
	volumes  *volume.Manager
	locals   *local.Volumes
	drivers  *csi.Node
	claims   *dra.Node
	devices  *device.Manager
	users    *userns.Ranges
	started  *pod.UserNamespaced
	noUsers  error // why no pod can have users of its own on this node
	probes   *probe.Counts
	ends     *pod.Ends
	logs     *logs.Keeper
	node     nodeState
	ready    chan struct{}
	short    shortages
	shutdown hostShutdown
	look     chan struct{}                                // the node's status may have changed
	handlers atomic.Pointer[[]*runtimeapi.RuntimeHandler] // as the runtime last told
}

// New checks the configuration; Run does the work.
func New(cfg Config) (*Kubelet, error) {
	if cfg.NodeName == "" || cfg.Root == "" || cfg.LogDir == "" || cfg.VolumeDir == "" || cfg.CRI == nil || cfg.Client == nil {
		return nil, errors.New("kubelet: node name, folders, client and container runtime are all needed")
	}
	if cfg.ResolvConf == "" {
		cfg.ResolvConf = "/etc/resolv.conf"
	}
	if cfg.MaxPods == 0 {
		cfg.MaxPods = 110
	}
	if cfg.Domain == "" {
		cfg.Domain = "cluster.local"
	}
	if cfg.Logs == (logs.Limits{}) {
		cfg.Logs = logs.Default()
	}
	if cfg.Eviction == nil {
		cfg.Eviction = &threshold.Settings{Hold: 5 * time.Minute}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	k := &Kubelet{
		cfg: cfg, log: cfg.Log,
		runtime: runtimeapi.NewRuntimeServiceClient(cfg.CRI), images: runtimeapi.NewImageServiceClient(cfg.CRI),
		logs:   logs.NewKeeper(cfg.LogDir, cfg.Logs, cfg.Log),
		probes: probe.NewCounts(), ends: pod.NewEnds(), started: pod.NewUserNamespaced(), ready: make(chan struct{}), look: make(chan struct{}, 1),
		short: shortages{of: evict.Shortages{Hold: cfg.Eviction.Hold}},
	}
	return k, nil
}

// Ready is closed once the node is registered and its Ready condition was written as True.
func (k *Kubelet) Ready() <-chan struct{} { return k.ready }

// Run until ctx ends. Containers go on without the kubelet.
func (k *Kubelet) Run(ctx context.Context) error {
	for _, dir := range []string{k.cfg.Root, k.cfg.LogDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	canMap := make(chan error, 1)
	go func() { canMap <- userns.Probe(k.cfg.Root) }() // while the runtime starts: it takes a fork of this process
	cgroups, err := cgroup.New(k.cfg.CgroupRoot)
	if err != nil {
		return err
	}
	if k.machine, err = look(k.cfg.Root); err != nil {
		return err
	}
	k.machine.eviction = k.cfg.Eviction
	if k.version, err = k.runtime.Version(ctx, &runtimeapi.VersionRequest{Version: "v1"}); err != nil {
		return fmt.Errorf("ask the container runtime for its version: %w", err)
	}
	k.events = k.cfg.Client.Recorder("kubelet")
	k.locals = local.New(k.cfg.VolumeDir, k.cfg.NodeName, k.cfg.Client, k.events, k.log)
	k.volumes = volume.New(k.cfg.Root, source{k.cfg.Client}, func() volume.Facts { return volume.Facts{Allocatable: k.machine.allocatable(k.cfg.MaxPods)} })
	k.volumes.Locals = k.locals
	k.drivers = csi.New(k.cfg.Root, k.cfg.NodeName, k.cfg.Client, source{k.cfg.Client}.Token, k.log)
	k.volumes.CSI, k.volumes.Grown = k.drivers, func(_ *corev1.Pod, claim *corev1.PersistentVolumeClaim) {
		k.events.Event(claim, corev1.EventTypeNormal, "FileSystemResizeSuccessful", "MountVolume.NodeExpandVolume succeeded for volume \""+claim.Spec.VolumeName+"\"")
	}
	if k.claims, err = dra.New(k.cfg.Root, k.cfg.NodeName, k.cfg.Client, k.log); err != nil {
		return err
	}
	if k.devices, err = device.New(k.cfg.Root, k.log); err != nil {
		return err
	}
	if err := k.loadUsers(ctx, <-canMap); err != nil {
		return err
	}
	k.pods = newPods(k, k.deps(cgroups))
	k.claims.Changed, k.devices.Wake, k.devices.Changed = k.pods.devices, k.pods.devices, k.changed

	listener, err := net.Listen("tcp", k.cfg.Listen)
	if err != nil {
		return fmt.Errorf("kubelet: %w", err)
	}
	serving := serve.Config{NodeName: k.cfg.NodeName, LogQuery: k.cfg.LogQuery, API: k.cfg.Client, Pods: k.pods, Runtime: k.runtime, Probes: k.probes, Counts: slices.Concat(k.started.Collectors(), k.shutdownMetrics(), []prometheus.Collector{k.ends}), TLS: k.tls(), Log: k.log,
		Search: k.logs.Searcher(k.pods.labels).Search}
	if k.cfg.Telemetry != nil {
		serving.Summary, serving.Containers, serving.History = k.summary, k.cfg.Telemetry.Containers(), k.cfg.Telemetry.History()
	}
	server := serve.New(serving)
	k.node.port = int32(listener.Addr().(*net.TCPAddr).Port)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	failed := make(chan error, 1)
	for _, run := range []func(context.Context) error{
		func(ctx context.Context) error { return server.Run(ctx, listener) },
		k.runNode, k.runLease, k.pods.run, k.pods.watchRuntime, k.pods.watchMemory, k.locals.Run, k.runEviction, k.runShutdown,
		func(ctx context.Context) error { return k.drivers.Run(ctx, k.ready) },
		plugin.New(filepath.Join(k.cfg.Root, "plugins_registry"), map[string]plugin.Handler{
			registration.CSIPlugin: k.drivers, registration.DRAPlugin: k.claims, registration.DevicePlugin: k.devices,
		}, k.log).Run, k.claims.Run, k.devices.Run,
		(&podresources.Server{Root: k.cfg.Root, Pods: k.given, Devices: k.devices, Claims: k.claims, Log: k.log}).Run,
		logs.NewRotator(k.pods, k.runtime, k.cfg.Logs, k.log).Run, k.logs.Run,
	} {
		parts.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				select {
				case failed <- err:
				default:
				}
				cancel()
			}
		})
	}
	parts.Wait()
	k.pods.wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (k *Kubelet) deps(cgroups *cgroup.Manager) *pod.Deps {
	settings := &pod.Settings{
		NodeName: k.cfg.NodeName, LogDir: k.cfg.LogDir, Domain: k.cfg.Domain, ResolvConf: k.cfg.ResolvConf,
		Seccomp: filepath.Join(k.cfg.Root, "seccomp"), AppArmor: strings.HasPrefix(firstOf("/sys/module/apparmor/parameters/enabled"), "Y"),
		NodeMemory: k.machine.memory, OOMFloor: cgroup.OOMFloor(),
	}
	if k.cfg.ClusterDNS.IsValid() {
		settings.ClusterDNS = k.cfg.ClusterDNS.String()
	}
	facts := pod.NodeFacts{RuntimeName: k.version.RuntimeName}
	for _, a := range k.cfg.NodeIPs {
		facts.IPs = append(facts.IPs, a.String())
	}
	allocatable := k.machine.allocatable(k.cfg.MaxPods)
	return &pod.Deps{
		Runtime: k.runtime, Images: image.New(k.images), Cgroups: cgroups, Client: k.cfg.Client, Events: k.events,
		Volumes: k.volumes, Claims: k.claims, Devices: k.devices, Users: k.users, OwnUsers: k.ownUsers, Started: k.started,
		Settings: settings, Logs: k.logs, Log: k.log, Withdraw: k.cfg.Withdraw,
		Node:        func() pod.NodeFacts { return facts },
		Allocatable: func() (l resourceList) { return allocatable },
		Others:      k.given,
		Allocating:  &sync.Mutex{},
		Services:    source{k.cfg.Client}.services,
		Probes:      k.probes,
		Ends:        k.ends,
	}
}

// given are the node's pods with what they were given.
func (k *Kubelet) given() []*corev1.Pod {
	var out []*corev1.Pod
	for _, v := range k.pods.List() {
		out = append(out, v.Pod)
	}
	return out
}

func (k *Kubelet) tls() *tls.Config {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12, ClientCAs: k.cfg.ClientCA, ClientAuth: tls.VerifyClientCertIfGiven,
		NextProtos: []string{"h2", "http/1.1"},
	}
	if k.cfg.Certificate != nil {
		c.GetCertificate = k.cfg.Certificate
	} else if k.cfg.TLS != nil {
		c.Certificates = []tls.Certificate{*k.cfg.TLS}
	}
	return c
}

// Remove unmounts and deletes what the kubelet left below Root. Idempotent.
func Remove(ctx context.Context, root string, progress func(string)) error {
	if _, err := os.Lstat(root); os.IsNotExist(err) {
		return nil
	}
	progress("unmounting volumes below " + filepath.Clean(root))
	var err error
	for wait := 10 * time.Millisecond; ctx.Err() == nil && wait < time.Second; wait *= 2 {
		if err = volume.RemoveAll(root); err == nil {
			return nil
		}
		time.Sleep(wait)
	}
	return errors.Join(err, ctx.Err())
}
