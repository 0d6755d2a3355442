// Package dns answers the cluster's names on this node: CoreDNS as a library over the shared cache of Services, EndpointSlices and pods.
// SKELETON: signatures agreed with host.
package dns

import (
	"context"
	"log/slog"
	"net/netip"

	"skiff.dev/skiff/internal/client"
)

type Config struct {
	Addr       netip.Addr // listens here, UDP and TCP port 53
	Domain     string     // "cluster.local"
	ResolvConf string     // the host's resolvers, for everything else: "/etc/resolv.conf"
	Client     client.Client
	Log        *slog.Logger
}

type DNS struct{}

func New(cfg Config) *DNS                    { panic("skeleton") }
func (d *DNS) Run(ctx context.Context) error { panic("skeleton") }
func (d *DNS) Ready() <-chan struct{}        { panic("skeleton") }
