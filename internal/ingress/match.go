package ingress

import (
	"cmp"
	"net"
	pathpkg "path"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
)

// path is one path of a host's rules.
type path struct {
	text  string // of a prefix without the slash at its end
	exact bool
	route Route
}

// newPath takes ImplementationSpecific for Prefix.
func newPath(p networkingv1.HTTPIngressPath, r Route) path {
	if p.PathType != nil && *p.PathType == networkingv1.PathTypeExact {
		return path{p.Path, true, r}
	}
	return path{strings.TrimRight(p.Path, "/"), false, r}
}

// compare puts the longer path first, and of two that are equally long the exact one.
func (p path) compare(other path) int {
	if c := cmp.Compare(len(other.text), len(p.text)); c != 0 {
		return c
	}
	switch {
	case p.exact == other.exact:
		return 0
	case p.exact:
		return -1
	}
	return 1
}

// matches compares a prefix element by element: /a is no prefix of /ab.
func (p path) matches(requested string) bool {
	if p.exact {
		return requested == p.text
	}
	rest, ok := strings.CutPrefix(requested, p.text)
	return ok && (rest == "" || rest[0] == '/')
}

// Find says where a request goes: the most specific host that has a path for it, then the default backend of an Ingress that names the host, then that of any.
// routed says whether a rule names the host, wherever the request goes.
func (t *Table) Find(hostname, requested string) (found *Route, routed bool) {
	requested = resolve(requested)
	var fallback *Route
	for _, name := range namesFor(hostname) {
		h := t.hosts[name]
		if h == nil {
			continue
		}
		routed = true
		for i := range h.paths {
			if h.paths[i].matches(requested) {
				return &h.paths[i].route, true
			}
		}
		if fallback == nil {
			fallback = h.fallback
		}
	}
	if fallback == nil {
		fallback = t.fallback
	}
	return fallback, routed
}

// namesFor are the names under which a host may be in the table, the most specific first. A wildcard stands for exactly one label.
func namesFor(hostname string) []string {
	if label, rest, ok := strings.Cut(hostname, "."); ok && label != "" {
		return []string{hostname, "*." + rest, ""}
	}
	return []string{hostname, ""}
}

// Hostname is the host that a Host header or a TLS server name speaks of.
func Hostname(header string) string {
	if name, _, err := net.SplitHostPort(header); err == nil {
		header = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(header, "[]"), "."))
}

// resolve takes . and .. out of a path, so that nobody reaches another rule's backend through this one's.
func resolve(requested string) string {
	if !strings.Contains(requested, "/.") {
		return requested
	}
	out := pathpkg.Clean("/" + requested)
	if out != "/" && (strings.HasSuffix(requested, "/") || strings.HasSuffix(requested, "/.") || strings.HasSuffix(requested, "/..")) {
		out += "/"
	}
	return out
}
