package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
)

// isolate makes the chains of a pod in one direction; "" if no policy isolates it. A nil pod is one whose labels are not known.
func (d *decision) isolate(at Key, p *pod, dir Direction) (chain string) {
	var items []item
	isolated := false
	for _, c := range d.table.policies[at.Namespace] {
		if !c.applies[dir] || p != nil && !c.selects.Matches(p.labels) {
			continue
		}
		isolated = true
		if p == nil {
			continue // nothing is allowed until it is known which rules are the pod's
		}
		for _, r := range c.rules[dir] {
			items = append(items, d.items(r, p, dir)...)
		}
	}
	if !isolated {
		return ""
	}
	return d.add(dir.prefix(), Chain{dir, d.byPort(dir, items)})
}

func (dir Direction) prefix() string {
	if dir == Ingress {
		return "in/"
	}
	return "out/"
}

// item allows some peers some ports.
type item struct {
	protocol    Protocol // 0: any, whatever the ports
	first, last uint16
	peers       []peer // none: anybody
}

func (d *decision) items(r rule, p *pod, dir Direction) (out []item) {
	if len(r.ports) == 0 {
		return []item{{last: 65535, peers: r.peers}}
	}
	for _, s := range r.ports {
		switch {
		case s.name == "":
			out = append(out, item{s.protocol, s.first, s.last, r.peers})
		case dir == Ingress:
			if n, ok := p.number(s.name, s.protocol); ok {
				out = append(out, item{s.protocol, n, n, r.peers})
			}
		default:
			out = append(out, d.named(s, r.peers)...)
		}
	}
	return out
}

// named looks a port's name up in the pods at the other end: each number that some of them give it leads to those.
func (d *decision) named(s portSpec, to []peer) (out []item) {
	if len(to) == 0 {
		to = []peer{anyPod}
	}
	for _, at := range to {
		numbers := map[uint16]bool{}
		for _, p := range d.table.pods {
			if n, ok := p.number(s.name, s.protocol); ok && d.table.matches(&at, p) {
				numbers[n] = true
			}
		}
		for n := range numbers {
			one := at
			one.port = namedPort{s.name, s.protocol, n}
			one.name = fmt.Sprintf("%s with port %s %d/%d", at.name, s.name, n, s.protocol)
			out = append(out, item{s.protocol, n, n, []peer{one}})
		}
	}
	return out
}

// byPort parts the ports of each transport where the peers who may use them change.
func (d *decision) byPort(dir Direction, items []item) (rules []Rule) {
	rest := d.peers(dir, items, func(i item) bool { return i.protocol == 0 })
	for _, t := range transports {
		switch steps := d.steps(dir, t, items, rest); {
		case len(steps) == 0:
		case steps[0].First == 0 && steps[0].Last == 65535:
			rules = append(rules, Rule{Protocol: t, Goto: steps[0].Goto})
		default:
			rules = append(rules, Rule{Protocol: t, Ports: steps})
		}
	}
	return append(rules, Rule{Goto: rest})
}

func (d *decision) steps(dir Direction, t Protocol, items []item, rest string) (out []Ports) {
	cuts := map[int]bool{0: true}
	for _, i := range items {
		if i.protocol == t {
			cuts[int(i.first)], cuts[int(i.last)+1] = true, true
		}
	}
	delete(cuts, 65536)
	starts := slices.Sorted(maps.Keys(cuts))
	for n, first := range starts {
		last := 65535
		if n+1 < len(starts) {
			last = starts[n+1] - 1
		}
		to := d.peers(dir, items, func(i item) bool {
			return i.protocol == 0 || i.protocol == t && int(i.first) <= first && last <= int(i.last)
		})
		if to == rest {
			continue // the last rule leads there
		}
		if k := len(out); k > 0 && out[k-1].Goto == to && int(out[k-1].Last)+1 == first {
			out[k-1].Last = uint16(last)
			continue
		}
		out = append(out, Ports{uint16(first), uint16(last), to})
	}
	return out
}

// peers makes the chain that allows the peers of all items that count.
func (d *decision) peers(dir Direction, items []item, counts func(item) bool) (chain string) {
	all := map[string]peer{}
	for _, i := range items {
		if !counts(i) {
			continue
		}
		if len(i.peers) == 0 {
			return Allow
		}
		for _, p := range i.peers {
			all[p.name] = p
		}
	}
	if len(all) == 0 {
		return Drop
	}
	var rules []Rule
	var ranges []Range
	var set union
	for _, name := range slices.Sorted(maps.Keys(all)) {
		p := all[name]
		if p.pods == nil {
			ranges = append(ranges, p.ranges...)
		} else {
			set.peers = append(set.peers, p)
			set.name += name + "\n"
		}
	}
	if len(set.peers) > 0 {
		set.name = digest(set.name)
		d.sets[set.name] = set
		rules = append(rules, Rule{Set: set.name, Goto: Allow})
	}
	for _, family := range byFamily(merge(ranges)) {
		rules = append(rules, Rule{Ranges: family, Goto: Allow})
	}
	return d.add("peers/", Chain{dir, append(rules, Rule{Goto: Drop})})
}

// add names a chain by what it says.
func (d *decision) add(prefix string, c Chain) (name string) {
	name = prefix + digest(fmt.Sprint(c))
	d.chains[name] = c
	return name
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:8])
}
