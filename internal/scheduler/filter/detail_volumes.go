package filter

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
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
		for _, pv := range v.Bound {
			if zone, has := pv.Labels[corev1.LabelTopologyZone]; has && zone != n.Node[i].Labels[corev1.LabelTopologyZone] {
				return fmt.Sprintf("volume %s is in zone %s, the node in %s", pv.Name, zone, n.Node[i].Labels[corev1.LabelTopologyZone])
			}
		}
		return ""
	}
	if v.Lost {
		return "a claim of the pod is bound to a volume that is not there"
	}
	for _, pv := range v.Bound {
		if storage.CheckNodeAffinity(pv, n.Node[i].Labels) != nil {
			return fmt.Sprintf("volume %s cannot be reached from here", pv.Name)
		}
	}
	for k := range v.Unbound {
		u := &v.Unbound[k]
		if _, refusal := Bind(&cluster.Volumes{Unbound: []cluster.Unbound{*u}}, n.Node[i]); refusal != nil {
			size := u.Size()
			return fmt.Sprintf("claim %s asks %s of class %s: %s", u.Claim.Name, size.String(), u.Class.Name, offers(u))
		}
	}
	return ""
}

// offers says what a claim without a volume may choose from.
func offers(u *cluster.Unbound) string {
	parts := []string{fmt.Sprintf("%d free volumes of the class, none that fits here", len(u.Candidates))}
	switch {
	case u.Measured:
		parts = append(parts, u.Class.Provisioner+" tells of no room for it here")
	case u.Makes:
		parts = append(parts, u.Class.Provisioner+" makes none here")
	}
	return strings.Join(parts, ", ")
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
