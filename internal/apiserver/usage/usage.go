// Package usage answers metrics.k8s.io: what nodes, pods and containers use at the moment.
//
// It owns the latest figures of each node. They come by the node's name from one of two sources: a kubelet in this process pushes each of its
// samples; every other node's kubelet is asked when somebody asks here. Its invariant: what it shows was measured at most MaxAge before it was
// asked for, and is of a pod that exists. The host pushes, the API server registers Reads, the autoscaler follows the samples.
package usage

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"skiff.dev/skiff/internal/registry"
)

const (
	// Fresh is the age up to which the figures of another node are not asked for again.
	Fresh = 5 * time.Second
	// MaxAge is the age from which figures are not shown any more: the node is out of reach.
	MaxAge = 30 * time.Second
	// Window is the time that rates are taken over, unless a container is younger than that.
	Window = 5 * time.Second

	// patience with one kubelet.
	patience = 3 * time.Second
)

// Fetch asks the kubelet of a node.
type Fetch func(ctx context.Context, node string) (*stats.Summary, error)

// Source of all figures.
type Source struct {
	reg   *registry.Registry
	fetch Fetch
	log   *slog.Logger
	now   func() time.Time

	mu        sync.Mutex
	nodes     map[string]*node
	followers map[int]func()
	serial    int
	pushed    time.Time // when a kubelet of this process last did
}

// node is what is known of one.
type node struct {
	asking sync.Mutex // one question at a time; those who wait for it share the answer
	pushed bool       // by a kubelet of this process

	mu   sync.Mutex
	last *figures
}

// figures are one sample, so that what is looked for is found at once.
type figures struct {
	at   time.Time
	node *stats.NodeStats
	pods map[string]*stats.PodStats // by UID
}

// New source. Other nodes' figures are asked for once it can Fetch.
func New(reg *registry.Registry, log *slog.Logger) *Source {
	return &Source{reg: reg, log: cmp.Or(log, slog.New(slog.DiscardHandler)), now: time.Now, nodes: map[string]*node{}, followers: map[int]func(){}}
}

// Through sets how kubelets of other nodes are asked. Before the first request only.
func (s *Source) Through(f Fetch) { s.fetch = f }

// Push takes a sample of a node whose kubelet runs in this process. The sample is shared from then on.
func (s *Source) Push(name string, summary *stats.Summary) {
	n := s.node(name, true)
	now := s.now()
	n.set(summary, now)
	s.mu.Lock()
	s.pushed = now
	s.mu.Unlock()
	s.tell()
}

// Follow calls f after each sample that was pushed, until stop is called. f must not block.
func (s *Source) Follow(f func()) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serial++
	serial := s.serial
	s.followers[serial] = f
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.followers, serial)
	}
}

// Run tells the followers now and then where no kubelet of this process does, until ctx ends: other nodes' figures change too.
func (s *Source) Run(ctx context.Context) error {
	tick := time.NewTicker(Fresh)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if s.now().Sub(s.lastPush()) > 2*Fresh {
			s.tell()
		}
	}
}

func (s *Source) lastPush() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pushed
}

// tell the followers that there are new figures.
func (s *Source) tell() {
	s.mu.Lock()
	followers := slices.Collect(maps.Values(s.followers))
	s.mu.Unlock()
	for _, f := range followers {
		f()
	}
}

func (s *Source) node(name string, pushed bool) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[name]
	if n == nil {
		n = &node{}
		s.nodes[name] = n
	}
	n.pushed = n.pushed || pushed
	return n
}

func (n *node) set(summary *stats.Summary, at time.Time) {
	f := &figures{at: at, node: &summary.Node, pods: make(map[string]*stats.PodStats, len(summary.Pods))}
	for i := range summary.Pods {
		f.pods[summary.Pods[i].PodRef.UID] = &summary.Pods[i]
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = f
}

// get returns what is not older than that.
func (n *node) get(now time.Time, age time.Duration) *figures {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last == nil || now.Sub(n.last.at) > age {
		return nil
	}
	return n.last
}

// of returns the figures of nodes, by name. A node that does not answer is left out.
func (s *Source) of(ctx context.Context, names map[string]bool) map[string]*figures {
	var mu sync.Mutex
	var asking sync.WaitGroup
	out := make(map[string]*figures, len(names))
	for name := range names {
		n := s.node(name, false)
		if f := n.get(s.now(), Fresh); f != nil || n.pushed || s.fetch == nil {
			if f == nil {
				f = n.get(s.now(), MaxAge)
			}
			mu.Lock()
			out[name] = f
			mu.Unlock()
			continue
		}
		asking.Go(func() {
			f := s.ask(ctx, name, n)
			mu.Lock()
			defer mu.Unlock()
			out[name] = f
		})
	}
	asking.Wait()
	return out
}

// ask brings a node's figures up to date; older ones are shown where that fails.
func (s *Source) ask(ctx context.Context, name string, n *node) *figures {
	n.asking.Lock()
	defer n.asking.Unlock()
	if f := n.get(s.now(), Fresh); f != nil {
		return f
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	summary, err := s.fetch(ctx, name)
	if err != nil {
		s.log.Debug("a node's figures cannot be had", "node", name, "err", err)
		return n.get(s.now(), MaxAge)
	}
	n.set(summary, s.now())
	return n.get(s.now(), MaxAge)
}

// keep forgets the nodes that are gone.
func (s *Source) keep(names map[string]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.nodes {
		if !names[name] {
			delete(s.nodes, name)
		}
	}
}
