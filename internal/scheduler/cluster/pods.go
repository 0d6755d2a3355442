package cluster

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	resourcehelper "k8s.io/component-helpers/resource"
)

type resourceQuantity = resource.Quantity

// What a container that requests nothing is guessed to use when nodes are compared (not when they are filtered), as upstream.
var guess = corev1.ResourceList{
	corev1.ResourceCPU:    *resource.NewMilliQuantity(100, resource.DecimalSI),
	corev1.ResourceMemory: *resource.NewQuantity(200<<20, resource.BinarySI),
}

// Pod is what the scheduler needs to know of a pod, computed once.
type Pod struct {
	*corev1.Pod
	Requests [Basic]int64
	Estimate [Memory + 1]int64
	Extended map[corev1.ResourceName]int64 // nil for most
	Ports    []Port
	Owner    types.UID // its controller; "" if none
}

// Port is a host port in use. An empty IP is every address.
type Port struct {
	IP       string
	Protocol corev1.Protocol
	Number   int32
}

// PodOf sums a pod's requests: the larger of what its containers need together and what each init container needs while it runs, sidecars
// counted with both, and overhead on top.
func PodOf(p *corev1.Pod) *Pod {
	info := &Pod{Pod: p}
	options := resourcehelper.PodResourcesOptions{UseStatusResources: true, InPlacePodLevelResourcesVerticalScalingEnabled: true}
	for name, q := range resourcehelper.PodRequests(p, options) {
		switch name {
		case corev1.ResourceCPU:
			info.Requests[CPU] = q.MilliValue()
		case corev1.ResourceMemory:
			info.Requests[Memory] = q.Value()
		case corev1.ResourceEphemeralStorage:
			info.Requests[Ephemeral] = q.Value()
		default:
			if info.Extended == nil {
				info.Extended = map[corev1.ResourceName]int64{}
			}
			info.Extended[name] = q.Value()
		}
	}
	info.Requests[Pods] = 1
	options.NonMissingContainerRequests = guess
	estimated := resourcehelper.PodRequests(p, options)
	info.Estimate = [Memory + 1]int64{estimated.Cpu().MilliValue(), estimated.Memory().Value()}
	info.Ports = hostPorts(p)
	if ref := metav1.GetControllerOfNoCopy(p); ref != nil {
		info.Owner = ref.UID
	}
	return info
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
	n.sum(p, i, 1)
}

// Displace takes a pod out and says whether it was in.
func (n *Nodes) Displace(uid types.UID) bool {
	at, ok := n.book[uid]
	if !ok {
		return false
	}
	delete(n.book, uid)
	n.sum(at.pod, at.node, -1)
	if n.Node[at.node] == nil && n.Requested[Pods][at.node] == 0 {
		for name, i := range n.index {
			if i == at.node {
				n.release(i, name)
				break
			}
		}
	}
	return true
}

// Where says on which node a pod is.
func (n *Nodes) Where(uid types.UID) (node int, ok bool) {
	at, ok := n.book[uid]
	return at.node, ok
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
	for _, port := range p.Ports {
		if n.Ports[i] == nil {
			n.Ports[i] = map[Port]int{}
		}
		if n.Ports[i][port] += int(sign); n.Ports[i][port] <= 0 {
			delete(n.Ports[i], port)
		}
	}
	if p.Owner == "" {
		return
	}
	together := n.owners[p.Owner]
	if together == nil {
		together = map[int]int{}
		n.owners[p.Owner] = together
	}
	if together[i] += int(sign); together[i] <= 0 {
		delete(together, i)
	}
	if len(together) == 0 {
		delete(n.owners, p.Owner)
	}
}

// Together is how many pods of an owner are on each node; nodes without any are missing.
func (n *Nodes) Together(owner types.UID) map[int]int {
	if owner == "" {
		return nil
	}
	return n.owners[owner]
}
