package volumeprotection

import (
	"context"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/controller/harness"
)

// A class that is being deleted goes once no claim has it, wants it or is on its way to it, and no volume has it.
func TestAttributesClass(t *testing.T) {
	claim := func(change func(*corev1.PersistentVolumeClaim)) crclient.Object {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}}
		change(c)
		return c
	}
	for name, tt := range map[string]struct {
		user crclient.Object
		gone bool
	}{
		"of a volume": {user: &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{VolumeAttributesClassName: ptr.To("gold")}}},
		"wanted":      {user: claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = ptr.To("gold") })},
		"had":         {user: claim(func(c *corev1.PersistentVolumeClaim) { c.Status.CurrentVolumeAttributesClassName = ptr.To("gold") })},
		"on its way": {user: claim(func(c *corev1.PersistentVolumeClaim) {
			c.Status.ModifyVolumeStatus = &corev1.ModifyVolumeStatus{TargetVolumeAttributesClassName: "gold", Status: corev1.PersistentVolumeClaimModifyVolumeInProgress}
		})},
		"another": {user: claim(func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = ptr.To("silver") }), gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			c := clienttest.New(t, tt.user, &storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, DriverName: "e.com"})
			r, key := &reconciler{c}, harness.Key{Name: "gold"}
			run := func() {
				t.Helper()
				if _, err := r.attributesClass(ctx, key); err != nil {
					t.Fatal(err)
				}
			}
			var class storagev1.VolumeAttributesClass
			run()
			if err := c.Get(ctx, key, &class); err != nil || !slices.Contains(class.Finalizers, api.AttributesClassFinalizer) {
				t.Fatalf("finalizers %v, %v", class.Finalizers, err)
			}
			if err := c.Delete(ctx, &class); err != nil {
				t.Fatal(err)
			}
			run()
			if err := c.Get(ctx, key, &class); tt.gone != apierrors.IsNotFound(err) {
				t.Errorf("gone: %v", err)
			}
			if tt.gone {
				return
			}
			if err := c.Delete(ctx, tt.user); err != nil {
				t.Fatal(err)
			}
			run()
			if err := c.Get(ctx, key, &class); !apierrors.IsNotFound(err) {
				t.Errorf("with nobody left: %v", err)
			}
		})
	}
}

func TestLetGo(t *testing.T) {
	v := func(class string) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{VolumeAttributesClassName: &class}}
	}
	for _, tt := range []struct {
		old, current *corev1.PersistentVolume
		want         []harness.Key
	}{
		{nil, v("a"), nil}, {v("a"), v("a"), nil}, {v("a"), v("b"), []harness.Key{{Name: "a"}}}, {v("a"), nil, []harness.Key{{Name: "a"}}}, {v(""), nil, nil},
	} {
		if got := letGo(tt.old, tt.current, classesOf); !slices.Equal(got, tt.want) {
			t.Errorf("%v to %v wakes %v", tt.old, tt.current, got)
		}
	}
}
