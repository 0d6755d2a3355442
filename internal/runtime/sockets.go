package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
)

// servers are containerd's two sockets: gRPC for ctr, crictl and `skiff image`, ttrpc for the events that shims publish.
type servers struct {
	grpc    *grpc.Server
	ttrpc   *ttrpc.Server
	running sync.WaitGroup
}

func serve(state string, set *plugin.Set) (_ *servers, err error) {
	s := &servers{grpc: grpc.NewServer(
		grpc.ChainUnaryInterceptor(unaryNamespace), grpc.ChainStreamInterceptor(streamNamespace),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
	)}
	if s.ttrpc, err = ttrpc.NewServer(); err != nil {
		return nil, err
	}
	for _, p := range set.GetAll() {
		if p.Registration.Type != plugins.GRPCPlugin {
			continue
		}
		inst, err := p.Instance()
		if err != nil {
			return nil, err
		}
		if g, ok := inst.(interface{ Register(*grpc.Server) error }); ok {
			if err := g.Register(s.grpc); err != nil {
				return nil, fmt.Errorf("serve %s: %w", p.Registration.URI(), err)
			}
		}
		if t, ok := inst.(interface{ RegisterTTRPC(*ttrpc.Server) error }); ok {
			if err := t.RegisterTTRPC(s.ttrpc); err != nil {
				return nil, fmt.Errorf("serve %s: %w", p.Registration.URI(), err)
			}
		}
	}
	api, err := listenUnix(Socket(state))
	if err != nil {
		return nil, err
	}
	events, err := listenUnix(Socket(state) + ".ttrpc")
	if err != nil {
		return nil, errors.Join(err, api.Close())
	}
	s.running.Go(func() { _ = s.grpc.Serve(api) }) // both return when they are stopped
	s.running.Go(func() { _ = s.ttrpc.Serve(context.Background(), events) })
	return s, nil
}

// listenUnix takes the path over from a process that is gone; the data dir's lock keeps two from being there at once.
func listenUnix(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o600)
}

func (s *servers) stop() {
	s.grpc.Stop()
	patience, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := s.ttrpc.Shutdown(patience); err != nil {
		_ = s.ttrpc.Close() // shims keep their connections open and try again when they have something to tell
	}
	s.running.Wait()
}

// A client names its namespace in the request's metadata; what is called reads it from there and passes it on.
func withNamespace(ctx context.Context) context.Context {
	if ns, ok := namespaces.Namespace(ctx); ok {
		return namespaces.WithNamespace(ctx, ns)
	}
	return ctx
}

func unaryNamespace(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return handler(withNamespace(ctx), req)
}

func streamNamespace(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(srv, namespacedStream{s, withNamespace(s.Context())})
}

type namespacedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s namespacedStream) Context() context.Context { return s.ctx }
