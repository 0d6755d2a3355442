// Package preempt chooses pods to give way to a more important one that fits nowhere: upstream's DefaultPreemption.
//
// Deciding is all it does: nothing is changed, and the scheduler carries the choice out. Only the scheduler's own goroutine calls it.
package preempt

import (
	"cmp"
	"math"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/labels"

	"skiff.dev/skiff/internal/scheduler/class"
	"skiff.dev/skiff/internal/scheduler/cluster"
)

// Upstream tries so many nodes out: a tenth of those where it may help, a hundred at least, and more while each found would violate a budget. Each search starts
// where the last one ended.
const (
	tryShare = 10
	tryLeast = 100
)

// Reasons upstream gives for nodes that are of no use.
const (
	useless   = "Preemption is not helpful for scheduling"
	noVictims = "No preemption victims found for incoming pod"
)

// Choice is a node and the pods that have to leave it. Those without a node of their own yet, which only hold the place, are in Waiting.
type Choice struct {
	Node    int
	Victims []*cluster.Pod // the most important first
	Waiting []*cluster.Pod

	Violations int // of budgets
}

// Budget is a PodDisruptionBudget with its selector read.
type Budget struct {
	*policyv1.PodDisruptionBudget
	Selector labels.Selector
}

// Finder looks for choices.
type Finder struct {
	Nodes   *cluster.Nodes
	Waiting func(p *cluster.Pod) bool // nominated to its node, not bound
	Budgets func(namespace string) []Budget
	Refuses func(i int) bool // nodes that won't do whoever leaves them, beside what the class knows; may be nil

	start   int
	trial   class.Trial
	victims []*cluster.Pod
	memo    memo
}

// memo is what was found out about nodes for the pods of one class and priority. It holds for a node until that changes. Classes with rules about
// other pods have none: what is true of a node depends on others there.
type memo struct {
	class    *class.Class
	priority int32
	nodes    []known
}

type known struct {
	at     uint64 // as of when the node had changed last; 0: nothing is known
	choice *Choice
	why    []string
}

// Forget says that something changed which nodes do not tell of: budgets, or when a pod began.
func (f *Finder) Forget() { f.memo = memo{} }

// try is on, unless its answer is known. A choice that was found is nobody's to change.
func (f *Finder) try(i int, p *cluster.Pod, c *class.Class) (*Choice, []string) {
	if !c.Independent() {
		return f.on(i, p, c)
	}
	if f.memo.class != c || f.memo.priority != p.Priority || len(f.memo.nodes) < f.Nodes.Len() {
		f.memo = memo{c, p.Priority, make([]known, f.Nodes.Len())}
	}
	k := &f.memo.nodes[i]
	if k.at != f.Nodes.Touched[i] {
		k.at = f.Nodes.Touched[i]
		k.choice, k.why = f.on(i, p, c)
	}
	return k.choice, k.why
}

// Find returns the best choice for a pod of class c, which fits nowhere. Without one, reasons says why each node is of no use.
func (f *Finder) Find(p *cluster.Pod, c *class.Class) (best *Choice, reasons map[string]int) {
	reasons = f.each(p, c, func(choice *Choice) { best = Better(choice, best) })
	return best, reasons
}

// All returns every choice that Find would compare.
func (f *Finder) All(p *cluster.Pod, c *class.Class) (all []*Choice, reasons map[string]int) {
	reasons = f.each(p, c, func(choice *Choice) { all = append(all, choice) })
	return all, reasons
}

func (f *Finder) each(p *cluster.Pod, c *class.Class, take func(choice *Choice)) (reasons map[string]int) {
	reasons = map[string]int{}
	v := c.Verdict()
	hopeful := v.Nodes - v.Final
	limit := max(tryLeast, hopeful/tryShare)
	if p.Profile != nil {
		limit = max(1, p.Profile.TryLeast, hopeful*p.Profile.TryShare/100)
	}
	all, found, mild := f.Nodes.Len(), 0, false
	first := f.start
	for step := range all {
		i := (first + step) % all
		if f.Nodes.Node[i] == nil {
			continue
		}
		f.start = i + 1
		r := c.Against(i)
		if r != nil && (r.Final || f.Refuses != nil && f.Refuses(i)) {
			reasons[useless]++
			continue
		}
		if r == nil { // only somebody else refuses it, and who leaves it makes no difference
			reasons[noVictims]++
			continue
		}
		choice, why := f.try(i, p, c)
		if choice == nil {
			for _, reason := range why {
				reasons[reason]++
			}
			continue
		}
		take(choice)
		mild = mild || choice.Violations == 0
		if found++; found >= limit && mild {
			break
		}
	}
	return reasons
}

// Nobody is why each node is of no use when no pod is less important than the one that waits.
func Nobody(v *class.Verdict) map[string]int {
	reasons := map[string]int{}
	if v.Final > 0 {
		reasons[useless] = v.Final
	}
	if rest := v.Nodes - v.Final; rest > 0 {
		reasons[noVictims] = rest
	}
	return reasons
}

// Useless is why none of so many nodes would be of use whoever left them.
func Useless(nodes int) map[string]int { return map[string]int{useless: nodes} }

// on takes all less important pods of a node away and puts back as many as possible, the most important first, those whose budget
// would be violated before all others.
func (f *Finder) on(i int, p *cluster.Pod, c *class.Class) (*Choice, []string) {
	f.victims = f.victims[:0]
	for _, v := range f.Nodes.On[i] {
		if v.Priority < p.Priority {
			f.victims = append(f.victims, v)
		}
	}
	if len(f.victims) == 0 {
		return nil, []string{noVictims}
	}
	c.On(i, &f.trial)
	for _, v := range f.victims {
		f.trial.Without(v)
	}
	if r := f.trial.Refusal(); r != nil {
		return nil, r.Reasons
	}
	slices.SortFunc(f.victims, moreImportant)
	violating, others := f.split(f.victims)
	choice := &Choice{Node: i}
	for k, list := range [][]*cluster.Pod{violating, others} {
		for _, v := range list {
			f.trial.With(v)
			if f.trial.Refusal() == nil {
				continue
			}
			f.trial.Without(v)
			if f.Waiting(v) {
				choice.Waiting = append(choice.Waiting, v)
				continue
			}
			choice.Victims = append(choice.Victims, v)
			if k == 0 {
				choice.Violations++
			}
		}
	}
	slices.SortFunc(choice.Victims, moreImportant)
	return choice, nil
}

// split tells the pods whose leaving would go beyond a budget from the others.
func (f *Finder) split(pods []*cluster.Pod) (violating, others []*cluster.Pod) {
	var spent map[*policyv1.PodDisruptionBudget]int32
	for _, v := range pods {
		beyond := false
		if !f.Waiting(v) && len(v.Labels) > 0 {
			for _, b := range f.Budgets(v.Namespace) {
				if b.Selector.Empty() || !b.Selector.Matches(labels.Set(v.Labels)) {
					continue
				}
				if _, already := b.Status.DisruptedPods[v.Name]; already {
					continue
				}
				if spent == nil {
					spent = map[*policyv1.PodDisruptionBudget]int32{}
				}
				spent[b.PodDisruptionBudget]++
				if beyond = spent[b.PodDisruptionBudget] > b.Status.DisruptionsAllowed; beyond {
					break // the others are not charged, as upstream
				}
			}
		}
		if beyond {
			violating = append(violating, v)
		} else {
			others = append(others, v)
		}
	}
	return violating, others
}

// moreImportant orders by priority, then by how long a pod has run.
func moreImportant(a, b *cluster.Pod) int {
	if d := cmp.Compare(b.Priority, a.Priority); d != 0 {
		return d
	}
	return began(a).Compare(began(b))
}

// began is when a pod started; one that has not is younger than all that have.
func began(p *cluster.Pod) time.Time {
	if p.Status.StartTime == nil {
		return time.Unix(math.MaxInt32, 0)
	}
	return p.Status.StartTime.Time
}

// Changed is a choice with others to give way, as somebody else would have it.
func (c *Choice) Changed(victims []*cluster.Pod, violations int) *Choice {
	slices.SortFunc(victims, moreImportant)
	return &Choice{Node: c.Node, Victims: victims, Waiting: c.Waiting, Violations: violations}
}

// Better is the better of two choices; b may be nil.
func Better(a, b *Choice) *Choice {
	if b == nil || better(a, b) {
		return a
	}
	return b
}

// better compares choices as upstream: fewer budgets violated, a less important most important victim, a lower sum of priorities, fewer
// victims, a most important victim that began later.
func better(a, b *Choice) bool {
	if a.Violations != b.Violations {
		return a.Violations < b.Violations
	}
	if len(a.Victims) == 0 || len(b.Victims) == 0 {
		return len(a.Victims) < len(b.Victims)
	}
	if p, q := a.Victims[0].Priority, b.Victims[0].Priority; p != q {
		return p < q
	}
	if s, t := a.sum(), b.sum(); s != t {
		return s < t
	}
	if len(a.Victims) != len(b.Victims) {
		return len(a.Victims) < len(b.Victims)
	}
	return a.earliest().After(b.earliest())
}

// sum adds the priorities up, moved so that none is negative and every victim counts.
func (c *Choice) sum() (sum int64) {
	for _, v := range c.Victims {
		sum += int64(v.Priority) + math.MaxInt32 + 1
	}
	return sum
}

// earliest is when the first of the most important victims began.
func (c *Choice) earliest() time.Time {
	at := began(c.Victims[0])
	for _, v := range c.Victims[1:] {
		if v.Priority == c.Victims[0].Priority && began(v).Before(at) {
			at = began(v)
		}
	}
	return at
}

// Terminating is why a pod does not preempt that waits for others to leave.
const Terminating = "not eligible due to a terminating pod on the nominated node."

// Eligible says why a pod may not preempt, "" if it may. nominated is the node it waits for, -1 if none, and final whether that will never do.
func Eligible(p *cluster.Pod, n *cluster.Nodes, nominated int, final bool) string {
	if p.Spec.PreemptionPolicy != nil && *p.Spec.PreemptionPolicy == corev1.PreemptNever {
		return "not eligible due to preemptionPolicy=Never."
	}
	if nominated < 0 || final {
		return ""
	}
	for _, v := range n.On[nominated] {
		if v.Priority < p.Priority && v.DeletionTimestamp != nil && disrupted(v.Pod) {
			return Terminating
		}
	}
	return ""
}

// disrupted says that a scheduler made the pod go.
func disrupted(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
	})
}
