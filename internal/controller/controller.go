// Package controller is the one page where every controller is listed, and what runs them; the controllers themselves are packages below
// it, one each, and share the harness package.
//
// The host calls New and Run; nobody else does. All controllers start together, and Ready closes when each has seen everything there is.
package controller

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/addon"
	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/loadbalancer"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/attachdetach"
	"skiff.dev/skiff/internal/controller/certificates"
	"skiff.dev/skiff/internal/controller/cronjob"
	"skiff.dev/skiff/internal/controller/daemonset"
	"skiff.dev/skiff/internal/controller/deployment"
	"skiff.dev/skiff/internal/controller/devicetainteviction"
	"skiff.dev/skiff/internal/controller/disruption"
	"skiff.dev/skiff/internal/controller/endpoints"
	"skiff.dev/skiff/internal/controller/endpointslice"
	"skiff.dev/skiff/internal/controller/endpointslicemirroring"
	"skiff.dev/skiff/internal/controller/ephemeralvolume"
	"skiff.dev/skiff/internal/controller/extensionauth"
	"skiff.dev/skiff/internal/controller/garbage"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/job"
	"skiff.dev/skiff/internal/controller/localvolumes"
	"skiff.dev/skiff/internal/controller/namespace"
	"skiff.dev/skiff/internal/controller/nodeipam"
	"skiff.dev/skiff/internal/controller/nodelifecycle"
	"skiff.dev/skiff/internal/controller/persistentvolume"
	"skiff.dev/skiff/internal/controller/podautoscaler"
	"skiff.dev/skiff/internal/controller/podgc"
	"skiff.dev/skiff/internal/controller/podgroupprotection"
	"skiff.dev/skiff/internal/controller/policystatus"
	"skiff.dev/skiff/internal/controller/replicaset"
	"skiff.dev/skiff/internal/controller/replicationcontroller"
	"skiff.dev/skiff/internal/controller/resourceclaim"
	"skiff.dev/skiff/internal/controller/resourcequota"
	"skiff.dev/skiff/internal/controller/rootca"
	"skiff.dev/skiff/internal/controller/serviceaccount"
	"skiff.dev/skiff/internal/controller/servicecidr"
	"skiff.dev/skiff/internal/controller/servicelb"
	"skiff.dev/skiff/internal/controller/statefulset"
	"skiff.dev/skiff/internal/controller/storageversionmigrator"
	"skiff.dev/skiff/internal/controller/tainteviction"
	"skiff.dev/skiff/internal/controller/tokencleaner"
	"skiff.dev/skiff/internal/controller/ttlafterfinished"
	"skiff.dev/skiff/internal/controller/volumeexpand"
	"skiff.dev/skiff/internal/controller/volumeprotection"
)

// Config is what controllers need to know.
type Config struct {
	Client   client.Client
	Kinds    harness.Kinds     // all there are: the table; nil means those that are built in
	Select   string            // --controllers: "*,-node-lifecycle-controller", upstream's syntax and names
	PodCIDRs []netip.Prefix    // one, or one of each family; nodes get a share of each
	NodeMask []int             // the shares' sizes
	LBPool   loadbalancer.Pool // addresses for services of type LoadBalancer; none: the nodes' own
	RootCA   []byte            // PEM, for kube-root-ca.crt
	Trust    map[string]string // data of the ConfigMap extension-apiserver-authentication; none if empty
	Trusted  func()            // called whenever Trust is found or made public; may be nil
	Sign     certificates.Sign
	Metrics  prometheus.Registerer
	Rewrite  storageversionmigrator.Rewrite
	Check    policystatus.Check    // of policies' types; nil: nobody does
	Sampled  podautoscaler.Sampled // calls when something was measured; may be nil
	Ask      podautoscaler.Ask     // gets documents from API servers behind this one; may be nil
	Shipped  []addon.Shipped       // the add-ons that come with the program
	Granting crclient.Writer       // who applies them; must be one that may grant any right
	Version  string                // of Kubernetes, for charts that ask
	Switches *addon.Switches       // which parts' add-ons are enabled; nil: all
	Log      *slog.Logger
}

// entry is a controller by name, and how it is made.
type entry struct {
	name string
	make func(cfg Config) harness.Controller
}

// ExtensionAuth is the controller that publishes Config.Trust.
const ExtensionAuth = "extension-apiserver-authentication-controller"

// PodGroupProtection is the controller of PodGroups. It runs where those are served.
const PodGroupProtection = "podgroup-protection-controller"

// all is every controller there is.
var all = []entry{
	{"deployment-controller", func(c Config) harness.Controller { return deployment.New(c.Client) }},
	{"replicaset-controller", func(c Config) harness.Controller { return replicaset.New(c.Client) }},
	{"replicationcontroller-controller", func(c Config) harness.Controller { return replicationcontroller.New(c.Client) }},
	{"statefulset-controller", func(c Config) harness.Controller { return statefulset.New(c.Client) }},
	{"daemonset-controller", func(c Config) harness.Controller { return daemonset.New(c.Client) }},
	{"job-controller", func(c Config) harness.Controller { return job.New(c.Client) }},
	{"cronjob-controller", func(c Config) harness.Controller { return cronjob.New(c.Client) }},
	{"ttl-after-finished-controller", func(c Config) harness.Controller { return ttlafterfinished.New(c.Client) }},
	{"disruption-controller", func(c Config) harness.Controller { return disruption.New(c.Client) }},
	{"endpointslice-controller", func(c Config) harness.Controller { return endpointslice.New(c.Client) }},
	{"endpointslice-mirroring-controller", func(c Config) harness.Controller { return endpointslicemirroring.New(c.Client) }},
	{"endpoints-controller", func(c Config) harness.Controller { return endpoints.New(c.Client) }},
	{"namespace-controller", func(c Config) harness.Controller { return namespace.New(c.Client, c.Kinds) }},
	{"serviceaccount-controller", func(c Config) harness.Controller { return serviceaccount.New(c.Client) }},
	{"root-ca-certificate-publisher-controller", func(c Config) harness.Controller { return rootca.New(c.Client, c.RootCA) }},
	{ExtensionAuth, func(c Config) harness.Controller { return extensionauth.New(c.Client, c.Trust, c.Trusted) }},
	{"node-ipam-controller", func(c Config) harness.Controller { return nodeipam.New(c.Client, c.PodCIDRs, c.NodeMask) }},
	{"service-cidr-controller", func(c Config) harness.Controller { return servicecidr.New(c.Client) }},
	{"node-lifecycle-controller", func(c Config) harness.Controller { return nodelifecycle.New(c.Client) }},
	{"taint-eviction-controller", func(c Config) harness.Controller { return tainteviction.New(c.Client) }},
	{"device-taint-eviction-controller", func(c Config) harness.Controller { return devicetainteviction.New(c.Client) }},
	{"garbage-collector-controller", func(c Config) harness.Controller { return garbage.New(c.Client, c.Kinds, c.Log) }},
	{"certificatesigningrequest-approving-controller", func(c Config) harness.Controller { return certificates.NewApprover(c.Client) }},
	{"certificatesigningrequest-signing-controller", func(c Config) harness.Controller { return certificates.NewSigner(c.Client, c.Sign) }},
	{"certificatesigningrequest-cleaner-controller", func(c Config) harness.Controller { return certificates.NewCleaner(c.Client) }},
	{"service-lb-controller", func(c Config) harness.Controller { return servicelb.New(c.Client, c.LBPool) }},
	{"token-cleaner-controller", func(c Config) harness.Controller { return tokencleaner.New(c.Client) }},
	{"horizontal-pod-autoscaler-controller", func(c Config) harness.Controller { return podautoscaler.New(c.Client, c.Sampled, c.Ask) }},
	{"resourcequota-controller", func(c Config) harness.Controller { return resourcequota.New(c.Client, c.Kinds) }},
	{"storage-version-migrator-controller", func(c Config) harness.Controller { return storageversionmigrator.New(c.Client, c.Kinds, c.Rewrite) }},
	{"validatingadmissionpolicy-status-controller", func(c Config) harness.Controller { return policystatus.New(c.Client, c.Check) }},
	{"persistentvolume-binder-controller", func(c Config) harness.Controller { return persistentvolume.New(c.Client) }},
	{"persistentvolumeclaim-protection-controller", func(c Config) harness.Controller { return volumeprotection.NewClaims(c.Client) }},
	{"persistentvolume-protection-controller", func(c Config) harness.Controller { return volumeprotection.NewVolumes(c.Client) }},
	{PodGroupProtection, func(c Config) harness.Controller { return podgroupprotection.New(c.Client) }},
	{"volumeattributesclass-protection-controller", func(c Config) harness.Controller { return volumeprotection.NewAttributesClasses(c.Client) }},
	{"ephemeral-volume-controller", func(c Config) harness.Controller { return ephemeralvolume.New(c.Client) }},
	{"resourceclaim-controller", func(c Config) harness.Controller { return resourceclaim.New(c.Client) }},
	{"persistentvolume-attach-detach-controller", func(c Config) harness.Controller { return attachdetach.New(c.Client) }},
	{"persistentvolume-expander-controller", func(c Config) harness.Controller { return volumeexpand.New(c.Client) }},
	{"local-volume-provisioner-controller", func(c Config) harness.Controller { return localvolumes.New(c.Client) }},
	{"addon-controller", func(c Config) harness.Controller { return newAddons(c) }},
	{"pod-garbage-collector-controller", func(c Config) harness.Controller { return podgc.New(c.Client) }},
}

// Controllers are the selected ones, made and not yet running.
type Controllers struct {
	cfg     Config
	loops   []harness.Controller
	metrics *harness.Metrics
	ready   chan struct{}
}

// New fails when Select names an unknown controller.
func New(cfg Config) (*Controllers, error) {
	selected, err := choose(cfg.Select, Names())
	if err != nil {
		return nil, err
	}
	if cfg.Kinds == nil {
		cfg.Kinds = api.NewTable()
	}
	c := &Controllers{cfg: cfg, metrics: harness.NewMetrics(cfg.Metrics), ready: make(chan struct{})}
	for _, e := range all {
		if selected[e.name] && (e.name != PodGroupProtection || cfg.Kinds.ByResource(schedulingv1beta1.Resource("podgroups")) != nil) {
			loop := e.make(cfg)
			loop.Name = e.name
			c.loops = append(c.loops, loop)
		}
	}
	return c, nil
}

// Run blocks until ctx ends or a controller cannot start; the others end with it.
func (c *Controllers) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var synced, running sync.WaitGroup
	synced.Add(len(c.loops))
	failures := make(chan error, len(c.loops))
	for _, loop := range c.loops {
		running.Go(func() {
			err := c.run(ctx, loop, synced.Done)
			if err != nil {
				failures <- err
				cancel()
			}
		})
	}
	all := make(chan struct{})
	go func() { synced.Wait(); close(all) }()
	select {
	case <-all:
		close(c.ready)
		<-ctx.Done()
	case <-ctx.Done():
	}
	running.Wait()
	close(failures)
	var errs []error
	for err := range failures {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Ready closes when every selected controller has started.
func (c *Controllers) Ready() <-chan struct{} { return c.ready }

// Names lists the known controllers, for --help and completion.
func Names() []string {
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = e.name
	}
	return names
}
