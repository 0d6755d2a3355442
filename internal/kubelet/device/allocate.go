package device

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	askTime = time.Minute
	// patience is how long a pod waits for devices that others hold: those of a pod that was deleted by force are free for the scheduler before they
	// are free here.
	patience = 30 * time.Second
)

// Short says that a node has too few devices for a pod that was bound to it; Final, that waiting doesn't help.
type Short struct {
	Resource          string
	Wanted, Available int
	Final             bool
}

func (e *Short) Error() string {
	return fmt.Sprintf("Allocate failed due to requested number of devices unavailable for %s. Requested: %d, Available: %d, which is unexpected",
		e.Resource, e.Wanted, e.Available)
}

// Error is why a pod has not got its devices yet.
type Error struct{ err error }

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

// Asks says whether a pod asks for something that may be devices.
func Asks(pod *corev1.Pod) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			for name := range list[i].Resources.Limits {
				if strings.Contains(string(name), "/") {
					return true
				}
			}
		}
	}
	return false
}

// Allocate gives a pod's containers their devices. It may be asked again, and does what is left to do. Containers after an init container may be
// given what that had, as it will have ended; sidecars keep theirs.
func (m *Manager) Allocate(ctx context.Context, pod *corev1.Pod) error {
	reuse := map[string][]string{}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		sidecar := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		if err := m.container(ctx, pod, c, reuse, !sidecar); err != nil {
			return &Error{err}
		}
	}
	for i := range pod.Spec.Containers {
		if err := m.container(ctx, pod, &pod.Spec.Containers[i], reuse, false); err != nil {
			return &Error{err}
		}
	}
	m.mu.Lock()
	delete(m.short, pod.UID)
	m.mu.Unlock()
	return nil
}

func (m *Manager) container(ctx context.Context, pod *corev1.Pod, c *corev1.Container, reuse map[string][]string, passes bool) error {
	for _, name := range slices.Sorted(maps.Keys(c.Resources.Limits)) {
		quantity := c.Resources.Limits[name]
		m.mu.Lock()
		r := m.resources[string(name)]
		m.mu.Unlock()
		if r == nil || quantity.Value() <= 0 || claimed(pod, c, name) {
			continue // the cluster counts it, or a claim for devices gives it
		}
		ids, err := m.give(ctx, pod.UID, c.Name, r, int(quantity.Value()), reuse[r.name])
		if err != nil {
			return err
		}
		rest := slices.DeleteFunc(slices.Clone(reuse[r.name]), func(id string) bool { return slices.Contains(ids, id) })
		if passes {
			rest = append(rest, ids...)
		}
		reuse[r.name] = rest
	}
	return nil
}

// claimed: the container gets the resource from devices that were claimed for it.
func claimed(pod *corev1.Pod, c *corev1.Container, name corev1.ResourceName) bool {
	status := pod.Status.ExtendedResourceClaimStatus
	return status != nil && slices.ContainsFunc(status.RequestMappings, func(m corev1.ContainerExtendedResourceRequest) bool {
		return m.ContainerName == c.Name && m.ResourceName == string(name)
	})
}

// give a container devices of a resource: those it holds, or some that nobody does.
func (m *Manager) give(ctx context.Context, pod types.UID, container string, r *resource, n int, reuse []string) ([]string, error) {
	r.choosing.Lock()
	defer r.choosing.Unlock()
	m.mu.Lock()
	had, ok := m.book.of(pod, container, r.name)
	e := r.plugin
	listed := r.devices != nil
	free, short := m.free(pod, r, n, reuse)
	m.mu.Unlock()
	switch {
	case ok:
		return had.Devices, nil
	case e == nil, !listed:
		return nil, fmt.Errorf("cannot allocate %s: its device plug-in is not registered", r.name)
	case short != nil:
		return nil, short
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	ids := choose(n, reuse, free, m.preferred(ctx, e, n, reuse, free))
	answer, err := e.client.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: ids}}})
	if err != nil {
		return nil, fmt.Errorf("the device plug-in of %s cannot allocate: %w", r.name, err)
	}
	if len(answer.ContainerResponses) == 0 {
		return nil, fmt.Errorf("the device plug-in of %s answered without an allocation", r.name)
	}
	raw, err := proto.Marshal(answer.ContainerResponses[0])
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return ids, m.book.put(pod, container, r.name, holding{ids, raw})
}

// free lists healthy devices for a pod, those first that it has already; too few is told apart. The caller holds mu.
func (m *Manager) free(pod types.UID, r *resource, n int, reuse []string) ([]string, *Short) {
	taken, healthy := m.book.taken(r.name), r.healthy()
	free := slices.DeleteFunc(slices.Clone(healthy), func(id string) bool { return taken[id] && !slices.Contains(reuse, id) })
	if len(free) >= n {
		return free, nil
	}
	since, waits := m.short[pod]
	if !waits {
		since = time.Now()
		m.short[pod] = since
	}
	return nil, &Short{Resource: r.name, Wanted: n, Available: len(free), Final: len(healthy) < n || time.Since(since) > patience}
}

// preferred asks a plug-in that has preferences.
func (m *Manager) preferred(ctx context.Context, e *endpoint, n int, reuse, free []string) []string {
	if !e.options.GetGetPreferredAllocationAvailable() {
		return nil
	}
	must := slices.DeleteFunc(slices.Clone(reuse), func(id string) bool { return !slices.Contains(free, id) })
	answer, err := e.client.GetPreferredAllocation(ctx, &pluginapi.PreferredAllocationRequest{
		ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{{
			AvailableDeviceIDs: free, MustIncludeDeviceIDs: must[:min(len(must), n)], AllocationSize: int32(n),
		}},
	})
	if err != nil || len(answer.ContainerResponses) == 0 {
		m.log.Warn("a device plug-in does not say which devices it prefers", "err", err)
		return nil
	}
	return answer.ContainerResponses[0].DeviceIDs
}

// choose n of the free devices: what the pod has already, then what the plug-in prefers, then whichever comes first.
func choose(n int, reuse, free, preferred []string) []string {
	var out []string
	for _, list := range [][]string{reuse, preferred, free} {
		for _, id := range list {
			if len(out) < n && slices.Contains(free, id) && !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	slices.Sort(out)
	return out
}

// Free takes back what a pod holds. It is called when nothing of the pod runs any more.
func (m *Manager) Free(pod types.UID) error {
	m.mu.Lock()
	delete(m.short, pod)
	had, ok := m.book.Pods[pod]
	if !ok {
		m.mu.Unlock()
		return nil
	}
	delete(m.book.Pods, pod)
	err := m.book.save()
	if err != nil {
		m.book.Pods[pod] = had
	}
	m.mu.Unlock()
	if err == nil && m.Wake != nil {
		m.Wake(nil)
	}
	return err
}

// Pods that hold devices.
func (m *Manager) Pods() []types.UID {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.book.Pods))
}
