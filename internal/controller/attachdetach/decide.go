package attachdetach

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/controller/podstate"
)

// patience is how long a node that does not answer keeps its volumes, as upstream.
const patience = 6 * time.Minute

// observed is what a decision looks at.
type observed struct {
	attaches    bool // the driver does
	pods        []*corev1.Pod
	attachments []*storagev1.VolumeAttachment
	nodes       map[string]*corev1.Node // of the attachments; those that are gone are missing
}

type plan struct {
	attach  []string // nodes
	detach  []string // attachments
	refused []*corev1.Pod
	again   time.Duration
}

// attachmentName is upstream's, by which attachers and kubelets find a VolumeAttachment.
func attachmentName(handle, driver, node string) string {
	sum := sha256.Sum256([]byte(handle + driver + node))
	return "csi-" + hex.EncodeToString(sum[:])
}

// ours says whether this controller asked for an attachment; those of others are theirs to end.
func ours(a *storagev1.VolumeAttachment) bool {
	sum, ok := strings.CutPrefix(a.Name, "csi-")
	raw, err := hex.DecodeString(sum)
	return ok && err == nil && len(raw) == sha256.Size
}

// decide compares who uses a volume with where it is attached.
func decide(pv *corev1.PersistentVolume, s observed, now time.Time) (p plan) {
	wanted := map[string]*corev1.Pod{}
	var order []string
	for _, pod := range s.pods {
		if pod.Spec.NodeName == "" || podstate.Terminal(pod) || !s.attaches || wanted[pod.Spec.NodeName] != nil {
			continue
		}
		wanted[pod.Spec.NodeName] = pod
		order = append(order, pod.Spec.NodeName)
	}
	held := map[string]bool{}
	for _, a := range s.attachments {
		held[a.Spec.NodeName] = true
		if wanted[a.Spec.NodeName] != nil || a.DeletionTimestamp != nil || !ours(a) {
			continue
		}
		switch wait, may := mayDetach(pv, s.nodes[a.Spec.NodeName], now); {
		case may:
			p.detach = append(p.detach, a.Name)
		case wait > 0 && (p.again == 0 || wait < p.again):
			p.again = wait
		}
	}
	for _, node := range order {
		switch {
		case held[node]:
		case len(held) > 0 && exclusive(pv):
			p.refused = append(p.refused, wanted[node])
		default:
			p.attach = append(p.attach, node)
			held[node] = true
		}
	}
	return p
}

// exclusive volumes are written to by one node at a time.
func exclusive(pv *corev1.PersistentVolume) bool {
	return !slices.ContainsFunc(pv.Spec.AccessModes, func(m corev1.PersistentVolumeAccessMode) bool {
		return m == corev1.ReadWriteMany || m == corev1.ReadOnlyMany
	})
}

// mayDetach says whether a node that no pod uses the volume on can lose it, or else in how long it can although it has not answered.
func mayDetach(pv *corev1.PersistentVolume, node *corev1.Node, now time.Time) (wait time.Duration, may bool) {
	if node == nil || outOfService(node) || pv.Spec.CSI == nil {
		return 0, true
	}
	name := corev1.UniqueVolumeName("kubernetes.io/csi/" + pv.Spec.CSI.Driver + "^" + pv.Spec.CSI.VolumeHandle)
	if !slices.Contains(node.Status.VolumesInUse, name) {
		return 0, true
	}
	since := unready(node)
	if since.IsZero() {
		return 0, false
	}
	if left := since.Add(patience).Sub(now); left > 0 {
		return left, false
	}
	return 0, true
}

func outOfService(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

// unready is since when a node is not ready; zero if it is.
func unready(node *corev1.Node) *metav1.Time {
	for i := range node.Status.Conditions {
		if c := &node.Status.Conditions[i]; c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			return &c.LastTransitionTime
		}
	}
	return &metav1.Time{}
}
