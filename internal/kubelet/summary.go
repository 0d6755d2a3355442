package kubelet

import (
	"context"
	"path/filepath"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"skiff.dev/skiff/internal/kubelet/evict"
)

// summary adds to the telemetry's figures how full the pods' volumes are, and how large their logs.
func (k *Kubelet) summary(ctx context.Context) (any, error) {
	got, err := k.cfg.Telemetry.Summary(ctx)
	measured, ok := got.(*stats.Summary)
	if err != nil || !ok {
		return got, err
	}
	out := *measured // shared by all who ask
	out.Pods = append([]stats.PodStats(nil), measured.Pods...)
	pods := map[string]*corev1.Pod{}
	for _, v := range k.pods.List() {
		pods[string(v.Pod.UID)] = v.Pod
	}
	for i := range out.Pods {
		if pod := pods[out.Pods[i].PodRef.UID]; pod != nil {
			out.Pods[i].VolumeStats = append(out.Pods[i].VolumeStats[:len(out.Pods[i].VolumeStats):len(out.Pods[i].VolumeStats)], k.volumeStats(pod)...)
			out.Pods[i].Containers = slices.Clone(out.Pods[i].Containers)
			for j := range out.Pods[i].Containers {
				one := &out.Pods[i].Containers[j]
				one.Logs = k.logStats(pod, one.Name, out.Node.Fs)
			}
		}
	}
	return &out, nil
}

// logStats are of the files of one container's logs, on the file system they are on.
func (k *Kubelet) logStats(pod *corev1.Pod, container string, disk *stats.FsStats) *stats.FsStats {
	bytes, inodes := evict.Size(filepath.Join(k.pods.deps.Settings.LogDirOf(pod), container))
	used, files := uint64(bytes), uint64(inodes)
	out := stats.FsStats{Time: metav1.Now()}
	if disk != nil {
		out = *disk
	}
	out.UsedBytes, out.InodesUsed = &used, &files
	return &out
}

func (k *Kubelet) volumeStats(pod *corev1.Pod) (list []stats.VolumeStats) {
	for _, u := range k.volumes.Usage(pod) {
		list = append(list, stats.VolumeStats{
			Name: u.Name, PVCRef: &stats.PVCReference{Namespace: pod.Namespace, Name: u.Claim},
			FsStats: stats.FsStats{
				Time: metav1.Now(), CapacityBytes: &u.Capacity, AvailableBytes: &u.Available, UsedBytes: &u.Used,
				Inodes: &u.Inodes, InodesFree: &u.InodesFree, InodesUsed: &u.InodesUsed,
			},
		})
	}
	return list
}
