package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// nodeIDs is the Node's annotation of what each driver calls the node.
const nodeIDs = "csi.volume.kubernetes.io/nodeid"

// Run makes the node's CSINode, which lists no driver yet, once ready closes.
func (n *Node) Run(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
	case <-ctx.Done():
		return nil
	}
	err := n.change(ctx, func(list []storagev1.CSINodeDriver) []storagev1.CSINodeDriver { return list })
	if err != nil && ctx.Err() == nil {
		n.log.Warn("make the node's CSINode; the first driver will", "err", err)
	}
	<-ctx.Done()
	return nil
}

// enlist writes a driver into the node's CSINode, and where the node is by the driver's reckoning onto the Node.
func (n *Node) enlist(ctx context.Context, name string, info *csi.NodeGetInfoResponse) error {
	entry := storagev1.CSINodeDriver{Name: name, NodeID: info.NodeId, TopologyKeys: slices.Sorted(maps.Keys(info.GetAccessibleTopology().GetSegments()))}
	if info.MaxVolumesPerNode > 0 {
		count := int32(min(info.MaxVolumesPerNode, 1<<31-1))
		entry.Allocatable = &storagev1.VolumeNodeResources{Count: &count}
	}
	if err := n.mark(ctx, name, info.NodeId, info.GetAccessibleTopology().GetSegments()); err != nil {
		return err
	}
	err := n.change(ctx, func(list []storagev1.CSINodeDriver) []storagev1.CSINodeDriver {
		return append(without(list, name), entry)
	})
	if err != nil {
		return fmt.Errorf("write the driver into the CSINode: %w", err)
	}
	return nil
}

func (n *Node) strike(ctx context.Context, name string) error {
	return n.change(ctx, func(list []storagev1.CSINodeDriver) []storagev1.CSINodeDriver { return without(list, name) })
}

func without(list []storagev1.CSINodeDriver, name string) []storagev1.CSINodeDriver {
	return slices.DeleteFunc(slices.Clone(list), func(d storagev1.CSINodeDriver) bool { return d.Name == name })
}

// change reads, changes and writes the CSINode, which it makes if there is none. An entry whose node id changed goes before it comes back: entries
// are immutable.
func (n *Node) change(ctx context.Context, f func([]storagev1.CSINodeDriver) []storagev1.CSINodeDriver) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var have storagev1.CSINode
		err := n.client.Live().Get(ctx, crclient.ObjectKey{Name: n.name}, &have)
		if apierrors.IsNotFound(err) {
			return n.create(ctx, f(nil))
		}
		if err != nil {
			return err
		}
		want := f(have.Spec.Drivers)
		if equality.Semantic.DeepEqual(want, have.Spec.Drivers) {
			return nil
		}
		next := have.DeepCopy()
		next.Spec.Drivers = want
		err = n.client.Update(ctx, next)
		if apierrors.IsInvalid(err) {
			next = have.DeepCopy()
			next.Spec.Drivers = slices.DeleteFunc(next.Spec.Drivers, func(d storagev1.CSINodeDriver) bool {
				return !slices.ContainsFunc(want, func(w storagev1.CSINodeDriver) bool { return equality.Semantic.DeepEqual(w, d) })
			})
			if err = n.client.Update(ctx, next); err == nil {
				next.Spec.Drivers = want
				err = n.client.Update(ctx, next)
			}
		}
		return err
	})
}

func (n *Node) create(ctx context.Context, drivers []storagev1.CSINodeDriver) error {
	var node corev1.Node
	if err := n.client.Live().Get(ctx, crclient.ObjectKey{Name: n.name}, &node); err != nil {
		return err
	}
	return n.client.Create(ctx, &storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: n.name, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.name, UID: node.UID}}},
		Spec:       storagev1.CSINodeSpec{Drivers: drivers},
	})
}

// mark writes the driver's name for the node and its topology onto the Node.
func (n *Node) mark(ctx context.Context, name, id string, segments map[string]string) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var node corev1.Node
		if err := n.client.Live().Get(ctx, crclient.ObjectKey{Name: n.name}, &node); err != nil {
			return err
		}
		ids := map[string]string{}
		_ = json.Unmarshal([]byte(node.Annotations[nodeIDs]), &ids) // what cannot be read is written anew
		next := node.DeepCopy()
		if next.Labels == nil {
			next.Labels = map[string]string{}
		}
		if next.Annotations == nil {
			next.Annotations = map[string]string{}
		}
		for key, value := range segments {
			if have, is := node.Labels[key]; is && have != value {
				return fmt.Errorf("detected topology value collision: driver reported %q:%q but existing label is %q:%q", key, value, key, have)
			}
			next.Labels[key] = value
		}
		ids[name] = id
		raw, err := json.Marshal(ids)
		if err != nil {
			return err
		}
		next.Annotations[nodeIDs] = string(raw)
		if equality.Semantic.DeepEqual(next.ObjectMeta, node.ObjectMeta) {
			return nil
		}
		return n.client.Update(ctx, next)
	})
}
