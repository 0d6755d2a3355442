package csi

import (
	"context"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// Grows says that a driver enlarges volumes on the node.
func (n *Node) Grows(name string) bool {
	d, err := n.driver(name)
	return err == nil && d.can[csi.NodeServiceCapability_RPC_EXPAND_VOLUME]
}

// Expand has a published volume's filesystem fill a volume that was made larger, and writes on the claim that it has. It does nothing unless it is the node's turn
// (turn). A size that the driver says it can never have is no error: the claim says so, and waits for its resizer and its user (KEP-1790).
func (n *Node) Expand(ctx context.Context, v *Volume, pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) (grown bool, err error) {
	size, due := turn(pv, claim)
	if !due || v.ReadOnly {
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
	if stage(claim) == corev1.PersistentVolumeClaimNodeResizePending {
		claim, err = n.say(ctx, claim, func(c *corev1.PersistentVolumeClaim) { setStage(c, corev1.PersistentVolumeClaimNodeResizeInProgress) })
		if err != nil {
			return false, err
		}
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
		why := fmt.Errorf("NodeExpandVolume: %w", err)
		if !never(why) || stage(claim) == "" {
			return false, why
		}
		_, err = n.say(ctx, claim, func(c *corev1.PersistentVolumeClaim) { refused(c, why, metav1.Now()) })
		return false, err
	}
	_, err = n.say(ctx, claim, func(c *corev1.PersistentVolumeClaim) { finished(c, size) })
	return err == nil, err
}

// turn is the size that the node is to give a volume, if that is for it to do now. A resizer says so by a stage; one that knows none just made the volume larger
// than what the claim has.
func turn(pv *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) (size resource.Quantity, due bool) {
	size = pv.Spec.Capacity[corev1.ResourceStorage]
	switch stage(claim) {
	case corev1.PersistentVolumeClaimNodeResizeInfeasible:
		return size, false
	case corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress:
		if allocated, there := claim.Status.AllocatedResources[corev1.ResourceStorage]; there {
			size = allocated
		}
		return size, true
	}
	has := claim.Status.Capacity[corev1.ResourceStorage]
	return size, size.Cmp(has) > 0
}

// stage of a claim's growth, empty if it doesn't grow or its resizer doesn't tell.
func stage(c *corev1.PersistentVolumeClaim) corev1.ClaimResourceStatus {
	return c.Status.AllocatedResourceStatuses[corev1.ResourceStorage]
}

func setStage(c *corev1.PersistentVolumeClaim, to corev1.ClaimResourceStatus) {
	all := maps.Clone(c.Status.AllocatedResourceStatuses)
	if all == nil {
		all = map[corev1.ResourceName]corev1.ClaimResourceStatus{}
	}
	all[corev1.ResourceStorage] = to
	c.Status.AllocatedResourceStatuses = all
}

// never says that trying again is of no use: by CSI's rules for NodeExpandVolume the volume or the size is wrong.
func never(err error) bool {
	code := status.Code(err)
	return code == codes.InvalidArgument || code == codes.OutOfRange || code == codes.NotFound
}

func refused(c *corev1.PersistentVolumeClaim, why error, at metav1.Time) {
	setStage(c, corev1.PersistentVolumeClaimNodeResizeInfeasible)
	withoutGrowth(c)
	c.Status.Conditions = append(c.Status.Conditions, corev1.PersistentVolumeClaimCondition{
		Type: corev1.PersistentVolumeClaimNodeResizeError, Status: corev1.ConditionTrue, LastTransitionTime: at, Message: fmt.Sprintf("failed to expand pvc with %v", why),
	})
}

// finished notes what the claim has now. What was allocated stays, as upstream: quotas count it.
func finished(c *corev1.PersistentVolumeClaim, size resource.Quantity) {
	c.Status.Capacity = maps.Clone(c.Status.Capacity)
	if c.Status.Capacity == nil {
		c.Status.Capacity = corev1.ResourceList{}
	}
	c.Status.Capacity[corev1.ResourceStorage] = size
	all := maps.Clone(c.Status.AllocatedResourceStatuses)
	if delete(all, corev1.ResourceStorage); len(all) == 0 {
		all = nil
	}
	c.Status.AllocatedResourceStatuses = all
	withoutGrowth(c)
}

// withoutGrowth drops what conditions say of growing.
func withoutGrowth(c *corev1.PersistentVolumeClaim) {
	of := []corev1.PersistentVolumeClaimConditionType{
		corev1.PersistentVolumeClaimResizing, corev1.PersistentVolumeClaimFileSystemResizePending, corev1.PersistentVolumeClaimControllerResizeError, corev1.PersistentVolumeClaimNodeResizeError,
	}
	c.Status.Conditions = slices.DeleteFunc(slices.Clone(c.Status.Conditions), func(x corev1.PersistentVolumeClaimCondition) bool { return slices.Contains(of, x.Type) })
}

// say changes a claim's status.
func (n *Node) say(ctx context.Context, claim *corev1.PersistentVolumeClaim, change func(*corev1.PersistentVolumeClaim)) (*corev1.PersistentVolumeClaim, error) {
	changed := claim.DeepCopy()
	change(changed)
	if err := n.client.Status().Patch(ctx, changed, crclient.MergeFrom(claim)); err != nil {
		return claim, fmt.Errorf("write on the claim how its growth stands: %w", err)
	}
	return changed, nil
}
