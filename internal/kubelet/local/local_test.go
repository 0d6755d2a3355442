package local

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api/localvolume"
	"skiff.dev/skiff/internal/controller/clienttest"
)

func made(folder string, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c", UID: "u"}, Spec: corev1.PersistentVolumeClaimSpec{
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
	v := localvolume.New(claim, corev1.PersistentVolumeReclaimDelete, "n", "n", folder)
	for _, f := range change {
		f(v)
	}
	return v
}

func TestNext(t *testing.T) {
	at := metav1.Now()
	size := func(s string) func(*corev1.PersistentVolume) {
		return func(v *corev1.PersistentVolume) { v.Annotations[localvolume.SizeAnnotation] = s }
	}
	phase := func(p corev1.PersistentVolumePhase) func(*corev1.PersistentVolume) {
		return func(v *corev1.PersistentVolume) { v.Status.Phase = p }
	}
	leaving := func(v *corev1.PersistentVolume) { v.DeletionTimestamp = &at }
	retained := func(v *corev1.PersistentVolume) {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	for name, tt := range map[string]struct {
		change []func(*corev1.PersistentVolume)
		want   step
	}{
		"new": {nil, setUp}, "set up": {[]func(*corev1.PersistentVolume){size("1Gi")}, nothing}, "grown": {[]func(*corev1.PersistentVolume){size("512Mi")}, setUp},
		"deleted while bound": {[]func(*corev1.PersistentVolume){size("1Gi"), leaving, phase(corev1.VolumeBound)}, nothing},
		"deleted":             {[]func(*corev1.PersistentVolume){size("1Gi"), leaving, phase(corev1.VolumeReleased)}, remove},
		"deleted, data stay":  {[]func(*corev1.PersistentVolume){size("1Gi"), leaving, phase(corev1.VolumeReleased), retained}, release},
		"finished with": {[]func(*corev1.PersistentVolume){size("1Gi"), leaving, phase(corev1.VolumeReleased), func(v *corev1.PersistentVolume) { v.Finalizers = nil }},
			nothing},
	} {
		if got := next(made("/v", tt.change...)); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}

// From the object to the directory and back to nothing; what is not below the folder is never touched.
func TestLife(t *testing.T) {
	ctx, dir := context.Background(), filepath.Join(t.TempDir(), "volumes")
	c := clienttest.New(t, made(dir))
	v := New(dir, "n", c, c.Recorder(""), slog.New(slog.DiscardHandler))
	if err := v.open(); err != nil {
		t.Fatal(err)
	}
	key := crclient.ObjectKey{Name: "pvc-u"}
	var pv corev1.PersistentVolume
	look := func() {
		t.Helper()
		if err := v.look(ctx, "pvc-u"); err != nil {
			t.Fatal(err)
		}
		if err := crclient.IgnoreNotFound(c.Get(ctx, key, &pv)); err != nil {
			t.Fatal(err)
		}
	}
	look()
	path := filepath.Join(dir, "pvc-u")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o777 || pv.Annotations[localvolume.SizeAnnotation] != "1Gi" || pv.Annotations[localvolume.LimitAnnotation] == "" {
		t.Fatalf("%v %v %v", info, err, pv.Annotations)
	}
	if got, err := v.Prepare(ctx, &pv); err != nil || got != path {
		t.Errorf("%s, %v", got, err)
	}
	elsewhere := pv.DeepCopy()
	elsewhere.Spec.Local.Path = "/etc"
	if _, err := v.Prepare(ctx, elsewhere); err == nil {
		t.Error("a path outside of the folder was taken")
	}
	if err := v.delete(elsewhere); err == nil {
		t.Error("a path outside of the folder was deleted")
	}
	if err := os.WriteFile(filepath.Join(path, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pv.Status.Phase = corev1.VolumeReleased
	if err := c.Status().Update(ctx, &pv); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx, &pv); err != nil {
		t.Fatal(err)
	}
	look()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if slices.Contains(c.Names(t, &corev1.PersistentVolumeList{}), "pvc-u") {
		t.Error("the volume is still there")
	}
}

// agentsClient is a node's that is not in the server's process: the server does not let it ask for a volume that is not there.
type agentsClient struct{ *clienttest.Client }

func (agentsClient) Get(context.Context, crclient.ObjectKey, crclient.Object, ...crclient.GetOption) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: "persistentvolumes"}, "pvc-u", nil)
}

// A volume that is gone is no error, and is not looked for again and again.
func TestGone(t *testing.T) {
	c := clienttest.New(t)
	if err := New(t.TempDir(), "n", agentsClient{c}, c.Recorder(""), slog.New(slog.DiscardHandler)).look(context.Background(), "pvc-u"); err != nil {
		t.Error(err)
	}
}

// What was set up once and is missing is lost, and not replaced by an empty directory; what a crash left half deleted goes.
func TestAfterACrash(t *testing.T) {
	dir := t.TempDir()
	half := filepath.Join(dir, leaving+"pvc-x")
	if err := os.Mkdir(half, 0o755); err != nil {
		t.Fatal(err)
	}
	c := clienttest.New(t)
	v := New(dir, "n", c, c.Recorder(""), slog.New(slog.DiscardHandler))
	if err := v.open(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a volume is still there: %v", err)
	}
	lost := made(dir, func(pv *corev1.PersistentVolume) { pv.Annotations[localvolume.SizeAnnotation] = "1Gi" })
	if _, err := v.Prepare(context.Background(), lost); err == nil {
		t.Error("a lost volume was replaced")
	}
}
