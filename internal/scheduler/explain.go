package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/scheduler/class"
	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/device"
	"skiff.dev/skiff/internal/scheduler/explain"
	"skiff.dev/skiff/internal/scheduler/filter"
	"skiff.dev/skiff/internal/scheduler/preempt"
	"skiff.dev/skiff/internal/scheduler/queue"
	"skiff.dev/skiff/internal/scheduler/volume"
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
		out.State, out.Message = explain.Done, over(p)
	case !l.ours(p):
		out.State, out.Message = explain.Foreign, fmt.Sprintf("its schedulerName is %q, and this scheduler places only pods of %s; unless another program places it, it stays without a node",
			p.Spec.SchedulerName, strings.Join(slices.Sorted(maps.Keys(l.cfg.Settings.Profiles)), ", "))
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

// over says why a pod needs no node.
func over(p *corev1.Pod) string {
	if p.DeletionTimestamp != nil {
		return "it is being deleted and gets no node any more"
	}
	return fmt.Sprintf("it is over (%s) and needs no node", p.Status.Phase)
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
		out.Nearest = why + l.unserved(p.Pod) // no node is of use until that is settled
	} else {
		c := l.classes.Of(p)
		l.verdicts(out, p, c)
		if g == nil || !g.Gang() {
			out.Preemption = l.couldPreempt(p, c, held, out.Feasible)
		} else {
			out.Preemption = &explain.Preemption{Why: "pods of a gang make nobody give way; " + g.There()}
		}
		if out.Feasible > 0 && g != nil && g.Gang() {
			out.Nearest = fmt.Sprintf("%s for this pod by itself; it waits until all %d that its gang needs at least have one at the same time", fitting(out.Feasible), g.Least())
		} else if out.Feasible > 0 && len(l.wanted(p.Pod)) > 0 {
			out.Nearest = fitting(out.Feasible) + " as far as this scheduler knows; extenders have a say, too, and are not asked here"
		}
	}
	if held >= 0 {
		l.nominate(p, l.nodes.Name(held))
	}
}

// unserved names the claims of a pod that have no volume yet and would not get one by its having a node.
func (l *loop) unserved(p *corev1.Pod) string {
	var list []string
	for i := range p.Spec.Volumes {
		var claim corev1.PersistentVolumeClaim
		name := api.ClaimName(p, &p.Spec.Volumes[i])
		if name == "" || l.cfg.Client.Get(context.Background(), crclient.ObjectKey{Namespace: p.Namespace, Name: name}, &claim) != nil || volume.Bound(&claim) {
			continue
		}
		class := ""
		if claim.Spec.StorageClassName != nil {
			class = *claim.Spec.StorageClassName
		}
		list = append(list, fmt.Sprintf("%s (class %q) is %s", name, class, cmp.Or(string(claim.Status.Phase), "new")))
	}
	if len(list) == 0 {
		return ""
	}
	return ": " + strings.Join(list, ", ") + "; 'kubectl describe pvc' says what its provisioner says"
}

func fitting(nodes int) string {
	if nodes == 1 {
		return "1 node would do"
	}
	return fmt.Sprintf("%d nodes would do", nodes)
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
		switch {
		case l.need == nil:
		case f.Refusal == nil:
			var claims []device.Claimed
			f, claims = l.claimFinding(node)
			options = append(options, option{node: i, preferred: l.need.Preferred(claims)})
		case f.Only:
			if devices, _ := l.claimFinding(node); devices.Refusal != nil {
				f.Only, f.All = false, append(f.All, devices.Plugin)
			}
		}
		if f.Refusal == nil {
			one.Fits = true
			out.Feasible++
		} else {
			one.Plugin, one.Reasons, one.Detail, one.Final, one.More = f.Plugin, f.Reasons, f.Detail, f.Final, f.More
			for _, culprit := range f.Pods {
				one.Pods = append(one.Pods, culprit.Namespace+"/"+culprit.Name)
			}
			lacks := filter.Lacks(p, l.nodes, i)
			one.miss = missOf(&f, lacks, node)
			one.Lacks = l.lacks(lacks, i)
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
	if len(list) == 0 || out.Feasible > 0 {
		return
	}
	switch first := &list[0]; {
	case l.unknown(p) != "":
		out.Nearest = "the pod may go only to " + l.unknown(p) + ", and there is no such node"
	case first.distance >= unreachable:
	case first.distance >= tooSmall:
		out.Nearest = fmt.Sprintf("no node is large enough, even empty: %s, the nearest to it, %s", first.Name, first.what)
	case first.distance >= several:
		out.Nearest = fmt.Sprintf("no single change would do; least is in the way on %s: %s", first.Name, first.what)
	default:
		out.Nearest = fmt.Sprintf("fits on %s if %s", first.Name, first.what)
	}
}

// unknown are the nodes that a pod names, none of which is there; "" if one is, or it names none.
func (l *loop) unknown(p *cluster.Pod) string {
	names, _ := filter.Named(p)
	for _, name := range names {
		if i, known := l.nodes.Index(name); known && l.nodes.Node[i] != nil {
			return ""
		}
	}
	return strings.Join(names, ", ")
}

// claimFinding is why a node won't do for the claims of the pod in hand, or what they get there.
func (l *loop) claimFinding(node *corev1.Node) (f class.Finding, claims []device.Claimed) {
	claims, reason, err := l.devices.On(l.need, node)
	if err != nil {
		reason = err.Error()
	}
	if reason != "" {
		f.Plugin, f.Refusal, f.Detail, f.Only = "DynamicResources", &filter.Refusal{Reasons: []string{reason}}, l.devices.Detail(l.need, node), true
	}
	return f, claims
}

// miss is how far a node is from taking a pod: something to be freed, something about the node to be changed, several such things, or out of reach.
type miss struct {
	distance float64
	what     string
}

// Distances, with which such nodes begin.
const (
	several     = 1e4
	tooSmall    = 1e6 // for the pod, even if empty
	unreachable = 1e9
)

// missOf measures what is missing in shares of the node, so that 200m of 4 CPUs is nearer than 1Gi of 2Gi.
func missOf(f *class.Finding, lacks []filter.Lack, node *corev1.Node) miss {
	for k := range lacks {
		if l := &lacks[k]; l.Asked > l.Allocatable {
			return miss{tooSmall + min(float64(l.Asked)/max(float64(l.Allocatable), 1e-3), tooSmall), smaller(l)}
		}
	}
	switch {
	case len(f.All) > 1:
		return miss{several + float64(len(f.All)), strings.Join(f.All, ", ")}
	case !f.Only:
		return miss{unreachable, ""}
	case f.Plugin == "NodeResourcesFit":
		return missingRoom(lacks)
	case f.Plugin == "NodePorts":
		return miss{50, "the host port were free (" + f.Detail + ")"}
	case f.Plugin == "InterPodAffinity" && len(f.Pods) > 0:
		what := "these pods were not there: " + names(f.Pods)
		if f.More {
			what += " and more"
		}
		return miss{60, what}
	case f.Plugin == "PodTopologySpread":
		return miss{65, "its topology spread constraint let one more in (" + f.Detail + ")"}
	case f.Plugin == "DynamicResources":
		return miss{70, "devices for its claims were free (" + f.Detail + ")"}
	case f.Plugin == "InterPodAffinity":
		return miss{75, "a pod that it must be with ran there (" + f.Detail + ")"}
	case f.Plugin == "NodeVolumeLimits":
		return miss{80, "its CSI drivers could attach the volumes (" + f.Detail + ")"}
	case f.Plugin == "VolumeRestrictions" && f.Detail != "":
		return miss{90, "another pod gave its volume back (" + f.Detail + ")"}
	case f.Plugin == "NodeUnschedulable":
		return miss{100, "it were not cordoned"}
	case f.Plugin == "TaintToleration":
		return miss{200 + float64(len(node.Spec.Taints)), "its taint were tolerated (" + strings.TrimPrefix(f.Detail, "not tolerated: ") + ")"}
	case f.Plugin == "NodeAffinity" && f.Detail != "":
		return miss{250, "its labels were those that the pod wants (" + f.Detail + ")"}
	case f.Plugin == "VolumeBinding" && strings.HasPrefix(f.Detail, "volume "):
		return miss{310, "its volume could be reached from there (" + f.Detail + ")"}
	case f.Plugin == "VolumeBinding" && f.Detail != "":
		return miss{300, "there were a volume (" + f.Detail + ")"}
	}
	return miss{unreachable, ""}
}

// missingRoom is how much more of a node would have to be free.
func missingRoom(lacks []filter.Lack) miss {
	far, parts := 0.0, make([]string, 0, len(lacks))
	for _, lack := range lacks {
		missing := lack.Asked - lack.Free
		far += float64(missing) / float64(lack.Allocatable)
		parts = append(parts, quantity(lack.Name, missing)+" "+noun(lack.Name))
	}
	if len(lacks) == 1 && lacks[0].Name == corev1.ResourcePods && lacks[0].Asked-lacks[0].Free == 1 {
		return miss{far, "one pod fewer were there"}
	}
	return miss{far, strings.Join(parts, " and ") + " were free"}
}

// smaller says of a node that it is too small for a pod.
func smaller(lack *filter.Lack) string {
	if lack.Allocatable == 0 {
		return fmt.Sprintf("has no %s, and the pod asks for %s", noun(lack.Name), quantity(lack.Name, lack.Asked))
	}
	return fmt.Sprintf("has %s %s in all, and the pod asks for %s", quantity(lack.Name, lack.Allocatable), noun(lack.Name), quantity(lack.Name, lack.Asked))
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
			TooSmall: lack.Asked > lack.Allocatable,
		})
	}
	return out
}

// users are the pods of a node that have most of a resource. There may be many of both, so they are not sorted for that.
func (l *loop) users(r corev1.ResourceName, i int) (out []explain.User) {
	if r == corev1.ResourcePods {
		return nil
	}
	var most []*cluster.Pod
	for _, p := range l.nodes.On[i] {
		q := requested(p, r)
		if q == 0 {
			continue
		}
		at := len(most)
		for at > 0 && cmp.Or(cmp.Compare(requested(most[at-1], r), q), cmp.Compare(p.Name, most[at-1].Name)) < 0 {
			at--
		}
		if at < users {
			most = slices.Insert(most, at, p)[:min(len(most)+1, users)]
		}
	}
	for _, p := range most {
		out = append(out, explain.User{Pod: p.Namespace + "/" + p.Name, Quantity: quantity(r, requested(p, r)), Waiting: l.nominated[p.UID] != nil})
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
		out := &explain.Preemption{Node: l.nodes.Name(held), Waiting: true}
		for _, v := range l.nodes.On[held] {
			if v.DeletionTimestamp != nil {
				out.Victims = append(out.Victims, v.Namespace+"/"+v.Name)
			}
		}
		return out
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
