package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coredns/coredns/plugin/cache"
	"github.com/coredns/coredns/plugin/forward"
	"github.com/coredns/coredns/plugin/pkg/proxy"
	"github.com/coredns/coredns/plugin/pkg/transport"
	"github.com/miekg/dns"
)

// lookEvery is how old the knowledge of the host's resolvers may be when a query comes: laptops change their network.
const lookEvery = 2 * time.Second

// upstream is the plug-in that hands queries to the host's resolvers, and remembers what they answer.
type upstream struct {
	file string
	self netip.Addr // never asked: it would ask itself
	log  *slog.Logger

	current atomic.Pointer[resolvers]
	mu      sync.Mutex // held while looking
}

// resolvers is one reading of the file.
type resolvers struct {
	read     time.Time // when the file was last looked at
	modified time.Time
	size     int64
	told     string // what was last said to be wrong with the file, which is said once
	forward  *forward.Forward
	chain    *cache.Cache // nil: there is nobody to ask
}

func newUpstream(file string, self netip.Addr, log *slog.Logger) *upstream {
	u := &upstream{file: file, self: self, log: log}
	u.current.Store(&resolvers{})
	return u
}

func (u *upstream) Name() string { return "upstream" }

var errNoResolver = errors.New("the host has no resolver for names outside the cluster")

// ServeDNS implements plugin.Handler.
func (u *upstream) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	now := u.current.Load()
	if time.Since(now.read) > lookEvery {
		now = u.look()
	}
	if now.chain == nil {
		return dns.RcodeServerFailure, errNoResolver
	}
	return now.chain.ServeDNS(ctx, w, r)
}

// look reads the file again if it changed. One that names nobody, because it is gone or is just being written, leaves the resolvers what they were.
func (u *upstream) look() *resolvers {
	u.mu.Lock()
	defer u.mu.Unlock()
	old := u.current.Load()
	if time.Since(old.read) <= lookEvery {
		return old // another query looked
	}
	next := *old
	next.read = time.Now()
	defer u.current.Store(&next)
	info, err := os.Stat(u.file)
	if err == nil && info.ModTime().Equal(old.modified) && info.Size() == old.size {
		return &next
	}
	var addrs []string
	if err == nil {
		next.modified, next.size = info.ModTime(), info.Size()
		addrs, err = u.addrs()
	}
	if err != nil {
		u.complain(&next, err)
		return &next
	}
	next.told = ""
	next.forward, next.chain = newChain(addrs)
	u.log.Debug("names outside the cluster go to the host's resolvers", "file", u.file, "resolvers", addrs)
	if old.forward != nil {
		// Queries under way have had their answer by then, or never will.
		time.AfterFunc(10*time.Second, func() { _ = old.forward.OnShutdown() })
	}
	return &next
}

func (u *upstream) complain(now *resolvers, err error) {
	if now.told == err.Error() {
		return
	}
	now.told = err.Error()
	if now.chain == nil {
		u.log.Warn("names outside the cluster are not resolved", "err", err)
	} else {
		u.log.Warn("the host's resolvers cannot be read again; those known before are asked", "err", err)
	}
}

// addrs are those of the resolvers in the file.
func (u *upstream) addrs() (addrs []string, err error) {
	conf, err := dns.ClientConfigFromFile(u.file)
	if err != nil {
		return nil, fmt.Errorf("read the host's resolvers from %s: %w", u.file, err)
	}
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(s); err == nil && a.WithZone("") != u.self {
			addrs = append(addrs, net.JoinHostPort(s, conf.Port))
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s: %w", u.file, errNoResolver)
	}
	return addrs, nil
}

// newChain is CoreDNS' cache in front of its forward.
func newChain(addrs []string) (*forward.Forward, *cache.Cache) {
	f := forward.New()
	// Over UDP also when the query came over TCP: not every resolver at hand speaks both, and a truncated answer is asked for again over TCP.
	f.SetProxyOptions(proxy.Options{PreferUDP: true, HCRecursionDesired: true, HCDomain: "."})
	for _, a := range addrs {
		f.SetProxy(proxy.NewProxy("forward", a, transport.DNS))
	}
	c := cache.New()
	c.Next = f
	return f, c
}

func (u *upstream) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if f := u.current.Swap(&resolvers{}).forward; f != nil {
		_ = f.OnShutdown()
	}
}
