package volume

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	storage "k8s.io/component-helpers/storage/volume"
	csitranslation "k8s.io/csi-translation-lib"
	"k8s.io/csi-translation-lib/plugins"
	"k8s.io/klog/v2"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// translator knows which CSI drivers took over from the plug-ins that were part of Kubernetes once.
var translator = csitranslation.New()

// translated are those plug-ins whose volumes count as their driver's, as upstream.
var translated = map[string]bool{
	plugins.AWSEBSInTreePluginName: true, plugins.GCEPDInTreePluginName: true, plugins.AzureDiskInTreePluginName: true,
	plugins.CinderInTreePluginName: true, plugins.PortworxVolumePluginName: true,
}

// attachment is what a driver attaches to a node; old says that the volume names a plug-in which the driver took over from.
type attachment struct {
	cluster.Attachment
	old bool
}

// attachmentOf is a volume's; false for one that no driver attaches.
func attachmentOf(pv *corev1.PersistentVolume) (attachment, bool) {
	c := pv.Spec.CSI
	if c != nil {
		return attachment{cluster.Attachment{Driver: c.Driver, Handle: c.VolumeHandle}, false}, true
	}
	plugin, err := translator.GetInTreePluginNameFromSpec(pv, nil)
	if err != nil || !translated[plugin] {
		return attachment{}, false
	}
	now, err := translator.TranslateInTreePVToCSI(klog.Background(), pv)
	return translatedOf(now, err)
}

// inlineOf is that of a volume that a pod names itself. What a driver makes for one pod alone is attached nowhere.
func inlineOf(v *corev1.Volume, namespace string) (attachment, bool) {
	plugin, err := translator.GetInTreePluginNameFromSpec(nil, v)
	if err != nil || !translated[plugin] {
		return attachment{}, false
	}
	now, err := translator.TranslateInTreeInlineVolumeToCSI(klog.Background(), v, namespace)
	return translatedOf(now, err)
}

func translatedOf(now *corev1.PersistentVolume, err error) (attachment, bool) {
	if err != nil || now == nil || now.Spec.CSI == nil {
		return attachment{}, false
	}
	return attachment{cluster.Attachment{Driver: now.Spec.CSI.Driver, Handle: now.Spec.CSI.VolumeHandle}, true}, true
}

// unmadeOf is that of a volume that is still to be made for a claim: its class says by whom.
func (b *Book) unmadeOf(claim *corev1.PersistentVolumeClaim) (a attachment, has bool, err error) {
	name := storage.GetPersistentVolumeClaimClass(claim)
	if name == "" {
		return a, false, nil
	}
	var class storagev1.StorageClass
	if err := b.reader.Get(context.Background(), crclient.ObjectKey{Name: name}, &class); err != nil {
		return a, false, crclient.IgnoreNotFound(err)
	}
	a = attachment{cluster.Attachment{Driver: class.Provisioner, Handle: unmade + claim.Namespace + "/" + claim.Name}, false}
	if translator.IsMigratableIntreePluginByName(class.Provisioner) {
		if !translated[class.Provisioner] {
			return a, false, nil
		}
		a.Driver, err = translator.GetCSINameFromInTreeName(class.Provisioner)
		a.old = true
	}
	return a, err == nil && a.Driver != storage.NotSupportedProvisioner, err
}

// attached is what a claim with its volume has attached to its pod's node.
func (b *Book) attached(claim *corev1.PersistentVolumeClaim, pv *corev1.PersistentVolume) (attachment, bool, error) {
	if pv == nil {
		return b.unmadeOf(claim)
	}
	a, has := attachmentOf(pv)
	return a, has, nil
}

// Attachment is what a VolumeAttachment tells of: its driver's volume, as its PersistentVolume names it.
func (b *Book) Attachment(va *storagev1.VolumeAttachment) (a cluster.Attachment) {
	if va.Spec.Source.PersistentVolumeName == nil {
		return a
	}
	var pv corev1.PersistentVolume
	if b.reader.Get(context.Background(), crclient.ObjectKey{Name: *va.Spec.Source.PersistentVolumeName}, &pv) != nil || pv.Spec.CSI == nil {
		return a
	}
	return cluster.Attachment{Driver: va.Spec.Attacher, Handle: pv.Spec.CSI.VolumeHandle}
}
