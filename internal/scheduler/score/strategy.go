package score

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	config "k8s.io/kube-scheduler/config/v1"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/profile"
)

// loadBy is Load by the strategies and weights of a profile.
func loadBy(rules *profile.Profile, p *cluster.Pod, n *cluster.Nodes, i int) (sum int64) {
	if w := rules.NodeResourcesFit; w > 0 {
		if rules.Fit == nil {
			sum += w * leastAllocated(p, n, i)
		} else {
			sum += w * fit(rules.Fit, p, n, i)
		}
	}
	if w := rules.NodeResourcesBalancedAllocation; w > 0 {
		if rules.Balanced == nil {
			sum += w * balancedAllocation(p, n, i)
		} else {
			sum += w * balancedOver(rules.Balanced, p, n, i)
		}
	}
	return sum
}

// fit is the weighted mean over the resources of a strategy.
func fit(s *profile.Strategy, p *cluster.Pod, n *cluster.Nodes, i int) int64 {
	sum, weights := int64(0), int64(0)
	for _, r := range s.Resources {
		used, capacity := usage(corev1.ResourceName(r.Name), p, n, i, true)
		if capacity == 0 {
			continue
		}
		v := int64(0)
		switch s.Type {
		case config.LeastAllocated:
			if used <= capacity {
				v = (capacity - used) * Best / capacity
			}
		case config.MostAllocated:
			v = min(used, capacity) * Best / capacity
		case config.RequestedToCapacityRatio:
			if v = along(s.Shape, min(used*Best/capacity, Best)); v == 0 {
				continue // upstream leaves out what is worth nothing
			}
		}
		sum, weights = sum+v*r.Weight, weights+r.Weight
	}
	switch {
	case weights == 0:
		return 0
	case s.Type == config.RequestedToCapacityRatio:
		return int64(math.Round(float64(sum) / float64(weights)))
	}
	return sum / weights
}

// along finds the score at a utilization on the line through the points of a shape.
func along(shape []config.UtilizationShapePoint, at int64) int64 {
	for k, point := range shape {
		x, y := int64(point.Utilization), int64(point.Score)
		if at > x {
			continue
		}
		if k == 0 {
			return y
		}
		left, low := int64(shape[k-1].Utilization), int64(shape[k-1].Score)
		return low + (y-low)*(at-left)/(x-left)
	}
	return int64(shape[len(shape)-1].Score)
}

// usage is what node i would have in use of a resource with the pod there, and what it has of it; nothing of an extended resource that the pod does not
// ask for. guess has pods that request no CPU or memory counted as if they did.
func usage(r corev1.ResourceName, p *cluster.Pod, n *cluster.Nodes, i int, guess bool) (used, capacity int64) {
	k := slices.Index(basic[:], r)
	switch {
	case k < 0:
		want := p.Extended[r] + p.Ignored[r]
		column := n.Extended[r]
		if want == 0 || column == nil {
			return 0, 0
		}
		return column.Requested[i] + want, column.Allocatable[i]
	case guess && k <= cluster.Memory:
		return n.Estimated[k][i] + p.Estimate[k], n.Allocatable[k][i]
	}
	return n.Requested[k][i] + p.Requests[k], n.Allocatable[k][i]
}

var basic = [...]corev1.ResourceName{
	cluster.CPU: corev1.ResourceCPU, cluster.Memory: corev1.ResourceMemory, cluster.Ephemeral: corev1.ResourceEphemeralStorage,
}

// balancedOver is balancedAllocation over any resources: the less their degrees of use deviate, the better.
func balancedOver(list []string, p *cluster.Pod, n *cluster.Nodes, i int) int64 {
	var degrees []float64
	sum, asked := 0.0, false
	for _, name := range list {
		used, capacity := usage(corev1.ResourceName(name), p, n, i, false)
		asked = asked || requests(p, corev1.ResourceName(name))
		if capacity == 0 {
			continue
		}
		degree := min(1, float64(used)/float64(capacity))
		degrees, sum = append(degrees, degree), sum+degree
	}
	if !asked {
		return 0
	}
	deviation := 0.0
	switch len(degrees) {
	case 0, 1:
	case 2:
		deviation = math.Abs(degrees[0]-degrees[1]) / 2
	default:
		mean := sum / float64(len(degrees))
		for _, d := range degrees {
			deviation += (d - mean) * (d - mean)
		}
		deviation = math.Sqrt(deviation / float64(len(degrees)))
	}
	return int64((1 - deviation) * Best)
}

func requests(p *cluster.Pod, r corev1.ResourceName) bool {
	if k := slices.Index(basic[:], r); k >= 0 {
		return p.Requests[k] > 0
	}
	return p.Extended[r]+p.Ignored[r] > 0
}
