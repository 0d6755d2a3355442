// Package aggregate puts API servers behind this one: what an APIService says is served by a service is passed on to it, with the user's name in headers
// that the front proxy's certificate vouches for.
//
// It keeps the APIServices of what this server serves itself, looks whether the others can be reached, and knows what they serve, for discovery. Nothing of
// it runs on a clock while no APIService names a service. Its invariant: a request that is passed on has been authenticated and authorized here, and carries
// none of the credentials it came with.
//
// Package apiserver makes and runs it.
package aggregate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/apiserver/service"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// Config of an aggregator.
type Config struct {
	Registry *registry.Registry
	// Client presents the front proxy's certificate.
	Client func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	// Local lists what this server serves, and whether a custom resource's definition is why.
	Local func() map[schema.GroupVersion]bool
	Log   *slog.Logger
}

// Aggregator is safe for concurrent use.
type Aggregator struct {
	cfg     Config
	remotes atomic.Pointer[map[schema.GroupVersion]*Remote] // never changed, only replaced
	loaded  chan struct{}
	kept    chan struct{} // closed once this server's own APIServices are there
	gone    chan struct{} // signalled when an APIService was deleted
}

// New makes an aggregator that knows of nobody until Run.
func New(cfg Config) *Aggregator {
	a := &Aggregator{cfg: cfg, loaded: make(chan struct{}), kept: make(chan struct{}), gone: make(chan struct{}, 1)}
	a.remotes.Store(&map[schema.GroupVersion]*Remote{})
	return a
}

// Ready is closed once every APIService there is is known.
func (a *Aggregator) Ready() <-chan struct{} { return a.loaded }

// Registered is closed once everything that this server serves itself has its APIService.
func (a *Aggregator) Registered() <-chan struct{} { return a.kept }

// Of finds who serves a path, or nil: this server does.
func (a *Aggregator) Of(path string) *Remote {
	if a == nil {
		return nil
	}
	remotes := *a.remotes.Load()
	if len(remotes) == 0 {
		return nil
	}
	rest, ok := strings.CutPrefix(path, "/apis/")
	if !ok {
		return nil
	}
	group, rest, _ := strings.Cut(rest, "/")
	version, _, _ := strings.Cut(rest, "/")
	return remotes[schema.GroupVersion{Group: group, Version: version}]
}

// Remotes are all group-versions that others serve.
func (a *Aggregator) Remotes() map[schema.GroupVersion]*Remote {
	if a == nil {
		return nil
	}
	return *a.remotes.Load()
}

func (a *Aggregator) row() *api.Resource {
	return a.cfg.Registry.Table().ByResource(schema.GroupResource{Group: apiregistrationv1.GroupName, Resource: "apiservices"})
}

// Run follows APIServices until ctx ends.
func (a *Aggregator) Run(ctx context.Context) error {
	var running sync.WaitGroup
	running.Go(func() { a.keepLocal(ctx) })
	probes := &probes{a: a, ctx: ctx}
	done := sync.OnceFunc(func() { close(a.loaded) })
	defer done()
	for ctx.Err() == nil {
		err := a.follow(ctx, probes, done)
		if ctx.Err() != nil {
			break
		}
		a.cfg.Log.Info("reading APIServices again", "why", err)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	probes.stop()
	running.Wait()
	return nil
}

func (a *Aggregator) follow(ctx context.Context, p *probes, loaded func()) error {
	c := a.cfg.Registry.Store().Collection(a.row())
	page, err := c.List(ctx, store.ListOptions{})
	if err != nil {
		return err
	}
	known := map[string]*apiregistrationv1.APIService{}
	for _, e := range page.Entries {
		s := e.Object().(*apiregistrationv1.APIService)
		known[s.Name] = s
	}
	p.become(known)
	loaded()
	w, err := c.Watch(ctx, store.WatchOptions{Revision: page.Revision})
	if err != nil {
		return err
	}
	defer w.Stop()
	for buf := make([]store.Event, 0, 16); ; {
		if buf, err = w.Next(ctx, buf, cap(buf)); err != nil {
			return err
		}
		for _, e := range buf {
			switch s := e.Entry.Object().(*apiregistrationv1.APIService); e.Type {
			case store.Added, store.Modified:
				known[s.Name] = s
			case store.Deleted:
				delete(known, s.Name)
				select {
				case a.gone <- struct{}{}:
				default:
				}
			}
		}
		p.become(known)
	}
}

// Remote is an API server behind this one, for one version of a group.
type Remote struct {
	name      string // of the APIService
	version   schema.GroupVersion
	spec      apiregistrationv1.APIServiceSpec
	ref       service.Ref
	transport *http.Transport

	mu    sync.Mutex
	state state

	cancel context.CancelFunc
	ended  chan struct{}
}

func (a *Aggregator) newRemote(s *apiregistrationv1.APIService) *Remote {
	r := &Remote{name: s.Name, version: schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}, spec: s.Spec, ended: make(chan struct{})}
	r.ref = service.Ref{Namespace: s.Spec.Service.Namespace, Name: s.Spec.Service.Name, Port: 443}
	if s.Spec.Service.Port != nil {
		r.ref.Port = *s.Spec.Service.Port
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: r.ref.ServerName(), GetClientCertificate: a.cfg.Client, InsecureSkipVerify: s.Spec.InsecureSkipTLSVerify, //nolint:gosec // as the APIService says
	}
	if len(s.Spec.CABundle) > 0 {
		conf.RootCAs = x509.NewCertPool()
		conf.RootCAs.AppendCertsFromPEM(s.Spec.CABundle)
	}
	r.transport = &http.Transport{
		TLSClientConfig: conf, DialContext: service.Dialer(a.cfg.Registry, r.ref), TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 90 * time.Second,
		MaxIdleConnsPerHost: 32, ForceAttemptHTTP2: true,
	}
	return r
}

// probes are the remotes with what looks after each. Only follow uses it.
type probes struct {
	a   *Aggregator
	ctx context.Context
	all map[string]*Remote
}

// become starts and stops what known asks for.
func (p *probes) become(known map[string]*apiregistrationv1.APIService) {
	changed := false
	for name, r := range p.all {
		if s := known[name]; s == nil || !apiequality.Semantic.DeepEqual(s.Spec, r.spec) {
			r.end()
			delete(p.all, name)
			changed = true
		}
	}
	for name, s := range known {
		if s.Spec.Service == nil || p.all[name] != nil {
			continue
		}
		r := p.a.newRemote(s)
		ctx, cancel := context.WithCancel(p.ctx)
		r.cancel = cancel
		go p.a.watchOver(ctx, r, s)
		if p.all == nil {
			p.all = map[string]*Remote{}
		}
		p.all[name] = r
		changed = true
	}
	if !changed {
		return
	}
	next := make(map[schema.GroupVersion]*Remote, len(p.all))
	for _, r := range p.all {
		next[r.version] = r
	}
	p.a.remotes.Store(&next)
}

func (r *Remote) end() {
	r.cancel()
	<-r.ended
	r.transport.CloseIdleConnections()
}

func (p *probes) stop() {
	for _, r := range p.all {
		r.end()
	}
}

// Path of the APIService's documents: "apis/group/version".
func (r *Remote) Path() string { return "apis/" + r.version.String() }

// sorted gives a map's group-versions in order.
func sorted(m map[schema.GroupVersion]bool) []schema.GroupVersion {
	out := make([]schema.GroupVersion, 0, len(m))
	for gv := range m {
		out = append(out, gv)
	}
	slices.SortFunc(out, func(a, b schema.GroupVersion) int { return strings.Compare(a.String(), b.String()) })
	return out
}
