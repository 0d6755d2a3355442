package cluster

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/labels"
)

// Volumes is what a pod's volumes mean for the nodes it may go to. It is found out anew for every try, because claims and volumes come and go.
type Volumes struct {
	Key      string                     // equal keys mean the same to every node
	Bound    []*corev1.PersistentVolume // behind the pod's claims
	Unbound  []Unbound                  // claims that get their volume on the node, the smallest first
	Attached []Attachment               // what a driver attaches to the node: of these
	Shared   []Attachment               // a placed pod has too, and of the others
	Fresh    map[string]int             // so many by driver
	Needed   []Driver                   // that do without pods where they are not installed
	Disks    []Disk                     // that a node cannot have twice
	Claims   []string                   // all of the pod's, namespace/name
	Held     []*Pod                     // other pods that hold a claim which only one pod may use
	Lost     bool                       // a claim is bound to a volume that is not there
	Missing  string                     // which, if VolumeZone looks for it
}

// Unbound is a claim that waits for its first consumer.
type Unbound struct {
	Claim      *corev1.PersistentVolumeClaim
	Candidates []*corev1.PersistentVolume // free, and of the claim's class
	Class      *storagev1.StorageClass
	Makes      bool // the class has a provisioner
	Measured   bool // the provisioner tells how much room there is, in Rooms
	Rooms      []Room
}

// Room is what a driver has left for volumes of a class on some nodes, as its CSIStorageCapacity says.
type Room struct {
	Free    resource.Quantity // 0: it says only how large a volume may be
	Largest resource.Quantity
	Where   labels.Selector
}

// Size is what the claim asks for.
func (u *Unbound) Size() resource.Quantity {
	return u.Claim.Spec.Resources.Requests[corev1.ResourceStorage]
}

// Attachment is a volume of a CSI driver.
type Attachment struct{ Driver, Handle string }

// Driver is a CSI driver that has to be on the node. Translated says that the volume names a plug-in which was part of Kubernetes before: on a node that
// knows of no driver at all it is nobody's.
type Driver struct {
	Name       string
	Translated bool
}

// Disk is a volume that pods name themselves, without a claim.
type Disk struct {
	Name     string
	Monitors []string // of Ceph; two disks are one only if they share one
	ReadOnly bool
}

// Conflicts says that two pods of a node cannot have both.
func (d Disk) Conflicts(other Disk) bool {
	if d.Name != other.Name || d.ReadOnly && other.ReadOnly {
		return false
	}
	return d.Monitors == nil || slices.ContainsFunc(d.Monitors, func(m string) bool { return slices.Contains(other.Monitors, m) })
}

// SetAttachLimits says how many volumes each driver that is installed can attach to a node, as its CSINode has it.
func (n *Nodes) SetAttachLimits(node string, limits map[string]int) {
	if n.AttachLimits == nil {
		n.AttachLimits = map[string]map[string]int{}
	}
	if limits == nil {
		delete(n.AttachLimits, node)
	} else {
		n.AttachLimits[node] = limits
	}
	if i, known := n.index[node]; known {
		n.note(i, false)
	}
}

// Claimants are the placed pods that use a claim.
func (n *Nodes) Claimants(claim string) []*Pod { return n.claims[claim] }

// Attached says whether a placed pod has a volume attached, or some node has still.
func (n *Nodes) Attached(a Attachment) bool { return n.attached[a] > 0 }

// SetAttachment notes what a VolumeAttachment says a node has attached, whether a pod there uses it or not; the zero Attachment takes it back.
func (n *Nodes) SetAttachment(name, node string, a Attachment) {
	if n.told == nil {
		n.told = map[string]map[string]Attachment{}
	}
	if n.attached == nil {
		n.attached = map[Attachment]int{}
	}
	was, told := n.told[node][name]
	if was == a {
		return
	}
	if told {
		if n.attached[was]--; n.attached[was] == 0 {
			delete(n.attached, was)
		}
		if delete(n.told[node], name); len(n.told[node]) == 0 {
			delete(n.told, node)
		}
	}
	if a != (Attachment{}) {
		if n.told[node] == nil {
			n.told[node] = map[string]Attachment{}
		}
		n.told[node][name] = a
		n.attached[a]++
	}
	if i, known := n.index[node]; known {
		n.note(i, false)
	}
}

// Told are the attachments of a node that VolumeAttachments tell of, by their names.
func (n *Nodes) Told(node string) map[string]Attachment { return n.told[node] }

// enter and leave keep the claims and attachments of placed pods.
func (n *Nodes) enter(p *Pod) {
	if p.Volumes == nil {
		return
	}
	if n.claims == nil {
		n.claims = map[string][]*Pod{}
	}
	if n.attached == nil {
		n.attached = map[Attachment]int{}
	}
	for _, a := range p.Volumes.Attached {
		n.attached[a]++
	}
	for _, claim := range p.Volumes.Claims {
		n.claims[claim] = append(n.claims[claim], p)
	}
	p.entered = p.Volumes
}

func (n *Nodes) leave(p *Pod) {
	if p.entered == nil {
		return
	}
	for _, a := range p.entered.Attached {
		if n.attached[a]--; n.attached[a] == 0 {
			delete(n.attached, a)
		}
	}
	for _, claim := range p.entered.Claims {
		var rest []*Pod
		for _, other := range n.claims[claim] {
			if other != p {
				rest = append(rest, other)
			}
		}
		if n.claims[claim] = rest; rest == nil {
			delete(n.claims, claim)
		}
	}
	p.entered = nil
}
