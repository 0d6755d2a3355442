package filter

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	storage "k8s.io/component-helpers/storage/volume"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

var (
	diskRefusal       = &Refusal{[]string{"node(s) had no available disk"}, false}
	soleRefusal       = &Refusal{[]string{"node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"}, false}
	limitRefusal      = &Refusal{[]string{"node(s) exceed max volume count"}, false}
	reachRefusal      = &Refusal{[]string{"node(s) didn't match PersistentVolume's node affinity"}, true}
	bindRefusal       = &Refusal{[]string{"node(s) didn't find available persistent volumes to bind"}, true}
	spaceRefusal      = &Refusal{[]string{"node(s) did not have enough free storage"}, true}
	volumeZoneRefusal = &Refusal{[]string{"node(s) had no available volume zone"}, true}
)

// VolumesAt is where the volume plug-ins begin in Load.
const VolumesAt = 2

// withVolumes makes a plug-in of a check that only pods with volumes need; gone are pods to be imagined away.
func withVolumes(check func(p *cluster.Pod, n *cluster.Nodes, i int, gone []*cluster.Pod) *Refusal) func(p *cluster.Pod, n *cluster.Nodes) Check {
	return func(p *cluster.Pod, n *cluster.Nodes) Check {
		if p.Volumes == nil {
			return nil
		}
		return func(i int) *Refusal { return check(p, n, i, nil) }
	}
}

// volumePlugins in the order of Load.
var volumePlugins = []struct {
	name  string
	check func(p *cluster.Pod, n *cluster.Nodes, i int, gone []*cluster.Pod) *Refusal
}{
	{"VolumeRestrictions", volumeRestrictions}, {"NodeVolumeLimits", nodeVolumeLimits}, {"VolumeBinding", volumeBinding}, {"VolumeZone", volumeZone},
}

// VolumesWithout says why node i won't do for a pod's volumes if some pods left it, nil if it will.
func VolumesWithout(p *cluster.Pod, n *cluster.Nodes, i int, gone []*cluster.Pod) *Refusal {
	if p.Volumes == nil {
		return nil
	}
	for _, one := range volumePlugins {
		if !p.Profile.Runs(one.name) {
			continue
		}
		if r := one.check(p, n, i, gone); r != nil {
			return r
		}
	}
	return nil
}

// volumeRestrictions keeps pods from disks that another pod of the node writes to, and from claims that another pod has for itself.
func volumeRestrictions(p *cluster.Pod, n *cluster.Nodes, i int, gone []*cluster.Pod) *Refusal {
	for _, other := range p.Volumes.Held {
		if !slices.Contains(gone, other) {
			return soleRefusal
		}
	}
	if len(p.Volumes.Disks) == 0 {
		return nil
	}
	for _, other := range n.On[i] {
		if other.Volumes == nil || slices.Contains(gone, other) {
			continue
		}
		for _, d := range other.Volumes.Disks {
			if slices.ContainsFunc(p.Volumes.Disks, func(own cluster.Disk) bool { return own.Name == d.Name && !(own.ReadOnly && d.ReadOnly) }) {
				return diskRefusal
			}
		}
	}
	return nil
}

// nodeVolumeLimits counts each volume once, however many pods of the node use it. A driver that names no limit has none, also where it is not installed, unless
// it wants no pods there (KEP-5030).
func nodeVolumeLimits(p *cluster.Pod, n *cluster.Nodes, i int, gone []*cluster.Pod) *Refusal {
	limits := n.AttachLimits[n.Name(i)]
	if driver := missing(p.Volumes, limits); driver != "" {
		return &Refusal{Reasons: []string{driver + " CSI driver is not installed on the node"}}
	}
	if len(limits) == 0 || len(p.Volumes.Attached) == 0 {
		return nil
	}
	there, count := map[cluster.Attachment]bool{}, map[string]int{}
	add := func(list []cluster.Attachment) {
		for _, a := range list {
			if !there[a] {
				there[a] = true
				count[a.Driver]++
			}
		}
	}
	for _, other := range n.On[i] {
		if other.Volumes != nil && !slices.Contains(gone, other) {
			add(other.Volumes.Attached)
		}
	}
	add(p.Volumes.Shared)
	for driver, k := range p.Volumes.Fresh {
		count[driver] += k
	}
	for _, a := range p.Volumes.Attached {
		if limit, has := limits[a.Driver]; has && count[a.Driver] > limit {
			return limitRefusal
		}
	}
	return nil
}

// missing is a driver that a pod needs on a node and that is not there; "" if there is none.
func missing(v *cluster.Volumes, installed map[string]int) string {
	for _, driver := range v.Needed {
		if _, has := installed[driver]; !has {
			return driver
		}
	}
	return ""
}

// volumeBinding wants the node to reach the volumes there are, and the rest to be found or made for it.
func volumeBinding(p *cluster.Pod, n *cluster.Nodes, i int, _ []*cluster.Pod) *Refusal {
	for _, v := range p.Volumes.Bound {
		if storage.CheckNodeAffinity(v, n.Node[i].Labels) != nil {
			return reachRefusal
		}
	}
	_, refusal := Bind(p.Volumes, n.Node[i])
	return refusal
}

// Binding is what is to become of a claim on a node: it gets the volume, or one is to be made if that is nil, in the room that was told of, if any.
type Binding struct {
	Claim  *corev1.PersistentVolumeClaim
	Volume *corev1.PersistentVolume
	Room   *cluster.Room
}

// Bind finds a volume, or somebody to make one, on a node for each claim that has none.
func Bind(v *cluster.Volumes, node *corev1.Node) (list []Binding, refusal *Refusal) {
	taken := map[string]*corev1.PersistentVolume{}
	for k := range v.Unbound {
		u := &v.Unbound[k]
		selected, chosen := u.Claim.Annotations[storage.AnnSelectedNode]
		if !chosen {
			found, err := storage.FindMatchingVolume(u.Claim, u.Candidates, node, taken, true, true)
			if err == nil && found != nil {
				taken[found.Name] = found
				list = append(list, Binding{Claim: u.Claim, Volume: found})
				continue
			}
		}
		room := roomFor(u, node)
		switch {
		case chosen && selected != node.Name, !u.Makes, !allowed(u.Class, node):
			return nil, bindRefusal
		case u.Measured && room == nil:
			return nil, spaceRefusal
		}
		list = append(list, Binding{Claim: u.Claim, Room: room})
	}
	return list, nil
}

// allowed says whether a class' topologies have the node.
func allowed(class *storagev1.StorageClass, node *corev1.Node) bool {
	if len(class.AllowedTopologies) == 0 {
		return true
	}
	return slices.ContainsFunc(class.AllowedTopologies, func(t corev1.TopologySelectorTerm) bool {
		return !slices.ContainsFunc(t.MatchLabelExpressions, func(e corev1.TopologySelectorLabelRequirement) bool {
			value, has := node.Labels[e.Key]
			return !has || !slices.Contains(e.Values, value)
		})
	})
}

// roomFor is enough room that a driver has told of where the node is; nil if there is none.
func roomFor(u *cluster.Unbound, node *corev1.Node) *cluster.Room {
	size := u.Size()
	for k := range u.Rooms {
		if room := &u.Rooms[k]; room.Largest.Cmp(size) >= 0 && room.Where.Matches(labels.Set(node.Labels)) {
			return room
		}
	}
	return nil
}

// zoneLabels place a volume, and a node, in the world.
var zoneLabels = []string{
	corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion,
}

// volumeZone holds a pod to the zones of its volumes. A node that says nothing of zones takes any.
func volumeZone(p *cluster.Pod, n *cluster.Nodes, i int, _ []*cluster.Pod) *Refusal {
	node := n.Node[i].Labels
	if !slices.ContainsFunc(zoneLabels, func(key string) bool { _, has := node[key]; return has }) {
		return nil
	}
	for _, v := range p.Volumes.Bound {
		for _, key := range zoneLabels {
			zones, has := v.Labels[key]
			if has && !slices.Contains(strings.Split(zones, "__"), node[key]) && !slices.Contains(strings.Split(zones, "__"), stableZone(node, key)) {
				return volumeZoneRefusal
			}
		}
	}
	return nil
}

// stableZone is a node's value under the present name of an old label.
func stableZone(node map[string]string, key string) string {
	switch key {
	case corev1.LabelFailureDomainBetaZone:
		return node[corev1.LabelTopologyZone]
	case corev1.LabelFailureDomainBetaRegion:
		return node[corev1.LabelTopologyRegion]
	}
	return node[key]
}
