package score

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	config "k8s.io/kube-scheduler/config/v1"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
)

func claimed(class, asked string) filter.Binding {
	return filter.Binding{Claim: &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &class,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(asked)}}}}}
}

func found(class, asked, has string) filter.Binding {
	b := claimed(class, asked)
	b.Volume = &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{StorageClassName: class, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(has)}}}
	return b
}

func made(class, asked, free string) filter.Binding {
	b := claimed(class, asked)
	b.Room = &cluster.Room{Free: resource.MustParse(free)}
	return b
}

// Claims of a class are taken together, classes count alike, and volumes that are there go before such as are to be made.
func TestStored(t *testing.T) {
	filling := []config.UtilizationShapePoint{{Utilization: 0, Score: 0}, {Utilization: 80, Score: 100}, {Utilization: 100, Score: 50}}
	for _, one := range []struct {
		name  string
		list  []filter.Binding
		shape []config.UtilizationShapePoint
		want  int64
	}{
		{"nothing is known", []filter.Binding{claimed("a", "1Gi")}, moreFree, 0},
		{"no claims", nil, moreFree, 0},
		{"a volume", []filter.Binding{found("a", "1Gi", "4Gi")}, moreFree, 75},
		{"two volumes of a class", []filter.Binding{found("a", "1Gi", "4Gi"), found("a", "4Gi", "6Gi")}, moreFree, 50},
		{"of two classes", []filter.Binding{found("a", "1Gi", "4Gi"), found("b", "4Gi", "4Gi")}, moreFree, 38},
		{"room", []filter.Binding{made("a", "1Gi", "10Gi")}, moreFree, 90},
		{"two in one room", []filter.Binding{made("a", "1Gi", "10Gi"), made("a", "3Gi", "10Gi")}, moreFree, 60},
		{"more than there is", []filter.Binding{made("a", "6Gi", "10Gi"), made("a", "6Gi", "10Gi")}, moreFree, 0},
		{"it is not said how much", []filter.Binding{made("a", "6Gi", "0")}, moreFree, 0},
		{"a volume and room", []filter.Binding{found("a", "1Gi", "4Gi"), made("b", "1Gi", "10Gi")}, moreFree, 75},
		{"room and what nobody measures", []filter.Binding{made("a", "2Gi", "10Gi"), claimed("b", "1Gi")}, moreFree, 80},
		{"filled up", []filter.Binding{made("a", "4Gi", "10Gi")}, filling, 50},
		{"filled up further", []filter.Binding{made("a", "9Gi", "10Gi")}, filling, 75},
		{"filled past the end", []filter.Binding{made("a", "9Gi", "8Gi")}, filling, 50},
	} {
		if got := stored(one.list, one.shape); got != one.want {
			t.Errorf("%s: %d, want %d", one.name, got, one.want)
		}
	}
}
