package proxy

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Delta is what changed. It is applied as a whole or not at all.
type Delta struct {
	Frontends     map[Frontend]Lead // new, or leading elsewhere
	GoneFrontends []Frontend
	Old           map[Frontend]Lead // where those of Frontends led that led somewhere before
	GonePlaces    []Place
	Chains        map[string][]Rule // new, or changed
	NewChains     []string
	GoneChains    []string
	Memory        map[string]time.Duration // chains that begin to remember senders
	GoneMemory    []string                 // chains that stop
	Loops         []netip.Addr
	GoneLoops     []netip.Addr
	Withdrawn     []netip.Addr // backends on this node to which nothing is led any more, or only for want of others. Nothing to write.

	Deserted []netip.AddrPort // backends that a service led to and leads to no longer: who has had no answer from them must be led anew
	LostUDP  []netip.AddrPort // backends whose connections must be forgotten, because UDP knows no end
	FreshUDP []Frontend       // frontends that nobody answered before: connections that know no backend must be forgotten
}

// Empty tells that there is nothing to do.
func (d *Delta) Empty() bool {
	return len(d.Frontends) == 0 && len(d.GoneFrontends) == 0 && len(d.GonePlaces) == 0 && len(d.Chains) == 0 && len(d.GoneChains) == 0 &&
		len(d.Memory) == 0 && len(d.GoneMemory) == 0 && len(d.Loops) == 0 && len(d.GoneLoops) == 0
}

// Places are those that get a backend, or another one; these are among GonePlaces too.
func (d *Delta) Places() iter.Seq2[Place, netip.AddrPort] {
	return func(yield func(Place, netip.AddrPort) bool) {
		for f, now := range d.Frontends {
			was := d.Old[f].To
			for i, b := range now.To {
				if (i >= len(was) || was[i] != b) && !yield(Place{f, i}, b) {
					return
				}
			}
		}
	}
}

// Take hands out what changed since it was last called.
func (t *Table) Take() Delta {
	d := Delta{Old: map[Frontend]Lead{}}
	d.GonePlaces, t.left = t.left, nil
	for f, was := range t.frontends.Was {
		now, held := t.frontends.Now[f]
		if was.Held {
			d.Old[f] = was.Value
			d.GonePlaces = append(d.GonePlaces, replaced(f, was.Value.To, now.To)...)
			// A packet that was on its way through the table as it changed may still be led there, so those go with the next change.
			t.left = append(t.left, places(f, len(now.To), len(was.Value.To))...)
		}
		if held && f.Protocol == UDP && now.answers() && !(was.Held && was.Value.answers()) {
			d.FreshUDP = append(d.FreshUDP, f)
		}
	}
	for c, was := range t.chains.Was {
		if _, now := t.chains.Now[c]; now && !was.Held {
			d.NewChains = append(d.NewChains, c)
		}
	}
	for m, was := range t.memory.Was {
		// A memory that keeps its chain but not its time is made anew.
		if now, held := t.memory.Now[m]; held && was.Held && now != was.Value {
			d.GoneMemory = append(d.GoneMemory, m)
		}
	}
	d.Frontends, d.GoneFrontends = t.frontends.Take()
	d.Chains, d.GoneChains = t.chains.Take()
	memory, gone := t.memory.Take()
	d.Memory, d.GoneMemory = memory, append(d.GoneMemory, gone...)
	loops, goneLoops := t.hairpins.Take()
	d.Loops, d.GoneLoops = slices.Collect(maps.Keys(loops)), goneLoops
	_, d.Withdrawn = t.serving.Take()
	d.Deserted = slices.SortedFunc(maps.Keys(t.deserted), netip.AddrPort.Compare)
	clear(t.deserted)
	d.LostUDP = slices.SortedFunc(maps.Keys(t.lostUDP), netip.AddrPort.Compare)
	clear(t.lostUDP)
	slices.SortFunc(d.FreshUDP, compareFrontends)
	return d
}

// All is the whole table as one delta from nothing, and takes all changes.
func (t *Table) All() Delta {
	d := t.Take()
	t.left = nil
	d.Frontends, d.Chains, d.Memory = t.frontends.Now, t.chains.Now, t.memory.Now
	d.GoneFrontends, d.GonePlaces, d.GoneChains, d.GoneMemory, d.GoneLoops, d.Old = nil, nil, nil, nil, nil, nil
	d.NewChains = slices.Collect(maps.Keys(d.Chains))
	d.Loops = slices.Collect(maps.Keys(t.hairpins.Now))
	return d
}
