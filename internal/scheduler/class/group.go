package class

// group is the nodes that differ, for a class, in nothing but how loaded they are: a heap, the best on top.
type group struct {
	key   []int64 // kind, then a part an axis
	heap  []int32
	place int // in the class's list; -1 while empty
	score int64
}

// touchBits is how much of a rank tells apart nodes with equal scores: the one that changed longest ago is better, so that equals are taken
// in turn.
const touchBits = 44

func rank(score int64, touched uint64) uint64 {
	const ones = 1<<touchBits - 1
	return uint64(score)<<touchBits | (ones - touched&ones)
}

func rankScore(r uint64) int64 { return int64(r >> touchBits) }

// leave takes node i out of its group.
func (c *Class) leave(i int) {
	g := c.in[i]
	if g == nil {
		return
	}
	c.in[i] = nil
	at, last := int(c.at[i]), len(g.heap)-1
	moved := g.heap[last]
	g.heap = g.heap[:last]
	if at != last {
		g.heap[at] = moved
		c.at[moved] = int32(at)
		c.fix(g, at)
	}
	if last == 0 {
		c.drop(g)
	}
}

// join puts node i into the group with the key.
func (c *Class) join(i int, key []int64) {
	c.write(key)
	g := c.groups[string(c.text)]
	if g == nil {
		g = &group{key: append([]int64(nil), key...), place: len(c.list)}
		c.groups[string(c.text)] = g
		c.list = append(c.list, g)
	}
	c.in[i], c.at[i] = g, int32(len(g.heap))
	g.heap = append(g.heap, int32(i))
	c.up(g, len(g.heap)-1)
}

// drop forgets an empty group.
func (c *Class) drop(g *group) {
	c.write(g.key)
	delete(c.groups, string(c.text))
	last := len(c.list) - 1
	c.list[g.place] = c.list[last]
	c.list[g.place].place = g.place
	c.list[last] = nil
	c.list = c.list[:last]
}

func (c *Class) fix(g *group, at int) {
	if !c.down(g, at) {
		c.up(g, at)
	}
}

func (c *Class) up(g *group, at int) {
	for at > 0 {
		parent := (at - 1) / 2
		if c.rank[g.heap[parent]] >= c.rank[g.heap[at]] {
			return
		}
		c.swap(g, at, parent)
		at = parent
	}
}

func (c *Class) down(g *group, at int) (moved bool) {
	for {
		child := 2*at + 1
		if child >= len(g.heap) {
			return moved
		}
		if right := child + 1; right < len(g.heap) && c.rank[g.heap[right]] > c.rank[g.heap[child]] {
			child = right
		}
		if c.rank[g.heap[at]] >= c.rank[g.heap[child]] {
			return moved
		}
		c.swap(g, at, child)
		at, moved = child, true
	}
}

func (c *Class) swap(g *group, a, b int) {
	g.heap[a], g.heap[b] = g.heap[b], g.heap[a]
	c.at[g.heap[a]], c.at[g.heap[b]] = int32(a), int32(b)
}
