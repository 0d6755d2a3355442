package filter

import (
	"maps"
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
	soleRefusal       = &Refusal{[]string{"node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"}, false}
	limitRefusal      = &Refusal{[]string{"node(s) exceed max volume count"}, false}
	reachRefusal      = &Refusal{[]string{"node(s) didn't match PersistentVolume's node affinity"}, true}
	bindRefusal       = &Refusal{[]string{"node(s) didn't find available persistent volumes to bind"}, true}
	lostRefusal       = &Refusal{[]string{"node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"}, true}
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
	if len(p.Volumes.Disks) > 0 && taken(p, n, i, gone) {
		return diskRefusal
	}
	for _, other := range p.Volumes.Held { // as they were when the class was made: they may have been updated since
		if !slices.ContainsFunc(gone, func(q *cluster.Pod) bool { return q.UID == other.UID }) {
			return soleRefusal
		}
	}
	return nil
}

// taken says that a pod of the node has one of p's disks.
func taken(p *cluster.Pod, n *cluster.Nodes, i int, gone []*cluster.Pod) bool {
	return slices.ContainsFunc(n.On[i], func(other *cluster.Pod) bool {
		return other.Volumes != nil && !slices.Contains(gone, other) && slices.ContainsFunc(other.Volumes.Disks, func(d cluster.Disk) bool {
			return slices.ContainsFunc(p.Volumes.Disks, d.Conflicts)
		})
	})
}

// nodeVolumeLimits counts each volume once, however many pods of the node use it, and those that no pod there uses any more and that are still attached. A
// driver that names no limit has none, also where it is not installed, unless it wants no pods there (KEP-5030). A pod that brings no volume of a driver's is
// not held up by what is there.
func nodeVolumeLimits(p *cluster.Pod, n *cluster.Nodes, i int, gone []*cluster.Pod) *Refusal {
	limits := n.AttachLimits[n.Name(i)]
	if driver := missing(p.Volumes, limits); driver != "" {
		return &Refusal{Reasons: []string{driver + " CSI driver is not installed on the node"}}
	}
	if len(limits) == 0 || len(p.Volumes.Attached) == 0 {
		return nil
	}
	there, has := attachedAt(n, i, gone)
	brings := maps.Clone(p.Volumes.Fresh)
	for _, a := range p.Volumes.Shared {
		if !there[a] {
			if brings == nil {
				brings = map[string]int{}
			}
			brings[a.Driver]++
		}
	}
	for driver, k := range brings {
		if limit, limited := limits[driver]; limited && has[driver]+k > limit {
			return limitRefusal
		}
	}
	return nil
}

// attachedAt is what node i has attached, and how much of that is each driver's.
func attachedAt(n *cluster.Nodes, i int, gone []*cluster.Pod) (there map[cluster.Attachment]bool, has map[string]int) {
	there, has = map[cluster.Attachment]bool{}, map[string]int{}
	add := func(a cluster.Attachment) {
		if !there[a] {
			there[a] = true
			has[a.Driver]++
		}
	}
	for _, a := range n.Told(n.Name(i)) {
		add(a)
	}
	for _, other := range n.On[i] {
		if other.Volumes != nil && !slices.Contains(gone, other) {
			for _, a := range other.Volumes.Attached {
				add(a)
			}
		}
	}
	return there, has
}

// missing is a driver that a pod needs on a node and that is not there; "" if there is none. installed is nil for a node that knows of no driver.
func missing(v *cluster.Volumes, installed map[string]int) string {
	for _, d := range v.Needed {
		if _, has := installed[d.Name]; !has && !(d.Translated && installed == nil) {
			return d.Name
		}
	}
	return ""
}

// volumeBinding wants the node to reach the volumes there are, and the rest to be found or made for it. It says what of both is against the node.
func volumeBinding(p *cluster.Pod, n *cluster.Nodes, i int, _ []*cluster.Pod) *Refusal {
	_, bind := Bind(p.Volumes, n.Node[i])
	reach := unreachable(p.Volumes, n.Node[i])
	switch {
	case reach == nil:
		return bind
	case bind == nil:
		return reach
	}
	return &Refusal{slices.Concat(reach.Reasons, bind.Reasons), true}
}

// unreachable says why a node will not do for the volumes that the claims have.
func unreachable(v *cluster.Volumes, node *corev1.Node) *Refusal {
	for _, pv := range v.Bound {
		if storage.CheckNodeAffinity(pv, node.Labels) != nil {
			return reachRefusal
		}
	}
	if v.Lost {
		return lostRefusal
	}
	return nil
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
		if selected, chosen := v.Unbound[k].Claim.Annotations[storage.AnnSelectedNode]; chosen && selected != node.Name {
			return nil, bindRefusal
		}
	}
	for k := range v.Unbound {
		u := &v.Unbound[k]
		if _, chosen := u.Claim.Annotations[storage.AnnSelectedNode]; !chosen {
			found, err := storage.FindMatchingVolume(u.Claim, u.Candidates, node, taken, true, true)
			if err == nil && found != nil {
				taken[found.Name] = found
				list = append(list, Binding{Claim: u.Claim, Volume: found})
				continue
			}
		}
		room := roomFor(u, node)
		switch {
		case !u.Makes, !allowed(u.Class, node):
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
			zones := zonesOf(v.Labels[key])
			zone, has := node[key]
			if !has {
				zone, has = node[present[key]]
			}
			if len(zones) > 0 && !(has && slices.Contains(zones, zone)) {
				return volumeZoneRefusal
			}
		}
	}
	return nil
}

// present are the names that old labels have now.
var present = map[string]string{corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion}

// zonesOf are the zones, or regions, of a volume by its label; none if that is not written as it should be.
func zonesOf(label string) []string {
	list := strings.Split(label, "__")
	if slices.ContainsFunc(list, func(zone string) bool { return strings.TrimSpace(zone) == "" }) {
		return nil
	}
	return list
}
