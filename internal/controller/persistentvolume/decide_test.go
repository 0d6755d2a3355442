package persistentvolume

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	storage "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
)

func claim(class, size string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c", UID: "c-uid", Annotations: map[string]string{}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
		}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}}
	for _, f := range change {
		f(c)
	}
	return c
}

func volume(name, class, size string, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: class,
		Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)},
		PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
	}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
	for _, f := range change {
		f(v)
	}
	return v
}

func refTo(name string, uid types.UID) func(*corev1.PersistentVolume) {
	return func(v *corev1.PersistentVolume) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: "default", Name: name, UID: uid}
	}
}

func named(volume string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = volume }
}

func completed(c *corev1.PersistentVolumeClaim) { c.Annotations[storage.AnnBindCompleted] = "yes" }

func class(name, provisioner string, mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &mode}
}

func TestDecideClaim(t *testing.T) {
	const later, now = storagev1.VolumeBindingWaitForFirstConsumer, storagev1.VolumeBindingImmediate
	defaulted := class("std", "example.com/x", now)
	defaulted.Annotations = map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}
	for name, tt := range map[string]struct {
		claim                                   *corev1.PersistentVolumeClaim
		s                                       sight
		bind, provisioner, class, phase, reason string
	}{
		"the smallest that fits": {claim: claim("", "2Gi"), s: sight{volumes: []*corev1.PersistentVolume{
			volume("large", "", "9Gi"), volume("small", "", "1Gi"), volume("right", "", "3Gi"), volume("other", "x", "2Gi")}}, bind: "right"},
		"one that is kept for it": {claim: claim("", "2Gi"), s: sight{volumes: []*corev1.PersistentVolume{
			volume("free", "", "2Gi"), volume("kept", "", "9Gi", refTo("c", ""))}}, bind: "kept"},
		"kept for another": {claim: claim("", "2Gi"), s: sight{volumes: []*corev1.PersistentVolume{volume("v", "", "2Gi", refTo("d", ""))}},
			phase: "Pending", reason: "FailedBinding"},
		"no class": {claim: claim("", "2Gi"), phase: "Pending", reason: "FailedBinding"},
		"a class by default": {claim: claim("", "2Gi", func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = nil }),
			s: sight{classes: []*storagev1.StorageClass{defaulted}}, class: "std"},
		"a class that is not there": {claim: claim("x", "2Gi"), phase: "Pending", reason: "ProvisioningFailed"},
		"nobody makes it": {claim: claim("x", "2Gi"), s: sight{classes: []*storagev1.StorageClass{class("x", "kubernetes.io/no-provisioner", now)}},
			phase: "Pending", reason: "ProvisioningFailed"},
		"made at once":    {claim: claim("x", "2Gi"), s: sight{classes: []*storagev1.StorageClass{class("x", "e.com/x", now)}}, provisioner: "e.com/x", reason: "ExternalProvisioning"},
		"waits for a pod": {claim: claim("x", "2Gi"), s: sight{classes: []*storagev1.StorageClass{class("x", "e.com/x", later)}}, phase: "Pending", reason: "WaitForFirstConsumer"},
		"the pod waits": {claim: claim("x", "2Gi"), s: sight{classes: []*storagev1.StorageClass{class("x", "e.com/x", later)}, pod: "p"},
			phase: "Pending", reason: "WaitForPodScheduled"},
		"its node is chosen": {claim: claim("x", "2Gi", func(c *corev1.PersistentVolumeClaim) { c.Annotations[storage.AnnSelectedNode] = "n" }),
			s: sight{classes: []*storagev1.StorageClass{class("x", "e.com/x", later)}}, provisioner: "e.com/x", reason: "ExternalProvisioning"},
		"a free one must not be taken for a pod": {claim: claim("x", "2Gi"), s: sight{classes: []*storagev1.StorageClass{class("x", "e.com/x", later)},
			volumes: []*corev1.PersistentVolume{volume("v", "x", "2Gi")}}, phase: "Pending", reason: "WaitForFirstConsumer"},
		"named":            {claim: claim("", "2Gi", named("v")), s: sight{named: volume("v", "", "2Gi")}, bind: "v"},
		"named, not there": {claim: claim("", "2Gi", named("v")), phase: "Pending"},
		"named, too small": {claim: claim("", "2Gi", named("v")), s: sight{named: volume("v", "", "1Gi")}, phase: "Pending", reason: "VolumeMismatch"},
		"named, other attributes": {claim: claim("", "2Gi", named("v"), func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = ptr.To("gold") }),
			s: sight{named: volume("v", "", "2Gi")}, phase: "Pending", reason: "VolumeMismatch"},
		"other attributes": {claim: claim("", "2Gi"), s: sight{volumes: []*corev1.PersistentVolume{
			volume("gold", "", "2Gi", func(v *corev1.PersistentVolume) { v.Spec.VolumeAttributesClassName = ptr.To("gold") }), volume("plain", "", "3Gi")}}, bind: "plain"},
		"named, another's":    {claim: claim("", "2Gi", named("v")), s: sight{named: volume("v", "", "2Gi", refTo("d", "d-uid"))}, phase: "Pending", reason: "FailedBinding"},
		"bound":               {claim: claim("", "2Gi", named("v"), completed), s: sight{named: volume("v", "", "2Gi", refTo("c", "c-uid"))}, bind: "v"},
		"bound, volume lost":  {claim: claim("", "2Gi", named("v"), completed), phase: "Lost", reason: "ClaimLost"},
		"bound, misbound":     {claim: claim("", "2Gi", named("v"), completed), s: sight{named: volume("v", "", "2Gi", refTo("c", "x"))}, phase: "Lost", reason: "ClaimMisbound"},
		"bound, pointer lost": {claim: claim("", "2Gi", completed), phase: "Lost", reason: "ClaimLost"},
	} {
		t.Run(name, func(t *testing.T) {
			d := decideClaim(tt.claim, tt.s)
			bind, reason := "", ""
			if d.bind != nil {
				bind = d.bind.Name
			}
			if d.event != nil {
				reason = d.event.reason
			}
			if bind != tt.bind || d.provisioner != tt.provisioner || d.class != tt.class || string(d.phase) != tt.phase || reason != tt.reason {
				t.Errorf("bind %q, provisioner %q, class %q, phase %q, reason %q", bind, d.provisioner, d.class, d.phase, reason)
			}
		})
	}
}

func TestDecideVolume(t *testing.T) {
	deletes := func(v *corev1.PersistentVolume) {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
	}
	made := func(v *corev1.PersistentVolume) {
		v.Annotations = map[string]string{storage.AnnDynamicallyProvisioned: "e.com/x"}
	}
	for name, tt := range map[string]struct {
		v      *corev1.PersistentVolume
		claim  *corev1.PersistentVolumeClaim
		phase  corev1.PersistentVolumePhase
		unbind bool
	}{
		"free":                     {v: volume("v", "", "1Gi"), phase: corev1.VolumeAvailable},
		"kept":                     {v: volume("v", "", "1Gi", refTo("c", "")), phase: corev1.VolumeAvailable},
		"half bound":               {v: volume("v", "", "1Gi", refTo("c", "c-uid")), claim: claim("", "1Gi")},
		"bound":                    {v: volume("v", "", "1Gi", refTo("c", "c-uid")), claim: claim("", "1Gi", named("v")), phase: corev1.VolumeBound},
		"retained":                 {v: volume("v", "", "1Gi", refTo("c", "c-uid")), phase: corev1.VolumeReleased},
		"to be deleted by another": {v: volume("v", "", "1Gi", refTo("c", "c-uid"), deletes, made), phase: corev1.VolumeReleased},
		"nobody deletes it":        {v: volume("v", "", "1Gi", refTo("c", "c-uid"), deletes), phase: corev1.VolumeFailed},
		"its claim took another":   {v: volume("v", "", "1Gi", refTo("c", "c-uid")), claim: claim("", "1Gi", named("w")), phase: corev1.VolumeAvailable, unbind: true},
		"made for one that took another": {v: volume("v", "", "1Gi", refTo("c", "c-uid"), deletes, made), claim: claim("", "1Gi", named("w")),
			phase: corev1.VolumeReleased},
	} {
		t.Run(name, func(t *testing.T) {
			if d := decideVolume(tt.v, tt.claim); d.phase != tt.phase || d.unbind != tt.unbind {
				t.Errorf("%+v", d)
			}
		})
	}
}

// Bound by the controller, the claim is deleted, and the volume is released; at no moment is the volume given to somebody else.
func TestLife(t *testing.T) {
	ctx := context.Background()
	c := clienttest.New(t, volume("v", "", "2Gi"), claim("", "1Gi"))
	r := newReconciler(c)
	key, vkey := crclient.ObjectKey{Namespace: "default", Name: "c"}, crclient.ObjectKey{Name: "v"}
	for range 2 { // twice is once
		if _, err := r.reconcile(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	var cl corev1.PersistentVolumeClaim
	var v corev1.PersistentVolume
	read := func() {
		t.Helper()
		if err := crclient.IgnoreNotFound(c.Get(ctx, key, &cl)); err != nil {
			t.Fatal(err)
		}
		if err := c.Get(ctx, vkey, &v); err != nil {
			t.Fatal(err)
		}
	}
	read()
	capacity := cl.Status.Capacity[corev1.ResourceStorage]
	if cl.Status.Phase != corev1.ClaimBound || cl.Spec.VolumeName != "v" || capacity.String() != "2Gi" || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != cl.UID {
		t.Fatalf("claim %+v %+v, volume %+v", cl.Spec, cl.Status, v.Spec.ClaimRef)
	}
	if v.Status.Phase != corev1.VolumeBound || v.Annotations[storage.AnnBoundByController] != "yes" || cl.Annotations[storage.AnnBindCompleted] != "yes" {
		t.Errorf("volume %s %v, claim %v", v.Status.Phase, v.Annotations, cl.Annotations)
	}
	if err := c.Delete(ctx, &cl); err != nil {
		t.Fatal(err)
	}
	if _, err := r.reconcile(ctx, vkey); err != nil {
		t.Fatal(err)
	}
	if read(); v.Status.Phase != corev1.VolumeReleased || v.Status.LastPhaseTransitionTime == nil {
		t.Errorf("the volume is %+v", v.Status)
	}
	if err := c.Create(ctx, claim("", "1Gi", func(c *corev1.PersistentVolumeClaim) { c.UID = "next" })); err != nil {
		t.Fatal(err)
	}
	if _, err := r.reconcile(ctx, key); err != nil {
		t.Fatal(err)
	}
	if read(); cl.Status.Phase != corev1.ClaimPending || v.Spec.ClaimRef.UID != "c-uid" {
		t.Errorf("a released volume was given to %v; the claim is %s", v.Spec.ClaimRef, cl.Status.Phase)
	}
}
