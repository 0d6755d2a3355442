package kubelet

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubetypes "k8s.io/kubelet/pkg/types"
)

// watchRuntime wakes actors by the runtime's events. Every minute it looks at everything, should an event have been lost; with a
// runtime that has no events, every second.
func (p *pods) watchRuntime(ctx context.Context) error {
	streaming := make(chan bool, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.stream(ctx, streaming)
	}()
	defer func() { <-done }()
	every := relistEvery
	timer := time.NewTimer(every)
	defer timer.Stop()
	var before map[types.UID]uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case on := <-streaming:
			every = time.Second
			if on {
				every = relistEvery
			}
			timer.Reset(0) // what happened while nobody listened
			continue
		case <-timer.C:
		}
		now, err := p.relist(ctx, before)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			p.k.log.Warn("cannot list containers; trying again", "err", err)
		} else {
			before = now
		}
		timer.Reset(every)
	}
}

// stream follows the runtime's events, again and again.
func (p *pods) stream(ctx context.Context, streaming chan<- bool) {
	tell := func(on bool) {
		select {
		case streaming <- on:
		case <-ctx.Done():
		}
	}
	delay := 10 * time.Millisecond
	for ctx.Err() == nil {
		events, err := p.k.runtime.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
		told := false
		for err == nil {
			if !told {
				tell(true)
				told = true
			}
			var event *runtimeapi.ContainerEventResponse
			if event, err = events.Recv(); err == nil {
				delay = 10 * time.Millisecond
				p.happened(event)
			}
		}
		if ctx.Err() != nil {
			return
		}
		p.k.log.Debug("the container runtime's events ended", "err", err)
		tell(false)
		select {
		case <-ctx.Done():
		case <-time.After(delay):
		}
		delay = min(delay*2, 10*time.Second)
	}
}

func (p *pods) happened(event *runtimeapi.ContainerEventResponse) {
	uid := types.UID(event.GetPodSandboxStatus().GetMetadata().GetUid())
	if uid == "" {
		for _, c := range event.ContainersStatuses {
			uid = types.UID(c.GetLabels()[kubetypes.KubernetesPodUIDLabel])
		}
	}
	p.mu.Lock()
	a := p.actors[uid]
	p.mu.Unlock()
	if a != nil {
		a.Observe()
	}
}

// relist looks at the whole runtime: actors whose containers aren't as they were before look for themselves, and what nobody knows
// is ended.
func (p *pods) relist(ctx context.Context, before map[types.UID]uint64) (map[types.UID]uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	sandboxes, err := p.k.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, err
	}
	containers, err := p.k.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, err
	}
	now := map[types.UID]uint64{}
	// A sum of hashes doesn't mind the order of the list.
	add := func(labels map[string]string, id string, state int32) {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s %d", id, state)
		now[types.UID(kubetypes.GetPodUID(labels))] += h.Sum64()
	}
	for _, s := range sandboxes.Items {
		add(s.Labels, s.Id, int32(s.State))
	}
	for _, c := range containers.Containers {
		add(c.Labels, c.Id, int32(c.State))
	}
	p.mu.Lock()
	for uid, a := range p.actors {
		if before != nil && before[uid] != now[uid] {
			a.Observe()
		}
	}
	p.mu.Unlock()
	return now, p.orphans(ctx)
}

// orphans ends what is left of pods that the API doesn't have.
func (p *pods) orphans(ctx context.Context) error {
	p.mu.Lock()
	known := p.known
	p.mu.Unlock()
	if !known {
		return nil
	}
	sandboxes, err := p.k.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	left := map[types.UID]*corev1.Pod{}
	for uid := range p.deps.Volumes.Pods() {
		left[uid] = remains(uid, "", "")
	}
	for uid := range p.deps.Cgroups.Pods() {
		left[uid] = remains(uid, "", "")
	}
	for uid := range p.deps.Claims.Pods() {
		left[uid] = remains(uid, "", "")
	}
	for _, uid := range p.deps.Devices.Pods() {
		left[uid] = remains(uid, "", "")
	}
	for _, s := range sandboxes.Items {
		if uid := types.UID(kubetypes.GetPodUID(s.Labels)); uid != "" {
			left[uid] = remains(uid, kubetypes.GetPodNamespace(s.Labels), kubetypes.GetPodName(s.Labels))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for uid, one := range left {
		if p.actors[uid] == nil {
			p.k.log.Info("removing what is left of a pod", "namespace", one.Namespace, "name", one.Name, "uid", uid)
			p.begin(one, true)
		}
	}
	return p.k.logs.Sweep(func(uid string) bool { return p.actors[types.UID(uid)] != nil })
}

func remains(uid types.UID, namespace, name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid}}
}
