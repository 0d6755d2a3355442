package attachdetach

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDecide(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	pv := func(modes ...corev1.PersistentVolumeAccessMode) *corev1.PersistentVolume {
		return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{AccessModes: modes,
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h"}}}}
	}
	pod := func(node string, phase corev1.PodPhase) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "on-" + node}, Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: phase}}
	}
	on := func(node string) *storagev1.VolumeAttachment {
		return &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: attachmentName("h", "d", node)}, Spec: storagev1.VolumeAttachmentSpec{NodeName: node}}
	}
	others := on("a")
	others.Name = "made-by-hand"
	node := func(name string, uses bool, unreadyFor time.Duration) map[string]*corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if uses {
			n.Status.VolumesInUse = []corev1.UniqueVolumeName{"kubernetes.io/csi/d^h"}
		}
		if unreadyFor > 0 {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, LastTransitionTime: metav1.NewTime(noon.Add(-unreadyFor))}}
		}
		return map[string]*corev1.Node{name: n}
	}
	const once, many = corev1.ReadWriteOnce, corev1.ReadWriteMany
	for name, tt := range map[string]struct {
		pv             *corev1.PersistentVolume
		s              observed
		attach, detach []string
		refused        int
		again          time.Duration
	}{
		"first use":           {pv: pv(once), s: observed{attaches: true, pods: []*corev1.Pod{pod("a", "Pending"), pod("a", "Running")}}, attach: []string{"a"}},
		"no node yet":         {pv: pv(once), s: observed{attaches: true, pods: []*corev1.Pod{pod("", "Pending")}}},
		"driver does not":     {pv: pv(once), s: observed{pods: []*corev1.Pod{pod("a", "Pending")}}},
		"attached":            {pv: pv(once), s: observed{attaches: true, pods: []*corev1.Pod{pod("a", "Running")}, attachments: []*storagev1.VolumeAttachment{on("a")}, nodes: node("a", true, 0)}},
		"elsewhere":           {pv: pv(once), s: observed{attaches: true, pods: []*corev1.Pod{pod("a", "Running"), pod("b", "Pending")}, attachments: []*storagev1.VolumeAttachment{on("a")}, nodes: node("a", true, 0)}, refused: 1},
		"two at once":         {pv: pv(once), s: observed{attaches: true, pods: []*corev1.Pod{pod("a", "Pending"), pod("b", "Pending")}}, attach: []string{"a"}, refused: 1},
		"many":                {pv: pv(many), s: observed{attaches: true, pods: []*corev1.Pod{pod("a", "Running"), pod("b", "Pending")}, attachments: []*storagev1.VolumeAttachment{on("a")}, nodes: node("a", true, 0)}, attach: []string{"b"}},
		"over, still in use":  {pv: pv(once), s: observed{attaches: true, pods: []*corev1.Pod{pod("a", "Succeeded")}, attachments: []*storagev1.VolumeAttachment{on("a")}, nodes: node("a", true, 0)}},
		"over":                {pv: pv(once), s: observed{attaches: true, attachments: []*storagev1.VolumeAttachment{on("a")}, nodes: node("a", false, 0)}, detach: []string{on("a").Name}},
		"somebody else's":     {pv: pv(once), s: observed{attaches: true, attachments: []*storagev1.VolumeAttachment{others}, nodes: node("a", false, 0)}},
		"the node is gone":    {pv: pv(once), s: observed{attaches: true, attachments: []*storagev1.VolumeAttachment{on("a")}}, detach: []string{on("a").Name}},
		"the node is silent":  {pv: pv(once), s: observed{attaches: true, attachments: []*storagev1.VolumeAttachment{on("a")}, nodes: node("a", true, time.Minute)}, again: 5 * time.Minute},
		"silent for too long": {pv: pv(once), s: observed{attaches: true, attachments: []*storagev1.VolumeAttachment{on("a")}, nodes: node("a", true, time.Hour)}, detach: []string{on("a").Name}},
	} {
		t.Run(name, func(t *testing.T) {
			p := decide(tt.pv, tt.s, noon)
			if !slices.Equal(p.attach, tt.attach) || !slices.Equal(p.detach, tt.detach) || len(p.refused) != tt.refused || p.again != tt.again {
				t.Errorf("%+v", p)
			}
		})
	}
}
