package kubelet

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	kubetypes "k8s.io/kubelet/pkg/types"

	"skiff.dev/skiff/internal/kubelet/cgroup"
	"skiff.dev/skiff/internal/kubelet/evict"
	"skiff.dev/skiff/internal/kubelet/image"
	"skiff.dev/skiff/internal/kubelet/pod"
)

// victimTime is how long the next victim waits for the one before, beyond its grace period.
const victimTime = 30 * time.Second

// shortages is what the node is short of, as last seen.
type shortages struct {
	mu sync.Mutex
	of evict.Shortages
}

// conditions that are told now.
func (s *shortages) conditions(now time.Time) []corev1.NodeConditionType {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of.Conditions(now)
}

// see takes levels in. It says for which pods must go, when a grace period is over next, and whether the conditions changed.
func (s *shortages) see(levels []evict.Level, now time.Time) (short []evict.Level, next time.Time, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.of.Conditions(now)
	short, next = s.of.See(levels, now)
	return short, next, !slices.Equal(before, s.of.Conditions(now))
}

// evictor is what only runEviction touches.
type evictor struct {
	images *image.Collector
	spare  *reserve
	short  bool // pods must go
	victim *pod.Actor
	gentle bool      // the victim got time to end
	until  time.Time // how long the next one waits for it
	looked time.Time // when images were last looked at
}

// runEviction keeps the node usable: it removes unused images while room is scarce, ends pods that exceed their limits on disk, and, while the
// node is short of something, one pod after another.
func (k *Kubelet) runEviction(ctx context.Context) error {
	e := &evictor{images: image.NewCollector(k.images, k.runtime, k.pods.images), spare: newReserve(filepath.Join(k.cfg.Root, "reserve"), k.machine.disk)}
	for wait := checkEvery; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		k.evictExceeding(ctx)
		wait = k.relieve(ctx, e)
	}
}

// relieve does the next thing against what the node is short of, and says when to look again.
func (k *Kubelet) relieve(ctx context.Context, e *evictor) time.Duration {
	now := time.Now()
	short, next, changed := k.short.see(k.machine.levels(), now)
	if changed {
		k.changed()
	}
	if wanted := k.machine.imageRoom(); wanted > 0 || slices.ContainsFunc(short, onDisk) {
		if k.collectImages(ctx, e, max(wanted, 1<<30), now) > 0 {
			short, next, _ = k.short.see(k.machine.levels(), time.Now())
		}
	} else if now.Sub(e.looked) > time.Minute { // who uses which image is learnt now and then
		e.looked = now
		if _, err := e.images.Look(ctx, now); err != nil && ctx.Err() == nil {
			k.log.Warn("cannot see which images are used", "err", err)
		}
	}
	if slices.ContainsFunc(short, func(l evict.Level) bool { return onDisk(l) && !l.Soft }) && e.spare.release() {
		k.log.Warn("the disk is nearly full; its reserve is in use now")
	}
	if len(short) == 0 {
		e.victim, e.short = nil, false
		if err := e.spare.restore(); err != nil {
			k.log.Warn("cannot set disk space aside for bad times", "err", err)
		}
		if !next.IsZero() {
			return min(checkEvery, max(time.Until(next), time.Second))
		}
		return checkEvery
	}
	if !e.short {
		e.short = true
		k.events.Eventf(k.reference(), corev1.EventTypeWarning, "EvictionThresholdMet", "Attempting to reclaim %s", short[0].Signal.Resource())
	}
	switch {
	case e.victim == nil, e.gentle && !short[0].Soft: // there is no time any more
		e.victim = k.evictFor(ctx, short[0])
		e.gentle, e.until = short[0].Soft, now.Add(victimTime)
		if e.victim != nil && e.gentle {
			e.until = e.until.Add(k.softGrace(e.victim.View().Pod))
		}
	case e.victim.View().Cleaned, now.After(e.until):
		e.victim = nil // whether another must go is seen next time
	}
	return time.Second
}

// softGrace is how long a pod may take to end that goes for a soft threshold.
func (k *Kubelet) softGrace(one *corev1.Pod) time.Duration {
	seconds := pod.Grace(one)
	if most := k.cfg.Eviction.MaxPodGrace; most >= 0 {
		seconds = min(seconds, most)
	}
	return time.Duration(seconds) * time.Second
}

func onDisk(l evict.Level) bool { return l.Signal.Condition() == corev1.NodeDiskPressure }

func (k *Kubelet) collectImages(ctx context.Context, e *evictor, wanted int64, now time.Time) int64 {
	freed, removed, err := e.images.Free(ctx, wanted, now)
	if err != nil && ctx.Err() == nil {
		k.log.Warn("cannot remove unused images", "err", err)
	}
	if len(removed) > 0 {
		k.log.Info("removed images that nobody used, as the disk is filling up", "images", removed, "bytes", freed)
	}
	return freed
}

// evictFor ends the pod that is to go first.
func (k *Kubelet) evictFor(ctx context.Context, l evict.Level) *pod.Actor {
	used := k.usage(ctx, l.Signal)
	victim := evict.Victim(l.Signal, used)
	if victim == nil {
		return nil
	}
	a := k.pods.actor(victim.Pod.UID)
	if a == nil {
		return nil
	}
	message := evict.Message(l, victim)
	k.log.Warn("evicting a pod", "pod", victim.Pod.Namespace+"/"+victim.Pod.Name, "why", message)
	grace := time.Duration(0)
	if l.Soft {
		grace = k.softGrace(victim.Pod)
	}
	a.Evict("Evicted", message, grace)
	return a
}

// evictExceeding ends the pods that take more of the disk than their limits allow.
func (k *Kubelet) evictExceeding(ctx context.Context) {
	for _, a := range k.pods.holding() {
		one := a.View().Pod
		if !evict.Bounded(one) {
			continue
		}
		u := evict.Usage{Pod: one, Containers: map[string]evict.Container{}}
		layers, err := k.runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{Filter: &runtimeapi.ContainerStatsFilter{
			LabelSelector: map[string]string{kubetypes.KubernetesPodUIDLabel: string(one.UID)}}})
		if err != nil {
			continue // it was not measured, and will be
		}
		for _, s := range layers.Stats {
			name := kubetypes.GetContainerName(s.GetAttributes().GetLabels())
			u.Containers[name] = evict.Container{Disk: u.Containers[name].Disk + int64(s.GetWritableLayer().GetUsedBytes().GetValue())}
		}
		k.measureDisk(&u)
		if message := evict.Exceeds(&u); message != "" {
			a.Evict("Evicted", message, 0)
		}
	}
}

// measureDisk adds a pod's logs and emptyDirs.
func (k *Kubelet) measureDisk(u *evict.Usage) {
	dir := k.pods.deps.Settings.LogDirOf(u.Pod)
	for i := range u.Pod.Spec.Containers {
		name := u.Pod.Spec.Containers[i].Name
		bytes, inodes := evict.Size(filepath.Join(dir, name))
		c := u.Containers[name]
		c.Disk += bytes
		u.Containers[name], u.Inodes = c, u.Inodes+inodes
	}
	u.Volumes = map[string]int64{}
	for i := range u.Pod.Spec.Volumes {
		if v := &u.Pod.Spec.Volumes[i]; v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumDefault {
			bytes, inodes := evict.Size(k.volumes.Path(u.Pod, v))
			u.Volumes[v.Name], u.Inodes = bytes, u.Inodes+inodes
		}
	}
}

// usage of the pods that hold room; what they have on disk is measured only if that's what matters.
func (k *Kubelet) usage(ctx context.Context, s evict.Signal) []evict.Usage {
	if k.cfg.Telemetry == nil {
		return nil
	}
	measured, err := k.cfg.Telemetry.Summary(ctx)
	summary, ok := measured.(*stats.Summary)
	if err != nil || !ok {
		k.log.Warn("cannot measure pods, so none is evicted", "err", err)
		return nil
	}
	byUID := map[string]*stats.PodStats{}
	for i := range summary.Pods {
		byUID[summary.Pods[i].PodRef.UID] = &summary.Pods[i]
	}
	var out []evict.Usage
	for _, a := range k.pods.holding() {
		one := a.View().Pod
		u := used(one, byUID[string(one.UID)])
		if s == evict.Disk || s == evict.Inodes {
			k.measureDisk(&u)
		}
		out = append(out, u)
	}
	return out
}

func used(one *corev1.Pod, p *stats.PodStats) evict.Usage {
	u := evict.Usage{Pod: one, Containers: map[string]evict.Container{}}
	if p == nil {
		return u
	}
	if p.Memory != nil && p.Memory.WorkingSetBytes != nil {
		u.Memory = int64(*p.Memory.WorkingSetBytes)
	}
	if p.ProcessStats != nil && p.ProcessStats.ProcessCount != nil {
		u.Processes = int64(*p.ProcessStats.ProcessCount)
	}
	for _, c := range p.Containers {
		var one evict.Container
		if c.Memory != nil && c.Memory.WorkingSetBytes != nil {
			one.Memory = int64(*c.Memory.WorkingSetBytes)
		}
		if c.Rootfs != nil && c.Rootfs.UsedBytes != nil {
			one.Disk = int64(*c.Rootfs.UsedBytes)
		}
		if c.Rootfs != nil && c.Rootfs.InodesUsed != nil {
			u.Inodes += int64(*c.Rootfs.InodesUsed)
		}
		u.Containers[c.Name] = one
	}
	return u
}

// refuseUnderPressure: a node that is short of something takes no more pods, but those it needs.
func (k *Kubelet) refuseUnderPressure(one *corev1.Pod) *pod.Verdict {
	if message := evict.Refuse(one, cgroup.Class(one), k.short.conditions(time.Now())); message != "" {
		return &pod.Verdict{Reason: "Evicted", Message: message}
	}
	return nil
}
