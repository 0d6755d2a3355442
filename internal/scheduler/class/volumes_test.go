package class

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	helpers "k8s.io/component-helpers/scheduling/corev1"
	storage "k8s.io/component-helpers/storage/volume"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// shelf is what there is of storage in a random cluster, as plain objects.
type shelf struct {
	claims  map[string]*corev1.PersistentVolumeClaim // by namespace/name
	volumes map[string]*corev1.PersistentVolume
	rooms   []*storagev1.CSIStorageCapacity
	limits  map[string]int // of the driver, by node where it is installed
	needed  bool           // the driver wants no pods where it is not

	attached map[string][]string        // volumes of placed pods, by pod
	told     map[string]map[string]bool // volumes that VolumeAttachments tell of, by node
	zone     string                     // where volumes of the class zonal are made
}

const csiDriver = "e.com"

func newShelf() *shelf {
	return &shelf{claims: map[string]*corev1.PersistentVolumeClaim{}, volumes: map[string]*corev1.PersistentVolume{}, limits: map[string]int{}, attached: map[string][]string{}, told: map[string]map[string]bool{}}
}

// The classes: one whose volumes somebody makes beforehand, one whose driver makes them, one whose driver makes them where there is room.
var storageClasses = map[string]string{"static": storage.NotSupportedProvisioner, "made": csiDriver, "measured": "m.com", "zonal": csiDriver}

// Get and List make the shelf the reader that the fast way reads.
func (s *shelf) Get(_ context.Context, key crclient.ObjectKey, o crclient.Object, _ ...crclient.GetOption) error {
	switch o := o.(type) {
	case *corev1.PersistentVolumeClaim:
		if c := s.claims[key.String()]; c != nil {
			c.DeepCopyInto(o)
			return nil
		}
	case *corev1.PersistentVolume:
		if v := s.volumes[key.Name]; v != nil {
			v.DeepCopyInto(o)
			return nil
		}
	case *storagev1.StorageClass:
		if p, known := storageClasses[key.Name]; known {
			mode := storagev1.VolumeBindingWaitForFirstConsumer
			*o = storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: key.Name}, Provisioner: p, VolumeBindingMode: &mode}
			if key.Name == "zonal" {
				o.ResourceVersion = s.zone // it was made anew when its zone changed
				o.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: corev1.LabelTopologyZone, Values: []string{s.zone}}}}}
			}
			return nil
		}
	case *storagev1.CSIDriver:
		measured := key.Name == storageClasses["measured"]
		*o = storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{StorageCapacity: &measured}}
		return nil
	}
	return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
}

func (s *shelf) List(_ context.Context, list crclient.ObjectList, _ ...crclient.ListOption) error {
	switch list := list.(type) {
	case *corev1.PersistentVolumeList:
		for _, v := range s.volumes {
			list.Items = append(list.Items, *v)
		}
		slices.SortFunc(list.Items, func(a, b corev1.PersistentVolume) int { return cmp.Compare(a.Name, b.Name) })
	case *storagev1.CSIStorageCapacityList:
		for _, r := range s.rooms {
			list.Items = append(list.Items, *r)
		}
	}
	return nil
}

// volumes gives a pod some, of a few claims and disks that others may use too.
func (d dice) volumes(p *corev1.Pod) {
	if d.one(60) {
		claim := corev1.PersistentVolumeClaimVolumeSource{ClaimName: fmt.Sprint("c", d.IntN(4))}
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "claim", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &claim}})
	}
	if d.one(40) {
		disk := corev1.GCEPersistentDiskVolumeSource{PDName: pick(d, "d1", "d2"), ReadOnly: d.one(50)}
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "disk", VolumeSource: corev1.VolumeSource{GCEPersistentDisk: &disk}})
	}
}

// vary gives some pods of a set volumes of their own, as a StatefulSet does.
func (d dice) vary(p *corev1.Pod) {
	for i := range p.Spec.Volumes {
		v := &p.Spec.Volumes[i]
		switch {
		case d.one(60):
		case v.PersistentVolumeClaim != nil:
			v.PersistentVolumeClaim.ClaimName = fmt.Sprint("c", d.IntN(4))
		default:
			v.GCEPersistentDisk.ReadOnly = !v.GCEPersistentDisk.ReadOnly
		}
	}
}

func (d dice) claim() *corev1.PersistentVolumeClaim {
	mode := pick(d, corev1.ReadWriteOnce, corev1.ReadWriteOnce, corev1.ReadWriteOncePod)
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: pick(d, "x", "y"), Name: fmt.Sprint("c", d.IntN(4))}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{mode}, StorageClassName: new(pick(d, "static", "made", "measured")),
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(pick(d, "1Gi", "5Gi"))}}}}
	c.UID = types.UID(c.Namespace + c.Name)
	if d.one(40) {
		bound(c, fmt.Sprint("v", d.IntN(5)))
	}
	return c
}

func bound(c *corev1.PersistentVolumeClaim, volume string) {
	c.Spec.VolumeName, c.Annotations = volume, map[string]string{storage.AnnBindCompleted: "yes"}
}

func (d dice) volume() *corev1.PersistentVolume {
	name := fmt.Sprint("v", d.IntN(5))
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadWriteOncePod}, StorageClassName: "static",
		Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(pick(d, "1Gi", "10Gi"))},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: csiDriver, VolumeHandle: name}},
	}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
	if d.one(50) { // which nobody attaches, so that only the claim tells pods apart
		v.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/" + name}}
	}
	if d.one(50) {
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{pick(d, "ssd", "hdd")}}}}}}}
	}
	if d.one(40) {
		v.Labels = map[string]string{corev1.LabelTopologyZone: pick(d, "z1", "z2")}
	}
	if d.one(15) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "z", Name: "somebody"}
	}
	return v
}

// storageStep changes something about storage.
func (d dice) storageStep() step {
	switch d.IntN(7) {
	case 6:
		node, volume, gone := fmt.Sprintf("n%d", d.IntN(9)), fmt.Sprint("v", d.IntN(5)), d.one(30)
		return step{fmt.Sprintf("%s has %s attached: %t", node, volume, !gone), func(w *world, n *cluster.Nodes, _ *Table) error {
			if w.storage.told[node] == nil {
				w.storage.told[node] = map[string]bool{}
			}
			if gone {
				delete(w.storage.told[node], volume)
				n.SetAttachment(node+volume, node, cluster.Attachment{})
			} else {
				w.storage.told[node][volume] = true
				n.SetAttachment(node+volume, node, cluster.Attachment{Driver: csiDriver, Handle: volume})
			}
			return nil
		}}
	case 5:
		needed := d.one(70)
		return step{fmt.Sprintf("the driver must be there: %t", needed), func(w *world, _ *cluster.Nodes, _ *Table) error {
			w.storage.needed = needed
			now := mustBeThere(csiDriver)
			now.Spec.PreventPodSchedulingIfMissing = &needed
			w.book.DriverChanged(mustBeThere(csiDriver), now)
			return nil
		}}
	case 0, 1:
		c := d.claim()
		key := c.Namespace + "/" + c.Name
		return step{"claim " + key + " of " + *c.Spec.StorageClassName + " bound to " + c.Spec.VolumeName, func(w *world, _ *cluster.Nodes, _ *Table) error {
			w.storage.claims[key] = c
			w.book.Changed()
			return nil
		}}
	case 2:
		v := d.volume()
		return step{"volume " + v.Name, func(w *world, _ *cluster.Nodes, _ *Table) error {
			w.storage.volumes[v.Name] = v
			w.book.Changed()
			return nil
		}}
	case 3:
		node, limit := fmt.Sprintf("n%d", d.IntN(9)), 1+d.IntN(2)
		return step{fmt.Sprintf("%s takes %d volumes", node, limit), func(w *world, n *cluster.Nodes, _ *Table) error {
			w.storage.limits[node] = limit
			n.SetAttachLimits(node, map[string]int{csiDriver: limit})
			return nil
		}}
	}
	room := &storagev1.CSIStorageCapacity{StorageClassName: "measured", Capacity: new(resource.MustParse(pick(d, "1Gi", "8Gi"))),
		NodeTopology: &metav1.LabelSelector{MatchLabels: map[string]string{"disk": pick(d, "ssd", "hdd")}}}
	return step{"room for " + room.Capacity.String(), func(w *world, _ *cluster.Nodes, _ *Table) error {
		w.storage.rooms = append(w.storage.rooms, room)
		w.book.Changed()
		return nil
	}}
}

func claimOf(p *corev1.Pod) string {
	for _, v := range p.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			return p.Namespace + "/" + v.PersistentVolumeClaim.ClaimName
		}
	}
	return ""
}

func diskOf(p *corev1.Pod) *corev1.GCEPersistentDiskVolumeSource {
	for _, v := range p.Spec.Volumes {
		if v.GCEPersistentDisk != nil {
			return v.GCEPersistentDisk
		}
	}
	return nil
}

// handles are the driver's volumes that a pod has attached.
func (s *shelf) handles(p *corev1.Pod) []string {
	c := s.claims[claimOf(p)]
	switch {
	case c == nil:
		return nil
	case s.volumes[c.Spec.VolumeName] != nil:
		if v := s.volumes[c.Spec.VolumeName]; v.Spec.CSI != nil {
			return []string{v.Spec.CSI.VolumeHandle}
		}
	case storageClasses[*c.Spec.StorageClassName] == csiDriver:
		return []string{"the volume to come of " + claimOf(p)}
	}
	return nil
}

// unusable is why a pod can go nowhere for its claim.
func (w *world) unusable(p *corev1.Pod) string {
	c, key := w.storage.claims[claimOf(p)], claimOf(p)
	switch {
	case key == "":
		return ""
	case c == nil:
		return fmt.Sprintf("persistentvolumeclaim %q not found", key[2:])
	}
	return ""
}

// keepsOff is the volume plug-ins' first reason against a node.
func (w *world) keepsOff(p *corev1.Pod, n *corev1.Node) string {
	s, c := w.storage, w.storage.claims[claimOf(p)]
	there := maps.Clone(s.told[n.Name])
	if there == nil {
		there = map[string]bool{}
	}
	for _, q := range w.on(n.Name) {
		if a, b := diskOf(p), diskOf(q); a != nil && b != nil && a.PDName == b.PDName && !(a.ReadOnly && b.ReadOnly) {
			return "node(s) had no available disk"
		}
		for _, h := range s.attached[q.Name] {
			there[h] = true
		}
	}
	for _, q := range w.pods {
		if c != nil && c.Spec.AccessModes[0] == corev1.ReadWriteOncePod && claimOf(q) == claimOf(p) {
			return "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
		}
	}
	own, brings := s.handles(p), 0
	for _, h := range own {
		if !there[h] {
			brings++
		}
	}
	limit, has := s.limits[n.Name]
	if !has && len(own) > 0 && s.needed {
		return "e.com CSI driver is not installed on the node"
	}
	if has && brings > 0 && len(there)+brings > limit {
		return "node(s) exceed max volume count"
	}
	if c == nil {
		return ""
	}
	if c.Spec.VolumeName == "" {
		return s.bindable(c, n)
	}
	v := s.volumes[c.Spec.VolumeName]
	if v == nil {
		return "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
	}
	if !reaches(v, n) {
		return "node(s) didn't match PersistentVolume's node affinity"
	}
	zone, has := n.Labels[corev1.LabelTopologyZone]
	if want, zoned := v.Labels[corev1.LabelTopologyZone]; zoned && has && want != zone {
		return "node(s) had no available volume zone"
	}
	return ""
}

func reaches(v *corev1.PersistentVolume, n *corev1.Node) bool {
	if v.Spec.NodeAffinity == nil {
		return true
	}
	ok, err := helpers.MatchNodeSelectorTerms(n, v.Spec.NodeAffinity.Required)
	return ok && err == nil
}

// stored is what the storage of a node is worth for a pod's claim: of the smallest volume that will do, or else of the first room, what is left.
func (w *world) stored(p *corev1.Pod, n *corev1.Node) int64 {
	s, c := w.storage, w.storage.claims[claimOf(p)]
	if c == nil || c.Spec.VolumeName != "" {
		return 0
	}
	size, has := c.Spec.Resources.Requests[corev1.ResourceStorage], int64(0)
	for _, v := range s.volumes {
		q := v.Spec.Capacity[corev1.ResourceStorage]
		if v.Spec.StorageClassName == *c.Spec.StorageClassName && v.Spec.ClaimRef == nil && q.Cmp(size) >= 0 && reaches(v, n) && (has == 0 || q.Value() < has) {
			has = q.Value()
		}
	}
	for _, r := range s.rooms {
		if has == 0 && r.StorageClassName == *c.Spec.StorageClassName && r.Capacity.Cmp(size) >= 0 && labels.SelectorFromSet(r.NodeTopology.MatchLabels).Matches(labels.Set(n.Labels)) {
			has = r.Capacity.Value()
		}
	}
	switch {
	case has == 0:
		return 0
	case w.rules != nil && w.rules.Storage != nil:
		return size.Value() * 100 / has
	}
	return 100 - size.Value()*100/has
}

// bindable says why a claim without a volume cannot have one on a node.
func (s *shelf) bindable(c *corev1.PersistentVolumeClaim, n *corev1.Node) string {
	size, class := c.Spec.Resources.Requests[corev1.ResourceStorage], *c.Spec.StorageClassName
	for _, v := range s.volumes {
		has := v.Spec.Capacity[corev1.ResourceStorage]
		if v.Spec.StorageClassName == class && v.Spec.ClaimRef == nil && has.Cmp(size) >= 0 && reaches(v, n) {
			return ""
		}
	}
	if class == "static" {
		return "node(s) didn't find available persistent volumes to bind"
	}
	if class == "made" {
		return ""
	}
	for _, r := range s.rooms {
		if labels.SelectorFromSet(r.NodeTopology.MatchLabels).Matches(labels.Set(n.Labels)) && r.Capacity.Cmp(size) >= 0 {
			return ""
		}
	}
	return "node(s) did not have enough free storage"
}
