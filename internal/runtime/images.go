package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Images are those of one runtime: what CRI can do with them, and importing, which it cannot.
type Images struct {
	client      *containerd.Client // nil: an external runtime, known through CRI only
	cri         runtimeapi.ImageServiceClient
	snapshotter string // "" for the one that containerd's namespace names
	close       func() error
}

// ErrNotRunning says that nothing answers on a runtime's socket.
var ErrNotRunning = errors.New("no container runtime is running")

func newImages(client *containerd.Client, conn grpc.ClientConnInterface, snapshotter string) *Images {
	return &Images{client: client, cri: runtimeapi.NewImageServiceClient(conn), snapshotter: snapshotter, close: func() error { return nil }}
}

// OpenImages reaches the images of a running cluster from another process: through State's socket or, if given, the CRI endpoint's.
func OpenImages(ctx context.Context, state, endpoint string) (*Images, error) {
	if endpoint != "" {
		conn, err := dialCRI(endpoint)
		if err != nil {
			return nil, err
		}
		if _, err := askVersion(ctx, conn, endpoint); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return &Images{cri: runtimeapi.NewImageServiceClient(conn), close: conn.Close}, nil
	}
	socket := Socket(state)
	probe, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	_ = probe.Close()
	client, err := containerd.New(socket, containerd.WithDefaultNamespace(namespace))
	if err != nil {
		return nil, err
	}
	conn, ok := client.Conn().(grpc.ClientConnInterface)
	if !ok {
		return nil, errors.Join(fmt.Errorf("containerd's client has no gRPC connection but a %T", client.Conn()), client.Close())
	}
	i := newImages(client, conn, "")
	i.close = client.Close
	return i, nil
}

// Close ends what OpenImages began.
func (i *Images) Close() error { return i.close() }

// Import loads an OCI or docker archive, packed or not, and returns the names in it. CRI sees them when it returns.
func (i *Images) Import(ctx context.Context, r io.Reader) ([]string, error) {
	if i.client == nil {
		return nil, errors.New("images cannot be imported through CRI; use the tools of the external runtime")
	}
	ctx = namespaces.WithNamespace(ctx, namespace)
	plain, err := compression.DecompressStream(r)
	if err != nil {
		return nil, fmt.Errorf("unpack the archive: %w", err)
	}
	defer plain.Close()
	loaded, err := i.client.Import(ctx, plain, containerd.WithImageRefTranslator(archive.FilterRefPrefix("")),
		containerd.WithImageLabels(map[string]string{"io.cri-containerd.pinned": "pinned"})) // there may be no registry to get it from again
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if len(loaded) == 0 {
		return nil, errors.New("the archive names no image; give the image a name and tag when making it")
	}
	var names []string
	for _, image := range loaded {
		if err := containerd.NewImage(i.client, image).Unpack(ctx, i.snapshotter); err != nil {
			return names, fmt.Errorf("unpack %s: %w", image.Name, err)
		}
		if err := i.settle(ctx, image.Name); err != nil {
			return names, err
		}
		names = append(names, image.Name)
	}
	slices.Sort(names)
	return names, nil
}

// settle waits until CRI has taken notice of an image that was made behind its back; it does so on an event.
func (i *Images) settle(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stored, err := i.client.GetImage(ctx, name)
	if err != nil {
		return err
	}
	config, err := stored.Config(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		got, err := i.cri.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
		if err == nil && got.GetImage().GetId() == config.Digest.String() {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%s was imported, but the container runtime does not show it: %w", name, errors.Join(err, ctx.Err()))
		}
	}
}

// Image as CRI shows it.
type Image struct {
	ID      string   `json:"id"`
	Names   []string `json:"names"`
	Digests []string `json:"digests"`
	Size    uint64   `json:"size"`
	Pinned  bool     `json:"pinned"`
}

// List is sorted by name.
func (i *Images) List(ctx context.Context) ([]Image, error) {
	got, err := i.cri.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, said(err)
	}
	var list []Image
	for _, image := range got.Images {
		list = append(list, Image{
			ID: image.Id, Names: sorted(image.RepoTags), Digests: sorted(image.RepoDigests), Size: image.Size, Pinned: image.Pinned,
		})
	}
	slices.SortFunc(list, func(a, b Image) int { return slices.Compare(append(a.Names, a.ID), append(b.Names, b.ID)) })
	return list, nil
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

// Pull gets an image from its registry and returns its ID.
func (i *Images) Pull(ctx context.Context, name string) (string, error) {
	got, err := i.cri.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: name}})
	if err != nil {
		return "", said(err)
	}
	return got.ImageRef, nil
}

func builtIn(name string) bool { return name == PauseImage || name == WebImage || name == IngressImage }

// Remove an image by name or ID, with all its other names.
func (i *Images) Remove(ctx context.Context, name string) error {
	spec := &runtimeapi.ImageSpec{Image: name}
	got, err := i.cri.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	switch {
	case err != nil:
		return said(err)
	case got.Image == nil:
		return fmt.Errorf("there is no image %s", name)
	case slices.ContainsFunc(got.Image.RepoTags, builtIn):
		return fmt.Errorf("%s is built in and stays", name)
	}
	if _, err := i.cri.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: spec}); err != nil {
		return said(err)
	}
	return nil
}

// said is an error without gRPC's wrapping.
func said(err error) error {
	if s, ok := status.FromError(err); ok {
		return errors.New(s.Message())
	}
	return err
}
