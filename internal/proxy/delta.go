package proxy

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// Delta is what changed. It is applied as a whole or not at all.
type Delta struct {
	Frontends     map[Frontend]Lead // new, or leading elsewhere
	GoneFrontends []Frontend
	Old           map[Frontend]Lead // where those of Frontends led that led somewhere before, and those that are gone
	GonePlaces    []Place
	Ranges        []Range
	GoneRanges    []Range
	Members       []Member
	GoneMembers   []Member
	Loops         []netip.Addr
	GoneLoops     []netip.Addr
	Withdrawn     []netip.Addr // backends on this node to which nothing is led any more, or only for want of others. Nothing to write.

	Deserted []netip.AddrPort // backends that a service led to and leads to no longer: who has had no answer from them must be led anew
	LostUDP  []netip.AddrPort // backends whose connections must be forgotten, because UDP knows no end
	FreshUDP []Frontend       // frontends that nobody answered before: connections that know no backend must be forgotten
}

// Empty tells that there is nothing to do.
func (d *Delta) Empty() bool {
	return len(d.Frontends) == 0 && len(d.GoneFrontends) == 0 && len(d.GonePlaces) == 0 && len(d.Members) == 0 && len(d.GoneMembers) == 0 &&
		len(d.Loops) == 0 && len(d.GoneLoops) == 0
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
		if was.Held && !(held && now.equal(was.Value)) {
			d.Old[f] = was.Value
			d.GonePlaces = append(d.GonePlaces, replaced(f, was.Value.To, now.To)...)
			// A packet that was on its way through the table as it changed may still be led there, so those go with the next change.
			t.left = append(t.left, places(f, len(now.To), len(was.Value.To))...)
		}
		if held && f.Protocol == UDP && now.answers() && !(was.Held && was.Value.answers()) {
			d.FreshUDP = append(d.FreshUDP, f)
		}
	}
	d.Frontends, d.GoneFrontends = t.frontends.Take()
	d.Ranges, d.GoneRanges = ranges(d.Frontends, d.Old), ranges(d.Old, d.Frontends)
	members, goneMembers := t.members.Take()
	d.Members, d.GoneMembers = slices.Collect(maps.Keys(members)), goneMembers
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
	d.GoneFrontends, d.GonePlaces, d.GoneRanges, d.GoneMembers, d.GoneLoops, d.Old = nil, nil, nil, nil, nil, nil
	d.Frontends, d.Ranges, d.Members = t.frontends.Now, ranges(t.frontends.Now, nil), slices.Collect(maps.Keys(t.members.Now))
	d.Loops = slices.Collect(maps.Keys(t.hairpins.Now))
	return d
}
