package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/scheduler/class"
	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/device"
	"skiff.dev/skiff/internal/scheduler/extender"
	"skiff.dev/skiff/internal/scheduler/preempt"
	"skiff.dev/skiff/internal/scheduler/queue"
	"skiff.dev/skiff/internal/scheduler/score"
)

// inquiries are questions to extenders. The loop does not wait for answers: it goes on with pods that no extender has to do with. Those that one has
// to do with are asked about one at a time, because extenders count on that.
type inquiries struct {
	asking  bool
	waiting []*queue.Entry

	about  *queue.Entry   // whom extenders are asked about, or were last
	missed cluster.Change // what changed since, while it was in no set of the queue
}

// missedBy is what changed since extenders were first asked in a pod's try; it is told once.
func (q *inquiries) missedBy(e *queue.Entry) (what cluster.Change) {
	if q.about == e {
		what, q.about, q.missed = q.missed, nil, 0
	}
	return what
}

// opinion is what extenders said of nodes, by name.
type opinion struct {
	kept          map[string]bool
	scores        map[string]int64
	failed, final map[string]string
}

// wanted are the extenders that have to do with a pod.
func (l *loop) wanted(p *corev1.Pod) (list []*extender.Extender) {
	for _, e := range l.extenders {
		if e.Wants(p) {
			list = append(list, e)
		}
	}
	return list
}

// renewed notes that a pod's own wishes changed.
func (q *inquiries) renewed(uid types.UID) {
	if q.about != nil && q.about.Pod.UID == uid {
		q.missed = cluster.Any
	}
}

// ask has a question put on a binder's goroutine, and goes on with then, unless the pod is gone by then. The pod keeps the place it holds.
func (l *loop) ask(e *queue.Entry, held int, question func(ctx context.Context) (then func())) {
	if held >= 0 {
		l.nominate(e.Pod, l.nodes.Name(held))
	}
	if l.inquiries.asking {
		l.inquiries.waiting = append(l.inquiries.waiting, e)
		return
	}
	l.inquiries.asking = true
	if l.inquiries.about != e { // else it is asked about who gives way, after it was about nodes
		l.inquiries.about, l.inquiries.missed = e, 0
	}
	uid := e.Pod.UID
	l.write(uid, func(ctx context.Context) {
		then := question(ctx)
		l.mail.post(func() {
			l.inquiries.asking = false
			if l.queue.Get(uid) == e {
				then()
			}
			l.askNext()
		})
	})
}

func (l *loop) askNext() {
	for !l.inquiries.asking && len(l.inquiries.waiting) > 0 {
		e := l.inquiries.waiting[0]
		l.inquiries.waiting = l.inquiries.waiting[1:]
		if l.queue.Get(e.Pod.UID) == e {
			l.schedule(e)
		}
	}
}

// consult asks extenders about the nodes that would do.
func (l *loop) consult(e *queue.Entry, c *class.Class, held int, list []*extender.Extender) {
	l.inquiries.missedBy(e) // by an earlier try
	var nodes []*corev1.Node
	for i := range c.Scores() {
		nodes = append(nodes, l.nodes.Node[i])
	}
	if len(nodes) == 0 {
		l.unschedulable(e, c, c.Verdict(), held)
		return
	}
	slices.SortFunc(nodes, func(a, b *corev1.Node) int { return cmp.Compare(a.Name, b.Name) })
	p := e.Pod.Pod
	l.ask(e, held, func(ctx context.Context) func() {
		o, err := l.opinionOf(ctx, list, p, nodes)
		return func() { l.consulted(e, o, err) }
	})
}

// opinionOf asks one extender after the other, each about what the one before left.
func (l *loop) opinionOf(ctx context.Context, list []*extender.Extender, p *corev1.Pod, nodes []*corev1.Node) (*opinion, error) {
	o := &opinion{kept: map[string]bool{}, scores: map[string]int64{}, failed: map[string]string{}, final: map[string]string{}}
	for _, e := range list {
		if len(nodes) == 0 {
			break
		}
		f, err := e.Filter(ctx, p, nodes)
		switch {
		case err != nil && e.Ignorable:
			l.cfg.Log.Warn("an extender does not answer and is ignored", "pod", p.Namespace+"/"+p.Name, "error", err)
			continue
		case err != nil:
			return nil, err
		}
		maps.Copy(o.failed, f.Failed)
		maps.Copy(o.final, f.Final)
		nodes = slices.DeleteFunc(slices.Clone(nodes), func(n *corev1.Node) bool { return !slices.Contains(f.Kept, n.Name) })
	}
	for _, n := range nodes {
		o.kept[n.Name] = true
	}
	for _, e := range list {
		if len(nodes) == 0 {
			break
		}
		scores, err := e.Prioritize(ctx, p, nodes)
		if err != nil { // a preference that nobody tells binds nobody
			l.cfg.Log.Warn("an extender does not say which nodes it prefers", "pod", p.Namespace+"/"+p.Name, "error", err)
		}
		for name, s := range scores {
			o.scores[name] += s
		}
	}
	return o, nil
}

// consulted goes on with a pod that extenders were asked about. The cluster went on meanwhile, so everything else is looked at anew.
func (l *loop) consulted(e *queue.Entry, o *opinion, err error) {
	if err != nil {
		l.fail(e, err)
		return
	}
	held := l.release(e.Pod)
	if !l.demand(e) {
		return
	}
	l.second(e, l.classes.Of(e.Pod), held, o)
}

// second takes the best of those nodes that hold at the second look: extenders' (o may be nil) and that of resource claims.
func (l *loop) second(e *queue.Entry, c *class.Class, held int, o *opinion) {
	list, scores, news := l.candidates(e.Pod, c, held, o)
	if news {
		l.queue.Retry(e)
		return
	}
	p := e.Pod
	best, against, err := l.pick(p, list, scores, held)
	switch {
	case err != nil:
		l.fail(e, err)
		return
	case best != nil:
		p.Claims = best.claims
		l.give(e, best.node)
		return
	}
	v := o.verdict(l.nodes, c)
	for reason, n := range against {
		v.Reasons[reason] += n
	}
	if l.need != nil {
		v.Helps |= cluster.Devices
	}
	l.unschedulable(e, c, v, held)
	if len(against) > 0 && l.need != nil && !l.inquiries.asking && l.otherwise(p) {
		l.queue.Retry(e)
	}
}

// option is a node that has devices for a pod's claims.
type option struct {
	node      int
	claims    []device.Claimed
	preferred int64 // how much those are what the claims prefer
}

// pick takes the best of nodes, which come in the order of their scores, the held one first: the first that has devices for the pod's claims. Where those
// list alternatives, each node's score also grows with what it has of them; from the first node on that has the most wished for, no later one is better.
func (l *loop) pick(p *cluster.Pod, list []int, scores map[int]int64, held int) (best *option, against map[string]int, err error) {
	if l.need == nil {
		if len(list) == 0 {
			return nil, nil, nil
		}
		return &option{node: list[0]}, nil, nil
	}
	weight, most := p.Profile.Scale().DynamicResources, l.need.Most()
	if weight == 0 {
		most = 0
	}
	against = map[string]int{}
	var options []option
	late := ""
	for _, i := range list {
		claims, reason, err := l.devices.On(l.need, l.nodes.Node[i])
		if err != nil {
			return nil, nil, fmt.Errorf("running %q filter plugin: %w", "DynamicResources", err)
		}
		if reason == device.Late {
			late = l.nodes.Name(i)
		}
		if reason != "" {
			against[reason]++
			continue
		}
		options = append(options, option{i, claims, l.need.Preferred(claims)})
		if i == held || options[len(options)-1].preferred >= most {
			break
		}
	}
	if len(options) == 0 && late != "" { // which passes by itself
		return nil, nil, fmt.Errorf("running %q filter plugin: node %s: %s", "DynamicResources", late, device.Late)
	}
	weigh(scores, options, weight)
	for k := range options {
		if best == nil || scores[options[k].node] > scores[best.node] {
			best = &options[k]
		}
	}
	return best, against, nil
}

// weigh adds to the scores of nodes what their devices are worth: a hundred for the most that any of them has of what claims prefer.
func weigh(scores map[int]int64, options []option, weight int64) {
	top := int64(1)
	for _, o := range options {
		top = max(top, o.preferred)
	}
	for _, o := range options {
		scores[o.node] += weight * (100 * o.preferred / top)
	}
}

// candidates are the nodes that will do, as far as that is known, the held one first, then the best. news says that there are some
// which nobody was asked about.
func (l *loop) candidates(p *cluster.Pod, c *class.Class, held int, o *opinion) (list []int, scores map[int]int64, news bool) {
	scores = c.Scores()
	if score.CountsDevices(p) {
		for i := range scores {
			scores[i] += score.ByDevices(p, l.nodes, i, func(r corev1.ResourceName) (used, all int64) { return l.devices.Count(r, l.nodes.Node[i]) })
		}
	}
	for i := range scores {
		name := l.nodes.Name(i)
		if o != nil && !o.kept[name] {
			news = news || o.failed[name] == "" && o.final[name] == ""
			delete(scores, i)
			continue
		}
		if o != nil {
			scores[i] += o.scores[name]
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(a, b int) int {
		if (a == held) != (b == held) {
			if a == held {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(scores[b], scores[a]), cmp.Compare(l.nodes.Touched[a], l.nodes.Touched[b]))
	})
	return list, scores, news && len(list) == 0
}

// verdict is a class' own, and what extenders had against nodes that would do otherwise.
func (o *opinion) verdict(n *cluster.Nodes, c *class.Class) *class.Verdict {
	v := c.Verdict().Clone()
	if o == nil {
		return v
	}
	for i := range c.Scores() {
		name := n.Name(i)
		if o.kept[name] {
			continue
		}
		reason, final := o.final[name]
		if !final {
			reason = o.failed[name]
		}
		v.Reasons[cmp.Or(reason, "node(s) were refused by an extender")]++
		if final {
			v.Final++
		}
	}
	v.Helps |= cluster.Any &^ cluster.Images // who knows what an extender goes by; images are no event upstream
	return v
}

// fail is for pods about which nothing could be found out: they are tried again after a while.
func (l *loop) fail(e *queue.Entry, err error) {
	p, why := e.Pod.Pod, err.Error()
	l.queue.Fail(e.Pod, e.Attempts, l.now())
	if e.Verdict == why {
		return
	}
	e.Verdict = why
	l.report(p, corev1.PodReasonSchedulerError, why, p.Status.NominatedNodeName, func(context.Context) error {
		l.tell(p, corev1.EventTypeWarning, "FailedScheduling", "%s", why)
		return nil
	})
}

// preempters are the extenders that have a say in who gives way for a pod.
func (l *loop) preempters(p *corev1.Pod) (list []*extender.Extender) {
	return slices.DeleteFunc(l.wanted(p), func(e *extender.Extender) bool { return e.PreemptVerb == "" })
}

// askVictims has extenders look at all choices of who might give way, and goes on with the best they leave.
func (l *loop) askVictims(e *queue.Entry, v *class.Verdict, held int, list []*extender.Extender, choices []*preempt.Choice) {
	asked, on := map[string]extender.Victims{}, map[string][]*corev1.Pod{}
	for _, c := range choices {
		for _, p := range l.nodes.On[c.Node] {
			on[l.nodes.Name(c.Node)] = append(on[l.nodes.Name(c.Node)], p.Pod)
		}
		victims := extender.Victims{Violations: c.Violations}
		for _, one := range c.Victims {
			victims.Pods = append(victims.Pods, one.Pod)
		}
		asked[l.nodes.Name(c.Node)] = victims
	}
	p := e.Pod.Pod
	l.ask(e, held, func(ctx context.Context) func() {
		left, err := l.victimsLeft(ctx, list, p, asked, on)
		return func() {
			if err != nil {
				l.fail(e, err)
				return
			}
			held := l.release(e.Pod)
			if l.demand(e) {
				l.victimsChosen(e, v, held, left)
			}
		}
	})
}

// victimsLeft asks one extender after the other, each about what the one before left.
func (l *loop) victimsLeft(ctx context.Context, list []*extender.Extender, p *corev1.Pod, asked map[string]extender.Victims, on map[string][]*corev1.Pod) (map[string]extender.Victims, error) {
	for _, one := range list {
		answer, err := one.Preempt(ctx, p, asked, on)
		switch {
		case err != nil && one.Ignorable:
			l.cfg.Log.Warn("an extender does not say who gives way and is ignored", "pod", p.Namespace+"/"+p.Name, "error", err)
			continue
		case err != nil:
			return nil, err
		}
		if asked = answer; len(asked) == 0 {
			break
		}
	}
	return asked, nil
}

// victimsChosen takes the best choice that extenders left, as the cluster is now.
func (l *loop) victimsChosen(e *queue.Entry, v *class.Verdict, held int, left map[string]extender.Victims) {
	c := l.classes.Of(e.Pod)
	l.finder.Refuses = l.refuser()
	choices, _ := l.finder.All(e.Pod, c)
	var best *preempt.Choice
	for _, choice := range choices {
		said, kept := left[l.nodes.Name(choice.Node)]
		if !kept {
			continue
		}
		victims := slices.DeleteFunc(slices.Clone(l.nodes.On[choice.Node]), func(p *cluster.Pod) bool {
			return !slices.ContainsFunc(said.Pods, func(v *corev1.Pod) bool { return v.UID == p.UID })
		})
		best = preempt.Better(choice.Changed(victims, said.Violations), best)
	}
	why := ""
	if best == nil {
		why = "no candidate node for preemption"
	}
	l.conclude(e, c, v, held, best, why, false)
}
