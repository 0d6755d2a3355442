package controller

import (
	"context"
	"sync"

	"skiff.dev/skiff/internal/addon"
	addoncontroller "skiff.dev/skiff/internal/controller/addon"
	"skiff.dev/skiff/internal/controller/harness"
)

// switched are the controllers that are parts with add-ons: they run while those are enabled.
var switched = map[string]string{
	"service-lb-controller":               "service-lb",
	"local-volume-provisioner-controller": "local-storage",
}

// Parts lists the add-ons of controllers.
func Parts() []addon.Shipped {
	return []addon.Shipped{
		{Name: "service-lb", Description: "Addresses for Services of type LoadBalancer"},
		{Name: "local-storage", Description: "Volumes in folders of the nodes, for claims of the class local"},
	}
}

func newAddons(c Config) harness.Controller {
	cfg := addoncontroller.Config{Client: c.Client, Kinds: c.Kinds, Shipped: c.Shipped, Granting: c.Granting, Version: c.Version, Log: c.Log}
	if c.Switches != nil {
		cfg.Switch = c.Switches.Set
	}
	return addoncontroller.New(cfg)
}

// run runs a controller; one that is switched off waits until it is switched on, and sees everything anew then.
func (c *Controllers) run(ctx context.Context, loop harness.Controller, synced func()) error {
	part := switched[loop.Name]
	if part == "" || c.cfg.Switches == nil {
		return harness.Run(ctx, loop, c.cfg.Client, c.metrics, c.cfg.Log, synced)
	}
	var once sync.Once
	for ctx.Err() == nil {
		on, changed := c.cfg.Switches.On(part)
		own, stop := context.WithCancel(ctx)
		var running sync.WaitGroup
		var failed error
		if on {
			running.Go(func() {
				defer stop()
				failed = harness.Run(own, loop, c.cfg.Client, c.metrics, c.cfg.Log, func() { once.Do(synced) })
			})
		}
		for still := on; still == on; {
			select {
			case <-changed:
				still, changed = c.cfg.Switches.On(part)
			case <-own.Done():
				still = !on
			}
		}
		stop()
		running.Wait()
		if failed != nil {
			return failed
		}
	}
	return nil
}
