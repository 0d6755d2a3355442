package runtime

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// making is a connection to CRI through which pulling a built-in image that is made when it is asked for makes it.
type making struct {
	*local
	cfg    Config
	images *Images

	mu sync.Mutex // of the making, and of the stamps
}

func (m *making) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	pull, ok := args.(*runtimeapi.PullImageRequest)
	if !ok {
		return m.local.Invoke(ctx, method, args, reply, opts...)
	}
	i := slices.IndexFunc(recipes(), func(r recipe) bool { return r.asked && r.name == pull.GetImage().GetImage() })
	if i < 0 {
		return m.local.Invoke(ctx, method, args, reply, opts...)
	}
	ref, err := m.make(ctx, recipes()[i])
	if err != nil {
		return status.Error(codes.Unknown, err.Error())
	}
	return share(reply, &runtimeapi.PullImageResponse{ImageRef: ref})
}

// make makes the image unless it is there, and says what CRI calls it.
func (m *making) make(ctx context.Context, r recipe) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ctx = namespaces.WithNamespace(ctx, namespace)
	stamp, err := stampOf(filepath.Join(m.cfg.BinDir, r.program))
	if err != nil {
		return "", fmt.Errorf("the image %s is made of a program beside skiff: %w; build it with make, or install all of skiff's programs into one folder", r.name, err)
	}
	stamps := readStamps(m.cfg)
	if _, err := m.images.client.ImageService().Get(ctx, r.name); err != nil || stamps[r.name] != stamp {
		if err := m.images.make(ctx, m.cfg.BinDir, r); err != nil {
			return "", err
		}
		stamps[r.name] = stamp
		if err := writeStamps(m.cfg, stamps); err != nil {
			return "", err
		}
	}
	got, err := m.images.cri.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: r.name}})
	if err != nil {
		return "", err
	}
	return got.GetImage().GetId(), nil
}
