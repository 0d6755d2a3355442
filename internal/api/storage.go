package api

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/storage/ephemeral"
)

func storageRows() []*Resource {
	const g, v = "storage.k8s.io", "v1"
	return []*Resource{
		of[storagev1.StorageClass, storagev1.StorageClassList](Resource{Group: g, Version: v, Kind: "StorageClass", Plural: "storageclasses", Short: []string{"sc"},
			Key: "storageclasses", Default: defaultStorageClass, Validate: validateStorageClass, ValidateUpdate: validateStorageClassUpdate, Columns: storageClassColumns}),
		of[storagev1.VolumeAttachment, storagev1.VolumeAttachmentList](Resource{Group: g, Version: v, Kind: "VolumeAttachment", Plural: "volumeattachments",
			Key: "volumeattachments", Status: true, StatusAlone: true, Validate: validateVolumeAttachment, ValidateUpdate: validateVolumeAttachmentUpdate,
			ValidateStatus: validateVolumeAttachmentUpdate, Columns: volumeAttachmentColumns}),
		of[storagev1.CSIDriver, storagev1.CSIDriverList](Resource{Group: g, Version: v, Kind: "CSIDriver", Plural: "csidrivers", Key: "csidrivers", Generation: true,
			Default: defaultCSIDriver, Validate: validateCSIDriver, ValidateUpdate: validateCSIDriverUpdate, Columns: csiDriverColumns}),
		of[storagev1.CSINode, storagev1.CSINodeList](Resource{Group: g, Version: v, Kind: "CSINode", Plural: "csinodes", Key: "csinodes", Status: true, StatusAlone: true,
			Validate: validateCSINode, ValidateUpdate: validateCSINodeUpdate, Columns: csiNodeColumns}),
		of[storagev1.CSIStorageCapacity, storagev1.CSIStorageCapacityList](Resource{Group: g, Version: v, Kind: "CSIStorageCapacity", Plural: "csistoragecapacities",
			Key: "csistoragecapacities", Namespaced: true, Validate: validateStorageCapacity, ValidateUpdate: validateStorageCapacityUpdate, Columns: storageCapacityColumns}),
		of[storagev1.VolumeAttributesClass, storagev1.VolumeAttributesClassList](Resource{Group: g, Version: v, Kind: "VolumeAttributesClass",
			Plural: "volumeattributesclasses", Short: []string{"vac"}, Key: "volumeattributesclasses", Validate: validateAttributesClass,
			ValidateUpdate: validateAttributesClassUpdate, Columns: columns(text("DriverName", func(c *storagev1.VolumeAttributesClass) string { return c.DriverName }))}),
	}
}

func defaultStorageClass(o Object) {
	c := o.(*storagev1.StorageClass)
	fillNil(&c.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete)
	fillNil(&c.VolumeBindingMode, storagev1.VolumeBindingImmediate)
}

func defaultCSIDriver(o Object) {
	s := &o.(*storagev1.CSIDriver).Spec
	fillNil(&s.AttachRequired, true)
	for _, off := range []**bool{&s.PodInfoOnMount, &s.StorageCapacity, &s.RequiresRepublish, &s.SELinuxMount} {
		fillNil(off, false)
	}
	fillNil(&s.FSGroupPolicy, storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy)
	if len(s.VolumeLifecycleModes) == 0 {
		s.VolumeLifecycleModes = []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecyclePersistent}
	}
}

// DefaultClassAnnotations mark a StorageClass as the one that claims get which name none.
var DefaultClassAnnotations = []string{"storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"}

// IsDefaultClass says whether a StorageClass is marked as the default.
func IsDefaultClass(c *storagev1.StorageClass) bool {
	for _, key := range DefaultClassAnnotations {
		if c.Annotations[key] == "true" {
			return true
		}
	}
	return false
}

var storageClassColumns = func() []Column {
	list := columns(
		text("Provisioner", func(c *storagev1.StorageClass) string { return c.Provisioner }),
		text("ReclaimPolicy", func(c *storagev1.StorageClass) string { return string(value(c.ReclaimPolicy)) }),
		text("VolumeBindingMode", func(c *storagev1.StorageClass) string { return string(value(c.VolumeBindingMode)) }),
		text("AllowVolumeExpansion", func(c *storagev1.StorageClass) string { return boolText(value(c.AllowVolumeExpansion)) }),
	)
	list[0] = text("Name", func(c *storagev1.StorageClass) string {
		if IsDefaultClass(c) {
			return c.Name + " (default)"
		}
		return c.Name
	})
	list[0].Format = "name"
	return list
}()

var volumeAttachmentColumns = columns(
	text("Attacher", func(a *storagev1.VolumeAttachment) string { return a.Spec.Attacher }),
	text("PV", func(a *storagev1.VolumeAttachment) string { return value(a.Spec.Source.PersistentVolumeName) }),
	text("Node", func(a *storagev1.VolumeAttachment) string { return a.Spec.NodeName }),
	text("Attached", func(a *storagev1.VolumeAttachment) string { return boolText(a.Status.Attached) }),
)

var csiDriverColumns = columns(
	text("AttachRequired", func(d *storagev1.CSIDriver) string {
		return boolText(d.Spec.AttachRequired == nil || *d.Spec.AttachRequired)
	}),
	text("PodInfoOnMount", func(d *storagev1.CSIDriver) string { return boolText(value(d.Spec.PodInfoOnMount)) }),
	text("StorageCapacity", func(d *storagev1.CSIDriver) string { return boolText(value(d.Spec.StorageCapacity)) }),
	text("TokenRequests", func(d *storagev1.CSIDriver) string {
		if len(d.Spec.TokenRequests) == 0 {
			return "<unset>"
		}
		var audiences []string
		for _, r := range d.Spec.TokenRequests {
			audiences = append(audiences, r.Audience)
		}
		return strings.Join(audiences, ",")
	}),
	text("RequiresRepublish", func(d *storagev1.CSIDriver) string { return boolText(value(d.Spec.RequiresRepublish)) }),
	text("Modes", func(d *storagev1.CSIDriver) string {
		var modes []string
		for _, m := range d.Spec.VolumeLifecycleModes {
			modes = append(modes, string(m))
		}
		return orNone(strings.Join(modes, ","))
	}),
)

var csiNodeColumns = columns(count("Drivers", func(n *storagev1.CSINode) int { return len(n.Spec.Drivers) }))

var storageCapacityColumns = []Column{
	nameColumn,
	text("StorageClassName", func(c *storagev1.CSIStorageCapacity) string { return c.StorageClassName }),
	text("Capacity", func(c *storagev1.CSIStorageCapacity) string {
		if c.Capacity == nil {
			return "<unset>"
		}
		return c.Capacity.String()
	}),
}

// NewestDefaultClass is the default class that was made last, of those made in the same second the first by name; nil if there is none.
func NewestDefaultClass(classes []*storagev1.StorageClass) *storagev1.StorageClass {
	return newestDefault(classes, IsDefaultClass)
}

// NewestDefaultIngressClass is likewise among the classes of Ingresses.
func NewestDefaultIngressClass(classes []*networkingv1.IngressClass) *networkingv1.IngressClass {
	return newestDefault(classes, func(c *networkingv1.IngressClass) bool {
		return c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
	})
}

func newestDefault[C metav1.Object](classes []C, isDefault func(C) bool) (newest C) {
	found := false
	for _, c := range classes {
		if isDefault(c) && (!found || newer(c, newest)) {
			newest, found = c, true
		}
	}
	return newest
}

func newer(a, b metav1.Object) bool {
	made, before := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return before.Before(&made) || before.Equal(&made) && a.GetName() < b.GetName()
}

// ClaimName is the claim behind a pod's volume, "" if it has none. An ephemeral volume's is named after its pod and itself.
func ClaimName(pod *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return ephemeral.VolumeClaimName(pod, v)
	}
	return ""
}
