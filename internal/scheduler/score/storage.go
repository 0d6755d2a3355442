package score

import (
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storage "k8s.io/component-helpers/storage/volume"
	config "k8s.io/kube-scheduler/config/v1"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
)

// moreFree is upstream's shape: the less of a node's storage a pod asks for, the better.
var moreFree = []config.UtilizationShapePoint{{Utilization: 0, Score: Best}, {Utilization: 100, Score: 0}}

// Storage is VolumeBinding's score (KEP-4049): how much a pod asks of the volumes on a node that its claims would get, or if there are none for them, of the
// room that drivers have told of there. Nil if nothing is known of any node.
func Storage(p *cluster.Pod, n *cluster.Nodes) func(i int) int64 {
	if p.Volumes == nil || !slices.ContainsFunc(p.Volumes.Unbound, func(u cluster.Unbound) bool { return len(u.Candidates) > 0 || u.Measured }) {
		return nil
	}
	shape := moreFree
	if p.Profile != nil && p.Profile.Storage != nil {
		shape = p.Profile.Storage
	}
	return func(i int) int64 {
		list, _ := filter.Bind(p.Volumes, n.Node[i]) // none where a claim can have nothing
		return stored(list, shape)
	}
}

// part of a storage class.
type part struct{ asked, has int64 }

// stored is the mean over the classes.
func stored(list []filter.Binding, shape []config.UtilizationShapePoint) int64 {
	found := slices.ContainsFunc(list, func(b filter.Binding) bool { return b.Volume != nil })
	classes := map[string]part{}
	for _, b := range list {
		asked := b.Claim.Spec.Resources.Requests[corev1.ResourceStorage]
		switch {
		case b.Volume != nil:
			has := b.Volume.Spec.Capacity[corev1.ResourceStorage]
			class := classes[b.Volume.Spec.StorageClassName]
			classes[b.Volume.Spec.StorageClassName] = part{class.asked + asked.Value(), class.has + has.Value()}
		case b.Room != nil && !found:
			name := storage.GetPersistentVolumeClaimClass(b.Claim)
			classes[name] = part{classes[name].asked + asked.Value(), b.Room.Free.Value()}
		}
	}
	if len(classes) == 0 {
		return 0
	}
	sum := int64(0)
	for _, class := range classes {
		utilization := int64(100)
		if class.has > 0 && class.asked <= class.has {
			utilization = class.asked * 100 / class.has
		}
		sum += along(shape, utilization)
	}
	return int64(math.Round(float64(sum) / float64(len(classes))))
}
