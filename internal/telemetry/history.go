package telemetry

import (
	"cmp"
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// hour is how many samples there are of each thing: an hour of them, at one each Period.
const hour = int(time.Hour / Period)

// absent stands where a thing was not measured.
const absent = math.MaxUint32

// past is the last hour of node, pods and containers. All have their samples at the same times, so a series is two rings of numbers,
// 5.6 KiB: a hundred pods of two containers take 1.7 MB. Of a pod that is gone nothing is kept. No sample is taken for it: it is filled
// with those that are taken anyway.
type past struct {
	mu    sync.Mutex
	at    [hour]int64 // Unix milliseconds
	n     int         // samples since the start; the newest is at (n-1) % hour
	last  time.Time
	rings map[of]*ring
}

// of is what a series is about: a container, a pod or, empty, the node.
type of struct{ namespace, pod, uid, container string }

type ring struct {
	cpu    [hour]uint32 // millionths of a core
	memory [hour]uint32 // KiB of working set
	seen   int          // the sample it was in last
}

// add a sample, unless it was taken before its time.
func (p *past) add(now time.Time, s *stats.Summary) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.last.IsZero() && now.Sub(p.last) < Period-glancePeriod {
		return
	}
	if p.rings == nil {
		p.rings = map[of]*ring{}
	}
	p.last = now
	p.at[p.n%hour] = now.UnixMilli()
	p.n++
	p.put(of{}, s.Node.CPU, s.Node.Memory)
	for i := range s.Pods {
		pod := &s.Pods[i]
		key := of{namespace: pod.PodRef.Namespace, pod: pod.PodRef.Name, uid: pod.PodRef.UID}
		p.put(key, pod.CPU, pod.Memory)
		for j := range pod.Containers {
			key.container = pod.Containers[j].Name
			p.put(key, pod.Containers[j].CPU, pod.Containers[j].Memory)
		}
	}
	maps.DeleteFunc(p.rings, func(_ of, r *ring) bool { return r.seen != p.n })
}

func (p *past) put(key of, cpu *stats.CPUStats, memory *stats.MemoryStats) {
	r := p.rings[key]
	if r == nil {
		r = &ring{}
		for i := range hour {
			r.cpu[i], r.memory[i] = absent, absent
		}
		p.rings[key] = r
	}
	i := (p.n - 1) % hour
	r.seen, r.cpu[i], r.memory[i] = p.n, absent, absent
	if cpu != nil && cpu.UsageNanoCores != nil {
		r.cpu[i] = uint32(min(*cpu.UsageNanoCores/1000, absent-1))
	}
	if memory != nil && memory.WorkingSetBytes != nil {
		r.memory[i] = uint32(min(*memory.WorkingSetBytes>>10, absent-1))
	}
}

// History of a node's last hour, the oldest sample first.
type History struct {
	Times  []int64  `json:"times"` // Unix milliseconds
	Series []Series `json:"series"`
}

// Series of one thing, with a value for each time; null where there is none.
type Series struct {
	Namespace string    `json:"namespace,omitempty"` // none: the node
	Pod       string    `json:"pod,omitempty"`
	UID       string    `json:"uid,omitempty"`
	Container string    `json:"container,omitempty"` // none: the pod as a whole
	CPU       []*uint64 `json:"cpu"`                 // nanocores
	Memory    []*uint64 `json:"memory"`              // bytes of working set
}

// asked is what somebody wants to know: of a namespace, a pod, the node alone. The zero value is everything, the node too.
type asked struct {
	namespace, pod string
	node           bool
}

func (a asked) about(key of) bool {
	if a.node {
		return key == of{}
	}
	return (a.namespace == "" || key.namespace == a.namespace) && (a.pod == "" || key.pod == a.pod)
}

// read what somebody asked for, since a time.
func (p *past) read(a asked, since time.Time) History {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := max(0, p.n-hour)
	for first < p.n && p.at[first%hour] < since.UnixMilli() {
		first++
	}
	h := History{Times: make([]int64, 0, p.n-first), Series: []Series{}}
	for i := first; i < p.n; i++ {
		h.Times = append(h.Times, p.at[i%hour])
	}
	for key, r := range p.rings {
		if !a.about(key) {
			continue
		}
		one := Series{Namespace: key.namespace, Pod: key.pod, UID: key.uid, Container: key.container}
		for i := first; i < p.n; i++ {
			one.CPU = append(one.CPU, scaled(r.cpu[i%hour], 1000))
			one.Memory = append(one.Memory, scaled(r.memory[i%hour], 1<<10))
		}
		h.Series = append(h.Series, one)
	}
	slices.SortFunc(h.Series, func(a, b Series) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.UID, b.UID), cmp.Compare(a.Container, b.Container))
	})
	return h
}

func scaled(n uint32, by uint64) *uint64 {
	if n == absent {
		return nil
	}
	return value(uint64(n) * by)
}

// History serves the last hour: parameters namespace, pod, only (node), and since, a duration such as 10m.
func (s *Sampler) History() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, since := r.URL.Query(), time.Time{}
		if text := q.Get("since"); text != "" {
			back, err := time.ParseDuration(text)
			if err != nil || back < 0 {
				http.Error(w, "invalid value for since: "+text+" is no duration such as 10m", http.StatusBadRequest)
				return
			}
			since = s.now().Add(-back)
		}
		if only := q.Get("only"); only != "" && only != "node" {
			http.Error(w, "invalid value for only: "+only+" is not node", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_ = json.NewEncoder(w).Encode(s.past.read(asked{q.Get("namespace"), q.Get("pod"), q.Get("only") == "node"}, since))
	})
}
