package cluster

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
	helpers "k8s.io/component-helpers/scheduling/corev1"

	"skiff.dev/skiff/internal/scheduler/device"
	"skiff.dev/skiff/internal/scheduler/profile"
)

type resourceQuantity = resource.Quantity

// What a container that requests nothing is guessed to use when nodes are compared (not when they are filtered), as upstream.
const (
	guessCPU    = 100
	guessMemory = 200 << 20
)

var guess = corev1.ResourceList{
	corev1.ResourceCPU:    *resource.NewMilliQuantity(guessCPU, resource.DecimalSI),
	corev1.ResourceMemory: *resource.NewQuantity(guessMemory, resource.BinarySI),
}

// Pod is what the scheduler needs to know of a pod, computed once.
type Pod struct {
	*corev1.Pod
	Requests [Basic]int64
	Estimate [Memory + 1]int64
	Extended map[corev1.ResourceName]int64 // nil for most
	Ports    []Port
	Rules    []Rule   // about other pods
	Features []string // that its node must declare; nil for most
	Priority int32
	Expected bool     // its status tells where it is to be bound
	Volumes  *Volumes // nil for most

	Claims  []device.Claimed              // what its resource claims get on the node that was chosen
	Profile *profile.Profile              // nil for most
	Ignored map[corev1.ResourceName]int64 // extended resources that the profile has nodes not asked for; Extended has the others
	Backed  []corev1.ResourceName         // of both, what devices stand for on nodes that have none of it by a plug-in, in order; as of the last try

	set     *LabelSet // while it is placed
	terms   []*Term   // likewise
	entered *Volumes  // likewise
}

func (p *Pod) leaving() bool { return p.DeletionTimestamp != nil }

// Port is a host port in use. An empty IP is every address.
type Port struct {
	IP       string
	Protocol corev1.Protocol
	Number   int32
}

// PodOf sums a pod's requests: the larger of what its containers need together and what each init container needs while it runs, sidecars
// counted with both, and overhead on top.
func PodOf(p *corev1.Pod) *Pod {
	info := &Pod{Pod: p, Rules: rulesOf(p), Features: featuresOf(p), Priority: helpers.PodPriority(p)}
	if !info.sumPlain() {
		info.sumAll()
	}
	info.Requests[Pods] = 1
	info.Ports = hostPorts(p)
	return info
}

// Use has a pod scheduled by the rules of a profile.
func (p *Pod) Use(rules *profile.Profile) {
	p.Profile = rules
	for name, q := range p.Extended {
		if rules.Ignores(name) {
			if p.Ignored == nil {
				p.Ignored = map[corev1.ResourceName]int64{}
			}
			p.Ignored[name] = q
			delete(p.Extended, name)
		}
	}
}

// sumPlain adds up what nearly all pods are made of, CPU and memory of containers that run side by side and were not resized. It says
// false of all others.
func (p *Pod) sumPlain() bool {
	s := &p.Spec
	if len(s.InitContainers) > 0 || s.Overhead != nil || s.Resources != nil || len(p.Status.ContainerStatuses) > 0 {
		return false
	}
	p.Requests, p.Estimate = [Basic]int64{}, [Memory + 1]int64{}
	for i := range s.Containers {
		cpu, memory := int64(guessCPU), int64(guessMemory)
		for name, q := range s.Containers[i].Resources.Requests {
			switch name {
			case corev1.ResourceCPU:
				cpu = q.MilliValue()
				p.Requests[CPU] += cpu
			case corev1.ResourceMemory:
				memory = q.Value()
				p.Requests[Memory] += memory
			default:
				return false
			}
		}
		p.Estimate[CPU] += cpu
		p.Estimate[Memory] += memory
	}
	return true
}

// sumAll follows all the rules.
func (p *Pod) sumAll() {
	p.Requests = [Basic]int64{}
	options := resourcehelper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}
	requests := resourcehelper.PodRequests(p.Pod, options)
	for name, q := range requests {
		switch name {
		case corev1.ResourceCPU:
			p.Requests[CPU] = q.MilliValue()
		case corev1.ResourceMemory:
			p.Requests[Memory] = q.Value()
		case corev1.ResourceEphemeralStorage:
			p.Requests[Ephemeral] = q.Value()
		default:
			if p.Extended == nil {
				p.Extended = map[corev1.ResourceName]int64{}
			}
			p.Extended[name] = q.Value()
		}
	}
	options.NonMissingContainerRequests = guess
	if resourcehelper.IsPodLevelRequestsSet(p.Pod) { // what is asked for as a whole is no guess, and what is asked for by some containers counts as that
		options.NonMissingContainerRequests = corev1.ResourceList{}
		for name, q := range guess {
			if _, has := requests[name]; !has {
				options.NonMissingContainerRequests[name] = q
			}
		}
	}
	estimated := resourcehelper.PodRequests(p.Pod, options)
	p.Estimate = [Memory + 1]int64{estimated.Cpu().MilliValue(), estimated.Memory().Value()}
}

// hostPorts are those of containers and sidecars; a host-network pod's container ports were defaulted to host ports by the API.
func hostPorts(p *corev1.Pod) []Port {
	var ports []Port
	add := func(c *corev1.Container) {
		for _, cp := range c.Ports {
			if cp.HostPort <= 0 {
				continue
			}
			port := Port{IP: cp.HostIP, Protocol: cp.Protocol, Number: cp.HostPort}
			if port.IP == "0.0.0.0" {
				port.IP = ""
			}
			if port.Protocol == "" {
				port.Protocol = corev1.ProtocolTCP
			}
			ports = append(ports, port)
		}
	}
	for i := range p.Spec.Containers {
		add(&p.Spec.Containers[i])
	}
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return ports
}

// Place puts a pod on a node. A pod that is there already is only brought up to date; one that is elsewhere moves.
func (n *Nodes) Place(p *Pod, node string) {
	n.Displace(p.UID)
	i := n.slot(node)
	n.book[p.UID] = placed{p, i}
	n.On[i] = append(n.On[i], p)
	n.priorities[p.Priority]++
	n.sum(p, i, 1)
	n.enlist(p, i, 1)
	n.enter(p)
	n.note(i, false)
}

// Displace takes a pod out and says whether it was in.
func (n *Nodes) Displace(uid types.UID) bool {
	at, ok := n.book[uid]
	if !ok {
		return false
	}
	delete(n.book, uid)
	i := at.node
	last := len(n.On[i]) - 1
	n.On[i][slices.Index(n.On[i], at.pod)] = n.On[i][last]
	n.On[i][last] = nil
	n.On[i] = n.On[i][:last]
	if n.priorities[at.pod.Priority]--; n.priorities[at.pod.Priority] == 0 {
		delete(n.priorities, at.pod.Priority)
	}
	n.sum(at.pod, i, -1)
	n.enlist(at.pod, i, -1)
	n.leave(at.pod)
	n.note(i, false)
	n.release(i)
	return true
}

// Where says on which node a pod is.
func (n *Nodes) Where(uid types.UID) (node int, ok bool) {
	at, ok := n.book[uid]
	return at.node, ok
}

// Placed finds a placed pod.
func (n *Nodes) Placed(uid types.UID) *Pod { return n.book[uid].pod }

// Below says whether a pod of less priority is placed anywhere.
func (n *Nodes) Below(priority int32) bool {
	for p := range n.priorities {
		if p < priority {
			return true
		}
	}
	return false
}

func (n *Nodes) sum(p *Pod, i int, sign int64) {
	for r, q := range p.Requests {
		n.Requested[r][i] += sign * q
	}
	for r, q := range p.Estimate {
		n.Estimated[r][i] += sign * q
	}
	for name, q := range p.Extended {
		n.extended(name).Requested[i] += sign * q
	}
	for name, q := range p.Ignored {
		n.extended(name).Requested[i] += sign * q
	}
	for _, port := range p.Ports {
		if n.Ports[i] == nil {
			n.Ports[i] = map[Port]int{}
		}
		if n.Ports[i][port] += int(sign); n.Ports[i][port] <= 0 {
			delete(n.Ports[i], port)
		}
	}
}
