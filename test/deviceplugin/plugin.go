// Package deviceplugin is a device plug-in for tests: its devices are a variable in the environment and a mounted directory. It remembers what it was
// asked for, and registers again when the kubelet's socket is made anew, as plug-ins do.
package deviceplugin

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Plugin has devices of one Resource.
type Plugin struct {
	pluginapi.UnimplementedDevicePluginServer
	Resource string // such as example.com/thing
	Content  string // a directory that containers see at /device; none if empty
	Prefers  string // the device it would rather give than others
	Dir      string // the kubelet's device-plugins

	mu      sync.Mutex
	devices map[string]string // health by ID
	news    chan struct{}     // closed when devices change
	calls   []string
}

// Set a device's health; empty takes it away.
func (p *Plugin) Set(id, health string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.devices == nil {
		p.devices, p.news = map[string]string{}, make(chan struct{})
	}
	if p.devices[id] = health; health == "" {
		delete(p.devices, id)
	}
	close(p.news)
	p.news = make(chan struct{})
}

// Calls so far.
func (p *Plugin) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

func (p *Plugin) note(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, fmt.Sprintf(format, args...))
}

// Serve until the returned function is called.
func (p *Plugin) Serve() (stop func(), err error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := watcher.Add(p.Dir); err != nil {
		return nil, err
	}
	server, err := p.listen()
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for e := range watcher.Events {
			if e.Has(fsnotify.Create) && filepath.Base(e.Name) == "kubelet.sock" {
				server.Stop()
				if server, err = p.listen(); err != nil {
					p.note("listen again: %v", err)
					return
				}
			}
		}
	}()
	return func() { _ = watcher.Close(); <-ended; server.Stop() }, nil
}

func (p *Plugin) socket() string { return strings.ReplaceAll(p.Resource, "/", "_") + ".sock" }

func (p *Plugin) listen() (*grpc.Server, error) {
	path := filepath.Join(p.Dir, p.socket())
	_ = os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(server, p)
	go func() { _ = server.Serve(listener) }()
	return server, p.register()
}

func (p *Plugin) register() error {
	conn, err := grpc.NewClient("unix://"+filepath.Join(p.Dir, "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	options, _ := p.GetDevicePluginOptions(ctx, nil)
	_, err = pluginapi.NewRegistrationClient(conn).Register(ctx, &pluginapi.RegisterRequest{
		Version: pluginapi.Version, Endpoint: p.socket(), ResourceName: p.Resource, Options: options,
	}, grpc.WaitForReady(true))
	return err
}

func (p *Plugin) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: p.Prefers != ""}, nil
}

func (p *Plugin) ListAndWatch(_ *pluginapi.Empty, stream grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	for {
		p.mu.Lock()
		list, news := &pluginapi.ListAndWatchResponse{}, p.news
		for id, health := range p.devices {
			list.Devices = append(list.Devices, &pluginapi.Device{ID: id, Health: health})
		}
		p.mu.Unlock()
		if err := stream.Send(list); err != nil {
			return err
		}
		select {
		case <-news:
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (p *Plugin) GetPreferredAllocation(_ context.Context, r *pluginapi.PreferredAllocationRequest) (*pluginapi.PreferredAllocationResponse, error) {
	p.note("prefer %v", r.ContainerRequests[0].AvailableDeviceIDs)
	return &pluginapi.PreferredAllocationResponse{ContainerResponses: []*pluginapi.ContainerPreferredAllocationResponse{{DeviceIDs: []string{p.Prefers}}}}, nil
}

func (p *Plugin) Allocate(_ context.Context, r *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	ids := r.ContainerRequests[0].DevicesIds
	p.note("allocate %v", ids)
	out := &pluginapi.ContainerAllocateResponse{Envs: map[string]string{"DEVICES": strings.Join(ids, ",")}, Annotations: map[string]string{"test.skiff.dev/devices": strings.Join(ids, ",")}}
	if p.Content != "" {
		out.Mounts = []*pluginapi.Mount{{ContainerPath: "/device", HostPath: p.Content, ReadOnly: true}}
		out.Devices = []*pluginapi.DeviceSpec{{ContainerPath: "/dev/thing", HostPath: "/dev/null", Permissions: "rw"}}
	}
	return &pluginapi.AllocateResponse{ContainerResponses: []*pluginapi.ContainerAllocateResponse{out}}, nil
}

func (p *Plugin) PreStartContainer(_ context.Context, r *pluginapi.PreStartContainerRequest) (*pluginapi.PreStartContainerResponse, error) {
	p.note("prestart %v", r.DevicesIds)
	return &pluginapi.PreStartContainerResponse{}, nil
}
