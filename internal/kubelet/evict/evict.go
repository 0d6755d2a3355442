// Package evict decides which pods must go when their node is short of something, or when they have taken more of its disk than they may.
//
// It is pure, but for measuring directories: figures in, a pod and the reason out. Order and words are those of upstream's kubelet, which the
// condition and the messages are read by. Package kubelet measures, asks, and ends the pods.
package evict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	helpers "k8s.io/component-helpers/scheduling/corev1"

	"skiff.dev/skiff/internal/api"
)

// Signal is something that a node may be short of.
type Signal string

const (
	Memory    Signal = "memory.available"
	Disk      Signal = "nodefs.available"
	Inodes    Signal = "nodefs.inodesFree"
	Processes Signal = "pid.available"
)

// Condition of the node that a shortage is told by.
func (s Signal) Condition() corev1.NodeConditionType {
	switch s {
	case Memory:
		return corev1.NodeMemoryPressure
	case Processes:
		return corev1.NodePIDPressure
	}
	return corev1.NodeDiskPressure
}

// Resource is what the messages call it.
func (s Signal) Resource() corev1.ResourceName {
	switch s {
	case Memory:
		return corev1.ResourceMemory
	case Disk:
		return corev1.ResourceEphemeralStorage
	case Inodes:
		return "inodes"
	}
	return "pids"
}

// Usage is what a pod uses of its node.
type Usage struct {
	Pod        *corev1.Pod
	Memory     int64 // working set
	Processes  int64
	Inodes     int64
	Containers map[string]Container
	Volumes    map[string]int64 // bytes in emptyDirs on disk
}

// Container is what one of a pod's containers uses.
type Container struct{ Memory, Disk int64 } // Disk: writable layer and logs

// Disk that a pod uses.
func (u *Usage) Disk() (sum int64) {
	for _, c := range u.Containers {
		sum += c.Disk
	}
	for _, bytes := range u.Volumes {
		sum += bytes
	}
	return sum
}

func (u *Usage) of(s Signal) int64 {
	switch s {
	case Memory:
		return u.Memory
	case Disk:
		return u.Disk()
	case Inodes:
		return u.Inodes
	}
	return u.Processes
}

// Critical pods are never evicted: without them the node is of no use.
func Critical(pod *corev1.Pod) bool {
	return helpers.PodPriority(pod) >= api.ClusterCriticalPriority
}

// Victim is the pod to go first, nil if none may: one that uses more than it requested, of the least priority, by the most.
func Victim(s Signal, pods []Usage) *Usage {
	var first *Usage
	for i := range pods {
		if u := &pods[i]; !Critical(u.Pod) && (first == nil || before(s, u, first)) {
			first = u
		}
	}
	return first
}

func before(s Signal, a, b *Usage) bool {
	x, y := a.beyond(s), b.beyond(s)
	if s != Processes && (x > 0) != (y > 0) {
		return x > 0
	}
	return cmp.Or(cmp.Compare(helpers.PodPriority(a.Pod), helpers.PodPriority(b.Pod)), cmp.Compare(y, x)) < 0
}

// beyond is how much more a pod uses than it requested.
func (u *Usage) beyond(s Signal) int64 {
	requests := resourcehelper.PodRequests(u.Pod, resourcehelper.PodResourcesOptions{})
	request := requests[s.Resource()]
	return u.of(s) - request.Value()
}

// Message says why a pod goes.
func Message(l Level, u *Usage) string {
	name := l.Signal.Resource()
	out := []string{fmt.Sprintf("The node was low on resource: %s. Threshold quantity: %s, available: %s.", name, show(l.Least, name), show(max(l.Available, 0), name))}
	for i := range u.Pod.Spec.Containers {
		c := &u.Pod.Spec.Containers[i]
		used := u.Containers[c.Name].Memory
		if l.Signal == Disk {
			used = u.Containers[c.Name].Disk
		} else if l.Signal != Memory {
			continue
		}
		if request := c.Resources.Requests[name]; used > request.Value() {
			out = append(out, fmt.Sprintf("Container %s was using %s, request is %s, has larger consumption of %s.", c.Name, show(used, name), request.String(), name))
		}
	}
	return strings.Join(out, " ")
}

func show(n int64, name corev1.ResourceName) string {
	format := resource.BinarySI
	if name != corev1.ResourceMemory && name != corev1.ResourceEphemeralStorage {
		format = resource.DecimalSI
	} else if n > 1<<20 {
		n = n >> 10 << 10 // shown in Ki
	}
	return resource.NewQuantity(n, format).String()
}

// Refuse says why a node under pressure takes no such pod; empty if it does. Short of memory, it takes those that requested some.
func Refuse(pod *corev1.Pod, class corev1.PodQOSClass, pressed []corev1.NodeConditionType) string {
	if len(pressed) == 0 || Critical(pod) {
		return ""
	}
	if !slices.ContainsFunc(pressed, func(c corev1.NodeConditionType) bool { return c != corev1.NodeMemoryPressure }) {
		tolerated := slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool {
			return (t.Key == corev1.TaintNodeMemoryPressure || t.Key == "" && t.Operator == corev1.TolerationOpExists) && (t.Effect == "" || t.Effect == corev1.TaintEffectNoSchedule)
		})
		if tolerated || class != corev1.PodQOSBestEffort {
			return ""
		}
	}
	return fmt.Sprintf("The node had condition: %v. ", pressed)
}
