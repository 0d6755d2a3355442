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
	"sync"
	"time"

	"google.golang.org/grpc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

const (
	// Period is the time between two samples that nobody asked for.
	Period = 10 * time.Second
	// MaxAge of a sample that is shown again instead of measuring anew.
	MaxAge = time.Second

	// history bounds the samples kept of each thing.
	history = 6
	// window is the time a rate is taken over, at least; shorter ones show the scheduler's ticks.
	window = time.Second
	// layerPeriod is how often CRI is asked for writable layers, which costs it a walk.
	layerPeriod = time.Minute
)

// Config of a sampler. Without CRI it measures the node alone.
type Config struct {
	NodeName   string
	CgroupRoot string                   // "/skiff": pods are below <root>/kubepods
	DataDir    string                   // the file system that counts as the node's; default "/"
	CRI        grpc.ClientConnInterface // of the node's container runtime
	Log        *slog.Logger
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
	layers map[string]*runtimeapi.FilesystemUsage
	layed  time.Time
	disk   *stats.FsStats // images'
}

// New sampler; it measures nothing before it is asked or run.
func New(cfg Config) *Sampler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.DataDir == "" {
		cfg.DataDir = "/"
	}
	s := &Sampler{cfg: cfg, host: host{proc: "/proc", groups: lookAtCgroups("/sys/fs/cgroup")}, now: time.Now, clocks: map[string]*clock{}}
	if cfg.CRI != nil {
		s.runtime, s.images = runtimeapi.NewRuntimeServiceClient(cfg.CRI), runtimeapi.NewImageServiceClient(cfg.CRI)
	}
	return s
}

// Run samples every Period until ctx ends, so that the first who asks gets a rate.
func (s *Sampler) Run(ctx context.Context) error {
	tick := time.NewTicker(Period)
	defer tick.Stop()
	for failing := false; ; {
		if _, err := s.Summary(ctx); err != nil && ctx.Err() == nil {
			if !failing {
				s.cfg.Log.Warn("cannot measure what pods use; trying on", "err", err)
			}
			failing = true
		} else {
			failing = false
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Summary is a *statsv1alpha1.Summary, shared by all who ask within MaxAge: it is not to be changed.
func (s *Sampler) Summary(ctx context.Context) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.latest != nil && now.Sub(s.taken) < MaxAge {
		return s.latest, nil
	}
	summary, err := s.measure(ctx, now)
	if err != nil {
		return nil, err
	}
	s.latest, s.taken = summary, now
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
	sandboxes, err := s.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil {
		return nil, fmt.Errorf("list the pods: %w", err)
	}
	containers, err := s.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{
		State: &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	}})
	if err != nil {
		return nil, fmt.Errorf("list the containers: %w", err)
	}
	s.lookAtLayers(ctx, now)
	if s.disk != nil {
		disk := *s.disk
		summary.Node.Runtime = &stats.RuntimeStats{ImageFs: &disk}
	}
	inPod := map[string][]*runtimeapi.Container{}
	for _, c := range containers.Containers {
		inPod[c.PodSandboxId] = append(inPod[c.PodSandboxId], c)
	}
	seen := map[string]bool{"node": true}
	for _, sandbox := range sandboxes.Items {
		if pod, ok := s.pod(sandbox, inPod[sandbox.Id], now, seen); ok {
			summary.Pods = append(summary.Pods, pod)
		}
	}
	for key := range s.clocks {
		if !seen[key] {
			delete(s.clocks, key)
		}
	}
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

// clock is the bounded history of one CPU clock.
type clock struct {
	at    [history]time.Time
	nanos [history]uint64
	n     int
}

// add keeps a reading and returns the rate since an older one, in nanoseconds a second; nil before there is one.
func (c *clock) add(at time.Time, nanos uint64) *uint64 {
	var rate *uint64
	for i := range c.n { // the newest first
		if passed := at.Sub(c.at[i]); passed >= window {
			if nanos >= c.nanos[i] {
				rate = value(uint64(float64(nanos-c.nanos[i]) / passed.Seconds()))
			}
			break
		}
	}
	if c.n > 0 && nanos < c.nanos[0] {
		c.n = 0 // it started anew
	}
	copy(c.at[1:], c.at[:history-1])
	copy(c.nanos[1:], c.nanos[:history-1])
	c.at[0], c.nanos[0], c.n = at, nanos, min(c.n+1, history)
	return rate
}

func (s *Sampler) cpu(key string, at time.Time, nanos uint64) *stats.CPUStats {
	c := s.clocks[key]
	if c == nil {
		c = &clock{}
		s.clocks[key] = c
	}
	return &stats.CPUStats{Time: metav1.NewTime(at), UsageCoreNanoSeconds: value(nanos), UsageNanoCores: c.add(at, nanos)}
}

func value[T any](v T) *T { return &v }
