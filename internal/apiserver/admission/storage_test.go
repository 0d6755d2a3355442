package admission

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry/registrytest"
)

func claimOf(name string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
	}}
	for _, f := range change {
		f(c)
	}
	return c
}

func TestDefaultStorageClass(t *testing.T) {
	r := start(t)
	get := func(c *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
		t.Helper()
		made, err := r.Create(registrytest.Admin, c)
		if err != nil {
			t.Fatal(err)
		}
		return made.(*corev1.PersistentVolumeClaim)
	}
	early := get(claimOf("early"))
	if early.Spec.StorageClassName != nil || !slices.Contains(early.Finalizers, api.ClaimFinalizer) {
		t.Errorf("without a default class: class %v, finalizers %v", early.Spec.StorageClassName, early.Finalizers)
	}
	made, err := r.Create(registrytest.Admin, &storagev1.VolumeAttributesClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, DriverName: "example.com", Parameters: map[string]string{"iops": "9"}})
	if err != nil || !slices.Contains(made.GetFinalizers(), api.AttributesClassFinalizer) {
		t.Errorf("attributes class: %v, %v", made, err)
	}
	marked := map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}
	r.Must(
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "b", Annotations: marked}, Provisioner: "example.com/x"},
		&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "plain"}, Provisioner: "example.com/x"},
	)
	none := ""
	for name, want := range map[string]string{"unnamed": "b", "named": "plain", "none": ""} {
		c := get(claimOf(name, func(c *corev1.PersistentVolumeClaim) {
			switch name {
			case "named":
				c.Spec.StorageClassName = &want
			case "none":
				c.Spec.StorageClassName = &none
			}
		}))
		if c.Spec.StorageClassName == nil || *c.Spec.StorageClassName != want {
			t.Errorf("%s: class %v, want %q", name, c.Spec.StorageClassName, want)
		}
	}
}

// Volumes and claims begin with the finalizer that keeps them while they are used, once.
func TestVolumesAreProtected(t *testing.T) {
	r := start(t)
	volume := func(name string, finalizers ...string) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name, Finalizers: finalizers}, Spec: corev1.PersistentVolumeSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}},
		}}
	}
	protected := func(c *corev1.PersistentVolumeClaim) { c.Finalizers = []string{api.ClaimFinalizer} }
	for _, obj := range []api.Object{volume("plain"), volume("protected", api.VolumeFinalizer), claimOf("plain"), claimOf("protected", protected)} {
		made, err := r.Create(registrytest.Admin, obj)
		if err != nil {
			t.Fatal(err)
		}
		want := map[bool]string{true: "kubernetes.io/pvc-protection", false: "kubernetes.io/pv-protection"}[made.GetNamespace() != ""]
		if got := made.GetFinalizers(); len(got) != 1 || got[0] != want {
			t.Errorf("%T %s has the finalizers %v", made, made.GetName(), got)
		}
	}
}

func TestNewestDefault(t *testing.T) {
	class := func(name string, second int64, value string) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Unix(second, 0),
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": value}}}
	}
	got := api.NewestDefaultClass([]*storagev1.StorageClass{class("old", 1, "true"), class("z", 2, "true"), class("a", 2, "true"), class("off", 3, "false")})
	if got == nil || got.Name != "a" {
		t.Errorf("got %v", got)
	}
}

func TestClaimResize(t *testing.T) {
	r, yes := start(t), true
	r.Must(&storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "grows"}, Provisioner: "example.com/x", AllowVolumeExpansion: &yes})
	for name, tt := range map[string]struct {
		class string
		phase corev1.PersistentVolumeClaimPhase
		code  int32
		want  string
	}{
		"unbound": {"grows", corev1.ClaimPending, 422, "spec is immutable"},
		"fixed":   {"other", corev1.ClaimBound, 403, "the storageclass that provisions the pvc must support resize"},
		"grows":   {"grows", corev1.ClaimBound, 0, ""},
	} {
		made, err := r.Create(registrytest.Admin, claimOf(name, func(c *corev1.PersistentVolumeClaim) { c.Spec.StorageClassName = &tt.class }))
		if err != nil {
			t.Fatal(err)
		}
		c := made.DeepCopyObject().(*corev1.PersistentVolumeClaim)
		c.Status.Phase = tt.phase
		if err := r.Update(registrytest.Admin, c, "status"); err != nil {
			t.Fatal(err)
		}
		c.ResourceVersion = ""
		c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse("2Gi")
		err = r.Update(registrytest.Admin, c, "")
		if tt.want == "" && err != nil {
			t.Errorf("%s: %v", name, err)
		} else if tt.want != "" {
			refused(t, err, tt.code, tt.want)
		}
	}
}
