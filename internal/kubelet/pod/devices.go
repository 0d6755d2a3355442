package pod

import (
	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/kubelet/device"
	"skiff.dev/skiff/internal/kubelet/dra"
)

// devicesHealth adds to a status how the devices of the pod's containers are (KEP-4680).
func (a *Actor) devicesHealth(pod *corev1.Pod, st *corev1.PodStatus) {
	if !dra.Wants(pod) && !device.Asks(pod) {
		return
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		for j := range st.ContainerStatuses {
			if st.ContainerStatuses[j].Name != c.Name {
				continue
			}
			if health := append(a.d.Devices.Health(pod.UID, c.Name), a.d.Claims.Health(pod, c)...); health != nil {
				st.ContainerStatuses[j].AllocatedResourcesStatus = health
			}
		}
	}
}
