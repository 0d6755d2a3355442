package csi

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func sized(of string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(of)}
}

func growing(has, allocated string, at corev1.ClaimResourceStatus) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{}
	c.Status.Capacity = sized(has)
	if allocated != "" {
		c.Status.AllocatedResources = sized(allocated)
	}
	if at != "" {
		setStage(c, at)
	}
	c.Status.Conditions = []corev1.PersistentVolumeClaimCondition{{Type: corev1.PersistentVolumeClaimFileSystemResizePending}, {Type: corev1.PersistentVolumeClaimVolumeModifyVolumeError}}
	return c
}

// The node's turn comes when a resizer says so, or has made the volume larger without saying anything.
func TestTurn(t *testing.T) {
	for _, c := range []struct {
		volume string
		claim  *corev1.PersistentVolumeClaim
		size   string
	}{
		{"1Gi", growing("1Gi", "", ""), ""},
		{"2Gi", growing("1Gi", "", ""), "2Gi"},
		{"1Gi", growing("1Gi", "2Gi", corev1.PersistentVolumeClaimControllerResizeInProgress), ""},
		{"1Gi", growing("1Gi", "2Gi", corev1.PersistentVolumeClaimControllerResizeInfeasible), ""},
		{"2Gi", growing("1Gi", "2Gi", corev1.PersistentVolumeClaimNodeResizePending), "2Gi"},
		{"3Gi", growing("1Gi", "2Gi", corev1.PersistentVolumeClaimNodeResizeInProgress), "2Gi"},
		{"2Gi", growing("1Gi", "", corev1.PersistentVolumeClaimNodeResizePending), "2Gi"},
		{"2Gi", growing("2Gi", "2Gi", corev1.PersistentVolumeClaimNodeResizePending), "2Gi"}, // the size was written and the end was not
		{"2Gi", growing("1Gi", "2Gi", corev1.PersistentVolumeClaimNodeResizeInfeasible), ""},
	} {
		pv := &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{Capacity: sized(c.volume)}}
		size, due := turn(pv, c.claim)
		if got := size.String(); due != (c.size != "") || due && got != c.size {
			t.Errorf("a volume of %s, %s: %v, %s; want %q", c.volume, stage(c.claim), due, got, c.size)
		}
	}
}

func TestStages(t *testing.T) {
	c := growing("1Gi", "2Gi", corev1.PersistentVolumeClaimNodeResizeInProgress)
	other := c.DeepCopy()
	finished(c, resource.MustParse("2Gi"))
	if size := c.Status.Capacity[corev1.ResourceStorage]; size.String() != "2Gi" || c.Status.AllocatedResourceStatuses != nil || len(c.Status.AllocatedResources) != 1 || len(c.Status.Conditions) != 1 {
		t.Errorf("when it has grown: %+v", c.Status)
	}
	refused(other, errors.New("no"), metav1.Time{})
	if stage(other) != corev1.PersistentVolumeClaimNodeResizeInfeasible || len(other.Status.Conditions) != 2 || other.Status.Conditions[1].Message != "failed to expand pvc with no" {
		t.Errorf("when it cannot grow: %+v", other.Status)
	}
	for code, want := range map[codes.Code]bool{codes.OutOfRange: true, codes.InvalidArgument: true, codes.NotFound: true, codes.Internal: false, codes.Unavailable: false, codes.FailedPrecondition: false} {
		if got := never(fmt.Errorf("expand: %w", status.Error(code, "x"))); got != want {
			t.Errorf("%s is for ever: %v", code, got)
		}
	}
}
