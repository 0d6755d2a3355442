package telemetry

import (
	"path/filepath"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// containerName is the label under which the kubelet keeps a container's name in the runtime.
const containerName = "io.kubernetes.container.name"

// pod measures one pod; not ok if its cgroup is gone, which means that the pod is going.
func (s *Sampler) pod(sandbox *runtimeapi.PodSandbox, containers []*runtimeapi.Container, now time.Time, seen map[string]bool) (stats.PodStats, bool) {
	uid := sandbox.GetMetadata().GetUid()
	dir, ok := s.podDir(uid)
	if !ok {
		s.listed.settled = false
		return stats.PodStats{}, false
	}
	usage, err := s.host.groups.read(dir)
	if err != nil {
		delete(s.dirs, uid)
		s.listed.settled = false
		return stats.PodStats{}, false
	}
	key := "pod/" + uid
	seen[key], seen[uid], seen[sandbox.Id] = true, true, true
	measured := podGroups{sandbox: sandbox, dir: dir, links: s.podLinks(sandbox.Id, filepath.Join(dir, sandbox.Id))}
	pod := stats.PodStats{
		PodRef:       stats.PodReference{Name: sandbox.GetMetadata().GetName(), Namespace: sandbox.GetMetadata().GetNamespace(), UID: uid},
		StartTime:    metav1.NewTime(time.Unix(0, sandbox.CreatedAt)),
		CPU:          s.cpu(key, now, usage.cpu, time.Unix(0, sandbox.CreatedAt)),
		Memory:       memory(usage, now),
		ProcessStats: &stats.ProcessStats{ProcessCount: value(s.host.groups.processes(dir))},
		Network:      network(measured.links, now),
	}
	pod.Swap = swap(usage, now)
	pod.IO = press(s.host.groups.pressure(dir), metav1.NewTime(now), pod.CPU, pod.Memory)
	s.show(uid, now, usage.cpu, pod.CPU.UsageNanoCores)
	var written uint64
	for _, c := range containers {
		one, ok := s.container(dir, c, now, seen)
		if !ok {
			continue
		}
		if one.Rootfs != nil {
			written += *one.Rootfs.UsedBytes
		}
		pod.Containers = append(pod.Containers, one)
		measured.containers = append(measured.containers, c)
	}
	if s.layers != nil {
		pod.EphemeralStorage = &stats.FsStats{Time: metav1.NewTime(now), UsedBytes: value(written)}
	}
	s.groups = append(s.groups, measured)
	return pod, true
}

func nameOf(c *runtimeapi.Container) string {
	if name := c.Labels[containerName]; name != "" {
		return name
	}
	return c.GetMetadata().GetName()
}

func (s *Sampler) container(podDir string, c *runtimeapi.Container, now time.Time, seen map[string]bool) (stats.ContainerStats, bool) {
	usage, err := s.host.groups.read(filepath.Join(podDir, c.Id))
	if err != nil {
		s.listed.settled = false
		return stats.ContainerStats{}, false
	}
	key := "container/" + c.Id
	seen[key] = true
	one := stats.ContainerStats{
		Name:      nameOf(c),
		StartTime: metav1.NewTime(time.Unix(0, c.CreatedAt)),
		CPU:       s.cpu(key, now, usage.cpu, time.Unix(0, c.CreatedAt)),
		Memory:    memory(usage, now),
		Swap:      swap(usage, now),
	}
	one.IO = press(s.host.groups.pressure(filepath.Join(podDir, c.Id)), metav1.NewTime(now), one.CPU, one.Memory)
	if layer := s.layers[c.Id]; layer != nil {
		one.Rootfs = &stats.FsStats{
			Time: metav1.NewTime(now), UsedBytes: value(layer.GetUsedBytes().GetValue()), InodesUsed: value(layer.GetInodesUsed().GetValue()),
		}
	}
	return one, true
}

// classes of service are folders of cgroups; guaranteed pods have none.
var classes = []string{"burstable", "besteffort", ""}

// podDir finds the pod's cgroup: the kubelet puts it under its class of service.
func (s *Sampler) podDir(uid string) (string, bool) {
	if dir, known := s.dirs[uid]; known {
		return dir, true
	}
	for _, class := range classes {
		dir := filepath.Join("/", s.cfg.CgroupRoot, "kubepods", class, "pod"+uid)
		if s.host.groups.exists(dir) {
			s.dirs[uid] = dir
			return dir, true
		}
	}
	return "", false
}

func memory(u usage, now time.Time) *stats.MemoryStats {
	m := &stats.MemoryStats{
		Time: metav1.NewTime(now), UsageBytes: value(u.memory), WorkingSetBytes: value(u.workingSet), RSSBytes: value(u.anonymous),
		PageFaults: value(u.faults), MajorPageFaults: value(u.majorFaults),
	}
	if u.limit > 0 {
		m.AvailableBytes = value(u.limit - min(u.limit, u.workingSet))
	}
	return m
}

// swap is nil where the host doesn't count it.
func swap(u usage, now time.Time) *stats.SwapStats {
	if !u.swaps {
		return nil
	}
	return &stats.SwapStats{Time: metav1.NewTime(now), SwapUsageBytes: value(u.swap)}
}
