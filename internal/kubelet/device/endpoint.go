package device

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"skiff.dev/skiff/internal/kubelet/plugin"
)

const dialTime = 10 * time.Second

// endpoint is a plug-in that serves one resource.
type endpoint struct {
	socket  string
	conn    *grpc.ClientConn
	client  pluginapi.DevicePluginClient
	options *pluginapi.DevicePluginOptions
}

func (e *endpoint) close() { _ = e.conn.Close() }

// registrar is the service that plug-ins call.
type registrar struct {
	pluginapi.UnimplementedRegistrationServer
	m *Manager
}

func (s registrar) Register(ctx context.Context, r *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	socket := filepath.Join(s.m.dir, filepath.Base(r.Endpoint))
	if err := s.m.register(ctx, r.ResourceName, socket, []string{r.Version}, r.Options); err != nil {
		s.m.log.Warn("a device plug-in cannot register", "resource", r.ResourceName, "err", err)
		return nil, err
	}
	return &pluginapi.Empty{}, nil
}

// Register takes in a plug-in that was found by its socket in plugins_registry.
func (m *Manager) Register(ctx context.Context, name, socket string, versions []string) error {
	return m.register(ctx, name, socket, versions, nil)
}

// Deregister forgets it; its devices are not given to anybody any more.
func (m *Manager) Deregister(_ context.Context, name, socket string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.resources[name]; r != nil && r.plugin != nil && r.plugin.socket == socket {
		r.plugin.close() // which ends its stream
	}
}

func (m *Manager) register(ctx context.Context, name, socket string, versions []string, options *pluginapi.DevicePluginOptions) error {
	if !slices.ContainsFunc(versions, func(v string) bool { return slices.Contains(pluginapi.SupportedVersions[:], v) }) {
		return fmt.Errorf("requested API version %q is not supported by kubelet. Supported version is %q", strings.Join(versions, ","), pluginapi.SupportedVersions)
	}
	if err := checkName(name); err != nil {
		return err
	}
	e, err := dial(ctx, socket)
	if err != nil {
		return fmt.Errorf("failed to dial device plugin: %w", err)
	}
	if e.options = options; options == nil {
		asked, cancel := context.WithTimeout(ctx, dialTime)
		defer cancel()
		if e.options, err = e.client.GetDevicePluginOptions(asked, &pluginapi.Empty{}); err != nil {
			e.close()
			return fmt.Errorf("failed to get device plugin options: %w", err)
		}
	}
	return m.adopt(name, e)
}

// checkName: it must be one that pods can ask for.
func checkName(name string) error {
	domain, _, ok := strings.Cut(name, "/")
	if ok && !strings.HasPrefix(name, corev1.DefaultResourceRequestsPrefix) && domain != "kubernetes.io" && !strings.HasSuffix(domain, ".kubernetes.io") &&
		len(validation.IsQualifiedName(corev1.DefaultResourceRequestsPrefix+name)) == 0 {
		return nil
	}
	return fmt.Errorf("the ResourceName %q is invalid: it must be a domain and a name, such as example.com/gpu, and not kubernetes.io's", name)
}

func dial(ctx context.Context, socket string) (*endpoint, error) {
	try, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	_ = try.Close()
	conn, err := plugin.Dial(socket)
	if err != nil {
		return nil, err
	}
	return &endpoint{socket: socket, conn: conn, client: pluginapi.NewDevicePluginClient(conn)}, nil
}

// adopt makes a plug-in the one that serves a resource, in place of a former one.
func (m *Manager) adopt(name string, e *endpoint) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		e.close()
		return m.ctx.Err()
	}
	r := m.resources[name]
	if r == nil {
		r = &resource{name: name}
		m.book.Resources = append(m.book.Resources, name)
		if err := m.book.save(); err != nil {
			e.close()
			return err
		}
		m.resources[name] = r
	}
	if r.plugin != nil {
		r.plugin.close()
	}
	r.plugin, r.devices = e, nil
	ctx := m.ctx
	m.work.Go(func() { m.follow(ctx, r, e) })
	m.log.Info("a device plug-in is registered", "resource", name)
	return nil
}

// follow what a plug-in says of its devices, for as long as it says anything.
func (m *Manager) follow(ctx context.Context, r *resource, e *endpoint) {
	stream, err := e.client.ListAndWatch(ctx, &pluginapi.Empty{})
	for err == nil {
		var list *pluginapi.ListAndWatchResponse
		if list, err = stream.Recv(); err == nil {
			m.listed(r, e, list.Devices)
		}
	}
	m.log.Debug("a device plug-in's list ended", "resource", r.name, "err", err)
	m.leave(r, e)
}
