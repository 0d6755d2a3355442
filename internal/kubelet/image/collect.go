package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/distribution/reference"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// leastAge is how long an image must have been unused: pulling one goes before the container that needs it.
const leastAge = 2 * time.Minute

// Collector removes images that nobody uses when their room is needed. Only one goroutine calls it.
type Collector struct {
	images  runtimeapi.ImageServiceClient
	runtime runtimeapi.RuntimeServiceClient
	wanted  func() []string      // names of images that pods are made of
	used    map[string]time.Time // by image: when it was last seen in use, or first seen at all
}

func NewCollector(images runtimeapi.ImageServiceClient, runtime runtimeapi.RuntimeServiceClient, wanted func() []string) *Collector {
	return &Collector{images: images, runtime: runtime, wanted: wanted, used: map[string]time.Time{}}
}

// Look learns which images are in use now.
func (c *Collector) Look(ctx context.Context, now time.Time) ([]*runtimeapi.Image, error) {
	list, err := c.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	containers, err := c.runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	busy := map[string]bool{}
	for _, one := range containers.Containers {
		for _, name := range []string{one.ImageRef, one.ImageId, one.GetImage().GetImage()} {
			busy[name] = true
		}
	}
	for _, name := range c.wanted() {
		if ref, err := reference.ParseDockerRef(name); err == nil {
			name = ref.String()
		}
		busy[name] = true
	}
	seen := map[string]time.Time{}
	for _, i := range list.Images {
		at, known := c.used[i.Id]
		if !known || inUse(i, busy) {
			at = now
		}
		seen[i.Id] = at
	}
	c.used = seen
	return list.Images, nil
}

func inUse(i *runtimeapi.Image, busy map[string]bool) bool {
	return busy[i.Id] || slices.ContainsFunc(i.RepoDigests, func(name string) bool { return busy[name] }) ||
		slices.ContainsFunc(i.RepoTags, func(name string) bool { return busy[name] })
}

// Free removes unused images until wanted bytes are free, those first that have been unused for longest. It returns what it got.
func (c *Collector) Free(ctx context.Context, wanted int64, now time.Time) (freed int64, removed []string, err error) {
	list, err := c.Look(ctx, now)
	if err != nil {
		return 0, nil, err
	}
	var errs []error
	for _, i := range c.unused(list, now) {
		if freed >= wanted {
			break
		}
		if _, err := c.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: i.Id}}); err != nil {
			errs = append(errs, fmt.Errorf("remove image %s: %w", i.Id, err))
			continue
		}
		delete(c.used, i.Id)
		freed += int64(i.Size)
		removed = append(removed, append(i.RepoTags, i.Id)[0])
	}
	return freed, removed, errors.Join(errs...)
}

// unused images in the order in which they go. Pinned ones stay: nobody could pull them again.
func (c *Collector) unused(list []*runtimeapi.Image, now time.Time) []*runtimeapi.Image {
	list = slices.DeleteFunc(slices.Clone(list), func(i *runtimeapi.Image) bool { return i.Pinned || now.Sub(c.used[i.Id]) < leastAge })
	slices.SortFunc(list, func(a, b *runtimeapi.Image) int {
		return cmp.Or(c.used[a.Id].Compare(c.used[b.Id]), cmp.Compare(a.Id, b.Id))
	})
	return list
}
