package csi

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// Grows says that a driver enlarges volumes on the node.
func (n *Node) Grows(name string) bool {
	d, err := n.driver(name)
	return err == nil && d.can[csi.NodeServiceCapability_RPC_EXPAND_VOLUME]
}

// Expand has a published volume's filesystem fill a volume that was made larger, and writes on the claim that it has. It does nothing unless the volume
// is larger than what the claim has.
func (n *Node) Expand(ctx context.Context, v *Volume, pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) (grown bool, err error) {
	size, has := pv.Spec.Capacity[corev1.ResourceStorage], claim.Status.Capacity[corev1.ResourceStorage]
	if size.Cmp(has) <= 0 || v.ReadOnly {
		return false, nil
	}
	d, err := n.driver(v.Source.Driver)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	defer n.alone(v.Source.Driver + "/" + v.Source.VolumeHandle)()
	secrets, err := n.secret(ctx, v.Source.NodeExpandSecretRef)
	if err != nil {
		return false, err
	}
	capability, _, _ := capabilityOf(v, d, nil)
	request := &csi.NodeExpandVolumeRequest{
		VolumeId: v.Source.VolumeHandle, VolumePath: filepath.Join(v.Dir, "mount"), VolumeCapability: capability, Secrets: secrets,
		CapacityRange: &csi.CapacityRange{RequiredBytes: size.Value()},
	}
	if d.can[csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME] {
		request.StagingTargetPath = n.staging(v.Source.Driver, v.Source.VolumeHandle)
	}
	if _, err := d.node.NodeExpandVolume(ctx, request); err != nil {
		return false, fmt.Errorf("NodeExpandVolume: %w", err)
	}
	changed := claim.DeepCopy()
	changed.Status.Capacity = corev1.ResourceList{corev1.ResourceStorage: size}
	changed.Status.Conditions = nil
	for _, c := range claim.Status.Conditions {
		if c.Type != corev1.PersistentVolumeClaimResizing && c.Type != corev1.PersistentVolumeClaimFileSystemResizePending {
			changed.Status.Conditions = append(changed.Status.Conditions, c)
		}
	}
	if err := n.client.Status().Patch(ctx, changed, crclient.MergeFrom(claim)); err != nil {
		return false, fmt.Errorf("write the claim's new size: %w", err)
	}
	return true, nil
}
