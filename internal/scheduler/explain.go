package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/scheduler/class"
	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/device"
	"skiff.dev/skiff/internal/scheduler/explain"
	"skiff.dev/skiff/internal/scheduler/filter"
	"skiff.dev/skiff/internal/scheduler/preempt"
	"skiff.dev/skiff/internal/scheduler/queue"
)

// users is how many pods are named that have most of what is missing.
const users = 3

// Explain says why a pod has the node it has, or none. It is worked out on the loop's goroutine when asked, from what the loop has at hand.
func (s *Scheduler) Explain(ctx context.Context, namespace, name string) (*explain.Pod, error) {
	p := &corev1.Pod{}
	if err := s.cfg.Client.Get(ctx, crclient.ObjectKey{Namespace: namespace, Name: name}, p); err != nil {
		return nil, err
	}
	l := s.loop.Load()
	if l == nil {
		return nil, s.idle()
	}
	answer := make(chan *explain.Pod, 1)
	l.mail.post(func() { answer <- l.explain(p) })
	select {
	case out := <-answer:
		return out, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the scheduler has not answered: %w", context.Cause(ctx))
	}
}

// idle is why a scheduler that schedules nothing cannot explain anything.
func (s *Scheduler) idle() error {
	if leader := s.leader.Load(); leader != nil {
		return apierrors.NewServiceUnavailable("this scheduler stands by, and the one that works is " + *leader + "; ask there")
	}
	return apierrors.NewServiceUnavailable("the scheduler has not started yet; try again in a moment")
}

// explain is told about a pod as it was read just now; the queue may be a moment behind.
func (l *loop) explain(p *corev1.Pod) *explain.Pod {
	out := &explain.Pod{Namespace: p.Namespace, Name: p.Name, State: explain.Pending, Since: p.CreationTimestamp}
	e := l.queue.Get(p.UID)
	switch {
	case p.Spec.NodeName != "":
		out.State, out.Node, out.Since = explain.Scheduled, p.Spec.NodeName, scheduledAt(p)
	case p.DeletionTimestamp != nil || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed:
		out.State, out.Message = explain.Done, "it is over, or is being deleted, and needs no node"
	case !l.ours(p):
		out.State, out.Message = explain.Foreign, fmt.Sprintf("it is left to scheduler %q, which is not this one", p.Spec.SchedulerName)
	case len(p.Spec.SchedulingGates) > 0:
		out.State, out.Message = explain.Gated, "it waits until its scheduling gates are removed: "+gates(p)
	case l.assumed[p.UID]:
		node, _ := l.nodes.Where(p.UID)
		out.State, out.Node, out.Message = explain.Binding, l.nodes.Name(node), l.awaited(p.UID)
	case e == nil:
		out.Message = "the scheduler has only just heard of it"
	default:
		l.explainPending(out, e)
	}
	return out
}

func gates(p *corev1.Pod) string {
	var names []string
	for _, g := range p.Spec.SchedulingGates {
		names = append(names, g.Name)
	}
	return strings.Join(names, ", ")
}

func scheduledAt(p *corev1.Pod) metav1.Time {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime
		}
	}
	return p.CreationTimestamp
}

func (l *loop) explainPending(out *explain.Pod, e *queue.Entry) {
	p := e.Pod
	out.Since, out.Attempts, out.Message = metav1.NewTime(e.Since), e.Attempts, e.Verdict
	out.Waits = l.queue.State(e)
	if e.Attempts > 0 {
		out.Tried = metav1.NewTime(e.Tried())
	}
	if at, helps, waits := l.queue.Waits(e); waits {
		out.Next, out.Helps = metav1.NewTime(at), helps.Words()
	}
	out.Asked = asked(p)
	g := l.groupOf(p.UID)
	if l.queue.Held(e) {
		out.Message, out.Nearest = g.Lacks(), g.There()
		return
	}
	held := l.release(p) // or it would be in its own way
	p.Volumes, l.need = nil, nil
	if why, _ := l.needs(p); why != "" {
		out.Nearest = why // no node is of use until that is settled
	} else {
		c := l.classes.Of(p)
		l.verdicts(out, p, c)
		if g == nil || !g.Gang() {
			out.Preemption = l.couldPreempt(p, c, held, out.Feasible)
		} else {
			out.Preemption = &explain.Preemption{Why: "pods of a gang make nobody give way; " + g.There()}
		}
	}
	if held >= 0 {
		l.nominate(p, l.nodes.Name(held))
	}
}

// verdicts looks at every node, those that would do first, then those where least is missing.
func (l *loop) verdicts(out *explain.Pod, p *cluster.Pod, c *class.Class) {
	type near struct {
		explain.Node
		miss
		at int
	}
	inquiry, scores := c.Inquire(), c.Scores()
	list := make([]near, 0, l.nodes.Count())
	var options []option
	for i, node := range l.nodes.Node {
		if node == nil {
			continue
		}
		one := near{Node: explain.Node{Name: node.Name}, at: i}
		f := inquiry.Find(i)
		if f.Refusal == nil && l.need != nil {
			var claims []device.Claimed
			f, claims = l.claimFinding(node)
			options = append(options, option{node: i, preferred: l.need.Preferred(claims)})
		}
		if f.Refusal == nil {
			one.Fits = true
			out.Feasible++
		} else {
			one.Plugin, one.Reasons, one.Detail, one.Final = f.Plugin, f.Reasons, f.Detail, f.Final
			for _, culprit := range f.Pods {
				one.Pods = append(one.Pods, culprit.Namespace+"/"+culprit.Name)
			}
			lacks := filter.Lacks(p, l.nodes, i)
			one.miss = missOf(&f, lacks, node)
			if f.Plugin == "NodeResourcesFit" {
				one.Lacks = l.lacks(lacks, i)
			}
		}
		list = append(list, one)
	}
	weigh(scores, options, p.Profile.Scale().DynamicResources)
	for k := range list {
		if list[k].Fits {
			list[k].Score = scores[list[k].at]
		}
	}
	slices.SortFunc(list, func(a, b near) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(b.Score, a.Score), cmp.Compare(a.Name, b.Name))
	})
	out.Nodes = make([]explain.Node, 0, len(list))
	for i := range list {
		out.Nodes = append(out.Nodes, list[i].Node)
	}
	if len(list) > 0 && out.Feasible == 0 && list[0].what != "" {
		out.Nearest = fmt.Sprintf("fits on %s if %s", list[0].Name, list[0].what)
	}
}

// claimFinding is why a node won't do for the claims of the pod in hand, or what they get there.
func (l *loop) claimFinding(node *corev1.Node) (f class.Finding, claims []device.Claimed) {
	claims, reason, err := l.devices.On(l.need, node)
	if err != nil {
		reason = err.Error()
	}
	if reason != "" {
		f.Plugin, f.Refusal, f.Detail = "DynamicResources", &filter.Refusal{Reasons: []string{reason}}, l.devices.Detail(l.need, node)
	}
	return f, claims
}

// miss is how far a node is from taking a pod: nothing, something to be freed, something about the node to be changed, or out of reach.
type miss struct {
	distance float64
	what     string // "" if no single thing would do
}

const unreachable = 1e9

// missOf measures what is missing in shares of the node, so that 200m of 4 CPUs is nearer than 1Gi of 2Gi.
func missOf(f *class.Finding, lacks []filter.Lack, node *corev1.Node) miss {
	switch {
	case f.Plugin == "NodeResourcesFit" && f.Enough:
		far, parts := 0.0, make([]string, 0, len(lacks))
		for _, lack := range lacks {
			missing := lack.Asked - lack.Free
			if lack.Asked > lack.Allocatable {
				return miss{unreachable - 1, ""}
			}
			far += float64(missing) / float64(lack.Allocatable)
			parts = append(parts, quantity(lack.Name, missing)+" "+noun(lack.Name))
		}
		verb := " were free"
		if len(lacks) == 1 && lacks[0].Name == corev1.ResourcePods && lacks[0].Asked-lacks[0].Free == 1 {
			return miss{far, "one pod fewer were there"}
		}
		return miss{far, strings.Join(parts, " and ") + verb}
	case len(lacks) > 0 || f.Plugin == "NodeResourcesFit":
		return miss{unreachable, ""}
	case f.Plugin == "NodeUnschedulable":
		return miss{100, "it were not cordoned"}
	case f.Plugin == "TaintToleration":
		return miss{200 + float64(len(node.Spec.Taints)), "its taint were tolerated (" + strings.TrimPrefix(f.Detail, "not tolerated: ") + ")"}
	case f.Plugin == "DynamicResources":
		return miss{70, "devices for its claims were free (" + f.Detail + ")"}
	case f.Plugin == "NodeVolumeLimits":
		return miss{80, "its CSI drivers could attach the volumes (" + f.Detail + ")"}
	case f.Plugin == "VolumeRestrictions" && f.Detail != "":
		return miss{90, "another pod gave its volume back (" + f.Detail + ")"}
	case f.Plugin == "VolumeBinding" && f.Detail != "":
		return miss{300, "there were a volume (" + f.Detail + ")"}
	case f.Plugin == "NodePorts":
		return miss{50, "the host port were free (" + f.Detail + ")"}
	case f.Plugin == "InterPodAffinity" && len(f.Pods) > 0:
		return miss{60, "these pods were not there: " + names(f.Pods)}
	}
	return miss{unreachable, ""}
}

func names(pods []*cluster.Pod) string {
	var list []string
	for _, p := range pods {
		list = append(list, p.Namespace+"/"+p.Name)
	}
	return strings.Join(list, ", ")
}

func noun(r corev1.ResourceName) string {
	if r == corev1.ResourceCPU {
		return "CPU"
	}
	return string(r)
}

func (l *loop) lacks(list []filter.Lack, i int) (out []explain.Lack) {
	for _, lack := range list {
		out = append(out, explain.Lack{
			Resource: string(lack.Name), Asked: quantity(lack.Name, lack.Asked), Free: quantity(lack.Name, lack.Free),
			Allocatable: quantity(lack.Name, lack.Allocatable), Missing: quantity(lack.Name, lack.Asked-lack.Free), Users: l.users(lack.Name, i),
		})
	}
	return out
}

// users are the pods of a node that have most of a resource.
func (l *loop) users(r corev1.ResourceName, i int) (out []explain.User) {
	if r == corev1.ResourcePods {
		return nil
	}
	list := slices.Clone(l.nodes.On[i])
	slices.SortFunc(list, func(a, b *cluster.Pod) int {
		return cmp.Or(cmp.Compare(requested(b, r), requested(a, r)), cmp.Compare(a.Name, b.Name))
	})
	for _, p := range list {
		if q := requested(p, r); q > 0 && len(out) < users {
			out = append(out, explain.User{Pod: p.Namespace + "/" + p.Name, Quantity: quantity(r, q)})
		}
	}
	return out
}

func requested(p *cluster.Pod, r corev1.ResourceName) int64 {
	if k := slices.Index(filter.Names[:], r); k >= 0 {
		return p.Requests[k]
	}
	return p.Extended[r]
}

func asked(p *cluster.Pod) (list []explain.Amount) {
	for k, name := range filter.Names {
		if q := p.Requests[k]; q > 0 && k != cluster.Pods {
			list = append(list, explain.Amount{Resource: string(name), Quantity: quantity(name, q)})
		}
	}
	for name, q := range p.Extended {
		list = append(list, explain.Amount{Resource: string(name), Quantity: quantity(name, q)})
	}
	slices.SortFunc(list, func(a, b explain.Amount) int { return cmp.Compare(a.Resource, b.Resource) })
	return list
}

// quantity writes what a column holds as a manifest would.
func quantity(r corev1.ResourceName, v int64) string {
	switch r {
	case corev1.ResourceCPU:
		return resource.NewMilliQuantity(v, resource.DecimalSI).String()
	case corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return resource.NewQuantity(v, resource.BinarySI).String()
	}
	return resource.NewQuantity(v, resource.DecimalSI).String()
}

// couldPreempt says who would have to give way, without making anybody.
func (l *loop) couldPreempt(p *cluster.Pod, c *class.Class, held, feasible int) *explain.Preemption {
	if feasible > 0 || l.nodes.Count() == 0 {
		return nil
	}
	if held >= 0 {
		return &explain.Preemption{Node: l.nodes.Name(held), Waiting: true}
	}
	if why := preempt.Eligible(p, l.nodes, held, false); why != "" {
		return &explain.Preemption{Why: why}
	}
	if !p.Profile.Runs("DefaultPreemption") {
		return &explain.Preemption{Why: "the profile " + p.Spec.SchedulerName + " preempts nobody"}
	}
	if !l.nodes.Below(p.Priority) {
		return &explain.Preemption{Why: fmt.Sprintf("no pod is less important than this one (priority %d)", p.Priority)}
	}
	l.finder.Refuses = l.refuser()
	finder := l.finder // a copy: the next search proper starts where the last one ended
	choice, _ := finder.Find(p, c)
	if choice == nil {
		return &explain.Preemption{Why: "that less important pods left would not be enough on any node"}
	}
	out := &explain.Preemption{Node: l.nodes.Name(choice.Node)}
	for _, v := range choice.Victims {
		out.Victims = append(out.Victims, v.Namespace+"/"+v.Name)
	}
	return out
}
