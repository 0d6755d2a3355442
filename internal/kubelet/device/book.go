package device

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/kubelet/plugin"
)

// book is who holds which devices, in memory and on disk.
type book struct {
	path      string
	Resources []string                      `json:"resources"` // that plug-ins have had
	Pods      map[types.UID]map[string]held `json:"pods"`      // by pod and container
}

// held is what a container holds, by resource.
type held map[string]holding

type holding struct {
	Devices  []string `json:"devices"`
	Response []byte   `json:"response"` // the plug-in's ContainerAllocateResponse
}

func open(path string) (book, error) {
	b := book{path: path, Pods: map[types.UID]map[string]held{}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &b)
	}
	if err != nil {
		return b, fmt.Errorf("read who holds which devices: %s: %w (drain the node and remove the file)", path, err)
	}
	if b.Pods == nil {
		b.Pods = map[types.UID]map[string]held{}
	}
	return b, nil
}

func (b *book) save() error {
	raw, err := json.Marshal(b)
	if err == nil {
		err = plugin.Keep(b.path, raw)
	}
	if err != nil {
		return fmt.Errorf("write down who holds which devices: %w", err)
	}
	return nil
}

func (b *book) of(pod types.UID, container, resource string) (holding, bool) {
	h, ok := b.Pods[pod][container][resource]
	return h, ok
}

// put a holding in, or nothing if it cannot be written down.
func (b *book) put(pod types.UID, container, resource string, h holding) error {
	if b.Pods[pod] == nil {
		b.Pods[pod] = map[string]held{}
	}
	if b.Pods[pod][container] == nil {
		b.Pods[pod][container] = held{}
	}
	b.Pods[pod][container][resource] = h
	if err := b.save(); err != nil {
		delete(b.Pods[pod][container], resource)
		return err
	}
	return nil
}

// taken are the devices of a resource that somebody holds.
func (b *book) taken(resource string) map[string]bool {
	out := map[string]bool{}
	for _, containers := range b.Pods {
		for _, h := range containers {
			for _, id := range h[resource].Devices {
				out[id] = true
			}
		}
	}
	return out
}

// holders are the pods that hold such devices of a resource.
func (b *book) holders(resource string, such func(id string) bool) []types.UID {
	var out []types.UID
	for _, pod := range slices.Sorted(maps.Keys(b.Pods)) {
		for _, h := range b.Pods[pod] {
			if slices.ContainsFunc(h[resource].Devices, such) {
				out = append(out, pod)
				break
			}
		}
	}
	return out
}
