package filter

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	storage "k8s.io/component-helpers/storage/volume"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// volumesDetail is the figure, or the name, behind a volume plug-in's refusal of node i.
func volumesDetail(plugin string, v *cluster.Volumes, n *cluster.Nodes, i int) string {
	switch plugin {
	case "VolumeRestrictions":
		return holders(v, n, i)
	case "NodeVolumeLimits":
		if driver := missing(v, n.AttachLimits[n.Name(i)]); driver != "" {
			return "the node's CSINode does not have " + driver
		}
		return attachments(v, n, i)
	case "VolumeZone":
		return zones(v, n.Node[i])
	}
	if v.Lost {
		return "a claim of the pod is bound to a volume that is not there"
	}
	for _, pv := range v.Bound {
		if storage.CheckNodeAffinity(pv, n.Node[i].Labels) != nil {
			return fmt.Sprintf("volume %s is reached only from nodes with %s", pv.Name, reach(pv))
		}
	}
	for k := range v.Unbound {
		u := &v.Unbound[k]
		if _, refusal := Bind(&cluster.Volumes{Unbound: []cluster.Unbound{*u}}, n.Node[i]); refusal != nil {
			size := u.Size()
			return fmt.Sprintf("claim %s asks %s of class %s: %s", u.Claim.Name, size.String(), u.Class.Name, offers(u, n.Node[i]))
		}
	}
	return ""
}

// zones names the volume that is elsewhere, and where.
func zones(v *cluster.Volumes, node *corev1.Node) string {
	for _, pv := range v.Bound {
		for _, key := range zoneLabels {
			here, labelled := node.Labels[key]
			if !labelled {
				here, labelled = node.Labels[present[key]]
			}
			where := pv.Labels[key]
			if zones := zonesOf(where); len(zones) == 0 || labelled && slices.Contains(zones, here) {
				continue
			}
			if !labelled {
				return fmt.Sprintf("volume %s is in %s=%s, and the node has no such label", pv.Name, key, where)
			}
			return fmt.Sprintf("volume %s is in %s=%s, the node in %s", pv.Name, key, where, here)
		}
	}
	return ""
}

// reach says which labels a volume wants of a node.
func reach(pv *corev1.PersistentVolume) string {
	var terms []string
	for _, t := range pv.Spec.NodeAffinity.Required.NodeSelectorTerms {
		var parts []string
		for _, e := range t.MatchExpressions {
			parts = append(parts, expression(&e))
		}
		terms = append(terms, strings.Join(parts, " and "))
	}
	return strings.Join(terms, ", or ")
}

// offers says what a claim without a volume may choose from.
func offers(u *cluster.Unbound, node *corev1.Node) string {
	var parts []string
	switch k := len(u.Candidates); {
	case k == 1:
		parts = append(parts, "the one free volume of the class does not fit here")
	case k > 1:
		parts = append(parts, fmt.Sprintf("none of the %d free volumes of the class fits here", k))
	case !u.Makes:
		parts = append(parts, "no volume of the class is free, and nobody makes any")
	}
	selected, chosen := u.Claim.Annotations[storage.AnnSelectedNode]
	switch {
	case !u.Makes:
	case chosen && selected != node.Name:
		parts = append(parts, "it is being made on node "+selected)
	case !allowed(u.Class, node):
		parts = append(parts, "the class' allowedTopologies leave the node out")
	default:
		parts = append(parts, fmt.Sprintf("%s has room for %s here", u.Class.Provisioner, largest(u, node)))
	}
	return strings.Join(parts, ", and ")
}

// largest is the largest volume for which a driver has told that it has room where the node is.
func largest(u *cluster.Unbound, node *corev1.Node) string {
	var most *cluster.Room
	for k := range u.Rooms {
		if room := &u.Rooms[k]; room.Where.Matches(labels.Set(node.Labels)) && (most == nil || most.Largest.Cmp(room.Largest) < 0) {
			most = room
		}
	}
	if most == nil || most.Largest.IsZero() {
		return "none"
	}
	return most.Largest.String() + " at most"
}

// holders names who has what only one pod may have.
func holders(v *cluster.Volumes, n *cluster.Nodes, i int) string {
	for _, p := range n.On[i] {
		if p.Volumes == nil {
			continue
		}
		for _, d := range p.Volumes.Disks {
			if slices.ContainsFunc(v.Disks, d.Conflicts) {
				return fmt.Sprintf("%s/%s has disk %s", p.Namespace, p.Name, d.Name)
			}
		}
	}
	for _, p := range v.Held {
		return fmt.Sprintf("%s/%s has the claim for itself", p.Namespace, p.Name)
	}
	return ""
}

// attachments counts the volumes of the drivers that a pod asks for and that name a limit.
func attachments(v *cluster.Volumes, n *cluster.Nodes, i int) string {
	there, has := attachedAt(n, i, nil)
	asks := map[string]int{}
	for _, a := range v.Attached {
		if !there[a] {
			asks[a.Driver]++
		}
	}
	for _, a := range v.Attached {
		if limit, limited := n.AttachLimits[n.Name(i)][a.Driver]; limited && has[a.Driver]+asks[a.Driver] > limit {
			return fmt.Sprintf("%s: asks %d, attached %d of %d", a.Driver, asks[a.Driver], has[a.Driver], limit)
		}
	}
	return ""
}
