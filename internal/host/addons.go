package host

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"

	"skiff.dev/skiff/internal/addon"
	"skiff.dev/skiff/internal/addon/dropin"
	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/controller"
)

// The parts that can be switched off, by the names of their add-ons.
const (
	addonDNS       = "dns"
	addonMetrics   = "metrics"
	addonDashboard = "dashboard"
)

// shipped are the add-ons that come with Skiff.
func (c *cluster) shipped() []addon.Shipped {
	noUI := ""
	if c.conf.NoDashboard {
		noUI = "the server was started with --no-dashboard"
	}
	parts := []addon.Shipped{
		{Name: addonDNS, Description: "Names of services and pods, answered on every node"},
		{Name: addonMetrics, Description: "metrics.k8s.io: what pods and nodes use, for kubectl top and autoscaling"},
		{Name: addonDashboard, Description: "The web UI at /ui", Absent: noUI},
	}
	return slices.Concat(parts, controller.Parts(), addon.Bundled())
}

// switched runs a part while its add-on is enabled; each time it is made anew.
type switched struct {
	name     string
	switches *addon.Switches
	make     func() (runner, error)
	ready    chan struct{}
}

func (c *cluster) switched(name string, make_ func() (runner, error)) func() (runner, error) {
	return func() (runner, error) { return &switched{name, c.switches, make_, make(chan struct{})}, nil }
}

// Ready is closed once the part has become ready for the first time.
func (s *switched) Ready() <-chan struct{} { return s.ready }

func (s *switched) Run(ctx context.Context) error {
	told := false
	for ctx.Err() == nil {
		on, changed := s.switches.On(s.name)
		if !on {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		r, err := s.make()
		if err != nil {
			return err
		}
		if err := s.while(ctx, r, &told); err != nil {
			return err
		}
	}
	return nil
}

// while runs r until ctx ends, it ends by itself, or the add-on is disabled.
func (s *switched) while(ctx context.Context, r runner, told *bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	ready := r.Ready()
	for {
		on, changed := s.switches.On(s.name)
		if !on {
			cancel()
			return <-ended
		}
		select {
		case err := <-ended:
			return err
		case <-ready:
			ready = nil
			if !*told {
				*told = true
				close(s.ready)
			}
		case <-changed:
		}
	}
}

// makeMetrics serves metrics.k8s.io while it runs. What pods use is measured all the same; the group is free for another to serve.
func (c *cluster) makeMetrics() (runner, error) {
	table := c.registry.Table()
	return task(func(ctx context.Context) error {
		for _, r := range api.MetricsRows() {
			if table.ByResource(r.GroupResource()) == nil {
				table.Add(r)
			}
		}
		<-ctx.Done()
		for _, r := range api.MetricsRows() {
			if row := table.ByResource(r.GroupResource()); row != nil {
				table.Remove(row)
			}
		}
		return nil
	}), nil
}

// makeDropIn follows the folder of add-ons in the data dir.
func (c *cluster) makeDropIn() (runner, error) {
	cl := c.localClient("system:addon-folder", "system:masters")
	d := dropin.New(dropin.Config{
		Dir: filepath.Join(c.conf.DataDir, "addons"), Server: c.conf.NodeName, Client: cl, Kinds: c.registry.Table(), Log: c.Log.With("part", "addons"),
	})
	return withClient{cl, d, c.Log}, nil
}

// makeFollowSwitches tells an agent's parts whether their add-ons are enabled. Until the server has said so they are.
func (c *cluster) makeFollowSwitches() (runner, error) {
	const first, last = time.Second, time.Minute
	return task(func(ctx context.Context) error {
		for wait := first; ctx.Err() == nil; wait = min(2*wait, last) {
			w, err := c.member.api.Watch(ctx, addon.EmptyList())
			if err == nil {
				wait = first
				c.hearSwitches(w)
				w.Stop()
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
		return nil
	}), nil
}

// hearSwitches takes in what a watch tells until it ends.
func (c *cluster) hearSwitches(w watch.Interface) {
	for e := range w.ResultChan() {
		u, ok := e.Object.(*unstructured.Unstructured)
		if !ok || e.Type == watch.Error {
			return
		}
		if a, err := addon.From(u); err == nil && a.Spec.Source.Part != "" {
			c.switches.Set(a.Spec.Source.Part, e.Type == watch.Deleted || a.Wanted())
		}
	}
}
