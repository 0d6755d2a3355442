// Package volume finds out what a pod's volumes ask of a node: which PersistentVolumes are behind its claims, which claims get theirs only once a node
// is chosen, and what would have to happen first.
//
// It reads and decides, and changes nothing but its own book of volumes that were promised to a claim and are not seen bound yet. Only the
// scheduler's own goroutine uses it.
package volume

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	storage "k8s.io/component-helpers/storage/volume"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/scheduler/cluster"
)

// Book of what the scheduler knows of volumes.
type Book struct {
	reader   crclient.Reader
	nodes    *cluster.Nodes
	promised map[string]string // claims by volume
	needed   map[string]bool   // drivers whose volumes keep pods off nodes where they are not installed
	serial   uint64            // counts the changes by which a claim may find another volume
}

// NewBook returns an empty book.
func NewBook(reader crclient.Reader, n *cluster.Nodes) *Book {
	return &Book{reader: reader, nodes: n, promised: map[string]string{}, needed: map[string]bool{}}
}

// Changed notes that volumes, classes or capacities did.
func (b *Book) Changed() { b.serial++ }

// DriverChanged takes a driver in.
func (b *Book) DriverChanged(old, current *storagev1.CSIDriver) {
	if old != nil {
		delete(b.needed, old.Name)
	}
	if current != nil && current.Spec.PreventPodSchedulingIfMissing != nil && *current.Spec.PreventPodSchedulingIfMissing {
		b.needed[current.Name] = true
	}
	b.Changed()
}

// Promise keeps a volume for a claim until Forget.
func (b *Book) Promise(volume, claim string) {
	b.promised[volume] = claim
	b.serial++
}

// Forget takes a promise back: it was kept, or could not be.
func (b *Book) Forget(volume string) {
	delete(b.promised, volume)
	b.serial++
}

// Needed says that a pod has volumes that matter to nodes.
func Needed(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool {
		return v.PersistentVolumeClaim != nil || v.Ephemeral != nil || v.AzureDisk != nil || v.Cinder != nil || v.PortworxVolume != nil || disk(&v) != nil
	})
}

// disk is a volume of those that VolumeRestrictions knows.
func disk(v *corev1.Volume) *cluster.Disk {
	switch {
	case v.GCEPersistentDisk != nil:
		return &cluster.Disk{Name: "gce/" + v.GCEPersistentDisk.PDName, ReadOnly: v.GCEPersistentDisk.ReadOnly}
	case v.AWSElasticBlockStore != nil:
		return &cluster.Disk{Name: "aws/" + v.AWSElasticBlockStore.VolumeID}
	case v.ISCSI != nil:
		return &cluster.Disk{Name: "iscsi/" + v.ISCSI.IQN, ReadOnly: v.ISCSI.ReadOnly}
	case v.RBD != nil:
		return &cluster.Disk{Name: "rbd/" + v.RBD.RBDPool + "/" + v.RBD.RBDImage, Monitors: v.RBD.CephMonitors, ReadOnly: v.RBD.ReadOnly}
	}
	return nil
}

// Placed is what a pod that has a node holds there; what cannot be found holds nothing.
func (b *Book) Placed(p *corev1.Pod) *cluster.Volumes {
	if !Needed(p) {
		return nil
	}
	out := &cluster.Volumes{}
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		b.inline(p, v, out)
		name := api.ClaimName(p, v)
		if name == "" {
			continue
		}
		out.Claims = append(out.Claims, p.Namespace+"/"+name)
		claim, pv, err := b.claim(p.Namespace, name)
		if err != nil || claim == nil {
			continue
		}
		if a, has, err := b.attached(claim, pv); err == nil && has {
			out.Attached = append(out.Attached, a.Attachment)
		}
	}
	return out
}

func (b *Book) inline(p *corev1.Pod, v *corev1.Volume, out *cluster.Volumes) {
	if d := disk(v); d != nil {
		out.Disks = append(out.Disks, *d)
	}
	if a, has := inlineOf(v, p.Namespace); has {
		b.attach(a, out)
	}
}

// unmade comes before the claim's name in the handle of a volume that is still to be made.
const unmade = "claim/"

// attach notes what a pod has attached to its node, and that its driver must be there if that wants it so.
func (b *Book) attach(a attachment, out *cluster.Volumes) {
	out.Attached = append(out.Attached, a.Attachment)
	if d := (cluster.Driver{Name: a.Driver, Translated: a.old}); b.needed[a.Driver] && !slices.Contains(out.Needed, d) {
		out.Needed = append(out.Needed, d)
	}
}

// claim reads a claim and the volume that it is bound to; nil for what is not there.
func (b *Book) claim(namespace, name string) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume, error) {
	var claim corev1.PersistentVolumeClaim
	if err := b.reader.Get(context.Background(), crclient.ObjectKey{Namespace: namespace, Name: name}, &claim); err != nil {
		return nil, nil, crclient.IgnoreNotFound(err)
	}
	if claim.Spec.VolumeName == "" {
		return &claim, nil, nil
	}
	var pv corev1.PersistentVolume
	err := b.reader.Get(context.Background(), crclient.ObjectKey{Name: claim.Spec.VolumeName}, &pv)
	if apierrors.IsNotFound(err) {
		return &claim, nil, nil
	}
	return &claim, &pv, err
}

// Bound says that a claim and its volume have found each other.
func Bound(c *corev1.PersistentVolumeClaim) bool {
	_, completed := c.Annotations[storage.AnnBindCompleted]
	return c.Spec.VolumeName != "" && completed
}

// Of finds out what a pod's volumes ask of a node. why is upstream's reason if no node can do yet, whichever.
func (b *Book) Of(p *corev1.Pod) (out *cluster.Volumes, why string, err error) {
	if !Needed(p) {
		return nil, "", nil
	}
	out = &cluster.Volumes{}
	immediate := false
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		b.inline(p, v, out)
		name := api.ClaimName(p, v)
		if name == "" {
			continue
		}
		claim, pv, err := b.claim(p.Namespace, name)
		if err != nil {
			return nil, "", err
		}
		if why := unusable(p, v, name, claim); why != "" {
			return nil, cmp.Or(b.unfound(p), why), nil
		}
		b.claimed(p, claim, out)
		a, attaches, err := b.attached(claim, pv)
		if err != nil {
			return nil, "", err
		}
		if attaches {
			b.attach(a, out)
		}
		switch {
		case Bound(claim) && pv == nil:
			if out.Lost = true; v.PersistentVolumeClaim != nil && out.Missing == "" {
				out.Missing = claim.Spec.VolumeName
			}
		case Bound(claim):
			out.Bound = append(out.Bound, pv)
		default:
			u, delayed, err := b.unbound(claim)
			if err != nil {
				return nil, "", err
			}
			if immediate = immediate || !delayed; delayed {
				out.Unbound = append(out.Unbound, u)
			}
		}
	}
	if immediate {
		return nil, "pod has unbound immediate PersistentVolumeClaims", nil
	}
	slices.SortStableFunc(out.Unbound, func(a, c cluster.Unbound) int { s, t := a.Size(), c.Size(); return s.Cmp(t) })
	b.sort(out)
	out.Key = b.key(out)
	return out, "", nil
}

// sort tells attachments that some node has already, which make a difference there, from those that are alike for every node.
func (b *Book) sort(v *cluster.Volumes) {
	seen := map[cluster.Attachment]bool{}
	for _, a := range v.Attached {
		switch {
		case seen[a]:
		case b.nodes.Attached(a):
			v.Shared = append(v.Shared, a)
		default:
			if v.Fresh == nil {
				v.Fresh = map[string]int{}
			}
			v.Fresh[a.Driver]++
		}
		seen[a] = true
	}
}

// unfound says that a claim which a pod names is not there. Upstream looks for that first, then for all else.
func (b *Book) unfound(p *corev1.Pod) string {
	for i := range p.Spec.Volumes {
		if v := p.Spec.Volumes[i].PersistentVolumeClaim; v != nil {
			if claim, _, err := b.claim(p.Namespace, v.ClaimName); err == nil && claim == nil {
				return fmt.Sprintf("persistentvolumeclaim %q not found", v.ClaimName)
			}
		}
	}
	return ""
}

// unusable says why a pod must wait for its claim.
func unusable(p *corev1.Pod, v *corev1.Volume, name string, claim *corev1.PersistentVolumeClaim) string {
	switch {
	case claim == nil && v.Ephemeral != nil:
		return fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
	case claim == nil:
		return fmt.Sprintf("persistentvolumeclaim %q not found", name)
	case claim.Status.Phase == corev1.ClaimLost:
		return fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName)
	case claim.DeletionTimestamp != nil:
		return fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
	case v.Ephemeral != nil:
		if err := ephemeral.VolumeIsForPod(p, claim); err != nil {
			return err.Error()
		}
	}
	return ""
}

// claimed notes a claim, and who else holds it if only one pod may.
func (b *Book) claimed(p *corev1.Pod, claim *corev1.PersistentVolumeClaim, out *cluster.Volumes) {
	key := claim.Namespace + "/" + claim.Name
	out.Claims = append(out.Claims, key)
	if !slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) {
		return
	}
	for _, other := range b.nodes.Claimants(key) {
		if other.UID != p.UID {
			out.Held = append(out.Held, other)
		}
	}
}

// unbound gathers what a claim could be bound to. delayed is false for one that must be bound before its pod gets a node.
func (b *Book) unbound(claim *corev1.PersistentVolumeClaim) (u cluster.Unbound, delayed bool, err error) {
	name := storage.GetPersistentVolumeClaimClass(claim)
	if name == "" || claim.Spec.VolumeName != "" {
		return u, false, nil
	}
	var class storagev1.StorageClass
	if err := b.reader.Get(context.Background(), crclient.ObjectKey{Name: name}, &class); err != nil {
		return u, false, crclient.IgnoreNotFound(err)
	}
	if class.VolumeBindingMode == nil || *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer {
		return u, false, nil
	}
	u = cluster.Unbound{Claim: claim, Class: &class, Makes: class.Provisioner != "" && class.Provisioner != storage.NotSupportedProvisioner}
	if u.Candidates, err = b.free(claim, name); err != nil {
		return u, false, err
	}
	return u, true, b.measure(&u)
}

// free are the volumes of a class that no other claim has or was promised.
func (b *Book) free(claim *corev1.PersistentVolumeClaim, class string) (list []*corev1.PersistentVolume, err error) {
	var all corev1.PersistentVolumeList
	if err := b.reader.List(context.Background(), &all, crclient.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	for i := range all.Items {
		v := &all.Items[i]
		if storage.GetPersistentVolumeClass(v) != class || v.Spec.ClaimRef != nil && !storage.IsVolumeBoundToClaim(v, claim) {
			continue
		}
		if to, promised := b.promised[v.Name]; promised && to != claim.Namespace+"/"+claim.Name {
			continue
		}
		list = append(list, v)
	}
	return list, nil
}

// measure looks up how much room a driver has told of, if it does.
func (b *Book) measure(u *cluster.Unbound) error {
	var driver storagev1.CSIDriver
	err := b.reader.Get(context.Background(), crclient.ObjectKey{Name: u.Class.Provisioner}, &driver)
	if err != nil || driver.Spec.StorageCapacity == nil || !*driver.Spec.StorageCapacity {
		return crclient.IgnoreNotFound(err)
	}
	u.Measured = true
	var rooms storagev1.CSIStorageCapacityList
	if err := b.reader.List(context.Background(), &rooms, crclient.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	for i := range rooms.Items {
		if rooms.Items[i].StorageClassName != u.Class.Name {
			continue
		}
		if room, says := roomOf(&rooms.Items[i]); says {
			u.Rooms = append(u.Rooms, room)
		}
	}
	return nil
}

// roomOf reads a CSIStorageCapacity; false if it says of no node how much it has.
func roomOf(c *storagev1.CSIStorageCapacity) (room cluster.Room, says bool) {
	if c.NodeTopology == nil || c.Capacity == nil && c.MaximumVolumeSize == nil {
		return room, false
	}
	where, err := metav1.LabelSelectorAsSelector(c.NodeTopology)
	if err != nil {
		return room, false
	}
	room.Where = where
	if c.Capacity != nil {
		room.Free, room.Largest = *c.Capacity, *c.Capacity
	}
	if c.MaximumVolumeSize != nil {
		room.Largest = *c.MaximumVolumeSize
	}
	return room, true
}

// key tells apart what nodes could tell apart. Claims for which a volume is simply made are alike if their class is, so that the pods of a
// StatefulSet are of one class; where size matters each is by itself.
func (b *Book) key(v *cluster.Volumes) string {
	var s strings.Builder
	for _, pv := range v.Bound {
		affinity, _ := json.Marshal(pv.Spec.NodeAffinity)
		s.Write(affinity)
		for _, label := range []string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion, corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion} {
			s.WriteString("\x01" + pv.Labels[label])
		}
	}
	for k := range v.Unbound {
		u := &v.Unbound[k]
		fmt.Fprintf(&s, "\x02%s\x01%s\x01%s", u.Class.Name, u.Class.ResourceVersion, u.Claim.Annotations[storage.AnnSelectedNode])
		if len(u.Candidates) > 0 || u.Measured {
			fmt.Fprintf(&s, "\x01%s\x01%d", u.Claim.UID, b.serial)
		}
	}
	for _, a := range v.Shared {
		s.WriteString("\x03" + a.Driver + "\x01" + a.Handle)
	}
	for _, driver := range slices.Sorted(maps.Keys(v.Fresh)) {
		fmt.Fprintf(&s, "\x06%s\x01%d", driver, v.Fresh[driver])
	}
	for _, d := range v.Needed {
		fmt.Fprintf(&s, "\x07%s\x01%v", d.Name, d.Translated)
	}
	for _, d := range v.Disks {
		fmt.Fprintf(&s, "\x04%s\x01%q\x01%v", d.Name, d.Monitors, d.ReadOnly)
	}
	if v.Lost {
		s.WriteString("\x08")
	}
	for _, p := range v.Held {
		s.WriteString("\x05" + string(p.UID))
	}
	return s.String()
}
