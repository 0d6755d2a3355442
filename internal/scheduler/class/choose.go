package class

import (
	"math"

	"skiff.dev/skiff/internal/scheduler/score"
)

// Best returns the best feasible node; false if none is. Of equals it is the one that changed longest ago.
func (c *Class) Best() (node int, ok bool) {
	c.rate()
	best, top := int64(-1), uint64(0)
	for _, g := range c.feasible {
		head := c.rank[g.heap[0]]
		total := g.score + rankScore(head)
		if total > best || total == best && head<<(64-touchBits) > top<<(64-touchBits) {
			best, top, node, ok = total, head, int(g.heap[0]), true
		}
	}
	return node, ok
}

// Feasible says whether any node will do.
func (c *Class) Feasible() bool {
	for _, g := range c.list {
		if c.judge(g) == nil {
			return true
		}
	}
	return false
}

// Fits says whether node i will do.
func (c *Class) Fits(i int) bool { return i < len(c.in) && c.in[i] != nil && c.judge(c.in[i]) == nil }

// Scores returns the score of every feasible node.
func (c *Class) Scores() map[int]int64 {
	c.rate()
	scores := map[int]int64{}
	for _, g := range c.feasible {
		for _, i := range g.heap {
			scores[int(i)] = g.score + rankScore(c.rank[i])
		}
	}
	return scores
}

// rate gives every feasible group its part of the score that does not come from load.
func (c *Class) rate() {
	c.feasible = c.feasible[:0]
	for _, g := range c.list {
		if c.judge(g) == nil {
			c.feasible = append(c.feasible, g)
		}
	}
	var taints, affinity int64
	for _, g := range c.feasible {
		kind := c.kinds[g.key[0]]
		taints, affinity = max(taints, kind[kindTaints]), max(affinity, kind[kindPreference])
	}
	for _, g := range c.feasible {
		kind := c.kinds[g.key[0]]
		g.score = c.scale.TaintToleration*score.Fewer(kind[kindTaints], taints) + c.scale.NodeAffinity*score.More(kind[kindPreference], affinity) +
			c.scale.VolumeBinding*kind[kindStorage] + c.scale.ImageLocality*score.Locality(kind[kindImages:], c.having, c.nodes.Count())
	}
	if len(c.soft) > 0 {
		c.rateSpread()
	}
	if len(c.likes) > 0 {
		c.rateLikes()
	}
}

func (c *Class) having(image int) int { return c.nodes.Having(c.images[image]) }

// rateLikes is InterPodAffinity: weights of preferences met, in the domains of a node, from the least to the most of any node.
func (c *Class) rateLikes() {
	lowest, highest := int64(math.MaxInt64), int64(math.MinInt64)
	raw := func(g *group) (sum int64) {
		for _, a := range c.likes {
			if v := a.value(g); v != missing {
				sum += v
			}
		}
		return sum
	}
	for _, g := range c.feasible {
		lowest, highest = min(lowest, raw(g)), max(highest, raw(g))
	}
	if lowest >= highest {
		return
	}
	for _, g := range c.feasible {
		g.score += c.scale.InterPodAffinity * int64(score.Best*(float64(raw(g)-lowest)/float64(highest-lowest)))
	}
}

// rateSpread is PodTopologySpread: few pods of the kind in a node's domains are good, and topologies of many domains weigh more.
func (c *Class) rateSpread() {
	weights := c.weights()
	raw := func(g *group) (int64, bool) {
		if c.passedOver(g) {
			return 0, false
		}
		sum := 0.0
		for k, s := range c.soft {
			if v := s.value(g); v != missing {
				sum += float64(v)*weights[k] + float64(s.maxSkew-1)
			}
		}
		return int64(math.Round(sum)), true
	}
	lowest, highest := int64(math.MaxInt64), int64(0)
	for _, g := range c.feasible {
		if v, counts := raw(g); counts {
			lowest, highest = min(lowest, v), max(highest, v)
		}
	}
	for _, g := range c.feasible {
		v, counts := raw(g)
		switch {
		case !counts:
		case highest == 0:
			g.score += c.scale.PodTopologySpread * score.Best
		default:
			g.score += c.scale.PodTopologySpread * (score.Best * (highest + lowest - v) / highest)
		}
	}
}

// passedOver says that nodes lack a label of a soft constraint and get no marks for spreading.
func (c *Class) passedOver(g *group) bool {
	if !c.every {
		return false
	}
	for _, s := range c.soft {
		if s.value(g) == missing {
			return true
		}
	}
	return false
}

// weights are the logarithms of how many domains the feasible nodes are in. Those without the label, where they are not passed over, are one domain together.
func (c *Class) weights() []float64 {
	weights := make([]float64, len(c.soft))
	for k, s := range c.soft {
		c.mark++
		domains, lacking := 0, 0
		for _, g := range c.feasible {
			if c.passedOver(g) {
				continue
			}
			switch v := s.value(g); {
			case s.own:
				domains += len(g.heap)
			case v == missing:
				lacking = 1 // upstream takes all nodes without the label for one more domain
			case s.direct:
				domains += len(g.heap)
			default:
				domains += s.first(int32(g.key[s.part]), c.mark)
			}
		}
		weights[k] = math.Log(float64(domains + lacking + 2))
	}
	return weights
}

// first is 1 for a domain that was not asked about with this mark before, else 0.
func (a *axis) first(d int32, mark uint32) int {
	if int(d) >= len(a.marks) {
		a.marks = append(a.marks, make([]uint32, int(d)+1-len(a.marks))...)
	}
	if a.marks[d] == mark {
		return 0
	}
	a.marks[d] = mark
	return 1
}
