// Package telemetry measures what pods, containers and the node use.
//
// It owns the samples: a bounded history of every measured thing's CPU clock, from which rates are made, and the latest reading of everything
// else. CPU, memory and process counts come straight from the cgroups below <CgroupRoot>/kubepods, network counters from the pods' network
// namespaces; which pods and containers there are, and what their writable layers hold, comes from CRI. Its invariant: what it shows was
// measured at most MaxAge ago. The kubelet's HTTP API asks for the summary; the host runs the sampler.
package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

const (
	// Period is the time between two samples that nobody asked for, and that rates are taken over.
	Period = 5 * time.Second
	// MaxAge of a sample that is shown again instead of measuring anew.
	MaxAge = time.Second

	// layerPeriod is how often CRI is asked for writable layers, which costs it a walk.
	layerPeriod = time.Minute
)

// Config of a sampler. Without CRI it measures the node alone.
type Config struct {
	NodeName   string
	CgroupRoot string                   // "/skiff": pods are below <root>/kubepods
	DataDir    string                   // the file system that counts as the node's; default "/"
	CRI        grpc.ClientConnInterface // of the node's container runtime
	// Sampled, if set, is given each sample that Run takes; it is shared from then on.
	Sampled func(*stats.Summary)
	Log     *slog.Logger
}

// Sampler of one node.
type Sampler struct {
	cfg     Config
	host    host
	runtime runtimeapi.RuntimeServiceClient
	images  runtimeapi.ImageServiceClient
	now     func() time.Time

	mu     sync.Mutex // one measurement at a time; those who wait for it share it
	latest *stats.Summary
	taken  time.Time
	clocks map[string]*clock // CPU clocks by "node", "pod/<uid>", "container/<id>"
	listed listed
	groups []podGroups       // what the latest measurement found
	dirs   map[string]string // the pods' cgroups, by UID
	// holders are the processes that hold the pods' network namespaces, by sandbox; 0 for the host's.
	holders  map[string]int
	glimpses map[string]glimpse // of pods, by UID
	layers   map[string]*runtimeapi.FilesystemUsage
	layed    time.Time
	disk     *stats.FsStats // images'
	past     past
}

// podGroups is a pod as it was found.
type podGroups struct {
	sandbox    *runtimeapi.PodSandbox
	containers []*runtimeapi.Container
	dir        string
	links      []link
}

// New sampler; it measures nothing before it is asked or run.
func New(cfg Config) *Sampler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.DataDir == "" {
		cfg.DataDir = "/"
	}
	s := &Sampler{cfg: cfg, host: host{proc: "/proc", groups: lookAtCgroups("/sys/fs/cgroup")}, now: time.Now}
	s.clocks, s.dirs, s.holders, s.glimpses = map[string]*clock{}, map[string]string{}, map[string]int{}, map[string]glimpse{}
	if cfg.CRI != nil {
		s.runtime, s.images = runtimeapi.NewRuntimeServiceClient(cfg.CRI), runtimeapi.NewImageServiceClient(cfg.CRI)
	}
	return s
}

// Run samples every Period until ctx ends, and earlier when some pod's load has risen. The second sample follows soon on the first: only two make a
// rate of what runs already.
func (s *Sampler) Run(ctx context.Context) error {
	tick := time.NewTicker(glancePeriod)
	defer tick.Stop()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.host.groups.files.close()
	}()
	failing := false
	saved := early // samples before their time that are left
	due := s.now().Add(glancePeriod)
	for {
		summary, err := s.sample(ctx, glancePeriod/2)
		if err != nil && ctx.Err() == nil && !failing {
			s.cfg.Log.Warn("cannot measure what pods use; trying on", "err", err)
		}
		failing = err != nil
		if err == nil && s.cfg.Sampled != nil {
			s.cfg.Sampled(summary)
		}
		for waiting := true; waiting; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
			switch now := s.now(); {
			case now.After(due.Add(-glancePeriod / 2)):
				due, saved, waiting = now.Add(Period), min(saved+1, early), false
			case s.glance(now) && saved > 0:
				saved, waiting = saved-1, false
			}
		}
	}
}

// Summary is a *statsv1alpha1.Summary, shared by all who ask within MaxAge: it is not to be changed.
func (s *Sampler) Summary(ctx context.Context) (any, error) {
	summary, err := s.sample(ctx, MaxAge)
	if err != nil {
		return nil, err
	}
	return summary, nil
}

func (s *Sampler) sample(ctx context.Context, age time.Duration) (*stats.Summary, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fresh(ctx, age)
}

// fresh is the latest sample if it is younger than that, or a new one. Called with mu held.
func (s *Sampler) fresh(ctx context.Context, age time.Duration) (*stats.Summary, error) {
	now := s.now()
	if s.latest != nil && now.Sub(s.taken) < age {
		return s.latest, nil
	}
	summary, err := s.measure(ctx, now)
	if err != nil {
		return nil, err
	}
	s.latest, s.taken = summary, now
	s.past.add(now, summary)
	return summary, nil
}

func (s *Sampler) measure(ctx context.Context, now time.Time) (*stats.Summary, error) {
	node, err := s.node(now)
	if err != nil {
		return nil, fmt.Errorf("measure the node: %w", err)
	}
	summary := &stats.Summary{Node: *node, Pods: []stats.PodStats{}}
	if s.runtime == nil {
		return summary, nil
	}
	running, err := s.list(ctx, now)
	if err != nil {
		return nil, err
	}
	s.lookAtLayers(ctx, now)
	if s.disk != nil {
		disk := *s.disk
		summary.Node.Runtime = &stats.RuntimeStats{ImageFs: &disk}
	}
	seen := map[string]bool{"node": true}
	s.groups = make([]podGroups, 0, len(running.sandboxes))
	for _, sandbox := range running.sandboxes {
		if pod, ok := s.pod(sandbox, running.containers[sandbox.Id], now, seen); ok {
			summary.Pods = append(summary.Pods, pod)
		}
	}
	s.host.groups.files.sweep()
	forget(s.clocks, seen)
	forget(s.dirs, seen)
	forget(s.holders, seen)
	forget(s.glimpses, seen)
	return summary, nil
}

// lookAtLayers asks CRI for the disk that containers and images take. It is the dearest figure and the least urgent one: when it cannot be
// had, the older one is shown.
func (s *Sampler) lookAtLayers(ctx context.Context, now time.Time) {
	if now.Sub(s.layed) < layerPeriod {
		return
	}
	s.layed = now
	if got, err := s.runtime.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{}); err != nil {
		s.cfg.Log.Debug("cannot ask for writable layers", "err", err)
	} else {
		s.layers = map[string]*runtimeapi.FilesystemUsage{}
		for _, c := range got.Stats {
			s.layers[c.GetAttributes().GetId()] = c.GetWritableLayer()
		}
	}
	got, err := s.images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(got.ImageFilesystems) == 0 {
		s.cfg.Log.Debug("cannot ask for the images' file system", "err", err)
		return
	}
	fs := got.ImageFilesystems[0]
	disk, err := fileSystem(fs.GetFsId().GetMountpoint(), now)
	if err != nil {
		s.cfg.Log.Debug("cannot look at the images' file system", "err", err)
		return
	}
	disk.UsedBytes = value(fs.GetUsedBytes().GetValue())
	s.disk = disk
}

// forget what is no longer there.
func forget[V any](m map[string]V, seen map[string]bool) {
	maps.DeleteFunc(m, func(key string, _ V) bool { return !seen[key] })
}

func value[T any](v T) *T { return &v }
