package runtime

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// gate is the connection that users hold: it waits for a runtime, passes calls on while there is one, and refuses them afterwards.
type gate struct {
	opened chan struct{}
	closed chan struct{}
	once   sync.Once
	target grpc.ClientConnInterface // written before opened is closed
}

func newGate() *gate { return &gate{opened: make(chan struct{}), closed: make(chan struct{})} }

func (g *gate) open(target grpc.ClientConnInterface) {
	g.target = target
	close(g.opened)
}

func (g *gate) close() { g.once.Do(func() { close(g.closed) }) }

// wait returns nil while there is a runtime.
func (g *gate) wait(ctx context.Context) error {
	select {
	case <-g.closed:
	default:
		select {
		case <-g.opened:
			return nil
		case <-g.closed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
	return status.Error(codes.Unavailable, "the container runtime has stopped")
}

// Invoke is a unary CRI call.
func (g *gate) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if err := g.wait(ctx); err != nil {
		return err
	}
	return g.target.Invoke(ctx, method, args, reply, opts...)
}

// NewStream is a streaming CRI call.
func (g *gate) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if err := g.wait(ctx); err != nil {
		return nil, err
	}
	return g.target.NewStream(ctx, desc, method, opts...)
}

// dialPatience is how long an external runtime may take to answer for the first time.
const dialPatience = 10 * time.Second

// maxMessage is what other CRI clients allow.
const maxMessage = 16 << 20

func (r *Runtime) runExternal(ctx context.Context) error {
	conn, err := dialCRI(r.cfg.CRIEndpoint)
	if err != nil {
		return err
	}
	defer conn.Close()
	version, err := askVersion(ctx, conn, r.cfg.CRIEndpoint)
	if err != nil {
		return err
	}
	r.cfg.Log.Info("using an external container runtime", "name", version.RuntimeName, "version", version.RuntimeVersion, "endpoint", r.cfg.CRIEndpoint)
	r.gate.open(conn)
	<-ctx.Done()
	r.gate.close()
	return nil
}

// Probe waits until an external runtime answers; the embedded one ("") always will.
func Probe(ctx context.Context, endpoint string) error {
	if endpoint == "" {
		return nil
	}
	conn, err := dialCRI(endpoint)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = askVersion(ctx, conn, endpoint)
	return err
}

func dialCRI(endpoint string) (*grpc.ClientConn, error) {
	path, err := socketPath(endpoint)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
}

func askVersion(ctx context.Context, conn grpc.ClientConnInterface, endpoint string) (*runtimeapi.VersionResponse, error) {
	patience, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	version, err := runtimeapi.NewRuntimeServiceClient(conn).Version(patience, &runtimeapi.VersionRequest{Version: "v1"}, grpc.WaitForReady(true))
	switch {
	case err == nil:
		return version, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(patience.Err(), context.DeadlineExceeded):
		return nil, fmt.Errorf("no container runtime answered on --cri-endpoint %s within %s; start it, or leave the flag out to use the built-in one",
			endpoint, dialPatience)
	}
	return nil, fmt.Errorf("what listens on --cri-endpoint %s does not speak CRI v1: %s", endpoint, status.Convert(err).Message())
}

// socketPath reads unix:///run/x.sock, or a plain path.
func socketPath(endpoint string) (string, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("--cri-endpoint %q is no socket such as unix:///run/containerd/containerd.sock", endpoint)
	}
	return path, nil
}
