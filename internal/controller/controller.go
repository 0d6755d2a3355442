// Package controller is the one page where every controller is listed, and the harness they share; the controllers themselves are
// packages below it, one each.
// SKELETON: signatures agreed with host.
package controller

import (
	"context"
	"log/slog"
	"net/netip"

	"skiff.dev/skiff/internal/client"
)

type Config struct {
	Client   client.Client
	Select   string       // --controllers: "*,-node-lifecycle-controller", upstream's syntax and names
	PodCIDR  netip.Prefix // nodes get a /24 of it each (NodeMaskSize)
	NodeMask int
	RootCA   []byte // PEM, for kube-root-ca.crt
	Log      *slog.Logger
}

type Controllers struct{}

// New fails when Select names an unknown controller.
func New(cfg Config) (*Controllers, error)           { panic("skeleton") }
func (c *Controllers) Run(ctx context.Context) error { panic("skeleton") }
func (c *Controllers) Ready() <-chan struct{}        { panic("skeleton") }

// Names lists the known controllers, for --help and completion.
func Names() []string { panic("skeleton") }
