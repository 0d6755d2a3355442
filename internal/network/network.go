// Package network gives pods their addresses and owns the one nft table of a cluster on this host: services, hostports, masquerade, policy.
// SKELETON: signatures agreed with host; the network's author replaces the bodies.
package network

import (
	"context"
	"log/slog"
	"net/netip"

	"skiff.dev/skiff/internal/client"
)

type Config struct {
	Cluster     string // the cluster's name, ≤ 11 characters: nft table, bridge ("<name>0"), socket carry it
	NodeName    string
	NodeIP      netip.Addr
	PodCIDR     netip.Prefix // the whole cluster's
	ServiceCIDR netip.Prefix
	DNSAddr     netip.Addr // cluster DNS: answered on this node by package dns; network puts the address on the host
	NodePorts   string     // "30000-32767"
	StateDir    string     // "<data-dir>/network": IPAM's reservations survive a restart
	RunDir      string     // "/run/skiff/<cluster>": the CNI socket
	CNIConfDir  string     // the conflist is written here
	CNIBinDir   string     // holds skiff-cni
	Client      client.Client
	Log         *slog.Logger
}

type Network struct{}

func New(cfg Config) (*Network, error) { panic("skeleton") }

// Run waits for this node's podCIDR (Node.spec.podCIDRs), sets up bridge, addresses, sysctls, table, CNI, then follows Services, EndpointSlices and pods.
func (n *Network) Run(ctx context.Context) error { panic("skeleton") }

// Ready is closed when CNI answers and the service table is programmed.
func (n *Network) Ready() <-chan struct{} { panic("skeleton") }

// Remove removes what a cluster's network left on this host: links, nft table, addresses, routes, network namespaces of its pods. Idempotent.
func Remove(ctx context.Context, cfg Config, progress func(string)) error { panic("skeleton") }
