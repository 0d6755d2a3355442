package kubelet

import (
	"context"
	"strings"

	"skiff.dev/skiff/internal/kubelet/oom"
)

// watchMemory tells pods of processes that were killed for want of memory.
func (p *pods) watchMemory(ctx context.Context) error {
	return oom.Watch(ctx, p.k.log, func(k *oom.Kill, old bool) {
		if uid, container := k.Pod(); container != "" && strings.HasPrefix(k.Cgroup, p.deps.Cgroups.Root()+"/") {
			p.kills.Add(container, k)
			p.mu.Lock()
			a := p.actors[uid]
			p.mu.Unlock()
			if a != nil {
				a.Killed(container, k, old)
			}
		}
	})
}
