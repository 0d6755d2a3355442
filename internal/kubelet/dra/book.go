package dra

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	draapi "k8s.io/kubelet/pkg/apis/dra/v1"

	"skiff.dev/skiff/internal/kubelet/plugin"
)

// book is what is known of claims, in memory and on disk.
type book struct {
	path   string
	boot   string
	claims map[types.NamespacedName]*claim
}

// claim is one that some pod of this node uses.
type claim struct {
	Namespace string                `json:"namespace"`
	Name      string                `json:"name"`
	UID       types.UID             `json:"uid"`
	Pods      []types.UID           `json:"pods"`
	Drivers   map[string][]prepared `json:"drivers"`            // what each made of it
	Prepared  bool                  `json:"prepared,omitempty"` // all drivers have, in this boot
	leaving   bool                  // its drivers are being asked to take it back
	busy      chan struct{}         // not nil: its drivers are being asked; closed when they have answered
}

// prepared is a device that containers can be given.
type prepared struct {
	Pool     string   `json:"pool"`
	Device   string   `json:"device"`
	Requests []string `json:"requests,omitempty"` // of the claim; none: of all
	CDI      []string `json:"cdi,omitempty"`
}

type file struct {
	Boot   string   `json:"boot"`
	Claims []*claim `json:"claims"`
}

func (c *claim) key() types.NamespacedName {
	return types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
}

func (c *claim) wire() *draapi.Claim {
	return &draapi.Claim{Namespace: c.Namespace, Name: c.Name, Uid: string(c.UID)}
}

func open(path string) (book, error) {
	b := book{path: path, claims: map[types.NamespacedName]*claim{}}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return b, fmt.Errorf("learn which boot of the machine this is: %w", err)
	}
	b.boot = strings.TrimSpace(string(boot))
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return b, fmt.Errorf("read which claims are prepared: %w", err)
	}
	var f file
	if err := json.Unmarshal(raw, &f); err != nil {
		return b, fmt.Errorf("read which claims are prepared: %s: %w (drain the node and remove the file)", path, err)
	}
	for _, c := range f.Claims {
		c.Prepared = c.Prepared && f.Boot == b.boot
		b.claims[c.key()] = c
	}
	return b, nil
}

// save writes the whole book, or leaves the former one.
func (b *book) save() error {
	f := file{Boot: b.boot}
	for _, c := range b.claims {
		f.Claims = append(f.Claims, c)
	}
	slices.SortFunc(f.Claims, func(x, y *claim) int { return strings.Compare(x.key().String(), y.key().String()) })
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	if err := plugin.Keep(b.path, raw); err != nil {
		return fmt.Errorf("write down which claims are prepared: %w", err)
	}
	return nil
}

// of lists the claims that a pod uses.
func (b *book) of(pod types.UID) []*claim {
	var out []*claim
	for _, c := range b.claims {
		if slices.Contains(c.Pods, pod) {
			out = append(out, c)
		}
	}
	return out
}
