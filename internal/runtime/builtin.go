package runtime

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// The images that are built in, made from the programs beside skiff.
const (
	PauseImage   = "skiff.dev/pause:1"
	WebImage     = "skiff.dev/web:1"
	IngressImage = "skiff.dev/ingress:1"
)

// recipe is an image of one layer and one program.
type recipe struct {
	name    string
	program string   // in BinDir, and at the root of the image
	links   []string // other names of the program, in /bin
	files   map[string]string
	dirs    map[string]int64
	config  ocispec.ImageConfig
	asked   bool // it is made when it is first pulled; few use it, and nobody shall wait for it at the start
}

// webCommands are the names under which skiff-web is a command.
var webCommands = strings.Fields("cat cp curl date env grep head hostname id kill ls mkdir nslookup ps rm sh sleep sort tail tar uniq wc wget")

func recipes() []recipe {
	return []recipe{
		{name: PauseImage, program: "pause", config: ocispec.ImageConfig{Entrypoint: []string{"/pause"}, User: "65535:65535"}},
		{
			name: WebImage, program: "skiff-web", links: webCommands,
			dirs: map[string]int64{"bin": 0o755, "etc": 0o755, "tmp": 0o1777},
			files: map[string]string{
				"etc/passwd": "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
				"etc/group":  "root:x:0:\nnobody:x:65534:\n",
			},
			config: ocispec.ImageConfig{
				Entrypoint: []string{"/skiff-web"}, Env: []string{"PATH=/bin"}, WorkingDir: "/",
				ExposedPorts: map[string]struct{}{"8080/tcp": {}},
			},
		},
		{name: IngressImage, program: "skiff-ingress", asked: true, config: ocispec.ImageConfig{Entrypoint: []string{"/skiff-ingress"}, User: "65532:65532"}},
	}
}

// layout is part of each stamp: it changes when images are to be made anew from the same programs.
const layout = "1"

// makeBuiltIn puts the built-in images into the store, unless the ones made from these very programs are there. What they were made from is
// kept in a file beside the store: size, time and inode of each program, so that nothing need be read or hashed at start.
func makeBuiltIn(ctx context.Context, cfg Config, i *Images) error {
	ctx = namespaces.WithNamespace(ctx, namespace)
	if err := i.nameSnapshotter(ctx); err != nil {
		return err
	}
	stamps := readStamps(cfg)
	var group errgroup.Group
	now := map[string]string{}
	for _, r := range recipes() {
		_, err := i.client.ImageService().Get(ctx, r.name)
		there := err == nil
		if r.asked && !there {
			continue
		}
		stamp, err := stampOf(filepath.Join(cfg.BinDir, r.program))
		if r.asked && errors.Is(err, os.ErrNotExist) {
			continue // the image is there, and works without its program
		}
		if err != nil {
			return err
		}
		now[r.name] = stamp
		if there && stamps[r.name] == stamp {
			continue
		}
		group.Go(func() error { return i.make(ctx, cfg.BinDir, r) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return writeStamps(cfg, now)
}

func stampFile(cfg Config) string { return filepath.Join(cfg.Root, "built-in.json") }

func readStamps(cfg Config) map[string]string {
	stamps := map[string]string{}
	if raw, err := os.ReadFile(stampFile(cfg)); err == nil && json.Unmarshal(raw, &stamps) != nil {
		return map[string]string{} // a damaged file is as good as none
	}
	return stamps
}

func writeStamps(cfg Config, now map[string]string) error {
	raw, err := json.Marshal(now)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(stampFile(cfg)); err == nil && bytes.Equal(old, raw) {
		return nil
	}
	return os.WriteFile(stampFile(cfg), raw, 0o600)
}

// nameSnapshotter leaves word for other processes which snapshotter images are unpacked with, where it is not the default.
func (i *Images) nameSnapshotter(ctx context.Context) error {
	const label = "containerd.io/defaults/snapshotter"
	labels, err := i.client.NamespaceService().Labels(ctx, namespace)
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if labels[label] == i.snapshotter || labels[label] == "" && i.snapshotter == overlay {
		return nil
	}
	if err := i.client.NamespaceService().Create(ctx, namespace, nil); err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return i.client.NamespaceService().SetLabel(ctx, namespace, label, i.snapshotter)
}

func stampOf(file string) (string, error) {
	st, err := os.Stat(file)
	if err != nil {
		return "", err
	}
	var inode uint64
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		inode = sys.Ino
	}
	return fmt.Sprintf("%s %d %d %d", layout, st.Size(), st.ModTime().UnixNano(), inode), nil
}

func (i *Images) make(ctx context.Context, binDir string, r recipe) error {
	if err := i.assemble(ctx, binDir, r); err != nil {
		return fmt.Errorf("make the built-in image %s: %w", r.name, err)
	}
	return nil
}

// assemble writes layer, configuration and manifest, names them, unpacks them, and drops the image that had the name before.
func (i *Images) assemble(ctx context.Context, binDir string, r recipe) error {
	ctx, release, err := i.client.WithLease(ctx) // nothing is collected before the name holds it
	if err != nil {
		return err
	}
	defer func() { _ = release(ctx) }() // a lease that stays expires

	store := i.client.ContentStore()
	layer, err := writeLayer(ctx, store, binDir, r)
	if err != nil {
		return err
	}
	config, err := writeJSON(ctx, store, ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{Architecture: goruntime.GOARCH, OS: "linux"},
		Config:   r.config,
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	}, nil)
	if err != nil {
		return err
	}
	manifest, err := writeJSON(ctx, store, ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer},
	}, map[string]string{"containerd.io/gc.ref.content.config": config.Digest.String(), "containerd.io/gc.ref.content.l.0": layer.Digest.String()})
	if err != nil {
		return err
	}
	image := images.Image{Name: r.name, Target: manifest}
	var before string
	if old, err := i.client.GetImage(ctx, r.name); err == nil {
		if c, err := old.Config(ctx); err == nil && c.Digest != config.Digest {
			before = c.Digest.String()
		}
		_, err = i.client.ImageService().Update(ctx, image, "target")
		if err != nil {
			return err
		}
	} else if _, err := i.client.ImageService().Create(ctx, image); err != nil {
		return err
	}
	if err := containerd.NewImage(i.client, image).Unpack(ctx, i.snapshotter); err != nil {
		return err
	}
	if before != "" {
		if err := i.client.ImageService().Delete(ctx, before); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return i.settle(ctx, r.name)
}

func writeJSON(ctx context.Context, store content.Store, mediaType string, v any, labels map[string]string) (ocispec.Descriptor, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	return desc, content.WriteBlob(ctx, store, "skiff-"+desc.Digest.String(), bytes.NewReader(raw), desc, content.WithLabels(labels))
}

// writeLayer streams the tar into the store; the program is read once and hashed on the way.
func writeLayer(ctx context.Context, store content.Store, binDir string, r recipe) (desc ocispec.Descriptor, err error) {
	w, err := content.OpenWriter(ctx, store, content.WithRef("skiff-layer-"+r.program))
	if err != nil {
		return desc, err
	}
	defer w.Close()
	if err := w.Truncate(0); err != nil { // of an attempt that was cut short
		return desc, err
	}
	counted := &counter{w: w}
	if err := writeTar(counted, binDir, r); err != nil {
		return desc, err
	}
	desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: w.Digest(), Size: counted.n}
	uncompressed := content.WithLabels(map[string]string{"containerd.io/uncompressed": desc.Digest.String()})
	if err := w.Commit(ctx, desc.Size, desc.Digest, uncompressed); err != nil && !errdefs.IsAlreadyExists(err) {
		return desc, err
	}
	return desc, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// writeTar has no times, owners or order that depend on the host, so that equal programs make equal images.
func writeTar(out io.Writer, binDir string, r recipe) error {
	w := tar.NewWriter(out)
	for _, dir := range sortedKeys(r.dirs) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: r.dirs[dir]}); err != nil {
			return err
		}
	}
	f, err := os.Open(filepath.Join(binDir, r.program))
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: r.program, Mode: 0o755, Size: st.Size()}); err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, f, make([]byte, 1<<20)); err != nil {
		return err
	}
	for _, link := range r.links {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + link, Linkname: "/" + r.program, Mode: 0o777}); err != nil {
			return err
		}
	}
	for _, name := range sortedKeys(r.files) {
		body := r.files[name]
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
			return err
		}
		if _, err := io.WriteString(w, body); err != nil {
			return err
		}
	}
	return errors.Join(w.Close())
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	return sorted(keys)
}
