package runtime

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// local is a gRPC connection without gRPC: it finds a method in the generated service descriptors and calls the implementation. A request
// is copied, because implementations may keep or change it; a reply is not, so its fields are read-only to the caller.
type local struct {
	server  service
	unary   map[string]grpc.MethodDesc
	streams map[string]grpc.StreamDesc
}

func newLocal(s service) *local {
	l := &local{server: s, unary: map[string]grpc.MethodDesc{}, streams: map[string]grpc.StreamDesc{}}
	for _, desc := range []*grpc.ServiceDesc{&runtimeapi.RuntimeService_ServiceDesc, &runtimeapi.ImageService_ServiceDesc} {
		for _, m := range desc.Methods {
			l.unary["/"+desc.ServiceName+"/"+m.MethodName] = m
		}
		for _, s := range desc.Streams {
			l.streams["/"+desc.ServiceName+"/"+s.StreamName] = s
		}
	}
	return l
}

// Invoke calls the method and waits for it.
func (l *local) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) (err error) {
	m, ok := l.unary[method]
	if !ok {
		return status.Errorf(codes.Unimplemented, "CRI has no method %s", method)
	}
	if err := l.check(ctx); err != nil {
		return err
	}
	defer rescue(method, &err)
	resp, err := m.Handler(l.server, incoming(ctx), func(into any) error { return clone(into, args) }, nil)
	if err != nil {
		return errgrpc.ToGRPC(err)
	}
	return share(reply, resp)
}

// NewStream starts the method; both ends are joined by channels without a buffer, so that a slow reader slows the writer.
func (l *local) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	desc, ok := l.streams[method]
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "CRI has no stream %s", method)
	}
	if err := l.check(ctx); err != nil {
		return nil, err
	}
	parent := ctx
	ctx, cancel := context.WithCancel(parent)
	s := &stream{ctx: ctx, parent: parent, requests: make(chan any, 1), replies: make(chan any), ended: make(chan struct{})}
	go func() {
		defer cancel()
		defer close(s.ended)
		defer rescue(method, &s.err)
		s.err = errgrpc.ToGRPC(desc.Handler(l.server, &streamServer{s, incoming(ctx)}))
	}()
	return &streamClient{s}, nil
}

func (l *local) check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	if !l.server.IsInitialized() {
		return status.Error(codes.Unavailable, "the container runtime is still starting")
	}
	return nil
}

func incoming(ctx context.Context) context.Context { return namespaces.WithNamespace(ctx, namespace) }

// rescue turns a panic into an error: a defect in one call is not the end of every pod's care.
func rescue(method string, err *error) {
	if p := recover(); p != nil {
		*err = status.Errorf(codes.Internal, "%s panicked: %v\n%s", method, p, debug.Stack())
	}
}

func clone(into, from any) error {
	dst, ok1 := into.(proto.Message)
	src, ok2 := from.(proto.Message)
	if !ok1 || !ok2 {
		return fmt.Errorf("CRI carries protobuf messages, not %T", from)
	}
	proto.Merge(dst, src)
	return nil
}

// share makes into a message with the same fields as from, without copying what they point to.
func share(into, from any) error {
	dst, ok1 := into.(proto.Message)
	src, ok2 := from.(proto.Message)
	if !ok1 || !ok2 {
		return fmt.Errorf("CRI carries protobuf messages, not %T", from)
	}
	target := dst.ProtoReflect()
	src.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		target.Set(field, value)
		return true
	})
	return nil
}

// stream is what both ends of a streaming call hold.
type stream struct {
	ctx      context.Context
	parent   context.Context // the caller's, which outlives the call
	requests chan any
	replies  chan any
	ended    chan struct{} // the handler returned; err is set
	err      error
}

type streamClient struct{ *stream }

func (c *streamClient) Header() (metadata.MD, error) { return nil, nil }
func (c *streamClient) Trailer() metadata.MD         { return nil }
func (c *streamClient) Context() context.Context     { return c.ctx }

func (c *streamClient) CloseSend() error {
	close(c.requests)
	return nil
}

func (c *streamClient) SendMsg(m any) error {
	select {
	case c.requests <- m:
		return nil
	case <-c.ended:
		return io.EOF
	}
}

func (c *streamClient) RecvMsg(m any) error {
	select {
	case got := <-c.replies:
		return share(m, got)
	case <-c.ended:
	case <-c.parent.Done():
		// The handler may notice only when it has something to send next; nobody waits for that.
		return status.FromContextError(c.parent.Err()).Err()
	}
	switch {
	case c.err != nil:
		return c.err
	case c.parent.Err() != nil:
		return status.FromContextError(c.parent.Err()).Err()
	}
	return io.EOF
}

type streamServer struct {
	*stream
	ctx context.Context
}

func (s *streamServer) SetHeader(metadata.MD) error  { return nil }
func (s *streamServer) SendHeader(metadata.MD) error { return nil }
func (s *streamServer) SetTrailer(metadata.MD)       {}
func (s *streamServer) Context() context.Context     { return s.ctx }

func (s *streamServer) SendMsg(m any) error {
	select {
	case s.replies <- m:
		return nil
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}

func (s *streamServer) RecvMsg(m any) error {
	select {
	case got, ok := <-s.requests:
		if !ok {
			return io.EOF
		}
		return clone(m, got)
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}
