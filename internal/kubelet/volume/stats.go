package volume

import (
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Usage is how full a pod's volume is, by its filesystem.
type Usage struct {
	Name, Claim                    string // the pod's volume, and the claim behind it
	Capacity, Available, Used      uint64 // bytes
	Inodes, InodesFree, InodesUsed uint64
}

// Usage measures the volumes of a pod that have claims.
func (m *Manager) Usage(pod *corev1.Pod) (list []Usage) {
	for i := range pod.Spec.Volumes {
		name := pod.Spec.Volumes[i].Name
		p, ok := m.placeOf(pod.UID, name)
		var fs unix.Statfs_t
		if !ok || p.claim == "" || p.block || unix.Statfs(p.path, &fs) != nil {
			continue
		}
		size := uint64(fs.Frsize)
		list = append(list, Usage{
			Name: name, Claim: p.claim,
			Capacity: fs.Blocks * size, Available: fs.Bavail * size, Used: (fs.Blocks - fs.Bfree) * size,
			Inodes: fs.Files, InodesFree: fs.Ffree, InodesUsed: fs.Files - fs.Ffree,
		})
	}
	return list
}
