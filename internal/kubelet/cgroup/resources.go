package cgroup

import (
	"os"
	"runtime"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
)

const (
	minShares = 2
	maxShares = 262144
)

func numCPU() int { return runtime.NumCPU() }

// Shares is the CPU weight of a request, in cgroup v1's unit.
func Shares(milliCPU int64) uint64 {
	return uint64(min(max(milliCPU*1024/1000, minShares), maxShares))
}

// Quota is what a CPU limit allows in each Period, in microseconds; 0 for no limit.
func Quota(milliCPU int64) int64 {
	if milliCPU == 0 {
		return 0
	}
	return max(milliCPU*Period/1000, 1000)
}

// weight turns v1 shares [2, 262144] into v2 weight [1, 10000].
func weight(shares uint64) uint64 { return 1 + (shares-minShares)*9999/(maxShares-minShares) }

// Class is a pod's quality of service.
func Class(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	return class(pod)
}

func class(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Spec.Resources != nil && (len(pod.Spec.Resources.Requests) > 0 || len(pod.Spec.Resources.Limits) > 0) {
		return classOf([]corev1.ResourceRequirements{*pod.Spec.Resources})
	}
	var all []corev1.ResourceRequirements
	for i := range pod.Spec.InitContainers {
		all = append(all, pod.Spec.InitContainers[i].Resources)
	}
	for i := range pod.Spec.Containers {
		all = append(all, pod.Spec.Containers[i].Resources)
	}
	return classOf(all)
}

// classOf: no request or limit of CPU or memory anywhere is best effort; equal requests and limits of both everywhere is guaranteed.
func classOf(all []corev1.ResourceRequirements) corev1.PodQOSClass {
	some, guaranteed := false, true
	for _, r := range all {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := r.Requests[name], r.Limits[name]
			if !request.IsZero() || !limit.IsZero() {
				some = true
			}
			if limit.IsZero() || (!request.IsZero() && request.Cmp(limit) != 0) {
				guaranteed = false
			}
		}
	}
	switch {
	case !some:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// PodLimits are those of a pod's own cgroup: CPU weight by requests; ceilings only where every container has one.
func PodLimits(pod *corev1.Pod) Limits {
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	limits := resource.PodLimits(pod, resource.PodResourcesOptions{})
	l := Limits{CPUShares: minShares}
	if Class(pod) != corev1.PodQOSBestEffort {
		cpu := requests.Cpu().MilliValue()
		if cpu == 0 {
			cpu = limits.Cpu().MilliValue()
		}
		l.CPUShares = Shares(cpu)
	}
	if most := ceilings(pod, limits); most != nil {
		l.CPUQuota, l.Memory = Quota(most.Cpu().MilliValue()), most.Memory().Value()
	}
	return l
}

// Ceilings of a pod as a whole: of what it or every container has a limit of.
func Ceilings(pod *corev1.Pod) corev1.ResourceList {
	return ceilings(pod, resource.PodLimits(pod, resource.PodResourcesOptions{}))
}

func ceilings(pod *corev1.Pod, limits corev1.ResourceList) (out corev1.ResourceList) {
	for _, name := range [...]corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if !limited(pod, name) {
			continue
		}
		if out == nil {
			out = corev1.ResourceList{}
		}
		out[name] = limits[name]
	}
	return out
}

func limited(pod *corev1.Pod, name corev1.ResourceName) bool {
	if pod.Spec.Resources != nil {
		if q, ok := pod.Spec.Resources.Limits[name]; ok && !q.IsZero() {
			return true
		}
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if q := list[i].Resources.Limits[name]; q.IsZero() {
				return false
			}
		}
	}
	return true
}

// OOMScore is how readily the kernel should kill a container when the node is out of memory: guaranteed pods last, best-effort
// ones first, the others by the share of the node's memory they requested.
func OOMScore(pod *corev1.Pod, c *corev1.Container, nodeMemory int64) int64 {
	switch Class(pod) {
	case corev1.PodQOSGuaranteed:
		return -997
	case corev1.PodQOSBestEffort:
		return 1000
	}
	request := c.Resources.Requests.Memory().Value()
	if nodeMemory <= 0 {
		return 999
	}
	return min(max(1000-1000*request/nodeMemory, 3), 999)
}

// OOMFloor is the lowest oom_score_adj this process may give to others: without CAP_SYS_RESOURCE, its own.
func OOMFloor() int64 {
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.SplitSeq(string(status), "\n") {
			if hex, ok := strings.CutPrefix(line, "CapEff:\t"); ok {
				const capSysResource = 24
				if mask, err := strconv.ParseUint(hex, 16, 64); err == nil && mask&(1<<capSysResource) != 0 {
					return -1000
				}
			}
		}
	}
	own, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(own)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// RequestedCPU is what a pod requests, in thousandths of a CPU.
func RequestedCPU(pod *corev1.Pod) int64 {
	requests := resource.PodRequests(pod, resource.PodResourcesOptions{})
	return requests.Cpu().MilliValue()
}
