package dynamic

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"sync"

	"k8s.io/apiserver/pkg/admission"
	policyconfig "k8s.io/apiserver/pkg/admission/plugin/policy/config"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/config"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/generic"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/admissionregistration"
	admissioninformers "k8s.io/client-go/informers/admissionregistration/v1"
	"k8s.io/client-go/informers/core"
	coreinformers "k8s.io/client-go/informers/core/v1"
	admissionlisters "k8s.io/client-go/listers/admissionregistration/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/apiserver/service"
	"skiff.dev/skiff/internal/registry"
)

// hooks is one of upstream's two webhook plug-ins and what tells it that configurations have changed.
type hooks struct {
	source   *source
	mutate   func(ctx context.Context, r *request) error
	validate func(ctx context.Context, r *request) error
}

func newMutating(p *Plugins, from memory) (h *hooks, err error) {
	plugin := p.mutating
	if plugin == nil {
		if plugin, err = mutatingwebhook.NewMutatingWebhook(nil); err != nil {
			return nil, err
		}
	}
	h = &hooks{source: &source{memory: from}}
	h.mutate = func(ctx context.Context, r *request) error { return plugin.Admit(ctx, r, r) }
	return h, p.connect(mutatingWebhooks, plugin.Webhook, plugin, h.source)
}

func newValidating(p *Plugins, from memory) (h *hooks, err error) {
	plugin := p.validating
	if plugin == nil {
		if plugin, err = validatingwebhook.NewValidatingAdmissionWebhook(nil); err != nil {
			return nil, err
		}
	}
	h = &hooks{source: &source{memory: from}}
	h.validate = func(ctx context.Context, r *request) error { return plugin.Validate(ctx, r, r) }
	return h, p.connect(validatingWebhooks, plugin.Webhook, plugin, h.source)
}

// Configure takes the plug-ins' configurations, by their names: a kubeconfig with the credentials that webhooks are shown, and a folder with webhooks or
// policies. Both are read now, not when somebody registers the first webhook. Before Start.
func (p *Plugins) Configure() map[string]func([]byte) error {
	policies := func(plugin string, load func(io.Reader) (policyconfig.PolicyConfig, error)) func([]byte) error {
		return func(raw []byte) error {
			c, err := load(bytes.NewReader(raw))
			if err != nil {
				return err
			}
			return p.openFolder(plugin, c.StaticManifestsDir)
		}
	}
	return map[string]func([]byte) error{
		mutatingPolicies:   policies(mutatingPolicies, policyconfig.LoadMutatingConfig),
		validatingPolicies: policies(validatingPolicies, policyconfig.LoadValidatingConfig),
		mutatingWebhooks: func(raw []byte) (err error) {
			if err = p.configureWebhooks(mutatingWebhooks, raw); err == nil {
				p.mutating, err = mutatingwebhook.NewMutatingWebhook(bytes.NewReader(raw))
			}
			return err
		},
		validatingWebhooks: func(raw []byte) (err error) {
			if err = p.configureWebhooks(validatingWebhooks, raw); err == nil {
				p.validating, err = validatingwebhook.NewValidatingAdmissionWebhook(bytes.NewReader(raw))
			}
			return err
		},
	}
}

// configureWebhooks refuses a kubeconfig that is of no use, and reads the folder.
func (p *Plugins) configureWebhooks(plugin string, raw []byte) error {
	c, err := config.LoadConfig(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	if c.KubeConfigFile != "" {
		if _, err = clientcmd.LoadFromFile(c.KubeConfigFile); err != nil {
			return fmt.Errorf("kubeConfigFile: %s: %w", c.KubeConfigFile, err)
		}
	}
	return p.openFolder(plugin, c.StaticManifestsDir)
}

// ended: upstream's plug-ins start something that waits for the server's end, and goes on until then only if it follows files itself.
var ended = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (p *Plugins) connect(plugin string, w *generic.Webhook, check admission.InitializationValidator, s *source) error {
	if f := p.folders[plugin]; f != nil {
		w.SetDrainedNotification(ended)
		w.SetStaticSourceFactory(func(string) (generic.ReloadableSource, error) { return hookFiles{f}, nil })
	}
	w.SetServiceResolver(endpoints{p.reg})
	w.SetUnconditionalAuthorizer(p.authz)
	w.SetExternalKubeClientSet(namespaceClient{reg: p.reg})
	w.SetExternalKubeInformerFactory(factory{namespaces: p.namespaces(), source: s})
	return check.ValidateInitialization()
}

// endpoints resolves a webhook's service to one of its ready endpoints.
type endpoints struct{ reg *registry.Registry }

func (e endpoints) ResolveEndpoint(namespace, name string, port int32) (*url.URL, error) {
	hosts, err := service.Endpoints(context.Background(), e.reg, service.Ref{Namespace: namespace, Name: name, Port: port})
	if err != nil {
		return nil, err
	}
	return &url.URL{Scheme: "https", Host: hosts[rand.IntN(len(hosts))]}, nil
}

// source stands where a webhook plug-in expects an informer. It has nothing of its own: the plug-in reads the store's memory through it, and is told
// when to do so again.
type source struct {
	cache.SharedIndexInformer
	memory  memory
	mu      sync.Mutex
	handler cache.ResourceEventHandler
	known   map[string]api.Object
}

// AddEventHandler remembers the plug-in's only handler.
func (s *source) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	s.handler = h
	return registered{}, nil
}

// tell passes on how what is there now differs from what was there before.
func (s *source) tell(found []any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := make(map[string]api.Object, len(found))
	for _, f := range found {
		obj := f.(api.Object)
		now[obj.GetName()] = obj
		switch was := s.known[obj.GetName()]; {
		case was == nil:
			s.handler.OnAdd(obj, false)
		case was.GetResourceVersion() != obj.GetResourceVersion():
			s.handler.OnUpdate(was, obj)
		}
	}
	for name, was := range s.known {
		if now[name] == nil {
			s.handler.OnDelete(was)
		}
	}
	s.known = now
}

// synced is an informer that never has to be waited for; registered is a handler that knows all there is.
type (
	synced     struct{ cache.SharedIndexInformer }
	registered struct {
		cache.ResourceEventHandlerRegistration
	}
)

func (synced) HasSynced() bool     { return true }
func (registered) HasSynced() bool { return true }

// factory hands out what the webhook plug-ins ask an informer factory for; the rest of it is nil.
type factory struct {
	informers.SharedInformerFactory
	namespaces memory
	source     *source
}

func (f factory) Core() core.Interface                                   { return coreGroup{f: f} }
func (f factory) Admissionregistration() admissionregistration.Interface { return admissionGroup{f: f} }

type coreGroup struct {
	core.Interface
	f factory
}

func (g coreGroup) V1() coreinformers.Interface { return coreVersion{f: g.f} }

type coreVersion struct {
	coreinformers.Interface
	f factory
}

func (v coreVersion) Namespaces() coreinformers.TypedNamespaceInformer {
	return namespaceInformer{f: v.f}
}

type namespaceInformer struct {
	coreinformers.TypedNamespaceInformer
	f factory
}

func (namespaceInformer) Informer() cache.SharedIndexInformer { return synced{} }
func (i namespaceInformer) Lister() corelisters.NamespaceLister {
	return corelisters.NewNamespaceLister(i.f.namespaces)
}

type admissionGroup struct {
	admissionregistration.Interface
	f factory
}

func (g admissionGroup) V1() admissioninformers.Interface { return admissionVersion{f: g.f} }

type admissionVersion struct {
	admissioninformers.Interface
	f factory
}

func (v admissionVersion) MutatingWebhookConfigurations() admissioninformers.TypedMutatingWebhookConfigurationInformer {
	return mutatingInformer{s: v.f.source}
}

func (v admissionVersion) ValidatingWebhookConfigurations() admissioninformers.TypedValidatingWebhookConfigurationInformer {
	return validatingInformer{s: v.f.source}
}

type mutatingInformer struct {
	admissioninformers.TypedMutatingWebhookConfigurationInformer
	s *source
}

func (i mutatingInformer) Informer() cache.SharedIndexInformer { return i.s }
func (i mutatingInformer) Lister() admissionlisters.MutatingWebhookConfigurationLister {
	return admissionlisters.NewMutatingWebhookConfigurationLister(i.s.memory)
}

type validatingInformer struct {
	admissioninformers.TypedValidatingWebhookConfigurationInformer
	s *source
}

func (i validatingInformer) Informer() cache.SharedIndexInformer { return i.s }
func (i validatingInformer) Lister() admissionlisters.ValidatingWebhookConfigurationLister {
	return admissionlisters.NewValidatingWebhookConfigurationLister(i.s.memory)
}
