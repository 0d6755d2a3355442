package telemetry

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// listPeriod is how long what CRI listed is taken to hold as long as the cgroups say nothing else. Listing costs more than reading the figures.
const listPeriod = 15 * time.Second

// listed is what runs, as CRI said.
type listed struct {
	at         time.Time
	sandboxes  []*runtimeapi.PodSandbox
	containers map[string][]*runtimeapi.Container // by sandbox
	dirs       string                             // the pods' cgroups at that time
	settled    bool                               // nothing has changed since
}

// list says what runs. It asks CRI when a pod's cgroup has come or gone or a container's could not be read, once more after that, for containers
// follow their pod, and otherwise now and then.
func (s *Sampler) list(ctx context.Context, now time.Time) (*listed, error) {
	dirs := s.podDirs()
	if s.listed.settled && dirs == s.listed.dirs && now.Sub(s.listed.at) < listPeriod {
		return &s.listed, nil
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
	s.listed = listed{
		at: now, sandboxes: sandboxes.Items, containers: map[string][]*runtimeapi.Container{}, dirs: dirs, settled: dirs == s.listed.dirs,
	}
	for _, c := range containers.Containers {
		s.listed.containers[c.PodSandboxId] = append(s.listed.containers[c.PodSandboxId], c)
	}
	for _, sandbox := range sandboxes.Items { // one that waits for its first container will soon be another
		s.listed.settled = s.listed.settled && len(s.listed.containers[sandbox.Id]) > 0
	}
	return &s.listed, nil
}

// podDirs names the pods' cgroups.
func (s *Sampler) podDirs() string {
	var names strings.Builder
	for _, class := range classes {
		entries, err := os.ReadDir(s.host.groups.file("memory", filepath.Join("/", s.cfg.CgroupRoot, "kubepods", class), ""))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "pod") {
				names.WriteString(e.Name())
			}
		}
	}
	return names.String()
}
