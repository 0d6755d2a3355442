// Package runtime is where containers come from: containerd as a library in this process, or any CRI v1 socket.
//
// It owns what lies below Root (images, snapshots, containerd's metadata) and State (sockets, shims' bundles, runc's state, the pods' network
// namespaces), and the two built-in images. Its invariant: containers belong to their shims, not to this process. Stopping, crashing
// or replacing skiff leaves them running, and the next Run finds them below State and takes them over.
//
//	plugins.go   which of containerd's plug-ins are loaded, and in which order they go up and down
//	settings.go  what they are told
//	gate.go      CRI calls before, while and after there is a runtime; local.go: without gRPC
//	builtin.go   the images that are built in; images.go: import, pull, list, remove
//	remove.go    what a cluster leaves on a host, taken away
//
// The host starts it; kubelet and telemetry talk CRI through Conn.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Config of a runtime.
type Config struct {
	Root        string // state on disk, "<data-dir>/containerd"
	State       string // "/run/skiff/<cluster>/containerd": sockets, shim state; short, for sockets have 108 bytes
	BinDir      string // where containerd-shim-runc-v2, runc, skiff-cni, pause and skiff-web are: beside the skiff binary
	CNIConfDir  string // "<data-dir>/cni/net.d"
	CNIBinDir   string
	CgroupRoot  string // "/skiff"
	CRIEndpoint string // "unix:///…": use that CRI socket instead of the embedded containerd
	PauseImage  string // default: the built-in one
	ImagesDir   string // archives dropped here are imported at start
	Log         *slog.Logger
}

// Runtime of one node.
type Runtime struct {
	cfg    Config
	gate   *gate
	images *Images // set before the gate opens; nil with an external runtime
}

// New checks the configuration; Run does the work.
func New(cfg Config) (*Runtime, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.PauseImage == "" {
		cfg.PauseImage = PauseImage
	}
	if cfg.CRIEndpoint != "" {
		if _, err := socketPath(cfg.CRIEndpoint); err != nil {
			return nil, err
		}
		return &Runtime{cfg: cfg, gate: newGate()}, nil
	}
	if cfg.Root == "" || cfg.State == "" || cfg.BinDir == "" {
		return nil, errors.New("container runtime: root, state and program folders are all needed")
	}
	if len(shimSockets(cfg.State)) > maxShimSockets {
		return nil, fmt.Errorf("container runtime: %s is too long a folder for sockets; %d letters are the most", cfg.State, maxShimSockets-len("/s"))
	}
	for _, name := range []string{"containerd-shim-runc-v2", "runc", "pause", "skiff-web"} {
		if _, err := os.Stat(filepath.Join(cfg.BinDir, name)); err != nil {
			return nil, fmt.Errorf("the program %s is missing in %s; build it with make", name, cfg.BinDir)
		}
	}
	return &Runtime{cfg: cfg, gate: newGate()}, nil
}

// Run starts containerd (or dials the endpoint) and blocks until ctx ends; containers go on without it.
func (r *Runtime) Run(ctx context.Context) error {
	if r.cfg.CRIEndpoint != "" {
		return r.runExternal(ctx)
	}
	return r.runEmbedded(ctx)
}

// Ready is closed once CRI calls are answered and the built-in images are there.
func (r *Runtime) Ready() <-chan struct{} { return r.gate.opened }

// Conn carries CRI calls (runtimeapi.NewRuntimeServiceClient(conn), NewImageServiceClient(conn)): for the embedded containerd, plain
// calls in-process. Before Ready they wait; once Run has ended they are Unavailable.
func (r *Runtime) Conn() grpc.ClientConnInterface { return r.gate }

// Import loads an OCI or docker archive and returns the names of the images in it, which CRI knows from then on.
func (r *Runtime) Import(ctx context.Context, archive io.Reader) (names []string, err error) {
	if r.cfg.CRIEndpoint != "" {
		return nil, fmt.Errorf("images cannot be imported through CRI; import them with the tools of the runtime at %s", r.cfg.CRIEndpoint)
	}
	if err := r.gate.wait(ctx); err != nil {
		return nil, err
	}
	return r.images.Import(ctx, archive)
}

func (r *Runtime) runEmbedded(ctx context.Context) error {
	redirectLogs(r.cfg.Log)
	d, err := startDaemon(ctx, r.cfg)
	if err != nil {
		return fmt.Errorf("start containerd: %w", err)
	}
	r.images = d.images
	if err := makeBuiltIn(ctx, r.cfg, d.images); err != nil {
		return errors.Join(err, d.stop())
	}
	r.gate.open(&making{local: newLocal(d.cri), cfg: r.cfg, images: d.images})

	var background sync.WaitGroup
	background.Go(func() { importFolder(ctx, r.cfg, d.images) })
	select {
	case <-ctx.Done():
	case err = <-d.failed:
		err = fmt.Errorf("containerd: %w", err)
	}
	r.gate.close()
	background.Wait()
	return errors.Join(err, d.stop())
}

// importFolder loads the archives that lie in the images folder. One that cannot be loaded is reported and keeps no other from it.
func importFolder(ctx context.Context, cfg Config, images *Images) {
	entries, err := os.ReadDir(cfg.ImagesDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) && cfg.ImagesDir != "" {
		cfg.Log.Error("cannot read the folder of image archives", "folder", cfg.ImagesDir, "err", err)
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return
		}
		if !isArchive(e.Name()) {
			continue
		}
		file := filepath.Join(cfg.ImagesDir, e.Name())
		names, err := importFile(ctx, images, file)
		switch {
		case err == nil:
			cfg.Log.Info("imported images", "archive", file, "images", names)
		case ctx.Err() == nil:
			cfg.Log.Error("cannot import an image archive", "archive", file, "err", err)
		}
	}
}

func isArchive(name string) bool {
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

func importFile(ctx context.Context, images *Images, file string) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return images.Import(ctx, f)
}

// service is containerd's CRI plug-in: what its gRPC server would serve, and its life cycle.
type service interface {
	runtimeapi.RuntimeServiceServer
	runtimeapi.ImageServiceServer
	io.Closer
	IsInitialized() bool
}
