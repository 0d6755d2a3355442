// Package dns answers the cluster's names on this node. Names of the cluster come from memory, as the DNS specification for Kubernetes
// (version 1.1.0) has them; everything else goes to the host's resolvers through CoreDNS' cache and forward plug-ins.
//
// The zone's invariant: what it answers is a pure function of the Services and EndpointSlices that the shared cache has told of. Queries
// only read it, and never wait for anything but memory.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"strings"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"skiff.dev/skiff/internal/client"
)

// Config says where to answer, for which domain, and whom to ask about everything else.
type Config struct {
	Addr       netip.Addr // listens here, UDP and TCP port 53
	Domain     string     // "cluster.local"
	ResolvConf string     // the host's resolvers, for everything else: "/etc/resolv.conf"
	Client     client.Client
	Log        *slog.Logger
}

// DNS is one node's.
type DNS struct {
	cfg   Config
	zone  *zone
	up    *upstream
	chain plugin.Handler
	ready chan struct{}
}

func New(cfg Config) *DNS {
	up := newUpstream(cfg.ResolvConf, cfg.Addr, cfg.Log)
	z := newZone(dns.CanonicalName(cfg.Domain))
	return &DNS{cfg: cfg, zone: z, up: up, chain: &cluster{zone: z, Next: up}, ready: make(chan struct{})}
}

// Ready is closed when queries are answered from what the cluster holds.
func (d *DNS) Ready() <-chan struct{} { return d.ready }

// Run answers until ctx ends.
func (d *DNS) Run(ctx context.Context) error {
	stop, err := d.zone.follow(ctx, d.cfg.Client.Cache())
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer stop()
	defer d.up.close()
	where := netip.AddrPortFrom(d.cfg.Addr, 53).String()
	packets, err := net.ListenPacket("udp", where)
	if err != nil {
		return fmt.Errorf("answer DNS: %w", err)
	}
	listener, err := net.Listen("tcp", where)
	if err != nil {
		_ = packets.Close()
		return fmt.Errorf("answer DNS: %w", err)
	}
	close(d.ready)
	g, ctx := errgroup.WithContext(ctx)
	for _, s := range []*dns.Server{
		{PacketConn: packets, Handler: d, UDPSize: dns.DefaultMsgSize},
		{Listener: listener, Handler: d},
	} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		g.Go(func() error {
			if err := s.ActivateAndServe(); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("answer DNS: %w", err)
			}
			return nil
		})
		g.Go(func() error {
			<-ctx.Done()
			<-started
			return s.ShutdownContext(context.WithoutCancel(ctx))
		})
	}
	return g.Wait()
}

// ServeDNS implements dns.Handler: it runs one query through the chain, and answers itself if nothing in the chain did.
func (d *DNS) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	defer func() {
		if p := recover(); p != nil {
			d.cfg.Log.Error("a DNS query broke its handler", "panic", p, "stack", string(debug.Stack()))
			refuse(w, r, dns.RcodeServerFailure)
		}
	}()
	if len(r.Question) != 1 || r.Question[0].Qclass != dns.ClassINET {
		refuse(w, r, dns.RcodeRefused)
		return
	}
	code, err := d.chain.ServeDNS(context.Background(), request.NewScrubWriter(r, w), r)
	if err != nil {
		q := r.Question[0]
		d.cfg.Log.Debug("DNS query failed", "name", q.Name, "type", dns.TypeToString[q.Qtype], "err", err)
	}
	if !plugin.ClientWrite(code) {
		refuse(w, r, code)
	}
}

func refuse(w dns.ResponseWriter, r *dns.Msg, code int) {
	m := new(dns.Msg)
	m.SetRcode(r, code)
	_ = w.WriteMsg(m)
}

// within returns the labels of a name below a zone, and whether it is in it. Both are canonical.
func within(name, zone string) (labels []string, ok bool) {
	if name == zone {
		return nil, true
	}
	rest, ok := strings.CutSuffix(name, "."+zone)
	if !ok {
		return nil, false
	}
	return dns.SplitDomainName(rest), true
}
