// Package device serves device plug-ins (k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1): it counts the devices that plug-ins have for the node's
// status, gives them to containers, and takes them back when their pod has ended.
//
// On disk, below the kubelet's root: device-plugins/kubelet.sock, where plug-ins register, beside their own sockets; and
// device_allocations.json, who holds what. A device is written down as held before its container starts and struck out after the pod's last container
// has ended, so that no two have it, whenever the kubelet dies. Plug-ins register anew with each kubelet: they watch for its socket.
package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// usualGrace is how long a resource whose plug-in left stays in the node's capacity, with nothing to allocate.
const usualGrace = 5 * time.Minute

// Manager of a node's device plug-ins.
type Manager struct {
	dir   string
	log   *slog.Logger
	grace time.Duration

	// Changed, if set before Run, is told that Counts may have changed.
	Changed func()
	// Wake, if set before Run, is told of pods whose devices' health changed; of nil when pods that wait for devices may find some.
	Wake func(pods []types.UID)

	mu        sync.Mutex
	ctx       context.Context // of Run
	resources map[string]*resource
	book      book
	short     map[types.UID]time.Time // since when pods have been waiting for devices that others hold
	work      sync.WaitGroup
}

// resource is what plug-ins of one name have.
type resource struct {
	name     string
	choosing sync.Mutex // held while devices are chosen and asked for
	plugin   *endpoint  // nil: away
	devices  map[string]*pluginapi.Device
	left     time.Time // when the plug-in went; zero: it has not been here since this process started
}

// New returns the manager; root is the kubelet's.
func New(root string, log *slog.Logger) (*Manager, error) {
	b, err := open(filepath.Join(root, "device_allocations.json"))
	if err != nil {
		return nil, err
	}
	m := &Manager{dir: filepath.Join(root, "device-plugins"), log: log, grace: usualGrace, ctx: context.Background(),
		resources: map[string]*resource{}, book: b, short: map[types.UID]time.Time{}}
	for _, name := range b.Resources {
		m.resources[name] = &resource{name: name}
	}
	return m, nil
}

// Run takes registrations until ctx ends. Sockets that a former run left are removed, which is how plug-ins see that they must register again.
func (m *Manager) Run(ctx context.Context) error {
	listener, err := Listen(m.dir)
	if errors.Is(err, ErrLongPath) {
		m.log.Warn("devices by plug-ins cannot be had on this node", "err", err)
		<-ctx.Done()
		return nil
	}
	if err != nil {
		return fmt.Errorf("serve device plug-ins: %w", err)
	}
	m.mu.Lock()
	m.ctx = ctx
	m.mu.Unlock()
	server := grpc.NewServer()
	pluginapi.RegisterRegistrationServer(server, registrar{m: m})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	err = server.Serve(listener)
	m.mu.Lock()
	for _, r := range m.resources {
		if r.plugin != nil {
			r.plugin.close()
		}
	}
	m.mu.Unlock()
	m.work.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// ErrLongPath is what Listen says where the folder's path leaves no room for a socket: unix(7) gives its address 108 bytes.
var ErrLongPath = errors.New("the path of a socket is longer than 107 bytes; a shorter --data-dir would do")

const longestSocket = 107

// Listen opens kubelet.sock in a folder of the kubelet's, and removes the other sockets there.
func Listen(dir string) (net.Listener, error) {
	socket := filepath.Join(dir, "kubelet.sock")
	if len(socket) > longestSocket {
		return nil, fmt.Errorf("%w: %s", ErrLongPath, socket)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Type()&os.ModeSocket == 0 {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	return net.Listen("unix", socket)
}

// Count is what the node has of a resource.
type Count struct{ Capacity, Allocatable int64 }

// Counts of all resources that plug-ins have, or had.
func (m *Manager) Counts() map[corev1.ResourceName]Count {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[corev1.ResourceName]Count, len(m.resources))
	for name, r := range m.resources {
		c := Count{}
		if r.plugin != nil || time.Since(r.left) < m.grace {
			c.Capacity = int64(len(r.devices))
		}
		if r.plugin != nil {
			c.Allocatable = int64(len(r.healthy()))
		}
		out[corev1.ResourceName(name)] = c
	}
	return out
}

// healthy devices, sorted.
func (r *resource) healthy() []string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(r.devices)) {
		if r.devices[id].Health == pluginapi.Healthy {
			out = append(out, id)
		}
	}
	return out
}

// listed takes in what a plug-in says it has.
func (m *Manager) listed(r *resource, e *endpoint, devices []*pluginapi.Device) {
	next := make(map[string]*pluginapi.Device, len(devices))
	for _, d := range devices {
		next[d.ID] = d
	}
	m.mu.Lock()
	if r.plugin != e {
		m.mu.Unlock()
		return
	}
	before := r.devices
	r.devices = next
	touched := m.book.holders(r.name, func(id string) bool { return health(before[id]) != health(next[id]) })
	m.mu.Unlock()
	m.tell(touched)
}

// tell whoever wants to know: those whose devices changed, and those that wait for some.
func (m *Manager) tell(touched []types.UID) {
	if m.Changed != nil {
		m.Changed()
	}
	if m.Wake == nil {
		return
	}
	if len(touched) > 0 {
		m.Wake(touched)
	}
	m.Wake(nil)
}

func health(d *pluginapi.Device) string {
	if d == nil {
		return ""
	}
	return d.Health
}

// leave: a plug-in's stream ended. Its devices are nobody's to give until it is back.
func (m *Manager) leave(r *resource, e *endpoint) {
	m.mu.Lock()
	if r.plugin != e {
		m.mu.Unlock()
		return
	}
	r.plugin, r.left = nil, time.Now()
	touched := m.book.holders(r.name, func(string) bool { return true })
	ended := m.ctx.Err() != nil
	m.mu.Unlock()
	e.close()
	if ended {
		return
	}
	m.log.Warn("a device plug-in left", "resource", r.name)
	m.tell(touched)
	if m.Changed != nil {
		time.AfterFunc(m.grace+time.Millisecond, m.Changed)
	}
}
