package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"

	// Each import registers one plug-in. Left out are metrics, tracing, node resource interface, image verifiers, restart monitor, debug
	// and containerd's own servers: the process has its own.
	_ "github.com/containerd/containerd/api/types/runc/options"
	_ "github.com/containerd/containerd/v2/core/runtime/v2"
	_ "github.com/containerd/containerd/v2/plugins/content/local/plugin"
	_ "github.com/containerd/containerd/v2/plugins/cri"
	_ "github.com/containerd/containerd/v2/plugins/cri/images"
	_ "github.com/containerd/containerd/v2/plugins/cri/runtime"
	_ "github.com/containerd/containerd/v2/plugins/diff/walking/plugin"
	_ "github.com/containerd/containerd/v2/plugins/events"
	_ "github.com/containerd/containerd/v2/plugins/gc"
	_ "github.com/containerd/containerd/v2/plugins/leases"
	_ "github.com/containerd/containerd/v2/plugins/metadata"
	_ "github.com/containerd/containerd/v2/plugins/mount"
	_ "github.com/containerd/containerd/v2/plugins/sandbox"
	_ "github.com/containerd/containerd/v2/plugins/services/containers"
	_ "github.com/containerd/containerd/v2/plugins/services/content"
	_ "github.com/containerd/containerd/v2/plugins/services/diff"
	_ "github.com/containerd/containerd/v2/plugins/services/events"
	_ "github.com/containerd/containerd/v2/plugins/services/images"
	_ "github.com/containerd/containerd/v2/plugins/services/introspection"
	_ "github.com/containerd/containerd/v2/plugins/services/leases"
	_ "github.com/containerd/containerd/v2/plugins/services/namespaces"
	_ "github.com/containerd/containerd/v2/plugins/services/sandbox"
	_ "github.com/containerd/containerd/v2/plugins/services/snapshots"
	_ "github.com/containerd/containerd/v2/plugins/services/streaming"
	_ "github.com/containerd/containerd/v2/plugins/services/tasks"
	_ "github.com/containerd/containerd/v2/plugins/services/transfer"
	_ "github.com/containerd/containerd/v2/plugins/services/version"
	_ "github.com/containerd/containerd/v2/plugins/services/warning"
	_ "github.com/containerd/containerd/v2/plugins/snapshots/native/plugin"
	_ "github.com/containerd/containerd/v2/plugins/snapshots/overlay/plugin"
	_ "github.com/containerd/containerd/v2/plugins/streaming"
	_ "github.com/containerd/containerd/v2/plugins/transfer"
)

// stopPatience bounds each step of stopping: what hangs there hangs in containerd, and everything it guards survives a kill.
const stopPatience = 700 * time.Millisecond

// daemon is a running containerd.
type daemon struct {
	cri     service
	images  *Images
	servers *servers
	set     *plugin.Set
	failed  chan error // the CRI service gave up
	cancel  context.CancelFunc
}

// startDaemon loads the plug-ins in the order of what they require, opens the sockets and waits until CRI has recovered what was running.
func startDaemon(ctx context.Context, cfg Config) (_ *daemon, err error) {
	if err := makeFolders(cfg); err != nil {
		return nil, err
	}
	if err := extendPath(cfg.BinDir); err != nil {
		return nil, err
	}
	keepExits(ctx, cfg)
	endLostShims(ctx, cfg)
	removeDeadSockets(cfg)
	// Background work of plug-ins ends with this context; calls have their own.
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d := &daemon{set: plugin.NewPluginSet(), failed: make(chan error, 1), cancel: cancel}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()
	onFatal(func(err error) {
		select {
		case d.failed <- err:
		default:
		}
	})

	known, err := settings(cfg)
	if err != nil {
		return nil, err
	}
	var ready sync.WaitGroup
	if err := d.load(life, cfg, known, &ready); err != nil {
		return nil, err
	}
	if d.cri, err = instance[service](d.set, plugins.GRPCPlugin, "cri"); err != nil {
		return nil, err
	}
	client, err := containerd.New("", containerd.WithDefaultNamespace(namespace), containerd.WithInMemoryServices(d.context(life, cfg, "skiff")))
	if err != nil {
		return nil, err
	}
	d.images = newImages(client, newLocal(d.cri), known.snapshotter)
	if d.servers, err = serve(cfg.State, d.set); err != nil {
		return nil, err
	}
	if err := d.recovered(ctx, &ready); err != nil {
		return nil, err
	}
	removeLostNetworks(ctx, cfg, client.SandboxStore())
	return d, nil
}

// load starts every plug-in; what registers readiness is waited for by whoever waits for ready.
func (d *daemon) load(ctx context.Context, cfg Config, known *known, ready *sync.WaitGroup) error {
	for _, p := range registry.Graph(known.left) {
		init := d.context(ctx, cfg, p.URI())
		init.RegisterReadiness = func() func() {
			ready.Add(1)
			return sync.OnceFunc(ready.Done)
		}
		var err error
		if init.Config, err = known.decode(p.URI(), p.Config); err != nil {
			return err
		}
		result := p.Init(init)
		if err := d.set.Add(result); err != nil {
			return err
		}
		if err := result.Err(); err != nil && !plugin.IsSkipPlugin(err) {
			return fmt.Errorf("load %s: %w", p.URI(), err)
		}
	}
	return nil
}

func (d *daemon) context(ctx context.Context, cfg Config, uri string) *plugin.InitContext {
	return plugin.NewContext(ctx, d.set, map[string]string{
		plugins.PropertyRootDir:      filepath.Join(cfg.Root, uri),
		plugins.PropertyStateDir:     filepath.Join(cfg.State, uri),
		plugins.PropertyGRPCAddress:  Socket(cfg.State),
		plugins.PropertyTTRPCAddress: Socket(cfg.State) + ".ttrpc",
	})
}

// recovered waits for the CRI service, which recovers sandboxes and containers beside the loading of plug-ins.
func (d *daemon) recovered(ctx context.Context, ready *sync.WaitGroup) error {
	done := make(chan struct{})
	go func() { defer close(done); ready.Wait() }()
	select {
	case <-done:
		return nil
	case err := <-d.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stop closes everything in reverse; containers and shims are no part of it.
func (d *daemon) stop() error {
	onFatal(func(error) {}) // the CRI service calls its end an error
	d.cancel()
	var errs []error
	if d.servers != nil {
		d.servers.stop()
	}
	for _, p := range slices.Backward(d.set.GetAll()) {
		inst, err := p.Instance()
		if err != nil || p.Registration.Type == plugins.ShimPlugin {
			continue
		}
		if s, ok := inst.(service); ok && !s.IsInitialized() {
			continue // its Close waits for what was never started
		}
		if c, ok := inst.(io.Closer); ok {
			if err := bounded(c.Close); err != nil {
				errs = append(errs, fmt.Errorf("close %s: %w", p.Registration.URI(), err))
			}
		}
	}
	return errors.Join(errs...)
}

func bounded(do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-time.After(stopPatience):
		return fmt.Errorf("it takes longer than %s", stopPatience)
	}
}

// instance finds a loaded plug-in.
func instance[T any](set *plugin.Set, kind plugin.Type, id string) (T, error) {
	var none T
	p := set.Get(kind, id)
	if p == nil {
		return none, fmt.Errorf("containerd has no plug-in %s.%s", kind, id)
	}
	inst, err := p.Instance()
	if err != nil {
		return none, err
	}
	t, ok := inst.(T)
	if !ok {
		return none, fmt.Errorf("containerd's plug-in %s.%s is a %T, which is not what was expected", kind, id, inst)
	}
	return t, nil
}

func makeFolders(cfg Config) error {
	for _, f := range []struct {
		dir  string
		mode os.FileMode
	}{
		// Containers' root filesystems are below State; users of a pod's own have to get there.
		{cfg.Root, 0o711}, {cfg.State, 0o711}, {shimSockets(cfg.State), 0o700}, {tempMounts(cfg.Root), 0o700},
	} {
		if err := errors.Join(os.MkdirAll(f.dir, f.mode), os.Chmod(f.dir, f.mode)); err != nil {
			return err
		}
	}
	// Layers are unpacked through temporary mounts; what a crash left of them goes now.
	if err := mount.SetTempMountLocation(tempMounts(cfg.Root)); err != nil {
		return err
	}
	if warnings, err := mount.CleanupTempMounts(0); err != nil {
		return fmt.Errorf("unmount what an earlier run left below %s: %w", tempMounts(cfg.Root), err)
	} else if len(warnings) > 0 {
		cfg.Log.Warn("temporary mounts of an earlier run were cleaned up with warnings", "warnings", errors.Join(warnings...))
	}
	return nil
}

// extendPath lets shims find runc where they are asked about themselves without being told of it: containerd asks each one that is not known
// by name, once if it gets an answer and for every container if not. It goes last, so that nothing else is found there first.
func extendPath(dir string) error {
	path := os.Getenv("PATH")
	if slices.Contains(filepath.SplitList(path), dir) {
		return nil
	}
	return os.Setenv("PATH", strings.TrimPrefix(path+string(os.PathListSeparator)+dir, string(os.PathListSeparator)))
}

func tempMounts(root string) string { return filepath.Join(root, "tmpmounts") }
