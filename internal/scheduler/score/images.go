package score

import (
	"strings"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// Below least an image is fetched fast enough to ignore; most, for each container, is worth full marks.
const (
	least = 23 << 20
	most  = 1000 << 20
)

// imageLocality prefers nodes that have the pod's images, weighted by size and by how widely an image is spread already, lest all pods
// heap up on the one node that has it.
func imageLocality(p *cluster.Pod, n *cluster.Nodes, nodes []int) []int64 {
	var wanted []string
	for i := range p.Spec.InitContainers {
		wanted = append(wanted, normal(p.Spec.InitContainers[i].Image))
	}
	for i := range p.Spec.Containers {
		wanted = append(wanted, normal(p.Spec.Containers[i].Image))
	}
	scores := make([]int64, len(nodes))
	ceiling := int64(most) * int64(max(1, len(wanted)))
	for k, i := range nodes {
		sum := int64(0)
		for _, image := range wanted {
			if size, has := n.Images[i][image]; has {
				sum += int64(float64(size) * float64(n.Having(image)) / float64(n.Count()))
			}
		}
		sum = min(max(sum, least), ceiling)
		scores[k] = Best * (sum - least) / (ceiling - least)
	}
	return scores
}

// normal adds the tag that an image without one means.
func normal(image string) string {
	if strings.LastIndex(image, ":") <= strings.LastIndex(image, "/") {
		return image + ":latest"
	}
	return image
}
