// Package localvolumes is the provisioner of Skiff's own storage: it makes a PersistentVolume for each claim whose class names it, once the scheduler
// has chosen a node, has it deleted when the claim is gone, and lets it grow. The directories are the nodes' (see package localvolume).
// A key with a namespace is a claim, one without a volume.
package localvolumes

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	storage "k8s.io/component-helpers/storage/volume"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/localvolume"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

// classKey is the key of the StorageClass that every cluster has.
var classKey = harness.Key{Name: "/class"}

type reconciler struct {
	client client.Client
	events record.EventRecorder
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := &reconciler{client: c, events: c.Recorder(localvolume.Provisioner)}
	return harness.Controller{
		Watches: []harness.Watch{
			harness.On(&corev1.Node{}, r.nodeChanged),
			harness.On(&corev1.PersistentVolumeClaim{}, claimChanged),
			harness.On(&corev1.PersistentVolume{}, volumeChanged),
		},
		Reconcile: r.reconcile,
		Begin:     func(wake func(harness.Key)) { wake(classKey) },
	}
}

func claimChanged(_, current *corev1.PersistentVolumeClaim) []harness.Key {
	if current == nil || current.Annotations[storage.AnnStorageProvisioner] != localvolume.Provisioner {
		return nil
	}
	return []harness.Key{crclient.ObjectKeyFromObject(current)}
}

func volumeChanged(_, current *corev1.PersistentVolume) []harness.Key {
	if current == nil || !localvolume.Of(current) {
		return nil
	}
	keys := []harness.Key{{Name: current.Name}}
	if ref := current.Spec.ClaimRef; ref != nil { // which may have grown
		keys = append(keys, harness.Key{Namespace: ref.Namespace, Name: ref.Name})
	}
	return keys
}

// nodeChanged: a node that came, or says where it keeps volumes, may be waited for; with one that went, its volumes went.
func (r *reconciler) nodeChanged(old, current *corev1.Node) (keys []harness.Key) {
	if current != nil && old != nil && old.Annotations[localvolume.FolderAnnotation] == current.Annotations[localvolume.FolderAnnotation] {
		return nil
	}
	if current == nil {
		var volumes corev1.PersistentVolumeList
		if r.client.List(context.Background(), &volumes, crclient.MatchingLabels{localvolume.NodeLabel: old.Name}, crclient.UnsafeDisableDeepCopy) != nil {
			return nil // the cache is stopping
		}
		for i := range volumes.Items {
			keys = append(keys, harness.Key{Name: volumes.Items[i].Name})
		}
		return keys
	}
	var claims corev1.PersistentVolumeClaimList
	if r.client.List(context.Background(), &claims, crclient.UnsafeDisableDeepCopy) != nil {
		return nil
	}
	for i := range claims.Items {
		if claims.Items[i].Annotations[storage.AnnSelectedNode] == current.Name {
			keys = append(keys, claimChanged(nil, &claims.Items[i])...)
		}
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	switch {
	case key == classKey:
		return 0, r.class(ctx)
	case key.Namespace == "":
		return 0, r.volume(ctx, key.Name)
	}
	var claim corev1.PersistentVolumeClaim
	if err := r.client.Get(ctx, key, &claim); err != nil {
		return 0, crclient.IgnoreNotFound(err)
	}
	if claim.Spec.VolumeName != "" {
		return 0, r.grow(ctx, &claim)
	}
	return 0, r.provision(ctx, &claim)
}

// class makes the StorageClass that every cluster has, the default one unless there is another default.
func (r *reconciler) class(ctx context.Context) error {
	var classes storagev1.StorageClassList
	if err := r.client.Live().List(ctx, &classes); err != nil {
		return err
	}
	isDefault := "true"
	for i := range classes.Items {
		if classes.Items[i].Name == localvolume.Class {
			return nil
		}
		if api.IsDefaultClass(&classes.Items[i]) {
			isDefault = "false"
		}
	}
	reclaim, mode, grows := corev1.PersistentVolumeReclaimDelete, storagev1.VolumeBindingWaitForFirstConsumer, true
	err := r.client.Create(ctx, &storagev1.StorageClass{
		ObjectMeta:  metav1.ObjectMeta{Name: localvolume.Class, Annotations: map[string]string{api.DefaultClassAnnotations[0]: isDefault}},
		Provisioner: localvolume.Provisioner, ReclaimPolicy: &reclaim, VolumeBindingMode: &mode, AllowVolumeExpansion: &grows,
	})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// provision makes the volume of a claim for which the scheduler has chosen a node.
func (r *reconciler) provision(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.DeletionTimestamp != nil || claim.Annotations[storage.AnnStorageProvisioner] != localvolume.Provisioner {
		return nil
	}
	var class storagev1.StorageClass
	if err := r.client.Get(ctx, crclient.ObjectKey{Name: storage.GetPersistentVolumeClaimClass(claim)}, &class); err != nil {
		return crclient.IgnoreNotFound(err)
	}
	fail := func(format string, args ...any) error {
		r.events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed", "failed to provision volume with StorageClass %q: "+format, append([]any{class.Name}, args...)...)
		return nil
	}
	if why := impossible(claim, &class); why != "" {
		return fail("%s", why)
	}
	name := claim.Annotations[storage.AnnSelectedNode]
	var node corev1.Node
	if err := r.client.Get(ctx, crclient.ObjectKey{Name: name}, &node); err != nil {
		if apierrors.IsNotFound(err) {
			_ = fail("node %q is gone", name)
			return r.elsewhere(ctx, claim)
		}
		return err
	}
	folder := node.Annotations[localvolume.FolderAnnotation]
	if folder == "" {
		return fail("node %q keeps no local volumes", name)
	}
	volume := localvolume.New(claim, *class.ReclaimPolicy, name, node.Labels[corev1.LabelHostname], folder)
	volume.Spec.MountOptions = class.MountOptions
	switch err := r.client.Create(ctx, volume); {
	case apierrors.IsAlreadyExists(err):
		return nil
	case err != nil:
		return fmt.Errorf("provision a volume for claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	r.events.Eventf(claim, corev1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume %s", volume.Name)
	return nil
}

// impossible says what a claim asks for that a directory on one node cannot be.
func impossible(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass) string {
	switch {
	case class.VolumeBindingMode == nil || *class.VolumeBindingMode != storagev1.VolumeBindingWaitForFirstConsumer:
		return "a local volume is made on the node of its first pod: the class needs volumeBindingMode: WaitForFirstConsumer"
	case claim.Annotations[storage.AnnSelectedNode] == "":
		return "no node has been chosen"
	case claim.Spec.VolumeMode != nil && *claim.Spec.VolumeMode == corev1.PersistentVolumeBlock:
		return "local volumes are directories: volumeMode Block is not supported"
	case claim.Spec.VolumeAttributesClassName != nil && *claim.Spec.VolumeAttributesClassName != "":
		return "claim.spec.volumeAttributesClassName is not supported: a directory has no attributes"
	case claim.Spec.Selector != nil:
		return "claim.spec.selector is not supported"
	case claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil:
		return "claim.spec.dataSource is not supported"
	case slices.ContainsFunc(claim.Spec.AccessModes, func(m corev1.PersistentVolumeAccessMode) bool {
		return m == corev1.ReadWriteMany || m == corev1.ReadOnlyMany
	}):
		return "a local volume is on one node only: use access mode ReadWriteOnce or ReadWriteOncePod"
	}
	return ""
}

// elsewhere gives the choice of the node back to the scheduler.
func (r *reconciler) elsewhere(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	changed := claim.DeepCopy()
	delete(changed.Annotations, storage.AnnSelectedNode)
	return r.client.Update(ctx, changed)
}

// volume deletes what is no longer claimed. If its node is gone for good, so are the data, and nobody else would take the finalizer away.
func (r *reconciler) volume(ctx context.Context, name string) error {
	var v corev1.PersistentVolume
	if err := r.client.Get(ctx, crclient.ObjectKey{Name: name}, &v); err != nil {
		return crclient.IgnoreNotFound(err)
	}
	if v.DeletionTimestamp == nil {
		if v.Status.Phase != corev1.VolumeReleased || v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
			return nil
		}
		return crclient.IgnoreNotFound(r.client.Delete(ctx, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}}, crclient.Preconditions{UID: &v.UID}))
	}
	if v.Status.Phase == corev1.VolumeBound || !slices.Contains(v.Finalizers, localvolume.Finalizer) {
		return nil
	}
	err := r.client.Live().Get(ctx, crclient.ObjectKey{Name: v.Labels[localvolume.NodeLabel]}, &corev1.Node{})
	if !apierrors.IsNotFound(err) {
		return err // nil: the node will do it
	}
	changed := v.DeepCopy()
	changed.Finalizers = slices.DeleteFunc(changed.Finalizers, func(f string) bool { return f == localvolume.Finalizer })
	return crclient.IgnoreNotFound(r.client.Update(ctx, changed))
}
