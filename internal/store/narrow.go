package store

// A narrow watch is of one object, or of the entries with one value in an index: a kubelet's of the pods on its node, of a Secret that one of them mounts. A
// large cluster has thousands of them. Were all woken by each event, to look whether it is for them, an event would cost as much as there are nodes. So the
// log tells each the numbers of the events that concern it, and it sleeps until there is one.

// concern is what a narrow watch is about: an index's value, or, without an index, a key. The zero value: everything.
type concern struct{ index, value string }

// concernOf is what a predicate can only find.
func (c *Collection) concernOf(p *Predicate) concern {
	switch {
	case p.Index != "":
		return concern{p.Index, p.Value}
	case p.Name != "" && !c.Resource().Namespaced:
		return concern{"", p.Name}
	case p.Name != "" && p.Namespace != "":
		return concern{"", p.Namespace + "/" + p.Name}
	}
	return concern{}
}

// narrow are the narrow watches by their concern; indexes counts those of each index.
type narrow struct {
	watches map[concern]map[*Watcher]struct{}
	indexes map[string]int
}

func (n *narrow) add(w *Watcher) {
	if n.watches == nil {
		n.watches, n.indexes = map[concern]map[*Watcher]struct{}{}, map[string]int{}
	}
	if n.watches[w.about] == nil {
		n.watches[w.about] = map[*Watcher]struct{}{}
	}
	n.watches[w.about][w] = struct{}{}
	n.indexes[w.about.index]++
}

func (n *narrow) remove(w *Watcher) {
	if _, there := n.watches[w.about][w]; !there {
		return
	}
	delete(n.watches[w.about], w)
	if len(n.watches[w.about]) == 0 {
		delete(n.watches, w.about)
	}
	if n.indexes[w.about.index]--; n.indexes[w.about.index] == 0 {
		delete(n.indexes, w.about.index)
	}
}

// tell has the watches that an event concerns know its number. Called with the store's lock held.
func (c *Collection) tell(e *Event, number int64) {
	n := &c.log.narrow
	for index := range n.indexes {
		c.concerns(e, index, func(value string) {
			for w := range n.watches[concern{index, value}] {
				w.told(number)
			}
		})
	}
}

// concerns calls f with the values in an index that an object has or had.
func (c *Collection) concerns(e *Event, index string, f func(value string)) {
	if index == "" {
		f(e.Entry.key)
		return
	}
	values := c.Resource().Indexes[index]
	for _, v := range values(e.Entry.Object()) {
		f(v)
	}
	if e.Prev != nil {
		for _, v := range values(e.Prev.Object()) {
			f(v)
		}
	}
}

// told notes an event. What has fallen behind the log ends at its next look, and needs to know no more.
func (w *Watcher) told(number int64) {
	if n := len(w.mine); n > 0 && (w.mine[n-1] == number || w.mine[0] < w.c.log.first) {
		return
	}
	w.mine = append(w.mine, number)
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
