package pod

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skiff.dev/skiff/internal/kubelet/cgroup"
)

// A resize in place (KEP-1287) has two steps. First the node allocates what the spec asks for, if it has it; until then the pod lives on
// with what it was given, whatever its spec says. Then the containers that run get it, or begin anew where their policy says so. The
// status in the API tells what is allocated, and is what a kubelet that starts again goes by.

// whole is the name that no container has: under it a pod's resources as a whole are kept.
const whole = ""

var resizable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// Resize is how far the resize of a pod has come.
type Resize struct {
	Reason, Message string // why what the spec asks for is not allocated; "" if it is
	Pending         int64  // generation that is not allocated
	Generation      int64  // generation that is allocated, but not yet with all containers; 0 if it is
	Failure         string // why the last try to give it to them failed
}

// Size is what the runtime can change of a running container; zero for no limit.
type Size struct{ Shares, Quota, Memory int64 }

// sizeOf a container: what it has no limit of is limited as the pod is, if the pod is as a whole (KEP-2837).
func sizeOf(pod *corev1.Pod, c *corev1.Container) Size {
	limits := func(name corev1.ResourceName) *resource.Quantity {
		q, own := c.Resources.Limits[name]
		if (!own || q.IsZero()) && pod.Spec.Resources != nil {
			q = pod.Spec.Resources.Limits[name]
		}
		return &q
	}
	request, limit := c.Resources.Requests.Cpu().MilliValue(), limits(corev1.ResourceCPU).MilliValue()
	if request == 0 {
		request = c.Resources.Limits.Cpu().MilliValue()
	}
	return Size{int64(cgroup.Shares(request)), cgroup.Quota(limit), limits(corev1.ResourceMemory).Value()}
}

func sizeFrom(r *runtimeapi.LinuxContainerResources) *Size {
	if r == nil {
		return nil
	}
	return &Size{r.CpuShares, max(r.CpuQuota, 0), max(r.MemoryLimitInBytes, 0)}
}

// unsized: the container runs with another size than it should have. What the runtime was told once it isn't told again.
func unsized(pod *corev1.Pod, c *corev1.Container, last *Container, s *State) bool {
	if !last.Running() || last.Size == nil {
		return false
	}
	want := sizeOf(pod, c)
	told, ok := s.Sized[last.ID]
	return *last.Size != want && (!ok || told != want)
}

// resizeRestarts: the change is of a resource that the container wants to begin anew for.
func resizeRestarts(pod *corev1.Pod, c *corev1.Container, was Size) bool {
	want := sizeOf(pod, c)
	for _, p := range c.ResizePolicy {
		changed := p.ResourceName == corev1.ResourceCPU && (was.Shares != want.Shares || was.Quota != want.Quota) ||
			p.ResourceName == corev1.ResourceMemory && was.Memory != want.Memory
		if changed && p.RestartPolicy == corev1.RestartContainer {
			return true
		}
	}
	return false
}

// sizable are the containers a resize can reach: all but ephemeral ones.
func sizable(pod *corev1.Pod) (out []*corev1.Container) {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			out = append(out, &list[i])
		}
	}
	return out
}

// resizing: some container has not got what is allocated to it.
func resizing(pod *corev1.Pod, s *State) bool {
	return slices.ContainsFunc(sizable(pod), func(c *corev1.Container) bool {
		last, _ := s.newest(c.Name)
		return unsized(pod, c, last, s)
	})
}

// resize plans what is left to do of a resize.
func (p *planner) resize() {
	if p.s.Resize.Generation != 0 || resizing(p.pod, p.s) {
		p.do(Action{Verb: Actuate})
	}
}

// allocatedOf is what a pod was given: what the actor remembers, else what the status says.
func allocatedOf(pod *corev1.Pod, s *State, c *corev1.Container, list []corev1.ContainerStatus) corev1.ResourceRequirements {
	if r, ok := s.Allocated[c.Name]; ok {
		return r
	}
	for i := range list {
		if cs := &list[i]; cs.Name == c.Name && cs.ContainerID != "" && cs.Resources != nil {
			return corev1.ResourceRequirements{Requests: cs.AllocatedResources, Limits: cs.Resources.Limits}
		}
	}
	return c.Resources
}

// wholeAllocated is what a pod was given as a whole. Where only the status tells it, the sums of what containers have do as well.
func wholeAllocated(pod *corev1.Pod, s *State) corev1.ResourceRequirements {
	r, known := s.Allocated[whole]
	switch {
	case known:
		return r
	case pod.Status.Resources != nil:
		return corev1.ResourceRequirements{Requests: pod.Status.AllocatedResources, Limits: pod.Status.Resources.Limits}
	}
	return *pod.Spec.Resources
}

// withAllocated is the pod with what it was given in place of what its spec asks for; the pod itself if that is the same.
func withAllocated(pod *corev1.Pod, s *State) *corev1.Pod {
	var out *corev1.Pod
	each := func(list []corev1.Container, statuses []corev1.ContainerStatus, at func(*corev1.Pod) []corev1.Container) {
		for i := range list {
			given := allocatedOf(pod, s, &list[i], statuses)
			if sameResources(&given, &list[i].Resources) {
				continue
			}
			if out == nil {
				out = pod.DeepCopy()
			}
			r := &at(out)[i].Resources
			r.Requests, r.Limits = laid(r.Requests, given.Requests), laid(r.Limits, given.Limits)
		}
	}
	each(pod.Spec.InitContainers, pod.Status.InitContainerStatuses, func(p *corev1.Pod) []corev1.Container { return p.Spec.InitContainers })
	each(pod.Spec.Containers, pod.Status.ContainerStatuses, func(p *corev1.Pod) []corev1.Container { return p.Spec.Containers })
	if asked := pod.Spec.Resources; asked != nil {
		given := wholeAllocated(pod, s)
		r := corev1.ResourceRequirements{Requests: named(asked.Requests, given.Requests), Limits: named(asked.Limits, given.Limits)}
		if !sameResources(&r, asked) {
			if out == nil {
				out = pod.DeepCopy()
			}
			out.Spec.Resources.Requests, out.Spec.Resources.Limits = r.Requests, r.Limits
		}
	}
	if out == nil {
		return pod
	}
	return out
}

func sameResources(a, b *corev1.ResourceRequirements) bool {
	for _, name := range resizable {
		for _, pair := range [][2]corev1.ResourceList{{a.Requests, b.Requests}, {a.Limits, b.Limits}} {
			x, y := pair[0][name], pair[1][name]
			if x.Cmp(y) != 0 {
				return false
			}
		}
	}
	return true
}

// laid is a list with the resizable resources of another.
func laid(list, given corev1.ResourceList) corev1.ResourceList {
	out := list.DeepCopy()
	for _, name := range resizable {
		delete(out, name)
		if q, ok := given[name]; ok {
			if out == nil {
				out = corev1.ResourceList{}
			}
			out[name] = q.DeepCopy()
		}
	}
	return out
}

// named is a list with another's amounts of the resizable resources it names.
func named(list, given corev1.ResourceList) corev1.ResourceList {
	out := laid(list, given)
	maps.DeleteFunc(out, func(name corev1.ResourceName, _ resource.Quantity) bool { _, asked := list[name]; return !asked })
	return out
}

// fits says why a node cannot give a pod what it asks for; reason is "" if it can.
func fits(pod *corev1.Pod, others []*corev1.Pod, allocatable corev1.ResourceList) (reason, message string) {
	amount := func(l corev1.ResourceList, name corev1.ResourceName) int64 {
		q := l[name]
		if name == corev1.ResourceCPU {
			return q.MilliValue()
		}
		return q.Value()
	}
	wants := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	for _, name := range resizable {
		if want, has := amount(wants, name), amount(allocatable, name); want > has {
			return corev1.PodReasonInfeasible, fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, want, has)
		}
	}
	used := map[corev1.ResourceName]int64{}
	for _, o := range others {
		if o.UID == pod.UID || isTerminal(o.Status.Phase) {
			continue
		}
		takes := resourcehelper.PodRequests(o, resourcehelper.PodResourcesOptions{})
		for _, name := range resizable {
			used[name] += amount(takes, name)
		}
	}
	for _, name := range resizable {
		if want, has := amount(wants, name), amount(allocatable, name); want > has-used[name] {
			return corev1.PodReasonDeferred, fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, want, used[name], has)
		}
	}
	return "", ""
}

const deferredRetry = 10 * time.Second

// allocate gives a pod what its spec asks for, if the node has it. The pod it returns is the one to go by; again is when to ask again.
func (a *Actor) allocate(pod *corev1.Pod, now time.Time) (given *corev1.Pod, again time.Time) {
	r := &a.s.Resize
	if len(a.s.Allocated) == 0 {
		r.Generation = underWay(pod)
	}
	given = withAllocated(pod, &a.s)
	if given == pod || isTerminal(pod.Status.Phase) || pod.DeletionTimestamp != nil {
		r.Reason, r.Message, r.Pending = "", "", 0
		a.remember(given)
		return given, time.Time{}
	}
	a.d.Allocating.Lock()
	defer a.d.Allocating.Unlock()
	reason, message := fits(pod, a.d.Others(), a.d.Allocatable())
	if reason != "" {
		if r.Reason != reason || r.Pending != pod.Generation {
			a.event(pod, "", corev1.EventTypeWarning, "Resize"+reason, resizeMessage(pod, message))
		}
		r.Reason, r.Message, r.Pending = reason, message, pod.Generation
		a.remember(given)
		return given, now.Add(deferredRetry)
	}
	*r = Resize{Generation: pod.Generation}
	a.remember(pod)
	a.mu.Lock()
	a.view.Pod = pod // others count it from now on
	a.mu.Unlock()
	a.event(pod, "", corev1.EventTypeNormal, "ResizeStarted", resizeMessage(pod, ""))
	return pod, time.Time{}
}

// underWay is the generation whose resize a former kubelet had begun; 0 if none.
func underWay(pod *corev1.Pod) int64 {
	i := slices.IndexFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodResizeInProgress })
	if i < 0 {
		return 0
	}
	return pod.Status.Conditions[i].ObservedGeneration
}

func (a *Actor) remember(pod *corev1.Pod) {
	a.s.Allocated[whole] = corev1.ResourceRequirements{}
	if pod.Spec.Resources != nil {
		a.s.Allocated[whole] = *pod.Spec.Resources
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			a.s.Allocated[list[i].Name] = list[i].Resources
		}
	}
}

// resizeMessage tells in an event what is asked for, and why it cannot be had.
func resizeMessage(pod *corev1.Pod, failure string) string {
	type sized struct {
		Name      string                      `json:"name"`
		Resources corev1.ResourceRequirements `json:"resources"`
	}
	about := struct {
		InitContainers []sized                      `json:"initContainers,omitempty"`
		Containers     []sized                      `json:"containers,omitempty"`
		Resources      *corev1.ResourceRequirements `json:"resources,omitempty"`
		Generation     int64                        `json:"generation"`
		Error          string                       `json:"error,omitempty"`
	}{Resources: pod.Spec.Resources, Generation: pod.Generation, Error: failure}
	for i := range pod.Spec.InitContainers {
		about.InitContainers = append(about.InitContainers, sized{pod.Spec.InitContainers[i].Name, pod.Spec.InitContainers[i].Resources})
	}
	for i := range pod.Spec.Containers {
		about.Containers = append(about.Containers, sized{pod.Spec.Containers[i].Name, pod.Spec.Containers[i].Resources})
	}
	text, _ := json.Marshal(about) // plain values
	return "Pod resize: " + string(text)
}

// size gives running containers what is allocated to them: the pod's cgroup grows first and shrinks last, and what containers give
// back comes before what others take.
func (a *Actor) size(ctx context.Context, pod *corev1.Pod, s *State) (map[string]Size, error) {
	class, told := cgroup.Class(pod), map[string]Size{}
	if err := a.d.Cgroups.Grow(a.uid, class, cgroup.PodLimits(pod)); err != nil {
		return told, err
	}
	for _, shrinking := range []bool{true, false} {
		for _, c := range sizable(pod) {
			last, _ := s.newest(c.Name)
			if !unsized(pod, c, last, s) || shrinks(last, sizeOf(pod, c)) != shrinking || resizeRestarts(pod, c, *last.Size) {
				continue
			}
			if err := a.sizeContainer(ctx, class, last, sizeOf(pod, c)); err != nil {
				return told, fmt.Errorf("resize container %s: %w", c.Name, err)
			}
			told[last.ID] = sizeOf(pod, c)
		}
	}
	if slices.ContainsFunc(sizable(pod), func(c *corev1.Container) bool {
		last, _ := s.newest(c.Name)
		return unsized(pod, c, last, s) && resizeRestarts(pod, c, *last.Size)
	}) {
		return told, nil // the former size is in use until they have ended
	}
	return told, a.d.Cgroups.Create(a.uid, class, cgroup.PodLimits(pod))
}

func shrinks(c *Container, want Size) bool {
	return want.Memory != 0 && c.Size.Memory > want.Memory || want.Quota != 0 && c.Size.Quota > want.Quota
}

func (a *Actor) sizeContainer(ctx context.Context, class corev1.PodQOSClass, c *Container, want Size) error {
	if c.Size.Memory > want.Memory && want.Memory != 0 {
		if used := a.d.Cgroups.MemoryUsed(a.uid, class, c.ID); used > want.Memory {
			return fmt.Errorf("attempting to set memory limit (%d) below current usage (%d)", want.Memory, used)
		}
	}
	r := &runtimeapi.LinuxContainerResources{CpuShares: want.Shares, CpuQuota: want.Quota, MemoryLimitInBytes: want.Memory}
	if want.Quota != 0 {
		r.CpuPeriod = cgroup.Period
	}
	_, err := a.d.Runtime.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{ContainerId: c.ID, Linux: r})
	return err
}

// sizeAction carries size out beside the actor.
func (a *Actor) sizeAction(ctx context.Context, pod *corev1.Pod, action Action) {
	key, seen := action.Key(), State{Observed: a.s.Observed, Sized: map[string]Size{}}
	for id, s := range a.s.Sized {
		seen.Sized[id] = s
	}
	a.launch(ctx, key, func(ctx context.Context) func(*State) {
		told, err := a.size(ctx, pod, &seen)
		return func(s *State) {
			a.dirty = true
			for id, size := range told {
				s.Sized[id] = size
			}
			if err != nil && ctx.Err() == nil {
				if s.Resize.Failure != plain(err) {
					a.event(pod, "", corev1.EventTypeWarning, "ResizeError", resizeMessage(pod, plain(err)))
				}
				s.Resize.Failure = plain(err)
				a.failed(pod, s, action, err)
				return
			}
			delete(a.delays, key)
			delete(s.Retry, key)
			s.Resize.Failure = ""
			if resizing(pod, s) {
				s.Retry[key] = time.Now().Add(time.Second) // containers that begin anew have to end first
			} else if s.Resize.Generation != 0 && s.Resize.Generation <= pod.Generation {
				s.Resize.Generation = 0
				a.event(pod, "", corev1.EventTypeNormal, "ResizeCompleted", resizeMessage(pod, ""))
			}
		}
	})
}

// resources tells what the pod was given as a whole, and what it has of that (KEP-5419).
func (b *statusBuilder) resources(st *corev1.PodStatus) {
	st.AllocatedResources = resourcehelper.PodRequests(b.pod, resourcehelper.PodResourcesOptions{})
	if len(st.AllocatedResources) == 0 {
		st.AllocatedResources = nil
	}
	if b.s.Resize.Generation == 0 || st.Resources == nil {
		st.Resources = &corev1.ResourceRequirements{Requests: st.AllocatedResources, Limits: cgroup.Ceilings(b.pod)}
	}
}

// resizeConditions tells how far a resize has come; there are none when it is done.
func (b *statusBuilder) resizeConditions(st *corev1.PodStatus, now metav1.Time) {
	r := b.s.Resize
	tell := func(kind corev1.PodConditionType, is bool, reason, message string, generation int64) {
		i := slices.IndexFunc(st.Conditions, func(c corev1.PodCondition) bool { return c.Type == kind })
		switch {
		case !is && i >= 0:
			st.Conditions = slices.Delete(st.Conditions, i, i+1)
		case is && i < 0:
			st.Conditions = append(st.Conditions, corev1.PodCondition{Type: kind, LastTransitionTime: now})
			i = len(st.Conditions) - 1
		}
		if is {
			c := &st.Conditions[i]
			c.Status, c.Reason, c.Message, c.ObservedGeneration = corev1.ConditionTrue, reason, message, generation
		}
	}
	over := isTerminal(st.Phase)
	tell(corev1.PodResizePending, r.Reason != "" && !over, r.Reason, r.Message, r.Pending)
	reason := ""
	if r.Failure != "" {
		reason = corev1.PodReasonError
	}
	tell(corev1.PodResizeInProgress, r.Generation != 0 && !over, reason, r.Failure, r.Generation)
}
