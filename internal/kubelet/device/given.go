package device

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// Given is what a container gets with its devices.
type Given struct {
	Env         []*runtimeapi.KeyValue
	Mounts      []*runtimeapi.Mount
	Devices     []*runtimeapi.Device
	CDI         []string
	Annotations map[string]string
}

// Start gathers what a container gets, and has the plug-ins that want it prepare its devices. It is called before each start of the container.
func (m *Manager) Start(ctx context.Context, pod types.UID, container string) (*Given, error) {
	m.mu.Lock()
	h := maps.Clone(m.book.Pods[pod][container])
	m.mu.Unlock()
	out := &Given{Annotations: map[string]string{}}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if err := m.prestart(ctx, name, h[name].Devices); err != nil {
			return nil, err
		}
		var r pluginapi.ContainerAllocateResponse
		if err := proto.Unmarshal(h[name].Response, &r); err != nil {
			return nil, fmt.Errorf("read what was allocated of %s: %w", name, err)
		}
		out.add(&r)
	}
	return out, nil
}

func (m *Manager) prestart(ctx context.Context, name string, ids []string) error {
	m.mu.Lock()
	r := m.resources[name]
	var e *endpoint
	if r != nil {
		e = r.plugin
	}
	m.mu.Unlock()
	if e == nil || !e.options.GetPreStartRequired() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pluginapi.KubeletPreStartContainerRPCTimeoutInSecs*1e9)
	defer cancel()
	if _, err := e.client.PreStartContainer(ctx, &pluginapi.PreStartContainerRequest{DevicesIds: ids}); err != nil {
		return fmt.Errorf("device plugin PreStartContainer rpc failed for %s: %w", name, err)
	}
	return nil
}

func (g *Given) add(r *pluginapi.ContainerAllocateResponse) {
	for _, key := range slices.Sorted(maps.Keys(r.Envs)) {
		g.Env = append(g.Env, &runtimeapi.KeyValue{Key: key, Value: []byte(r.Envs[key])})
	}
	for _, v := range r.Mounts {
		if !slices.ContainsFunc(g.Mounts, func(o *runtimeapi.Mount) bool { return o.ContainerPath == v.ContainerPath }) {
			g.Mounts = append(g.Mounts, &runtimeapi.Mount{ContainerPath: v.ContainerPath, HostPath: v.HostPath, Readonly: v.ReadOnly})
		}
	}
	for _, v := range r.Devices {
		if !slices.ContainsFunc(g.Devices, func(o *runtimeapi.Device) bool { return o.ContainerPath == v.ContainerPath }) {
			g.Devices = append(g.Devices, &runtimeapi.Device{ContainerPath: v.ContainerPath, HostPath: v.HostPath, Permissions: v.Permissions})
		}
	}
	for _, v := range r.CdiDevices {
		if !slices.Contains(g.CDI, v.Name) {
			g.CDI = append(g.CDI, v.Name)
		}
	}
	maps.Copy(g.Annotations, r.Annotations)
}

// Health of a container's devices; nil if it has none.
func (m *Manager) Health(pod types.UID, container string) []corev1.ResourceStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []corev1.ResourceStatus
	h := m.book.Pods[pod][container]
	for _, name := range slices.Sorted(maps.Keys(h)) {
		s := corev1.ResourceStatus{Name: corev1.ResourceName(name)}
		for _, id := range h[name].Devices {
			s.Resources = append(s.Resources, corev1.ResourceHealth{ResourceID: corev1.ResourceID(id), Health: m.healthOf(name, id)})
		}
		out = append(out, s)
	}
	return out
}

func (m *Manager) healthOf(name, id string) corev1.ResourceHealthStatus {
	r := m.resources[name]
	if r == nil || r.plugin == nil || r.devices == nil {
		return corev1.ResourceHealthStatusUnknown
	}
	if health(r.devices[id]) == pluginapi.Healthy {
		return corev1.ResourceHealthStatusHealthy
	}
	return corev1.ResourceHealthStatusUnhealthy
}

// Held are a container's devices as the pod resources API shows them.
func (m *Manager) Held(pod types.UID, container string) []*podresources.ContainerDevices {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*podresources.ContainerDevices
	h := m.book.Pods[pod][container]
	for _, name := range slices.Sorted(maps.Keys(h)) {
		for _, id := range h[name].Devices {
			var d *pluginapi.Device
			if r := m.resources[name]; r != nil {
				d = r.devices[id]
			}
			out = append(out, shown(name, id, d))
		}
	}
	return out
}

// All healthy devices, held or not.
func (m *Manager) All() []*podresources.ContainerDevices {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*podresources.ContainerDevices
	for _, name := range slices.Sorted(maps.Keys(m.resources)) {
		r := m.resources[name]
		if r.plugin == nil {
			continue
		}
		for _, id := range r.healthy() {
			out = append(out, shown(name, id, r.devices[id]))
		}
	}
	return out
}

func shown(name, id string, d *pluginapi.Device) *podresources.ContainerDevices {
	out := &podresources.ContainerDevices{ResourceName: name, DeviceIds: []string{id}}
	if nodes := d.GetTopology().GetNodes(); len(nodes) > 0 {
		out.Topology = &podresources.TopologyInfo{}
		for _, n := range nodes {
			out.Topology.Nodes = append(out.Topology.Nodes, &podresources.NUMANode{ID: n.ID})
		}
	}
	return out
}
