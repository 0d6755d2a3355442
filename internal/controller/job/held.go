package job

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/owner"
)

// held is the book of the pods that bear the tracking finalizer, by the job they are or were of: so that no pod stays for ever because its
// job went without letting it go. The zero value is ready for use.
type held struct {
	mu    sync.Mutex
	byPod map[harness.Key]*grip
	byJob map[harness.Key]map[harness.Key]struct{}
}

// grip is one pod's: the job by name, the owner by UID ("" once released), and whether the finalizer was taken off though it still shows.
type grip struct {
	job        harness.Key
	owner, pod types.UID
	off        bool
}

// saw notes a change; job is the one that controls the pod, or did before the change.
func (h *held) saw(job harness.Key, known bool, old, current *corev1.Pod) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if current == nil || !tracked(current) {
		if current == nil {
			current = old
		}
		h.drop(crclient.ObjectKeyFromObject(current))
		return
	}
	key := crclient.ObjectKeyFromObject(current)
	g := h.byPod[key]
	if g == nil || g.pod != current.UID {
		if !known {
			return
		}
		h.drop(key)
		g = &grip{job: job, pod: current.UID}
		if h.byPod == nil {
			h.byPod, h.byJob = map[harness.Key]*grip{}, map[harness.Key]map[harness.Key]struct{}{}
		}
		h.byPod[key] = g
		if h.byJob[job] == nil {
			h.byJob[job] = map[harness.Key]struct{}{}
		}
		h.byJob[job][key] = struct{}{}
	}
	g.owner = ""
	if ref := owner.Of(current); ref != nil {
		g.owner = ref.UID
	}
}

func (h *held) drop(key harness.Key) {
	g := h.byPod[key]
	if g == nil {
		return
	}
	delete(h.byPod, key)
	delete(h.byJob[g.job], key)
	if len(h.byJob[g.job]) == 0 {
		delete(h.byJob, g.job)
	}
}

// letGo notes that a pod's finalizer was taken off.
func (h *held) letGo(p *corev1.Pod) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if g := h.byPod[crclient.ObjectKeyFromObject(p)]; g != nil && g.pod == p.UID {
		g.off = true
	}
}

// off returns those of a job whose finalizer was taken off though the cache shows it.
func (h *held) off(job harness.Key) map[types.UID]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	gone := map[types.UID]bool{}
	for key := range h.byJob[job] {
		if g := h.byPod[key]; g.off {
			gone[g.pod] = true
		}
	}
	return gone
}

// strays returns the pods that nobody will count any more: those of the job's name that are not of its UID.
func (h *held) strays(job harness.Key, uid types.UID) []*corev1.Pod {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []*corev1.Pod
	for key := range h.byJob[job] {
		if g := h.byPod[key]; !g.off && (uid == "" || g.owner != uid) {
			p := &corev1.Pod{}
			p.Namespace, p.Name, p.UID = key.Namespace, key.Name, g.pod
			list = append(list, p)
		}
	}
	return list
}
