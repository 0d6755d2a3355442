// Package dradriver is a driver of dynamic resource allocation for tests, on the library that real ones are built on: its devices are a variable in the
// environment and a mounted directory each, described to the container runtime by CDI. It remembers what it was asked for.
package dradriver

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
)

// cdiDir is where container runtimes look for devices.
const cdiDir = "/var/run/cdi"

// Driver has Devices on Node.
type Driver struct {
	Name    string
	Node    string
	Devices []string
	Content string // a directory that containers see at /device
	Shape   func(d *resourcev1.Device)

	mu     sync.Mutex
	calls  []string
	errors []error
	sick   chan kubeletplugin.DeviceHealthReport
}

// Serve until the returned function is called. dir is where the driver's own socket goes, registry the kubelet's folder.
func (d *Driver) Serve(client kubernetes.Interface, dir, registry string) (stop func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	d.sick = make(chan kubeletplugin.DeviceHealthReport, 4)
	helper, err := kubeletplugin.Start(ctx, d, kubeletplugin.DriverName(d.Name), kubeletplugin.KubeClient(client), kubeletplugin.NodeName(d.Node),
		kubeletplugin.RegistrarDirectoryPath(registry), kubeletplugin.PluginDataDirectoryPath(dir))
	if err != nil {
		cancel()
		return nil, err
	}
	var devices []resourcev1.Device
	for _, name := range d.Devices {
		device := resourcev1.Device{Name: name}
		if d.Shape != nil {
			d.Shape(&device)
		}
		devices = append(devices, device)
	}
	err = helper.PublishResources(ctx, resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{d.Node: {Slices: []resourceslice.Slice{{Devices: devices}}}}})
	stop = func() { helper.Stop(); cancel() }
	if err != nil {
		stop()
	}
	return stop, err
}

func (d *Driver) kind() string { return d.Name + "/device" }

func (d *Driver) spec(uid types.UID) string {
	return filepath.Join(cdiDir, strings.ReplaceAll(d.Name, ".", "-")+"-"+string(uid)+".json")
}

// PrepareResourceClaims describes a claim's devices to the container runtime.
func (d *Driver) PrepareResourceClaims(_ context.Context, claims []*resourcev1.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	out := map[types.UID]kubeletplugin.PrepareResult{}
	for _, c := range claims {
		d.note("prepare " + c.Name)
		out[c.UID] = d.prepare(c)
	}
	return out, nil
}

func (d *Driver) prepare(c *resourcev1.ResourceClaim) (out kubeletplugin.PrepareResult) {
	type m = map[string]any
	var described []m
	for _, r := range c.Status.Allocation.Devices.Results {
		if r.Driver != d.Name {
			continue
		}
		id := string(c.UID) + "-" + r.Device
		described = append(described, m{"name": id, "containerEdits": m{
			"env":    []string{"DEVICE_" + strings.ToUpper(strings.ReplaceAll(r.Request, "-", "_")) + "=" + r.Device},
			"mounts": []m{{"hostPath": d.Content, "containerPath": "/device", "options": []string{"bind", "ro"}}},
		}})
		out.Devices = append(out.Devices, kubeletplugin.Device{
			Requests: []string{r.Request}, PoolName: r.Pool, DeviceName: r.Device, CDIDeviceIDs: []string{d.kind() + "=" + id}, ShareID: r.ShareID,
		})
	}
	raw, err := json.Marshal(m{"cdiVersion": "0.6.0", "kind": d.kind(), "devices": described})
	if err == nil {
		err = os.MkdirAll(cdiDir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(d.spec(c.UID), raw, 0o644)
	}
	return kubeletplugin.PrepareResult{Devices: out.Devices, Err: err}
}

// UnprepareResourceClaims takes the descriptions away.
func (d *Driver) UnprepareResourceClaims(_ context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	out := map[types.UID]error{}
	for _, c := range claims {
		d.note("unprepare " + c.Name)
		out[c.UID] = nil
		if err := os.Remove(d.spec(c.UID)); err != nil && !os.IsNotExist(err) {
			out[c.UID] = err
		}
	}
	return out, nil
}

// HandleError of the library, which tries again by itself.
func (d *Driver) HandleError(_ context.Context, err error, msg string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.errors = append(d.errors, fmt.Errorf("%s: %w", msg, err))
}

// WatchHealthStatus passes on what Report says.
func (d *Driver) WatchHealthStatus(ctx context.Context, reports chan<- kubeletplugin.DeviceHealthReport) error {
	for {
		select {
		case r := <-d.sick:
			select {
			case reports <- r:
			case <-ctx.Done():
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Report says how a device is.
func (d *Driver) Report(device string, healthy bool, message string) {
	status := kubeletplugin.HealthStatusUnhealthy
	if healthy {
		status = kubeletplugin.HealthStatusHealthy
	}
	d.sick <- kubeletplugin.DeviceHealthReport{Devices: []kubeletplugin.DeviceHealth{{PoolName: d.Node, DeviceName: device, Health: status, Message: message}}}
}

func (d *Driver) note(call string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, call)
}

// Calls so far, in order, and errors of the library.
func (d *Driver) Calls() ([]string, []error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.calls...), append([]error(nil), d.errors...)
}
