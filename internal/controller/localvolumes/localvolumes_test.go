package localvolumes

import (
	"context"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api/localvolume"
	"skiff.dev/skiff/internal/controller/clienttest"
)

func claim(change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	class := localvolume.Class
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c", UID: "u", Annotations: map[string]string{
		storage.AnnStorageProvisioner: localvolume.Provisioner, storage.AnnSelectedNode: "n"}},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
	for _, f := range change {
		f(c)
	}
	return c
}

func node(folder string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelHostname: "host"},
		Annotations: map[string]string{localvolume.FolderAnnotation: folder}}}
}

func start(t *testing.T, objects ...crclient.Object) (*reconciler, *clienttest.Client) {
	t.Helper()
	c := clienttest.New(t, objects...)
	r := &reconciler{client: c, events: c.Recorder("")}
	if _, err := r.reconcile(context.Background(), classKey); err != nil {
		t.Fatal(err)
	}
	return r, c
}

var key = crclient.ObjectKey{Namespace: "default", Name: "c"}

func TestProvision(t *testing.T) {
	ctx := context.Background()
	r, c := start(t, node("/data/volumes"), claim())
	for range 2 { // twice is once
		if _, err := r.reconcile(ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	var v corev1.PersistentVolume
	if err := c.Get(ctx, crclient.ObjectKey{Name: "pvc-u"}, &v); err != nil {
		t.Fatal(err)
	}
	host := v.Spec.NodeAffinity.Required.NodeSelectorTerms[0].MatchExpressions[0]
	if v.Spec.Local.Path != "/data/volumes/pvc-u" || v.Spec.ClaimRef.UID != "u" || host.Values[0] != "host" || !localvolume.Of(&v) ||
		v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || !slices.Contains(v.Finalizers, localvolume.Finalizer) {
		t.Errorf("%+v", v)
	}
	v.Status.Phase = corev1.VolumeReleased
	if err := c.Status().Update(ctx, &v); err != nil {
		t.Fatal(err)
	}
	if _, err := r.reconcile(ctx, crclient.ObjectKey{Name: "pvc-u"}); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(ctx, crclient.ObjectKey{Name: "pvc-u"}, &v); err != nil || v.DeletionTimestamp == nil {
		t.Fatalf("it must wait for its node: %v %v", err, v.DeletionTimestamp)
	}
	if err := c.Delete(ctx, node("")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.reconcile(ctx, crclient.ObjectKey{Name: "pvc-u"}); err != nil {
		t.Fatal(err)
	}
	if left := c.Names(t, &corev1.PersistentVolumeList{}); len(left) != 0 {
		t.Errorf("its node is gone for good, and %v is left", left)
	}
}

func TestImpossible(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		want   string
	}{
		"many nodes": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}, "on one node only"},
		"block": {func(c *corev1.PersistentVolumeClaim) {
			block := corev1.PersistentVolumeBlock
			c.Spec.VolumeMode = &block
		}, "volumeMode Block is not supported"},
		"attributes": {func(c *corev1.PersistentVolumeClaim) {
			gold := "gold"
			c.Spec.VolumeAttributesClassName = &gold
		}, "volumeAttributesClassName is not supported"},
		"no such node": {func(c *corev1.PersistentVolumeClaim) { c.Annotations[storage.AnnSelectedNode] = "m" }, `node "m" is gone`},
	} {
		t.Run(name, func(t *testing.T) {
			r, c := start(t, node("/v"), claim(tt.change))
			if _, err := r.reconcile(context.Background(), key); err != nil {
				t.Fatal(err)
			}
			events := c.Events()
			if len(events) != 1 || !strings.Contains(events[0], "ProvisioningFailed") || !strings.Contains(events[0], tt.want) {
				t.Errorf("events %q", events)
			}
			if made := c.Names(t, &corev1.PersistentVolumeList{}); len(made) != 0 {
				t.Errorf("made %v", made)
			}
		})
	}
}

func TestClass(t *testing.T) {
	isDefault := func(c *clienttest.Client) string {
		var class storagev1.StorageClass
		if err := c.Get(context.Background(), crclient.ObjectKey{Name: localvolume.Class}, &class); err != nil {
			t.Fatal(err)
		}
		return class.Annotations["storageclass.kubernetes.io/is-default-class"]
	}
	_, c := start(t)
	if isDefault(c) != "true" {
		t.Error("the only class must be the default")
	}
	_, c = start(t, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "mine", Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}}})
	if isDefault(c) != "false" {
		t.Error("the user has a default of their own")
	}
}

func TestNextGrowth(t *testing.T) {
	list := func(size string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
	}
	for name, tt := range map[string]struct {
		want, has, volume, done string
		next                    growth
	}{
		"settled": {"1Gi", "1Gi", "1Gi", "1Gi", settled}, "asked": {"2Gi", "1Gi", "1Gi", "1Gi", enlarge},
		"enlarged": {"2Gi", "1Gi", "2Gi", "1Gi", await}, "set up": {"2Gi", "1Gi", "2Gi", "2Gi", finish},
		"asked again": {"3Gi", "1Gi", "2Gi", "1Gi", enlarge}, "never set up": {"2Gi", "1Gi", "2Gi", "", await},
	} {
		c := claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Resources.Requests, c.Status.Capacity, c.Status.Phase = list(tt.want), list(tt.has), corev1.ClaimBound
		})
		v := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{Capacity: list(tt.volume)}}
		v.Annotations = map[string]string{localvolume.SizeAnnotation: tt.done}
		if got := nextGrowth(c, v); got != tt.next {
			t.Errorf("%s: %d, want %d", name, got, tt.next)
		}
	}
}
