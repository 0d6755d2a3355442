package score

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Below least an image is fetched fast enough to ignore; most, for each image, is worth full marks.
const (
	least = 23 << 20
	most  = 1000 << 20
)

// Images are the names of the images a pod needs, one for each container and each volume that is an image.
func Images(p *corev1.Pod) (names []string) {
	for i := range p.Spec.InitContainers {
		names = append(names, normal(p.Spec.InitContainers[i].Image))
	}
	for i := range p.Spec.Containers {
		names = append(names, normal(p.Spec.Containers[i].Image))
	}
	for i := range p.Spec.Volumes {
		if image := p.Spec.Volumes[i].Image; image != nil {
			names = append(names, normal(image.Reference))
		}
	}
	return names
}

// Locality prefers nodes that have the pod's images, weighted by size and by how widely an image is spread already, lest all pods heap up on
// the one node that has it. sizes are the node's, 0 for missing images; having says how many of all nodes have each.
func Locality(sizes []int64, having func(image int) int, nodes int) int64 {
	sum := int64(0)
	for k, size := range sizes {
		if size > 0 {
			sum += int64(float64(size) * float64(having(k)) / float64(nodes))
		}
	}
	ceiling := int64(most) * int64(max(1, len(sizes)))
	sum = min(max(sum, least), ceiling)
	return Best * (sum - least) / (ceiling - least)
}

// normal adds the tag that an image without one means.
func normal(image string) string {
	if strings.LastIndex(image, ":") <= strings.LastIndex(image, "/") {
		return image + ":latest"
	}
	return image
}
