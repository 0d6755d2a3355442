package volume

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// objects is an API of a few objects.
type objects struct {
	Source
	claims  map[string]*corev1.PersistentVolumeClaim
	volumes map[string]*corev1.PersistentVolume
}

func (o objects) Claim(_ context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	if c := o.claims[namespace+"/"+name]; c != nil {
		return c, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), name)
}

func (o objects) Volume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	if v := o.volumes[name]; v != nil {
		return v, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumes"), name)
}

func podWith(claim string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "p-uid"}, Spec: corev1.PodSpec{
		Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}},
		Containers: []corev1.Container{{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}}},
	}}
}

// A bound directory is the pod's for as long as the pod is, and neither its end nor what it leaves takes anything from it.
func TestLocalVolume(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	ctx, data, root := context.Background(), t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(data, "f"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	api := objects{
		claims: map[string]*corev1.PersistentVolumeClaim{"default/c": {ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c", UID: "c-uid"},
			Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}},
		volumes: map[string]*corev1.PersistentVolume{"pv": {ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
			ClaimRef:               &corev1.ObjectReference{Namespace: "default", Name: "c", UID: "c-uid"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: data}}}}},
	}
	pod, state := podWith("c"), &Pod{}
	m := New(root, api, func() Facts { return Facts{} })
	for range 2 { // twice is once
		if _, err := m.Mount(ctx, pod, state, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	path := m.Path(pod, &pod.Spec.Volumes[0])
	if got, err := os.ReadFile(filepath.Join(path, "f")); err != nil || string(got) != "kept" || !strings.HasPrefix(path, root) {
		t.Fatalf("%s: %q, %v", path, got, err)
	}
	if mounts, err := mountsBelow(m.PodDir(pod.UID)); err != nil || len(mounts) != 1 {
		t.Errorf("mounts %v, %v", mounts, err)
	}
	if usage := m.Usage(pod); len(usage) != 1 || usage[0].Claim != "c" || usage[0].Capacity == 0 {
		t.Errorf("usage %+v", usage)
	}
	// Another process' manager, after a crash, takes the pod's end.
	if err := New(root, api, nil).Unmount(ctx, pod.UID); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(data, "f")); err != nil || string(got) != "kept" {
		t.Fatalf("the data after the pod: %q, %v", got, err)
	}
	if _, err := os.Stat(m.PodDir(pod.UID)); err == nil {
		t.Error("the pod's directory is left")
	}
}

func TestClaimsThatCannotBeMounted(t *testing.T) {
	now := metav1.Now()
	bound := func(change func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume)) objects {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c", UID: "c-uid"},
			Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}
		v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
			ClaimRef:               &corev1.ObjectReference{Namespace: "default", Name: "c", UID: "c-uid"},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		change(c, v)
		return objects{claims: map[string]*corev1.PersistentVolumeClaim{"default/c": c}, volumes: map[string]*corev1.PersistentVolume{"pv": v}}
	}
	block := corev1.PersistentVolumeBlock
	for want, api := range map[string]objects{
		`persistentvolumeclaim "c" not found`: {},
		"PVC has non-bound phase": bound(func(c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) {
			c.Status.Phase = corev1.ClaimPending
		}),
		"PVC is being deleted": bound(func(c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) { c.DeletionTimestamp = &now }),
		"PVC and PV mismatch":  bound(func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) { v.Spec.ClaimRef.UID = "other" }),
		"has volumeMode Block, but is specified in volumeMounts": bound(func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			v.Spec.VolumeMode = &block
		}),
		"not supported by this node": bound(func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "/"}}
		}),
	} {
		m := New(t.TempDir(), api, func() Facts { return Facts{} })
		if _, err := m.Mount(context.Background(), podWith("c"), &Pod{}, time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
