// Package persistentvolume binds claims and volumes to each other, and says what becomes of a volume whose claim is gone.
//
// Its invariant is upstream's: a binding is two pointers, the volume's claimRef and the claim's volumeName, of which the volume's is written first;
// whatever a crash leaves half done, the next look finishes. Volumes are made and deleted by provisioners (package localvolumes is one); this
// controller only asks them. A key with a namespace is a claim, one without a volume.
package persistentvolume

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/record"
	storage "k8s.io/component-helpers/storage/volume"
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

// New returns the controller. One worker: two claims must not be given one volume.
func New(c client.Client) harness.Controller {
	r := newReconciler(c)
	return harness.Controller{
		Watches: []harness.Watch{
			harness.On(&storagev1.StorageClass{}, r.classChanged),
			harness.Self(&corev1.PersistentVolumeClaim{}),
			harness.On(&corev1.PersistentVolumeClaim{}, claimedVolume),
			harness.On(&corev1.PersistentVolume{}, r.volumeChanged),
		},
		Reconcile: r.reconcile,
	}
}

func newReconciler(c client.Client) *reconciler {
	return &reconciler{client: c, events: c.Recorder("persistentvolume-controller"), now: time.Now}
}

// claimedVolume wakes the volume of a claim that changed or went.
func claimedVolume(old, current *corev1.PersistentVolumeClaim) []harness.Key {
	if current == nil {
		current = old
	}
	if current.Spec.VolumeName == "" {
		return nil
	}
	return []harness.Key{{Name: current.Spec.VolumeName}}
}

// volumeChanged wakes the volume, the claim that it is for, and once it is free to be had all claims that could take it.
func (r *reconciler) volumeChanged(old, current *corev1.PersistentVolume) []harness.Key {
	v := current
	if v == nil {
		v = old
	}
	keys := []harness.Key{{Name: v.Name}}
	if ref := v.Spec.ClaimRef; ref != nil {
		return append(keys, harness.Key{Namespace: ref.Namespace, Name: ref.Name})
	}
	if current == nil || current.Status.Phase != corev1.VolumeAvailable {
		return keys
	}
	return append(keys, r.waiting(storage.GetPersistentVolumeClass(v))...)
}

func (r *reconciler) classChanged(_, current *storagev1.StorageClass) []harness.Key {
	if current == nil {
		return nil
	}
	return append(r.waiting(current.Name), r.waiting("")...)
}

// waiting lists the claims of a class that have no volume.
func (r *reconciler) waiting(class string) (keys []harness.Key) {
	var claims corev1.PersistentVolumeClaimList
	if r.client.List(context.Background(), &claims, crclient.UnsafeDisableDeepCopy) != nil {
		return nil // the cache is stopping
	}
	for i := range claims.Items {
		if c := &claims.Items[i]; c.Spec.VolumeName == "" && storage.GetPersistentVolumeClaimClass(c) == class {
			keys = append(keys, crclient.ObjectKeyFromObject(c))
		}
	}
	return keys
}

func (r *reconciler) reconcile(ctx context.Context, key harness.Key) (time.Duration, error) {
	if key.Namespace == "" {
		return 0, r.volume(ctx, key.Name)
	}
	return 0, r.claim(ctx, key)
}

func (r *reconciler) claim(ctx context.Context, key harness.Key) error {
	var claim corev1.PersistentVolumeClaim
	if err := r.client.Get(ctx, key, &claim); err != nil {
		return crclient.IgnoreNotFound(err)
	}
	s, err := r.sight(ctx, &claim)
	if err != nil {
		return err
	}
	d := decideClaim(&claim, s)
	if d.event != nil {
		r.events.Event(&claim, d.event.kind, d.event.reason, d.event.message)
	}
	switch {
	case d.class != "":
		changed := claim.DeepCopy()
		changed.Spec.StorageClassName = &d.class
		return r.client.Update(ctx, changed)
	case d.bind != nil:
		return r.bind(ctx, &claim, d.bind)
	case d.provisioner != "":
		return r.ask(ctx, &claim, d.provisioner)
	case d.phase != "":
		return r.claimPhase(ctx, &claim, d.phase)
	}
	return nil
}

// sight gathers what a claim's decision looks at.
func (r *reconciler) sight(ctx context.Context, claim *corev1.PersistentVolumeClaim) (s sight, err error) {
	if name := claim.Spec.VolumeName; name != "" {
		s.named, err = find(ctx, r.client, crclient.ObjectKey{Name: name}, &corev1.PersistentVolume{})
		if s.named == nil && err == nil { // its phase says that data are lost: believe only etcd
			s.named, err = find(ctx, r.client.Live(), crclient.ObjectKey{Name: name}, &corev1.PersistentVolume{})
		}
		return s, err
	}
	var volumes corev1.PersistentVolumeList
	if err := r.client.List(ctx, &volumes, crclient.UnsafeDisableDeepCopy); err != nil {
		return s, err
	}
	for i := range volumes.Items {
		s.volumes = append(s.volumes, &volumes.Items[i])
	}
	var classes storagev1.StorageClassList
	if err := r.client.List(ctx, &classes, crclient.UnsafeDisableDeepCopy); err != nil {
		return s, err
	}
	for i := range classes.Items {
		s.classes = append(s.classes, &classes.Items[i])
	}
	s.pod, err = r.unscheduled(ctx, claim)
	return s, err
}

// unscheduled names a pod that waits for a node and uses the claim.
func (r *reconciler) unscheduled(ctx context.Context, claim *corev1.PersistentVolumeClaim) (string, error) {
	var pods corev1.PodList
	if err := r.client.List(ctx, &pods, crclient.InNamespace(claim.Namespace), crclient.UnsafeDisableDeepCopy); err != nil {
		return "", err
	}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Spec.NodeName == "" && uses(p, claim.Name) {
			return p.Name, nil
		}
	}
	return "", nil
}

func uses(p *corev1.Pod, claim string) bool {
	return slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return api.ClaimName(p, &v) == claim })
}

// find reads an object; nil says that it is not there.
func find[T crclient.Object](ctx context.Context, from crclient.Reader, key crclient.ObjectKey, into T) (found T, err error) {
	switch err = from.Get(ctx, key, into); {
	case err == nil:
		return into, nil
	case apierrors.IsNotFound(err):
		return found, nil
	}
	return found, err
}

// bind writes both pointers and both phases, each only if it is not written yet.
func (r *reconciler) bind(ctx context.Context, claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume) error {
	bound, dirty, err := storage.GetBindVolumeToClaim(volume, claim)
	if err != nil {
		return err
	}
	if dirty {
		if err := r.client.Update(ctx, bound); err != nil {
			return fmt.Errorf("bind volume %s to claim %s/%s: %w", volume.Name, claim.Namespace, claim.Name, err)
		}
	}
	if err := r.volumePhase(ctx, bound, corev1.VolumeBound, ""); err != nil {
		return err
	}
	if changed := bindClaim(claim, volume.Name); changed != nil {
		if err := r.client.Update(ctx, changed); err != nil {
			return fmt.Errorf("bind claim %s/%s to volume %s: %w", claim.Namespace, claim.Name, volume.Name, err)
		}
		claim = changed
	}
	if status := boundStatus(claim, bound); status != nil {
		changed := claim.DeepCopy()
		changed.Status = *status
		return r.client.Status().Update(ctx, changed)
	}
	return nil
}

// ask names the provisioner on a claim, who takes it from there.
func (r *reconciler) ask(ctx context.Context, claim *corev1.PersistentVolumeClaim, provisioner string) error {
	if claim.Annotations[storage.AnnStorageProvisioner] == provisioner {
		return nil
	}
	changed := claim.DeepCopy()
	annotate(changed, storage.AnnBetaStorageProvisioner, provisioner)
	annotate(changed, storage.AnnStorageProvisioner, provisioner)
	return r.client.Update(ctx, changed)
}

func annotate(o crclient.Object, key, value string) {
	a := o.GetAnnotations()
	if a == nil {
		a = map[string]string{}
	}
	a[key] = value
	o.SetAnnotations(a)
}

func (r *reconciler) claimPhase(ctx context.Context, claim *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase) error {
	if claim.Status.Phase == phase {
		return nil
	}
	changed := claim.DeepCopy()
	changed.Status.Phase = phase
	if phase != corev1.ClaimBound {
		changed.Status.Capacity, changed.Status.AccessModes = nil, nil
	}
	return r.client.Status().Update(ctx, changed)
}
