package evict

import (
	"os"
	"path/filepath"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
)

func using(name string, priority int32, request string, memory int64) Usage {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{Priority: &priority, Containers: []corev1.Container{{Name: "c"}}}}
	if request != "" {
		pod.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse(request), corev1.ResourceEphemeralStorage: resource.MustParse(request)}
	}
	return Usage{Pod: pod, Memory: memory, Processes: memory >> 20, Containers: map[string]Container{"c": {Memory: memory, Disk: memory}}}
}

func TestVictim(t *testing.T) {
	const mi = 1 << 20
	for _, test := range []struct {
		name   string
		signal Signal
		pods   []Usage
		want   string
	}{
		{"nobody", Memory, nil, ""},
		{"who uses more than it requested goes before those of less priority", Memory, []Usage{using("low", 0, "200Mi", 100*mi), using("high", 10, "", 50*mi)}, "high"},
		{"the least priority", Memory, []Usage{using("high", 10, "", 500*mi), using("low", 0, "", 50*mi)}, "low"},
		{"the most beyond its request", Memory, []Usage{using("a", 0, "400Mi", 500*mi), using("b", 0, "10Mi", 200*mi)}, "b"},
		{"nobody critical", Memory, []Usage{using("system", api.ClusterCriticalPriority, "", 500*mi)}, ""},
		{"the most processes, whatever was requested", Processes, []Usage{using("few", 0, "", 5*mi), using("many", 0, "1Gi", 9*mi)}, "many"},
		{"the most disk", Disk, []Usage{using("a", 0, "", 5*mi), using("b", 0, "", 6*mi)}, "b"},
	} {
		got := ""
		if v := Victim(test.signal, test.pods); v != nil {
			got = v.Pod.Name
		}
		if got != test.want {
			t.Errorf("%s: %q goes, not %q", test.name, got, test.want)
		}
	}
}

func TestMessage(t *testing.T) {
	u := using("p", 0, "10Mi", 64<<20)
	got := Message(Level{Signal: Memory, Available: 50 << 20, Least: 100 << 20}, &u)
	want := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 64Mi, request is 10Mi, has larger consumption of memory."
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := Message(Level{Signal: Processes, Available: 5, Least: 10}, &u); got != "The node was low on resource: pids. Threshold quantity: 10, available: 5." {
		t.Error(got)
	}
}

func TestExceeds(t *testing.T) {
	limited := func(u Usage, limit string) Usage {
		u.Pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceEphemeralStorage: resource.MustParse(limit)}
		return u
	}
	size := resource.MustParse("1Mi")
	volumes := func(used int64, medium corev1.StorageMedium) Usage {
		u := using("p", 0, "", 0)
		u.Pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size, Medium: medium}}}}
		u.Volumes = map[string]int64{"v": used}
		return u
	}
	other := limited(using("p", 0, "", 2<<20), "1Mi")
	other.Pod.Spec.Containers = append(other.Pod.Spec.Containers, corev1.Container{Name: "free"})
	for _, test := range []struct {
		usage   Usage
		bounded bool
		want    string
	}{
		{using("p", 0, "", 1<<30), false, ""},
		{limited(using("p", 0, "", 1<<20), "1Mi"), true, ""},
		{limited(using("p", 0, "", 2<<20), "1Mi"), true, "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "},
		{other, true, `Container c exceeded its local ephemeral storage limit "1Mi". `},
		{volumes(2<<20, ""), true, `Usage of EmptyDir volume "v" exceeds the limit "1Mi". `},
		{volumes(1<<20, ""), true, ""},
		{volumes(2<<20, corev1.StorageMediumMemory), false, ""},
	} {
		if got := Exceeds(&test.usage); got != test.want || Bounded(test.usage.Pod) != test.bounded {
			t.Errorf("%q, bounded %v; want %q", got, Bounded(test.usage.Pod), test.want)
		}
	}
}

func TestRefuse(t *testing.T) {
	one := using("p", 0, "", 0).Pod
	memory, disk := []corev1.NodeConditionType{corev1.NodeMemoryPressure}, []corev1.NodeConditionType{corev1.NodeDiskPressure}
	if Refuse(one, corev1.PodQOSBestEffort, nil) != "" || Refuse(one, corev1.PodQOSBurstable, memory) != "" || Refuse(using("s", api.ClusterCriticalPriority, "", 0).Pod, corev1.PodQOSBestEffort, disk) != "" {
		t.Error("it refuses what it can take")
	}
	if got := Refuse(one, corev1.PodQOSBestEffort, memory); got != "The node had condition: [MemoryPressure]. " {
		t.Error(got)
	}
	if Refuse(one, corev1.PodQOSGuaranteed, disk) == "" {
		t.Error("a full disk takes more")
	}
}

func TestSize(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(file, filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	if bytes, inodes := Size(dir); bytes < 1<<20 || bytes > 1<<20+64<<10 || inodes != 2 {
		t.Errorf("%d bytes in %d inodes", bytes, inodes)
	}
	if bytes, _ := Size(filepath.Join(dir, "none")); bytes != 0 {
		t.Errorf("%d bytes where nothing is", bytes)
	}
}
