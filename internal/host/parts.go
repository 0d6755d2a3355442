package host

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/storage/value"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/loadbalancer"
	"skiff.dev/skiff/internal/apiserver"
	"skiff.dev/skiff/internal/apiserver/admission"
	"skiff.dev/skiff/internal/apiserver/admission/dynamic"
	"skiff.dev/skiff/internal/apiserver/audit"
	"skiff.dev/skiff/internal/apiserver/authn"
	"skiff.dev/skiff/internal/apiserver/authz"
	"skiff.dev/skiff/internal/apiserver/configfile"
	"skiff.dev/skiff/internal/apiserver/crd"
	"skiff.dev/skiff/internal/apiserver/usage"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/controller"
	"skiff.dev/skiff/internal/dashboard"
	"skiff.dev/skiff/internal/dns"
	"skiff.dev/skiff/internal/encryption"
	"skiff.dev/skiff/internal/etcd"
	"skiff.dev/skiff/internal/histogram"
	"skiff.dev/skiff/internal/kubelet"
	"skiff.dev/skiff/internal/kubelet/logs"
	"skiff.dev/skiff/internal/network"
	"skiff.dev/skiff/internal/pki"
	"skiff.dev/skiff/internal/registry"
	skiffruntime "skiff.dev/skiff/internal/runtime"
	"skiff.dev/skiff/internal/scheduler"
	"skiff.dev/skiff/internal/scheduler/extender"
	"skiff.dev/skiff/internal/scheduler/profile"
	"skiff.dev/skiff/internal/store"
	"skiff.dev/skiff/internal/telemetry"
	"skiff.dev/skiff/internal/version"
)

const apiServer = "api server"

// parts lists everything that runs, on one page.
func (c *cluster) parts() []part {
	if c.member != nil {
		return append(c.nodeParts(nil), part{"certificates", nil, c.makeClientCertificate},
			part{"add-on switches", nil, c.makeFollowSwitches})
	}
	server := []part{
		{"etcd", nil, c.makeEtcd},
		{"store", []string{"etcd"}, c.makeStore},
		{"registry", []string{"store"}, c.makeRegistry},
		{"custom resources", []string{"registry"}, c.makeCustomResources},
		{apiServer, []string{"custom resources"}, c.makeAPIServer},
		{"certificates", nil, func() (runner, error) { return task(c.serving.Run), nil }},
		{"controllers", []string{"registry"}, c.makeControllers},
		{"cluster settings", []string{"registry"}, func() (runner, error) { return task(c.publishSettings), nil }},
		{"metrics", []string{"registry"}, c.switched(addonMetrics, c.makeMetrics)},
		{"add-on folder", []string{"registry"}, c.makeDropIn},
	}
	if !c.conf.NoScheduler {
		server = append(server, part{"scheduler", []string{"registry"}, c.makeScheduler})
	}
	if c.conf.NoAgent {
		return server
	}
	return append(server, c.nodeParts([]string{"registry"}, apiServer)...)
}

// nodeParts are what makes a host a node, beside a server or without one. client says what the node's client comes after, and kubelet what
// the kubelet does besides.
func (c *cluster) nodeParts(client []string, kubelet ...string) []part {
	return []part{
		{"container runtime", nil, c.makeRuntime},
		{"node client", client, c.makeNodeClient},
		{"network", []string{"node client"}, c.makeNetwork},
		{"dns", []string{"node client"}, c.switched(addonDNS, c.makeDNS)},
		{"node", append(kubelet, "node client", "container runtime"), c.makeKubelet},
	}
}

// detail is what progress says of a ready part, and whether it is worth a line.
func (c *cluster) detail(name string) (text string, visible bool) {
	switch name {
	case "store", "registry", "custom resources", "certificates", "cluster settings", "node client", "metrics", "add-on folder", "add-on switches":
		return "", false
	case apiServer:
		return c.serverURL(), true
	case "dns":
		return c.conf.ServiceAddr(10).String(), true
	case "node":
		return c.conf.NodeName, true
	}
	return "", true
}

func (c *cluster) makeEtcd() (runner, error) {
	m, err := etcd.New(etcd.Config{
		Dir:       filepath.Join(c.conf.DataDir, "etcd"),
		Name:      c.conf.NodeName,
		Endpoints: c.conf.EtcdEndpoints,
		CAFile:    c.conf.EtcdCAFile, CertFile: c.conf.EtcdCertFile, KeyFile: c.conf.EtcdKeyFile,
		Log: c.Log.With("part", "etcd"),
	})
	c.etcd = m
	return m, err
}

func (c *cluster) makeStore() (runner, error) {
	if c.encryption == nil {
		if err := c.makeKeys(); err != nil {
			return nil, err
		}
	}
	life, err := c.conf.EventLife()
	if err != nil {
		return nil, err
	}
	c.store = store.New(store.Config{
		AtRest:  c.encryption.Of,
		Observe: c.observeEtcd(),
		Client:  c.etcd.Client(), Prefix: "/registry/", Sole: c.etcd.Embedded(), Life: life,
		DetectMutation: c.conf.DetectMutation, Log: c.Log.With("part", "store"),
	})
	return beside{c.store, c.followEncryption()}, nil
}

// followEncryption has another content of the file with the keys count once it is known that nothing which can be read now could not be read with it.
func (c *cluster) followEncryption() task {
	file, holds := c.encryption.File()
	readable := func(ctx context.Context, of func(schema.GroupResource) (value.Transformer, uint32)) error {
		return c.store.Readable(ctx, of)
	}
	f := configfile.Follower{
		Key: encryption.Key, File: file, Holds: holds, Log: c.Log.With("part", "store"),
		Figures: configfile.NewFigures(c.metrics, "encryption_config_controller", nil),
		Read: func(ctx context.Context, _ []byte) error {
			if err := c.encryption.Change(ctx, readable); err != nil {
				return err
			}
			return c.store.Retry(ctx)
		},
	}
	return f.Run
}

func (c *cluster) makeRegistry() (runner, error) {
	asked := dynamic.New()
	admit, validate, err := c.admission(asked)
	c.asked = asked
	if err != nil {
		return nil, err
	}
	c.registry, err = registry.New(registry.Config{
		Store:         c.store,
		Table:         api.NewTable(c.conf.ServedBesides()...),
		Log:           c.Log.With("part", "registry"),
		ServiceCIDRs:  c.conf.ServiceCIDRs(),
		NodePortRange: c.conf.NodePorts,
		Advertise:     c.advertise(),
		Admit:         admit,
		Validate:      validate,
	})
	if err != nil {
		return nil, err
	}
	c.authorizer = authz.New(c.registry, c.Log.With("part", "authz"))
	if err := c.authorizer.Use(authz.Sources{ConfigFile: c.conf.AuthorizationConfig, WebhookConfig: c.conf.AuthorizationWebhookConfig}); err != nil {
		return nil, err
	}
	asked.Start(c.registry, c.authorizer)
	c.usage = usage.New(c.registry, c.Log.With("part", "usage"))
	return c.registry, nil
}

// admission is the chain of plug-ins. The authorizer reads roles through the registry, which asks it whether somebody may grant a role.
func (c *cluster) admission(asked *dynamic.Plugins) ([]registry.Admit, []registry.Validate, error) {
	signers := func(about string) registry.Validate {
		return func(ctx context.Context, a *registry.Attributes) error { return c.authorizer.Signers(ctx, a, about) }
	}
	return admission.New(admission.Config{
		Enable: c.conf.EnableAdmission, Disable: c.conf.DisableAdmission, File: c.conf.AdmissionConfig, Configure: asked.Configure(), Metrics: c.metrics,
		Admit: map[string]registry.Admit{"MutatingAdmissionPolicy": asked.MutateByPolicies, "MutatingAdmissionWebhook": asked.MutateByWebhooks},
		Validate: map[string]registry.Validate{
			"CertificateApproval": signers("approve"), "CertificateSigning": signers("sign"), "ClusterTrustBundleAttest": signers("attest"),
			"OwnerReferencesPermissionEnforcement": func(ctx context.Context, a *registry.Attributes) error { return c.authorizer.OwnerReferences(ctx, a) },
			"ValidatingAdmissionPolicy":            asked.ValidateByPolicies, "ValidatingAdmissionWebhook": asked.ValidateByWebhooks,
		},
		AlwaysAdmit:    []registry.Admit{asked.Settle},
		AlwaysValidate: []registry.Validate{func(ctx context.Context, a *registry.Attributes) error { return c.authorizer.Validate(ctx, a) }},
	})
}

// localClient is a part's client within this process.
func (c *cluster) localClient(name string, groups ...string) client.Client {
	return client.Local(c.registry, &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}, c.Log.With("client", name))
}

// withClient runs a part beside the client it lives on; the client stops last.
type withClient struct {
	client client.Client
	runner
	log *slog.Logger
}

func (w withClient) Run(ctx context.Context) error {
	g := &group{log: w.log, stopPatience: 15 * time.Second, parts: []part{
		{"client", nil, func() (runner, error) { return task(w.client.Run), nil }},
		{"itself", []string{"client"}, func() (runner, error) { return w.runner, nil }},
	}}
	return g.Run(ctx)
}

func (c *cluster) makeCustomResources() (runner, error) {
	c.custom = crd.New(crd.Config{Registry: c.registry, Log: c.Log.With("part", "customresources")})
	return c.custom, nil
}

func (c *cluster) makeAPIServer() (runner, error) {
	private, public, err := pki.OpenTokenKey(c.pkiDir())
	if err != nil {
		return nil, err
	}
	self, err := c.ca.Renew(pki.Leaf{CommonName: "kube-apiserver-kubelet-client", Organizations: []string{"system:masters"}, Life: servingLife}, c.Log)
	if err != nil {
		return nil, err
	}
	proxy, err := c.frontProxy.Renew(pki.Leaf{CommonName: authn.FrontProxyName, Life: servingLife}, c.Log)
	if err != nil {
		return nil, err
	}
	c.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	events, err := audit.Open(audit.Settings{
		PolicyFile: c.conf.AuditPolicyFile, Path: c.conf.AuditLogPath, MaxSize: c.conf.AuditLogMaxSize, MaxAge: c.conf.AuditLogMaxAge,
		MaxBackups: c.conf.AuditLogMaxBackups, WebhookConfig: c.conf.AuditWebhookConfig,
	})
	if err != nil {
		return nil, err
	}
	s, err := apiserver.New(apiserver.Config{
		Audit:       events,
		Registry:    c.registry,
		Authorizer:  c.authorizer,
		Listener:    both(c.listen, c.pods),
		Certificate: c.presented,
		ClientCA:    c.trust,
		KubeletTLS:  c.kubeletTLS(self),
		FrontProxy:  &apiserver.FrontProxy{Authority: c.frontProxy.Pool(), Client: proxy.GetClientCertificate},
		Sources:     authnSources(c.conf),
		TokenKeys:   apiserver.TokenKeys{SigningPEM: private, VerifyPEM: [][]byte{public}},
		Issuer:      "https://kubernetes.default.svc." + c.conf.ClusterDomain,
		ExternalURL: "https://" + c.advertise().String(),
		Metrics:     c.metrics,
		Usage:       c.usage,
		Checks:      c.checks(),
		Steps:       c.steps(),
		UI:          c.ui(),
		Explain:     c.explainPod(),
		Follow:      c.asked.Follow(c.metrics, c.Log.With("part", "admission")),
		Log:         c.Log.With("part", "apiserver"),
	})
	if err != nil {
		return nil, err
	}
	c.api.Store(s)
	return beside{beside{beside{beside{s, task(self.Run)}, task(proxy.Run)}, task(c.authorizer.Run)}, task(c.usage.Run)}, nil
}

// observeEtcd counts how long writes to etcd take, by upstream's name.
func (c *cluster) observeEtcd() func(operation string, of schema.GroupResource, took time.Duration) {
	h := histogram.NewVec(prometheus.HistogramOpts{
		Name: "etcd_request_duration_seconds", Help: "How long writes to etcd took.", Buckets: histogram.RequestSeconds,
	}, []string{"operation", "group", "resource"})
	c.metrics.MustRegister(h)
	return func(operation string, of schema.GroupResource, took time.Duration) {
		h.WithLabelValues(operation, of.Group, of.Resource).Observe(took)
	}
}

// checks are what /readyz and its kin look at.
func (c *cluster) checks() []apiserver.Check {
	out := []apiserver.Check{{Name: "etcd", Run: c.store.Healthy}}
	if c.encryption.Remote() {
		out = append(out, apiserver.Check{Name: "kms-providers", Run: c.encryption.Check})
	}
	return out
}

// steps are those of the start that other parts than the API server take.
func (c *cluster) steps() []apiserver.Step {
	out := apiserver.Hooks(c.custom.Ready(), "start-apiextensions-informers", "start-apiextensions-controllers", "crd-informer-synced")
	if controller.Selected(c.conf.Controllers, controller.ExtensionAuth) {
		out = append(out, apiserver.Hooks(c.published, "start-cluster-authentication-info-controller")...)
	}
	return out
}

// ui is what answers at /ui, unless the settings say that nobody does.
func (c *cluster) ui() apiserver.UI {
	if c.conf.NoDashboard {
		return nil
	}
	return func(api http.Handler, who func(*http.Request) (user.Info, error)) http.Handler {
		ui := dashboard.New(dashboard.Config{Cluster: c.conf.ClusterName, API: api, Who: who, Log: c.Log.With("part", "dashboard")})
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if on, _ := c.switches.On(addonDashboard); !on {
				http.Error(w, "the add-on dashboard is disabled; 'skiff addon enable dashboard' enables it", http.StatusNotFound)
				return
			}
			ui.ServeHTTP(w, r)
		})
	}
}

func (c *cluster) makeScheduler() (runner, error) {
	cl := c.localClient(user.KubeScheduler)
	settings, err := schedulerSettings(c.conf)
	if err != nil {
		return nil, err
	}
	s := scheduler.New(scheduler.Config{Settings: settings, Groups: slices.Contains(c.conf.ServedBesides(), api.PodGroupAPI), Client: cl, Log: c.Log.With("part", "scheduler")})
	c.scheduler.Store(s)
	return withClient{cl, s, c.Log}, nil
}

// schedulerSettings reads what is said of the scheduler.
func schedulerSettings(c *config.Config) (*profile.Settings, error) {
	settings := profile.Default()
	if c.SchedulerConfig != "" {
		var err error
		if settings, err = profile.Read("scheduler-config", c.SchedulerConfig); err != nil {
			return nil, err
		}
	}
	if _, err := extender.New(settings.Extenders); err != nil {
		return nil, fmt.Errorf("scheduler-config: %s: %w", c.SchedulerConfig, err)
	}
	settings.Election.Elect = settings.Election.Elect || c.LeaderElect
	return settings, nil
}

// explainPod asks the scheduler, which may be made after the API server.
func (c *cluster) explainPod() func(ctx context.Context, namespace, name string) (any, error) {
	if c.conf.NoScheduler {
		return nil
	}
	return func(ctx context.Context, namespace, name string) (any, error) {
		s := c.scheduler.Load()
		if s == nil {
			return nil, apierrors.NewServiceUnavailable("the scheduler has not started yet; try again in a moment")
		}
		return s.Explain(ctx, namespace, name)
	}
}

// askBehind asks API servers behind this one as the autoscaler, whose rights upstream's roles name.
func (c *cluster) askBehind(ctx context.Context, path string) (body []byte, served bool, err error) {
	s := c.api.Load()
	if s == nil {
		return nil, true, apierrors.NewServiceUnavailable("the API server has not started yet")
	}
	account := serviceaccount.UserInfo(metav1.NamespaceSystem, "horizontal-pod-autoscaler", "")
	return s.Behind(ctx, &user.DefaultInfo{Name: account.GetName(), Groups: append(account.GetGroups(), user.AllAuthenticated)}, path)
}

// checkTypes asks the API server, which has the schemas.
func (c *cluster) checkTypes(p *admissionv1.ValidatingAdmissionPolicy) ([]admissionv1.ExpressionWarning, error) {
	s := c.api.Load()
	if s == nil {
		return nil, apierrors.NewServiceUnavailable("the API server has not started yet")
	}
	return s.CheckTypes(p), nil
}

func (c *cluster) makeControllers() (runner, error) {
	cl := c.localClient(user.KubeControllerManager)
	pool, err := loadbalancer.ParsePool(c.conf.LBPool)
	if err != nil {
		return nil, fmt.Errorf("lb-pool: %w", err)
	}
	r, err := controller.New(controller.Config{
		Client:   cl,
		Kinds:    c.registry.Table(),
		Select:   c.conf.Controllers,
		PodCIDRs: c.conf.ClusterCIDRs(),
		NodeMask: c.conf.NodeCIDRMasks(),
		LBPool:   pool,
		RootCA:   c.ca.PEM,
		Trust:    authn.PublishedTrust(c.ca.PEM, c.frontProxy.PEM),
		Trusted:  sync.OnceFunc(func() { close(c.published) }),
		Sign:     c.ca.Sign,
		Rewrite:  c.registry.Rewrite,
		Check:    c.checkTypes,
		Sampled:  c.usage.Follow,
		Ask:      c.askBehind,
		Shipped:  c.shipped(),
		Granting: c.localClient("system:skiff:addons", user.SystemPrivilegedGroup),
		Version:  version.Kubernetes,
		Switches: c.switches,
		Log:      c.Log.With("part", "controllers"),
	})
	return withClient{cl, r, c.Log}, err
}

func (c *cluster) runtimeConfig() skiffruntime.Config {
	return runtimeConfig(c.conf, c.BinDir, c.Log)
}

func (c *cluster) makeRuntime() (runner, error) {
	r, err := skiffruntime.New(c.runtimeConfig())
	c.runtime = r
	return r, err
}

func (c *cluster) makeNodeClient() (runner, error) {
	if c.member != nil {
		return c.makeRemoteClient()
	}
	c.nodeClient = c.localClient("system:node:"+c.conf.NodeName, user.NodesGroup)
	return task(c.nodeClient.Run), nil
}

func (c *cluster) makeNetwork() (runner, error) {
	cfg := networkConfig(c.conf, c.BinDir, c.Log)
	cfg.NodeIPs, cfg.Client, cfg.Overlay = c.nodeIPs, c.nodeClient, c.overlay()
	n, err := network.New(cfg)
	if err == nil {
		c.network.Store(n)
	}
	return n, err
}

// withdraw waits until no new connection is led to pods of this node.
func (c *cluster) withdraw(ctx context.Context, addrs []netip.Addr) {
	if n := c.network.Load(); n != nil {
		n.Withdraw(ctx, addrs)
	}
}

// alive tells the network until when the cluster holds this node to be alive.
func (c *cluster) alive(until time.Time) {
	if n := c.network.Load(); n != nil {
		n.Alive(until)
	}
}

func (c *cluster) makeDNS() (runner, error) {
	addr := c.conf.ServiceAddr(10)
	if err := network.AddLocal(addr); err != nil {
		return nil, fmt.Errorf("put the cluster DNS's address on this host: %w", err)
	}
	return dns.New(dns.Config{
		Addr:       addr,
		Domain:     c.conf.ClusterDomain,
		ResolvConf: c.conf.ResolvConf,
		Client:     c.nodeClient,
		Log:        c.Log.With("part", "dns"),
	}), nil
}

// kubeletCertificate is what this node's kubelet answers with, and what keeps it fresh.
func (c *cluster) kubeletCertificate() (func(*tls.ClientHelloInfo) (*tls.Certificate, error), task, error) {
	if c.member != nil {
		return c.member.serving()
	}
	leaf := pki.Leaf{
		CommonName: "system:node:" + c.conf.NodeName, Organizations: []string{user.NodesGroup},
		DNSNames: []string{c.conf.NodeName}, IPs: addressesOf(c.nodeIPs), Life: servingLife,
	}
	serving, err := c.ca.Renew(leaf, c.Log)
	if err != nil {
		return nil, nil, err
	}
	return serving.GetCertificate, serving.Run, nil
}

func (c *cluster) makeKubelet() (runner, error) {
	certificate, renew, err := c.kubeletCertificate()
	if err != nil {
		return nil, err
	}
	eviction, err := c.conf.Eviction()
	if err != nil {
		return nil, err
	}
	periods, err := c.conf.Shutdown()
	if err != nil {
		return nil, err
	}
	measure := telemetry.Config{
		NodeName: c.conf.NodeName, CgroupRoot: cgroupRoot(c.conf), DataDir: c.conf.DataDir, CRI: c.runtime.Conn(), Log: c.Log.With("part", "telemetry"),
	}
	if c.usage != nil {
		measure.Sampled = func(sample *stats.Summary) { c.usage.Push(c.conf.NodeName, sample) }
	}
	sampler := telemetry.New(measure)
	k, err := kubelet.New(kubelet.Config{
		NodeName: c.conf.NodeName,
		NodeIPs:  c.nodeIPs,
		Listen:   c.conf.KubeletListen,
		Root:     filepath.Join(c.conf.DataDir, "kubelet"),
		LogDir:   filepath.Join(c.conf.DataDir, "logs", "pods"),
		Logs: logs.Limits{
			Size: int64(c.conf.LogMaxSize) << 20, Files: c.conf.LogMaxFiles,
			Keep: time.Duration(c.conf.LogKeepHours) * time.Hour, Room: int64(c.conf.LogKeepSize) << 20,
		},
		VolumeDir:   filepath.Join(c.conf.DataDir, "volumes"),
		CgroupRoot:  cgroupRoot(c.conf),
		ClusterDNS:  c.conf.ServiceAddr(10),
		Domain:      c.conf.ClusterDomain,
		MaxPods:     c.conf.MaxPods,
		StaticPods:  c.conf.PodManifestPath,
		LogQuery:    c.conf.EnableSystemLogQuery,
		Eviction:    eviction,
		Shutdown:    periods,
		Cluster:     c.conf.ClusterName,
		Client:      c.nodeClient,
		CRI:         c.runtime.Conn(),
		Telemetry:   sampler,
		Certificate: certificate,
		ClientCA:    c.trust,
		Withdraw:    c.withdraw,
		Renewed:     c.alive,
		Log:         c.Log.With("part", "kubelet"),
	})
	if err != nil {
		return nil, err
	}
	return beside{beside{k, renew}, task(sampler.Run)}, nil
}

// beside runs a small task next to a part.
type beside struct {
	runner
	task task
}

func (b beside) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = b.task(ctx) }()
	err := b.runner.Run(ctx)
	cancel()
	<-ended
	return err
}
