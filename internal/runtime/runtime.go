// Package runtime is where containers come from: containerd as a library in this process, or any CRI v1 socket.
// SKELETON: signatures agreed with host and kubelet; the runtime's author replaces the bodies.
package runtime

import (
	"context"
	"io"
	"log/slog"

	"google.golang.org/grpc"
)

type Config struct {
	Root        string // state on disk, "<data-dir>/containerd"
	State       string // "/run/skiff/<cluster>/containerd": sockets, shim state; short, for sockets have 108 bytes
	BinDir      string // where containerd-shim-runc-v2, runc, skiff-cni, pause and skiff-web are: beside the skiff binary
	CNIConfDir  string // "<data-dir>/cni/net.d"
	CNIBinDir   string
	CgroupRoot  string // "/skiff"
	CRIEndpoint string // "unix:///…": use that CRI socket instead of the embedded containerd
	PauseImage  string // default: the built-in one
	ImagesDir   string // archives dropped here are imported before start
	Log         *slog.Logger
}

type Runtime struct{}

func New(cfg Config) (*Runtime, error) { panic("skeleton") }

// Run starts containerd (or dials the endpoint) and blocks until ctx ends; containers go on without it.
func (r *Runtime) Run(ctx context.Context) error { panic("skeleton") }
func (r *Runtime) Ready() <-chan struct{}        { panic("skeleton") }

// Conn carries CRI calls (runtimeapi.NewRuntimeServiceClient(conn), NewImageServiceClient(conn)): for the embedded containerd, plain calls in-process.
func (r *Runtime) Conn() grpc.ClientConnInterface { panic("skeleton") }

// Import loads an OCI or docker archive; Images of skiff image import|ls|rm|pull.
func (r *Runtime) Import(ctx context.Context, archive io.Reader) (names []string, err error) {
	panic("skeleton")
}

// Remove removes what a cluster's runtime left on this host: containers, shims, mounts, network namespaces, cgroups. Skiff isn't running then.
func Remove(ctx context.Context, cfg Config, progress func(string)) error { panic("skeleton") }
