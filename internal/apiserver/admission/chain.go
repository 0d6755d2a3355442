package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"skiff.dev/skiff/internal/registry"
)

// plugin is an admission plug-in by upstream's name. One that lives elsewhere has no functions here.
type plugin struct {
	name     string
	off      bool   // unless it is enabled
	on       string // the operations that upstream's handles: first letters of CREATE, UPDATE, DELETE, CONNECT ("X")
	admit    registry.Admit
	validate registry.Validate
	// make makes the functions of a plug-in that has a state or a configuration; nil for none. configured: one that lives elsewhere takes a configuration.
	make       func(configuration []byte) (made, error)
	configured bool
}

// plugins are all there are, in upstream's order, which is the order in which they run.
var plugins = []plugin{
	{name: "NamespaceLifecycle", on: "CUD", admit: namespaceExists, validate: namespaceProtected},
	{name: "NamespaceExists", off: true, on: "CUD", validate: namespaceThere},
	{name: "LimitPodHardAntiAffinityTopology", off: true, on: "CU", validate: hardAntiAffinity},
	{name: "LimitRanger", on: "CU", admit: limitDefaults, validate: limits},
	{name: "ServiceAccount", on: "CU", admit: serviceAccount, validate: mountableSecrets},
	{name: "NodeRestriction", on: "CUD", validate: nodeRestriction},
	{name: "TaintNodesByCondition", on: "C", admit: taintNewNode},
	{name: "AlwaysPullImages", off: true, on: "CU", admit: alwaysPull, validate: alwaysPulled},
	{name: "ImagePolicyWebhook", off: true, on: "CU", make: imagePolicyWebhook},
	{name: "PodSecurity", on: "CU", make: podSecurity},
	{name: "PodNodeSelector", off: true, on: "C", make: podNodeSelector},
	{name: "Priority", on: "CU", admit: priority, validate: onePriorityDefault},
	{name: "DefaultTolerationSeconds", on: "CU", admit: defaultTolerations},
	{name: "PodTolerationRestriction", off: true, on: "CU", make: podTolerations},
	{name: "EventRateLimit", off: true, on: "CU", make: eventRateLimit},
	{name: "ExtendedResourceToleration", off: true, on: "CU", admit: tolerateExtended},
	{name: "DefaultStorageClass", on: "C", admit: defaultStorageClass},
	{name: "StorageObjectInUseProtection", on: "C", admit: inUseProtection},
	{name: "OwnerReferencesPermissionEnforcement", off: true, on: "CU"},
	{name: "PersistentVolumeClaimResize", on: "U", validate: claimResize},
	{name: "RuntimeClass", on: "C", admit: runtimeClass, validate: runtimeOverhead},
	{name: "CertificateApproval", on: "U"},
	{name: "CertificateSigning", on: "U"},
	{name: "ClusterTrustBundleAttest", on: "CU"},
	{name: "CertificateSubjectRestriction", on: "C", validate: certificateSubject},
	{name: "DefaultIngressClass", on: "C", admit: defaultIngressClass},
	{name: "PodTopologyLabels", on: "C", admit: topologyLabels},
	{name: "DenyServiceExternalIPs", off: true, on: "CU", validate: noExternalIPs},
	{name: "NodeDeclaredFeatureValidator", on: "CU", validate: declaredFeatures},
	{name: "PodResizeValidator", on: "U", validate: resizeFits},
	{name: "PodGroupProtection", on: "C", admit: protectPodGroup},
	{name: "MutatingAdmissionPolicy", on: "CUDX", configured: true},
	{name: "MutatingAdmissionWebhook", on: "CUDX", configured: true},
	{name: "ValidatingAdmissionPolicy", on: "CUDX", configured: true},
	{name: "ValidatingAdmissionWebhook", on: "CUDX", configured: true},
	{name: "ResourceQuota", on: "CU", make: quotas}, // what it charges has been let in by everybody else
}

// elsewhere are upstream's that Skiff has not; asking for one is answered with more than that it is unknown.
var elsewhere = []string{"AlwaysAdmit", "AlwaysDeny", "NamespaceAutoProvision"}

// Names are all plug-ins, in order.
func Names() (out []string) {
	for _, p := range plugins {
		out = append(out, p.name)
	}
	return out
}

// Config of a chain.
type Config struct {
	Enable, Disable []string // by name, beside those that are on by default
	File            string   // with the AdmissionConfiguration; "": none
	// Admit and Validate are the functions of plug-ins that live elsewhere, by name.
	Admit    map[string]registry.Admit
	Validate map[string]registry.Validate
	// Always are no plug-ins of upstream's and cannot be disabled: AlwaysAdmit runs after all that mutate, AlwaysValidate before all that validate.
	AlwaysAdmit    []registry.Admit
	AlwaysValidate []registry.Validate
	// Configure hands the configuration of a plug-in that lives elsewhere to it, by name.
	Configure map[string]func(configuration []byte) error
	Metrics   prometheus.Registerer // nil: none
}

// check says whether names can be enabled and disabled.
func check(enable, disable []string) error {
	for _, list := range []struct {
		key   string
		names []string
	}{{"enable-admission-plugins", enable}, {"disable-admission-plugins", disable}} {
		for _, name := range list.names {
			switch {
			case slices.Contains(elsewhere, name):
				return fmt.Errorf("%s: %s is not part of Skiff; there are %s", list.key, name, strings.Join(Names(), ", "))
			case !slices.Contains(Names(), name):
				return fmt.Errorf("%s: there is no plug-in %q; there are %s", list.key, name, strings.Join(Names(), ", "))
			}
		}
	}
	for _, name := range enable {
		if slices.Contains(disable, name) {
			return fmt.Errorf("enable-admission-plugins: %s is disabled too; give it once", name)
		}
	}
	return nil
}

// New makes a chain: what is to run, in order, as the registry takes it.
func New(cfg Config) ([]registry.Admit, []registry.Validate, error) {
	if err := check(cfg.Enable, cfg.Disable); err != nil {
		return nil, nil, err
	}
	said, err := configurations(cfg.File)
	if err != nil {
		return nil, nil, err
	}
	m := newFigures(cfg.Metrics)
	c := &chain{figures: m, alwaysAdmit: cfg.AlwaysAdmit, alwaysValidate: append([]registry.Validate{adminAccess}, cfg.AlwaysValidate...)}
	for _, p := range plugins {
		if slices.Contains(cfg.Disable, p.name) || p.off && !slices.Contains(cfg.Enable, p.name) {
			continue
		}
		if err := p.complete(&cfg, said[p.name]); err != nil {
			return nil, nil, fmt.Errorf("%s: %s: %w", configurationKey, p.name, err)
		}
		if p.admit != nil {
			c.admits = append(c.admits, link[registry.Admit]{p.admit, m.of(p, "admit"), "admission " + p.name})
		}
		if p.validate != nil {
			c.validates = append(c.validates, link[registry.Validate]{p.validate, m.of(p, "validate"), "admission " + p.name})
		}
	}
	return []registry.Admit{c.admit}, []registry.Validate{c.validate}, nil
}

// complete gives a plug-in its functions and its configuration.
func (p *plugin) complete(cfg *Config, configuration []byte) error {
	if p.make != nil {
		m, err := p.make(configuration)
		if err != nil {
			return err
		}
		p.admit, p.validate = m.admit, m.validate
	}
	if f := cfg.Admit[p.name]; f != nil {
		p.admit = f
	}
	if f := cfg.Validate[p.name]; f != nil {
		p.validate = f
	}
	if f := cfg.Configure[p.name]; f != nil && configuration != nil {
		return f(configuration)
	}
	return nil
}

// Default is the chain of the plug-ins that are on by default and live here.
func Default() ([]registry.Admit, []registry.Validate) {
	admit, validate, err := New(Config{})
	if err != nil {
		panic(err) // it has no names to be wrong about
	}
	return admit, validate
}

type link[F any] struct {
	run  F
	took observers
	step string // of a request
}

// chain runs plug-ins one after the other and measures them.
type chain struct {
	admits         []link[registry.Admit]
	validates      []link[registry.Validate]
	alwaysAdmit    []registry.Admit
	alwaysValidate []registry.Validate
	figures        *figures
}

func (c *chain) admit(ctx context.Context, a *registry.Attributes) (err error) {
	began, place := time.Now(), placeOf(a.Operation)
	at := began
	defer func() { c.figures.admit.observe(place, err, time.Since(began)) }()
	a.Steps.Until("prepare", began)
	if err = requestor(ctx, a); err != nil { // upstream's kinds do this themselves
		return err
	}
	for i := range c.admits {
		err = c.admits[i].run(ctx, a)
		at = c.admits[i].took.since(at, place, err)
		a.Steps.Until(c.admits[i].step, at)
		if err != nil {
			return err
		}
	}
	for _, f := range c.alwaysAdmit {
		if err = f(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

func (c *chain) validate(ctx context.Context, a *registry.Attributes) (err error) {
	began, place := time.Now(), placeOf(a.Operation)
	at := began
	defer func() { c.figures.validate.observe(place, err, time.Since(began)) }()
	a.Steps.Until("validate", began)
	for _, f := range c.alwaysValidate {
		if err = f(ctx, a); err != nil {
			return err
		}
	}
	for i := range c.validates {
		err = c.validates[i].run(ctx, a)
		at = c.validates[i].took.since(at, place, err)
		a.Steps.Until(c.validates[i].step, at)
		if err != nil {
			return err
		}
	}
	return nil
}
