package dns

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/dnsutil"
	"github.com/coredns/coredns/plugin/pkg/nonwriter"
	"github.com/miekg/dns"
	"k8s.io/apimachinery/pkg/types"
)

const (
	ttl           = 5       // seconds; endpoints come and go
	schemaVersion = "1.1.0" // of the specification, told under dns-version
	serviceLabel  = "svc"
	podLabel      = "pod"
	maxAliases    = 8 // names that stand for one another are followed this far
)

func canonical(name string) string { return dns.CanonicalName(name) }

// answer is what the zone has for a question.
type answer struct {
	exists  bool // the name, or one below it
	records []dns.RR
	extra   []dns.RR
	alias   string // ask for this name instead
}

// cluster is the plug-in that answers from the zone.
type cluster struct {
	zone *zone
	Next plugin.Handler
}

func (c *cluster) Name() string { return "cluster" }

// ServeDNS implements plugin.Handler.
func (c *cluster) ServeDNS(ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
	q := r.Question[0]
	name := canonical(q.Name)
	m := new(dns.Msg)
	m.SetReply(r)
	m.Authoritative, m.RecursionAvailable = true, true
	labels, ours := within(name, c.zone.domain)
	if !ours {
		rr := c.zone.reverse(name, q)
		if rr == nil {
			return plugin.NextOrFailure(c.Name(), c.Next, ctx, w, r)
		}
		if q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY {
			m.Answer = rr
		} else {
			m.Ns = c.zone.soa()
		}
		return dns.RcodeSuccess, w.WriteMsg(m)
	}
	a := c.zone.lookup(labels, q)
	m.Answer, m.Extra = a.records, a.extra
	if a.alias != "" {
		m.Answer = append([]dns.RR{&dns.CNAME{Hdr: header(q.Name, dns.TypeCNAME), Target: a.alias}}, c.follow(ctx, w, r, a.alias)...)
	}
	if !a.exists {
		m.Rcode = dns.RcodeNameError
	}
	if len(m.Answer) == 0 {
		m.Ns = c.zone.soa()
	}
	if err := w.WriteMsg(m); err != nil {
		return dns.RcodeSuccess, err
	}
	return m.Rcode, nil
}

// aliases counts, in a query's context, how often one name already stood for another.
type aliases struct{}

// follow resolves the name an external service stands for. A client that gets none asks for the name itself.
func (c *cluster) follow(ctx context.Context, w dns.ResponseWriter, r *dns.Msg, target string) []dns.RR {
	if t := r.Question[0].Qtype; t != dns.TypeA && t != dns.TypeAAAA {
		return nil
	}
	depth, _ := ctx.Value(aliases{}).(int)
	if depth >= maxAliases {
		return nil
	}
	ask := new(dns.Msg)
	ask.SetQuestion(target, r.Question[0].Qtype)
	answered := nonwriter.New(w)
	if _, err := c.ServeDNS(context.WithValue(ctx, aliases{}, depth+1), answered, ask); err != nil || answered.Msg == nil {
		return nil
	}
	return answered.Msg.Answer
}

// soa is the zone's own record, which says for how long a name may be held not to exist.
func (z *zone) soa() []dns.RR {
	z.mu.RLock()
	defer z.mu.RUnlock()
	return []dns.RR{&dns.SOA{
		Hdr: header(z.domain, dns.TypeSOA), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: z.serial, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}}
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}

// addresses makes records of the type that is asked for, in random order: clients take the first.
func addresses(name string, kind uint16, addrs []netip.Addr) (out []dns.RR) {
	for _, a := range addrs {
		switch a = a.Unmap(); {
		case a.Is4() && (kind == dns.TypeA || kind == dns.TypeANY):
			out = append(out, &dns.A{Hdr: header(name, dns.TypeA), A: a.AsSlice()})
		case a.Is6() && (kind == dns.TypeAAAA || kind == dns.TypeANY):
			out = append(out, &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// lookup answers a question about a name of the zone, given its labels below the zone's own name.
func (z *zone) lookup(labels []string, q dns.Question) answer {
	n := len(labels)
	if n == 0 {
		a := answer{exists: true}
		if q.Qtype == dns.TypeSOA {
			a.records = z.soa()
		}
		return a
	}
	switch labels[n-1] {
	case "dns-version":
		if n > 1 {
			return answer{}
		}
		a := answer{exists: true}
		if q.Qtype == dns.TypeTXT || q.Qtype == dns.TypeANY {
			a.records = []dns.RR{&dns.TXT{Hdr: header(q.Name, dns.TypeTXT), Txt: []string{schemaVersion}}}
		}
		return a
	case podLabel:
		return z.pod(labels[:n-1], q)
	case serviceLabel:
		z.mu.RLock()
		defer z.mu.RUnlock()
		return z.service(labels[:n-1], q)
	}
	return answer{}
}

// pod answers for <address with dashes>.<namespace>.pod: the name is the answer.
func (z *zone) pod(labels []string, q dns.Question) answer {
	z.mu.RLock()
	known := len(labels) == 0 || z.namespaces[labels[len(labels)-1]] > 0
	z.mu.RUnlock()
	if len(labels) < 2 {
		return answer{exists: known}
	}
	if addr, ok := undashed(labels[0]); ok && len(labels) == 2 {
		return answer{exists: true, records: addresses(q.Name, q.Qtype, []netip.Addr{addr})}
	}
	return answer{}
}

// service answers for everything below svc. z.mu is held.
func (z *zone) service(labels []string, q dns.Question) answer {
	n := len(labels)
	if n < 2 {
		return answer{exists: n == 0 || z.namespaces[labels[0]] > 0}
	}
	key := types.NamespacedName{Namespace: labels[n-1], Name: labels[n-2]}
	e := z.services[key]
	if e == nil {
		return answer{}
	}
	if e.external != "" {
		if n > 2 {
			return answer{}
		}
		return answer{exists: true, alias: e.external}
	}
	base := key.Name + "." + key.Namespace + "." + serviceLabel + "." + z.domain
	switch {
	case n == 2 && q.Qtype == dns.TypeSRV:
		return e.srv(q, base, func(port) bool { return true })
	case n == 2 && e.headless():
		return answer{exists: true, records: addresses(q.Name, q.Qtype, e.all())}
	case n == 2:
		return answer{exists: true, records: addresses(q.Name, q.Qtype, e.addrs)}
	case n == 3 && strings.HasPrefix(labels[0], "_"): // what is below _tcp is not the name _tcp itself
		return answer{exists: e.hasPort(func(p port) bool { return p.name != "" && "_"+p.protocol == labels[0] })}
	case n == 3:
		return e.host(labels[0], q)
	case n == 4 && strings.HasPrefix(labels[0], "_") && strings.HasPrefix(labels[1], "_"):
		wanted := func(p port) bool { return p.name != "" && "_"+p.name == labels[0] && "_"+p.protocol == labels[1] }
		if !e.hasPort(wanted) {
			return answer{}
		}
		if q.Qtype != dns.TypeSRV && q.Qtype != dns.TypeANY {
			return answer{exists: true}
		}
		return e.srv(q, base, wanted)
	}
	return answer{}
}

// hasPort tells whether the service has such a port.
func (e *entry) hasPort(wanted func(port) bool) bool {
	for _, p := range e.ports {
		if wanted(p) {
			return true
		}
	}
	return false
}

// host answers for one endpoint's name.
func (e *entry) host(name string, q dns.Question) answer {
	seen := map[netip.Addr]bool{}
	var addrs []netip.Addr
	for _, ep := range e.endpoints {
		if ep.name == name && !seen[ep.addr] {
			seen[ep.addr] = true
			addrs = append(addrs, ep.addr)
		}
	}
	return answer{exists: len(addrs) > 0, records: addresses(q.Name, q.Qtype, addrs)}
}

// srv answers with where ports are: at the service's own name, or, if it is headless, at every endpoint's.
func (e *entry) srv(q dns.Question, base string, wanted func(port) bool) answer {
	a := answer{exists: true}
	type place struct {
		port   uint16
		target string
	}
	seen := map[place]bool{}
	record := func(p port, target string) {
		if seen[place{p.number, target}] {
			return
		}
		seen[place{p.number, target}] = true
		a.records = append(a.records, &dns.SRV{Hdr: header(q.Name, dns.TypeSRV), Priority: 0, Weight: 100, Port: p.number, Target: target})
	}
	if !e.headless() {
		for _, p := range e.ports {
			if wanted(p) {
				record(p, base)
			}
		}
		if len(a.records) > 0 {
			a.extra = addresses(base, dns.TypeANY, e.addrs)
		}
		return a
	}
	told := map[netip.Addr]bool{}
	for _, ep := range e.endpoints {
		target, found := ep.name+"."+base, false
		for _, p := range ep.ports {
			if wanted(p) {
				record(p, target)
				found = true
			}
		}
		if found && !told[ep.addr] {
			told[ep.addr] = true
			a.extra = append(a.extra, addresses(target, dns.TypeANY, []netip.Addr{ep.addr})...)
		}
	}
	return a
}

// reverse answers which names an address of the cluster has; nil if it is none.
func (z *zone) reverse(name string, q dns.Question) (out []dns.RR) {
	addr, err := netip.ParseAddr(dnsutil.ExtractAddressFromReverse(name))
	if err != nil {
		return nil
	}
	z.mu.RLock()
	defer z.mu.RUnlock()
	for key := range z.byAddr[addr] {
		e := z.services[key]
		base := key.Name + "." + key.Namespace + "." + serviceLabel + "." + z.domain
		if slices.Contains(e.addrs, addr) {
			return []dns.RR{&dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: base}}
		}
		told := map[string]bool{}
		for _, ep := range e.endpoints {
			if ep.addr == addr && !told[ep.name] {
				told[ep.name] = true
				out = append(out, &dns.PTR{Hdr: header(q.Name, dns.TypePTR), Ptr: ep.name + "." + base})
			}
		}
	}
	return out
}
