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
			sum += w * fit(rules.Fit, p, n, i, nil)
		}
	}
	if w := rules.NodeResourcesBalancedAllocation; w > 0 {
		if rules.Balanced == nil {
			sum += w * balancedAllocation(p, n, i)
		} else {
			sum += w * balancedOver(rules.Balanced, p, n, i, nil)
		}
	}
	return sum
}

// Devices are how many devices of an extended resource are in use on a node, and how many there are; it is asked where no plug-in has any.
type Devices func(r corev1.ResourceName) (used, all int64)

// CountsDevices says that a profile weighs how much is in use of an extended resource that the pod may get as devices.
func CountsDevices(p *cluster.Pod) bool {
	if p.Profile == nil {
		return false
	}
	backed := func(name string) bool { return slices.Contains(p.Backed, corev1.ResourceName(name)) }
	return p.Profile.NodeResourcesBalancedAllocation > 0 && slices.ContainsFunc(p.Profile.Balanced, backed) ||
		p.Profile.NodeResourcesFit > 0 && p.Profile.Fit != nil && slices.ContainsFunc(p.Profile.Fit.Resources, func(r config.ResourceSpec) bool { return backed(r.Name) })
}

// ByDevices is by how much devices change the score of node i that Load has without them, for a pod of which CountsDevices is true.
func ByDevices(p *cluster.Pod, n *cluster.Nodes, i int, d Devices) (change int64) {
	rules := p.Profile
	if rules.Fit != nil {
		change += rules.NodeResourcesFit * (fit(rules.Fit, p, n, i, d) - fit(rules.Fit, p, n, i, nil))
	}
	if rules.Balanced != nil {
		change += rules.NodeResourcesBalancedAllocation * (balancedOver(rules.Balanced, p, n, i, d) - balancedOver(rules.Balanced, p, n, i, nil))
	}
	return change
}

// fit is the weighted mean over the resources of a strategy.
func fit(s *profile.Strategy, p *cluster.Pod, n *cluster.Nodes, i int, d Devices) int64 {
	sum, weights := int64(0), int64(0)
	for _, r := range s.Resources {
		used, capacity := usage(corev1.ResourceName(r.Name), p, n, i, true, d)
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
func usage(r corev1.ResourceName, p *cluster.Pod, n *cluster.Nodes, i int, guess bool, d Devices) (used, capacity int64) {
	k := slices.Index(basic[:], r)
	switch {
	case k < 0:
		want := p.Extended[r] + p.Ignored[r]
		column := n.Extended[r]
		switch plugin := column != nil && column.Allocatable[i] > 0; {
		case want == 0 || !plugin && (d == nil || !slices.Contains(p.Backed, r)):
			return 0, 0
		case plugin:
			return column.Requested[i] + want, column.Allocatable[i]
		}
		used, capacity = d(r)
		return used + want, capacity
	case guess && k <= cluster.Memory:
		return n.Estimated[k][i] + p.Estimate[k], n.Allocatable[k][i]
	}
	return n.Requested[k][i] + p.Requests[k], n.Allocatable[k][i]
}

var basic = [...]corev1.ResourceName{
	cluster.CPU: corev1.ResourceCPU, cluster.Memory: corev1.ResourceMemory, cluster.Ephemeral: corev1.ResourceEphemeralStorage,
}

// balancedOver is balancedAllocation over any resources: the less their degrees of use deviate, the better.
func balancedOver(list []string, p *cluster.Pod, n *cluster.Nodes, i int, d Devices) int64 {
	var before, now []float64
	asked := false
	for _, name := range list {
		used, capacity := usage(corev1.ResourceName(name), p, n, i, false, d)
		want := request(p, corev1.ResourceName(name))
		asked = asked || want > 0
		if capacity > 0 {
			before, now = append(before, degree(used-want, capacity)), append(now, degree(used, capacity))
		}
	}
	if !asked {
		return 0
	}
	return improved(evenness(before), evenness(now))
}

// evenness is the best score less what degrees of use deviate from one another.
func evenness(degrees []float64) int64 {
	switch len(degrees) {
	case 0, 1:
		return Best
	case 2:
		return balance(degrees[0] - degrees[1])
	}
	sum, deviation := 0.0, 0.0
	for _, d := range degrees {
		sum += d
	}
	mean := sum / float64(len(degrees))
	for _, d := range degrees {
		deviation += (d - mean) * (d - mean)
	}
	return int64((1 - math.Sqrt(deviation/float64(len(degrees)))) * Best)
}

func request(p *cluster.Pod, r corev1.ResourceName) int64 {
	if k := slices.Index(basic[:], r); k >= 0 {
		return p.Requests[k]
	}
	return p.Extended[r] + p.Ignored[r]
}
