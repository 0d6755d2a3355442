package kubelet

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// summary adds to the telemetry's figures how full the pods' volumes are.
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
		}
	}
	return &out, nil
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
