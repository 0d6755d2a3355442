package image

import (
	"context"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// store is a container runtime's images and containers, as CRI tells of them.
type store struct {
	runtimeapi.ImageServiceClient
	runtimeapi.RuntimeServiceClient
	images     []*runtimeapi.Image
	containers []*runtimeapi.Container
}

func (s *store) ListImages(context.Context, *runtimeapi.ListImagesRequest, ...grpc.CallOption) (*runtimeapi.ListImagesResponse, error) {
	return &runtimeapi.ListImagesResponse{Images: s.images}, nil
}

func (s *store) ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: s.containers}, nil
}

func (s *store) RemoveImage(_ context.Context, r *runtimeapi.RemoveImageRequest, _ ...grpc.CallOption) (*runtimeapi.RemoveImageResponse, error) {
	s.images = slices.DeleteFunc(s.images, func(i *runtimeapi.Image) bool { return i.Id == r.Image.Image })
	return &runtimeapi.RemoveImageResponse{}, nil
}

func TestCollect(t *testing.T) {
	s := &store{
		images: []*runtimeapi.Image{
			{Id: "old", Size: 10}, {Id: "recent", Size: 10}, {Id: "running", Size: 10}, {Id: "pinned", Size: 10, Pinned: true},
			{Id: "volume", Size: 10, RepoTags: []string{"docker.io/library/data:latest"}},
		},
		containers: []*runtimeapi.Container{{ImageRef: "running"}, {ImageRef: "recent"}},
	}
	c := NewCollector(s, s, func() []string { return []string{"data"} })
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	free := func(wanted int64, want ...string) {
		t.Helper()
		freed, removed, err := c.Free(t.Context(), wanted, now)
		if err != nil || !slices.Equal(removed, want) || freed != int64(10*len(want)) {
			t.Errorf("removed %v, %d bytes, %v; want %v", removed, freed, err, want)
		}
	}
	free(100) // nothing has been unused for long
	now = now.Add(5 * time.Minute)
	if _, err := c.Look(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	s.containers = s.containers[:1]
	now = now.Add(5 * time.Minute)
	free(10, "old")
	free(100, "recent")
	free(100)
	if len(s.images) != 3 {
		t.Errorf("%d images are left", len(s.images))
	}
}
