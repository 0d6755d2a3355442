// Package localvolume is what the two halves of Skiff's own storage agree on: the provisioner, which makes and deletes PersistentVolume objects, and the
// node, which makes and deletes the directories behind them.
//
// A local volume is a PersistentVolume with a local source, held to one node by its node affinity and marked with that node's name. Its directory is
// <node's volumes folder>/<volume's name> and belongs to the node alone; the finalizer says that the node has not finished with it. Both
// halves take their next step from the object alone, so either may die at any moment.
package localvolume

import (
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"
)

const (
	// Provisioner is what StorageClasses name.
	Provisioner = "skiff.dev/local"
	// Class is the StorageClass that every cluster has.
	Class = "local"
	// NodeLabel marks a volume with the node that holds it, so that the node can watch its own.
	NodeLabel = "skiff.dev/node"
	// Finalizer is taken away by the node, when the directory is gone or is to stay.
	Finalizer = "skiff.dev/local-volume"
	// FolderAnnotation is on a Node: where it keeps volumes.
	FolderAnnotation = "skiff.dev/volumes"
	// SizeAnnotation is on a volume: the size that the node has set its directory up for.
	SizeAnnotation = "skiff.dev/size"
	// LimitAnnotation is on a volume: how the node holds it to its size, "project-quota", or "none".
	LimitAnnotation = "skiff.dev/size-limit"
)

// Of says whether a volume is one of these.
func Of(v *corev1.PersistentVolume) bool {
	return v.Spec.Local != nil && v.Annotations[storage.AnnDynamicallyProvisioned] == Provisioner && v.Labels[NodeLabel] != ""
}

// Name of the volume that is made for a claim.
func Name(claim *corev1.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

// New is the volume for a claim, in a node's folder.
func New(claim *corev1.PersistentVolumeClaim, reclaim corev1.PersistentVolumeReclaimPolicy, node, hostname, folder string) *corev1.PersistentVolume {
	name, fs := Name(claim), corev1.PersistentVolumeFilesystem
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{NodeLabel: node}, Finalizers: []string{Finalizer},
			Annotations: map[string]string{storage.AnnDynamicallyProvisioned: Provisioner},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes: claim.Spec.AccessModes, VolumeMode: &fs, PersistentVolumeReclaimPolicy: reclaim,
			StorageClassName: storage.GetPersistentVolumeClaimClass(claim),
			ClaimRef: &corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name,
				UID: claim.UID, ResourceVersion: claim.ResourceVersion},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: filepath.Join(folder, name)}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{hostname}}},
			}}}},
		},
	}
}
