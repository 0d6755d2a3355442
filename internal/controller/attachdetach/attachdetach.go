// Package attachdetach asks for volumes to be attached to the nodes whose pods use them, and to be detached when the last such pod is gone. It only
// writes VolumeAttachments; the driver's own attacher does the work and answers in their status.
//
// Its invariant: a volume that only one node may have is attached to one node, and is not taken from a node that still reports it in use, unless
// that node is gone. A key is a volume's name.
package attachdetach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
)

type reconciler struct {
	client client.Client
	events record.EventRecorder
	now    func() time.Time
}

// New returns the controller.
func New(c client.Client) harness.Controller {
	r := &reconciler{client: c, events: c.Recorder("attachdetach-controller"), now: time.Now}
	return harness.Controller{
		Workers: 2,
		Watches: []harness.Watch{
			harness.On(&corev1.PersistentVolumeClaim{}, claimChanged),
			harness.On(&corev1.PersistentVolume{}, volumeChanged),
			harness.On(&storagev1.VolumeAttachment{}, attachmentChanged),
			harness.On(&corev1.Node{}, r.nodeChanged),
			harness.On(&corev1.Pod{}, r.podChanged),
		},
		Reconcile: r.reconcile,
	}
}

func claimChanged(_, current *corev1.PersistentVolumeClaim) []harness.Key {
	if current == nil || current.Spec.VolumeName == "" {
		return nil
	}
	return []harness.Key{{Name: current.Spec.VolumeName}}
}

func volumeChanged(old, current *corev1.PersistentVolume) []harness.Key {
	if current == nil || old != nil || current.Spec.CSI == nil {
		return nil
	}
	return []harness.Key{{Name: current.Name}}
}

func attachmentChanged(old, current *storagev1.VolumeAttachment) []harness.Key {
	if current == nil {
		current = old
	}
	if name := current.Spec.Source.PersistentVolumeName; name != nil {
		return []harness.Key{{Name: *name}}
	}
	return nil
}

// nodeChanged wakes what a node has attached, when what it uses or whether it is there changes.
func (r *reconciler) nodeChanged(old, current *corev1.Node) (keys []harness.Key) {
	if old != nil && current != nil && slices.Equal(old.Status.VolumesInUse, current.Status.VolumesInUse) && outOfService(old) == outOfService(current) &&
		unready(old).Equal(unready(current)) {
		return nil
	}
	name := ""
	if current != nil {
		name = current.Name
	} else {
		name = old.Name
	}
	var all storagev1.VolumeAttachmentList
	if r.client.List(context.Background(), &all, crclient.UnsafeDisableDeepCopy) != nil {
		return nil // the cache is stopping
	}
	for i := range all.Items {
		if all.Items[i].Spec.NodeName == name {
			keys = append(keys, attachmentChanged(nil, &all.Items[i])...)
		}
	}
	return keys
}

// podChanged wakes the volumes of a pod that got a node, ended or went.
func (r *reconciler) podChanged(old, current *corev1.Pod) (keys []harness.Key) {
	if old != nil && current != nil && old.Spec.NodeName == current.Spec.NodeName && old.Status.Phase == current.Status.Phase {
		return nil
	}
	p := current
	if p == nil {
		p = old
	}
	if p.Spec.NodeName == "" {
		return nil
	}
	for i := range p.Spec.Volumes {
		name := api.ClaimName(p, &p.Spec.Volumes[i])
		var claim corev1.PersistentVolumeClaim
		if name != "" && r.client.Get(context.Background(), crclient.ObjectKey{Namespace: p.Namespace, Name: name}, &claim) == nil {
			keys = append(keys, claimChanged(nil, &claim)...)
		}
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	var pv corev1.PersistentVolume
	switch err := r.client.Get(ctx, key, &pv); {
	case apierrors.IsNotFound(err): // its attachments are all that is left of it
		pv.Name = key.Name
	case err != nil:
		return 0, err
	}
	s, err := r.observe(ctx, &pv)
	if err != nil {
		return 0, err
	}
	p := decide(&pv, s, r.now())
	var errs []error
	for _, name := range p.detach {
		err := r.client.Delete(ctx, &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: name}})
		errs = append(errs, crclient.IgnoreNotFound(err))
	}
	for _, node := range p.attach {
		errs = append(errs, r.attach(ctx, &pv, node))
	}
	for _, pod := range p.refused {
		r.events.Eventf(pod, corev1.EventTypeWarning, "FailedAttachVolume",
			"Multi-Attach error for volume %q Volume is already exclusively attached to one node and can't be attached to another", pv.Name)
	}
	return p.again, errors.Join(errs...)
}

// observe gathers who uses a volume, where it is attached and how those nodes are.
func (r *reconciler) observe(ctx context.Context, pv *corev1.PersistentVolume) (s observed, err error) {
	var attachments storagev1.VolumeAttachmentList
	if err := r.client.List(ctx, &attachments, crclient.UnsafeDisableDeepCopy); err != nil {
		return s, err
	}
	s.nodes = map[string]*corev1.Node{}
	for i := range attachments.Items {
		a := &attachments.Items[i]
		if name := a.Spec.Source.PersistentVolumeName; name == nil || *name != pv.Name {
			continue
		}
		s.attachments = append(s.attachments, a)
		var node corev1.Node
		switch err := r.client.Get(ctx, crclient.ObjectKey{Name: a.Spec.NodeName}, &node); {
		case err == nil:
			s.nodes[node.Name] = &node
		case !apierrors.IsNotFound(err):
			return s, err
		}
	}
	if pv.Spec.CSI == nil {
		return s, nil
	}
	var driver storagev1.CSIDriver
	switch err := r.client.Get(ctx, crclient.ObjectKey{Name: pv.Spec.CSI.Driver}, &driver); {
	case err == nil:
		s.attaches = driver.Spec.AttachRequired == nil || *driver.Spec.AttachRequired
	case apierrors.IsNotFound(err):
		s.attaches = true
	default:
		return s, err
	}
	ref := pv.Spec.ClaimRef
	if ref == nil {
		return s, nil
	}
	var pods corev1.PodList
	if err := r.client.List(ctx, &pods, crclient.InNamespace(ref.Namespace), crclient.UnsafeDisableDeepCopy); err != nil {
		return s, err
	}
	for i := range pods.Items {
		p := &pods.Items[i]
		if slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return api.ClaimName(p, &v) == ref.Name }) {
			s.pods = append(s.pods, p)
		}
	}
	return s, nil
}

func (r *reconciler) attach(ctx context.Context, pv *corev1.PersistentVolume, node string) error {
	name := pv.Name
	err := r.client.Create(ctx, &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: attachmentName(pv.Spec.CSI.VolumeHandle, pv.Spec.CSI.Driver, node)},
		Spec:       storagev1.VolumeAttachmentSpec{Attacher: pv.Spec.CSI.Driver, NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &name}},
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("attach volume %s to node %s: %w", pv.Name, node, err)
	}
	return nil
}
