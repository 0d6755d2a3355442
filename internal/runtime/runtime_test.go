package runtime

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skiff.dev/skiff/cmd/skiff-web/shell"
)

// start runs a runtime in this process; stop ends it and checks how it ended.
func start(t *testing.T, cfg Config) (r *Runtime, stop func()) {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- r.Run(ctx) }()
	select {
	case <-r.Ready():
		t.Logf("ready after %s", time.Since(began).Round(time.Millisecond))
	case err := <-ended:
		t.Fatalf("the runtime ended: %v", err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		began := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the runtime ended with %v", err)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("stopping took %s", took)
		}
	}
	t.Cleanup(stop)
	return r, stop
}

func TestInProcess(t *testing.T) {
	base := newHost(t)
	writeArchive(t, filepath.Join(base, "images", "dropped.tar.gz"), "skiff.test/dropped:1")
	r, stop := start(t, testConfig(base))
	cri, images := runtimeapi.NewRuntimeServiceClient(r.Conn()), runtimeapi.NewImageServiceClient(r.Conn())

	t.Run("answers", func(t *testing.T) {
		v, err := cri.Version(t.Context(), &runtimeapi.VersionRequest{})
		if err != nil || v.RuntimeName != "containerd" || v.RuntimeApiVersion != "v1" {
			t.Errorf("%v, %v", v, err)
		}
		_, err = cri.ContainerStatus(t.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: "nobody"})
		if status.Code(err) != codes.NotFound {
			t.Errorf("an unknown container gives %v", err)
		}
		st, err := cri.Status(t.Context(), &runtimeapi.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range st.Status.Conditions {
			if !c.Status && (c.Type == "RuntimeReady" || c.Type == "NetworkReady") {
				t.Errorf("%s: %s", c.Type, c.Message)
			}
		}
	})
	t.Run("built-in images", func(t *testing.T) {
		for _, name := range []string{PauseImage, WebImage} {
			got, err := images.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: name}})
			if err != nil || got.Image == nil || !got.Image.Pinned || !slices.Contains(got.Image.RepoTags, name) {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		}
		if err := r.images.Remove(t.Context(), WebImage); err == nil {
			t.Error("a built-in image can be removed")
		}
		want := slices.DeleteFunc(shell.Names(), func(s string) bool { return slices.Contains(webCommands, s) })
		if len(want) > 0 || len(webCommands) != len(shell.Names()) {
			t.Errorf("the image's links and the program's names differ: %v", want)
		}
	})
	t.Run("events and a pod", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		events, err := cri.GetContainerEvents(ctx, &runtimeapi.GetEventsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		sandbox, container := makePod(t, r.Conn(), base, "pod", runtimeapi.NamespaceMode_POD)
		for started := false; !started; {
			e, err := events.Recv()
			if err != nil {
				t.Fatal(err)
			}
			started = e.ContainerId == container && e.ContainerEventType == runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT
		}
		if got := run(t, r.Conn(), container, "sh", "-c", "echo a | cat; ls /bin | wc -l; (sleep 0.2; echo late >/tmp/late) >/dev/null 2>&1 &"); got !=
			fmt.Sprintf("a\n%d\n0", len(shell.Names())) {
			t.Errorf("exec printed %q", got)
		}
		time.Sleep(500 * time.Millisecond)
		if got := run(t, r.Conn(), container, "cat", "/tmp/late"); got != "late\n0" {
			t.Errorf("a job left behind by exec wrote %q", got)
		}
		if _, err := cri.StopPodSandbox(t.Context(), &runtimeapi.StopPodSandboxRequest{PodSandboxId: sandbox}); err != nil {
			t.Error(err)
		}
		if _, err := cri.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{PodSandboxId: sandbox}); err != nil {
			t.Error(err)
		}
		cancel()
		for {
			if _, err := events.Recv(); err != nil {
				if code := status.Code(err); code != codes.Canceled {
					t.Errorf("a cancelled stream ends with %v", err)
				}
				break
			}
		}
	})
	t.Run("images come and go", func(t *testing.T) { testImages(t, r, base) })
	t.Run("a pull from a loopback registry", func(t *testing.T) { testPull(t, r) })

	stop()
	if _, err := cri.Version(t.Context(), &runtimeapi.VersionRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("a stopped runtime answers %v", err)
	}
	if _, err := OpenImages(t.Context(), testConfig(base).State, ""); err != ErrNotRunning {
		t.Errorf("a stopped runtime's images: %v", err)
	}
}

func testImages(t *testing.T, r *Runtime, base string) {
	names := func(i *Images) (all []string) {
		list, err := i.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, image := range list {
			all = append(all, image.Names...)
		}
		return all
	}
	deadline := time.Now().Add(10 * time.Second)
	for !slices.Contains(names(r.images), "skiff.test/dropped:1") {
		if time.Now().After(deadline) {
			t.Fatal("an archive in the images folder was not imported")
		}
		time.Sleep(20 * time.Millisecond)
	}
	file := filepath.Join(base, "app.tar.gz")
	writeArchive(t, file, "skiff.test/app:1")
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := r.Import(t.Context(), f); err != nil || !slices.Equal(got, []string{"skiff.test/app:1"}) {
		t.Fatalf("import: %v, %v", got, err)
	}
	for name, bad := range map[string]string{"no archive": "nonsense", "nothing": ""} {
		if got, err := r.Import(t.Context(), strings.NewReader(bad)); err == nil {
			t.Errorf("%s: imported %v", name, got)
		}
	}
	// Another process sees and does the same through the socket.
	other, err := OpenImages(t.Context(), testConfig(base).State, "")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if !slices.Contains(names(other), "skiff.test/app:1") {
		t.Errorf("images through the socket: %v", names(other))
	}
	writeArchive(t, file, "skiff.test/app:2")
	if got, err := importFile(t.Context(), other, file); err != nil || !slices.Equal(got, []string{"skiff.test/app:2"}) {
		t.Errorf("import through the socket: %v, %v", got, err)
	}
	if err := other.Remove(t.Context(), "skiff.test/app:1"); err != nil {
		t.Error(err)
	}
	if err := other.Remove(t.Context(), "skiff.test/none:1"); err == nil {
		t.Error("an image that is not there can be removed")
	}
	if all := names(r.images); slices.Contains(all, "skiff.test/app:1") || !slices.Contains(all, "skiff.test/app:2") {
		t.Errorf("images are %v", all)
	}
}

// testPull serves one image as a registry does, on plain HTTP.
func testPull(t *testing.T, r *Runtime) {
	layer, config, manifest := makeImage(t, "pulled")
	blobs := map[string][]byte{}
	for _, b := range [][]byte{layer, config, manifest} {
		blobs[digestOf(b)] = b
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, ok := blobs[filepath.Base(q.URL.Path)]
		if q.URL.Path == "/v2/app/manifests/1" {
			body, ok = manifest, true
		}
		if strings.Contains(q.URL.Path, "/manifests/") && ok {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Docker-Content-Digest", digestOf(body))
		}
		if !ok && q.URL.Path != "/v2/" {
			http.NotFound(w, q)
			return
		}
		http.ServeContent(w, q, "", time.Time{}, bytes.NewReader(body))
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	if id, err := r.images.Pull(t.Context(), host+"/app:1"); err != nil || id != digestOf(config) {
		t.Errorf("pulled %s, %v; want %s", id, err, digestOf(config))
	}
	if _, err := r.images.Pull(t.Context(), host+"/app:none"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("an image that is not there: %v", err)
	}
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// makeImage has one layer with one file.
func makeImage(t *testing.T, text string) (layer, config, manifest []byte) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	addFile(t, w, "text", []byte(text))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer = b.Bytes()
	config = []byte(fmt.Sprintf(`{"architecture":%q,"os":"linux","config":{"Cmd":["/text"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`,
		goruntime.GOARCH, digestOf(layer)))
	part := func(mediaType string, b []byte) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digestOf(b), len(b))
	}
	manifest = []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`,
		ocispec.MediaTypeImageManifest, part(ocispec.MediaTypeImageConfig, config), part(ocispec.MediaTypeImageLayer, layer)))
	return layer, config, manifest
}

func addFile(t *testing.T, w *tar.Writer, name string, body []byte) {
	t.Helper()
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
}

// writeArchive is what `docker save` makes.
func writeArchive(t *testing.T, file, name string) {
	t.Helper()
	layer, config, _ := makeImage(t, name)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	addFile(t, w, "layer.tar", layer)
	addFile(t, w, "config.json", config)
	list, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		t.Fatal(err)
	}
	addFile(t, w, "manifest.json", list)
	for _, c := range []io.Closer{w, z} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestBuiltInImagesFollowThePrograms: equal programs mean no work, changed ones a new image under the same name.
func TestBuiltInImagesFollowThePrograms(t *testing.T) {
	base := newHost(t)
	cfg := testConfig(base)
	bin := filepath.Join(base, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"containerd-shim-runc-v2", "runc", "pause", "skiff-web"} {
		body := []byte("a program\n")
		if err := os.WriteFile(filepath.Join(bin, name), body, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cfg.BinDir = bin
	id := func() (ids string) {
		r, stop := start(t, cfg)
		defer stop()
		list, err := r.images.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 2 {
			t.Errorf("images are %v", list)
		}
		for _, image := range list {
			ids += image.ID + " "
		}
		return ids
	}
	first := id()
	if again := id(); again != first {
		t.Errorf("images changed without a reason: %s, %s", first, again)
	}
	if err := os.WriteFile(filepath.Join(bin, "skiff-web"), []byte("another program\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if changed := id(); changed == first {
		t.Error("a changed program did not change its image")
	}
}

// TestImageMadeWhenAsked: the ingress's image is not there until it is pulled, is made once, follows its program, and says what is missing without it.
func TestImageMadeWhenAsked(t *testing.T) {
	base := newHost(t)
	cfg := testConfig(base)
	bin := filepath.Join(base, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	program := func(name, body string) {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"containerd-shim-runc-v2", "runc", "pause", "skiff-web"} {
		program(name, "a program\n")
	}
	cfg.BinDir = bin
	spec := &runtimeapi.ImageSpec{Image: IngressImage}
	with := func(do func(c runtimeapi.ImageServiceClient, id string)) {
		r, stop := start(t, cfg)
		defer stop()
		c := runtimeapi.NewImageServiceClient(r.Conn())
		got, err := c.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: spec})
		if err != nil {
			t.Fatal(err)
		}
		do(c, got.GetImage().GetId())
	}
	pull := func(c runtimeapi.ImageServiceClient) (string, error) {
		got, err := c.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: spec})
		return got.GetImageRef(), err
	}
	var first string
	with(func(c runtimeapi.ImageServiceClient, id string) {
		if id != "" {
			t.Error("the image is there before anybody asked for it")
		}
		if _, err := pull(c); err == nil || !strings.Contains(err.Error(), "skiff-ingress") {
			t.Errorf("without its program: %v", err)
		}
		program("skiff-ingress", "first\n")
		var err error
		if first, err = pull(c); err != nil || first == "" {
			t.Fatalf("pulled %q: %v", first, err)
		}
		if again, err := pull(c); err != nil || again != first {
			t.Errorf("pulled again: %q, %v", again, err)
		}
	})
	program("skiff-ingress", "second\n")
	with(func(_ runtimeapi.ImageServiceClient, id string) {
		if id == "" || id == first {
			t.Errorf("after its program changed the image is %q, and was %q", id, first)
		}
	})
}

func TestExternalRuntime(t *testing.T) {
	base := newHost(t)
	p := startProcess(t, base)
	endpoint := "unix://" + Socket(testConfig(base).State)
	cfg := Config{CRIEndpoint: endpoint, CgroupRoot: testConfig(base).CgroupRoot}
	r, _ := start(t, cfg)
	makePod(t, r.Conn(), base, "mine", runtimeapi.NamespaceMode_NODE)
	if _, err := r.Import(t.Context(), strings.NewReader("")); err == nil || !strings.Contains(err.Error(), endpoint) {
		t.Errorf("import: %v", err)
	}
	// Another cluster's pods on the same runtime are not touched.
	list := func() int {
		got, err := runtimeapi.NewRuntimeServiceClient(p.conn).ListPodSandbox(t.Context(), &runtimeapi.ListPodSandboxRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(got.Items)
	}
	if err := Remove(t.Context(), Config{CRIEndpoint: endpoint, CgroupRoot: "/another"}, nil); err != nil || list() != 1 {
		t.Errorf("removing another cluster: %v, %d pods left", err, list())
	}
	if err := Remove(t.Context(), cfg, nil); err != nil || list() != 0 {
		t.Errorf("removing: %v, %d pods left", err, list())
	}
}

func TestNew(t *testing.T) {
	cases := []struct {
		name string
		cfg  Config
		want string
	}{
		{"no folders", Config{}, "needed"},
		{"long state", Config{Root: "/r", State: "/run/skiff/" + strings.Repeat("x", 40), BinDir: "/"}, "too long"},
		{"no programs", Config{Root: "/r", State: "/run/x", BinDir: "/nowhere"}, "containerd-shim-runc-v2 is missing in /nowhere; build it"},
		{"endpoint", Config{CRIEndpoint: "tcp://x:1"}, "unix:///run"},
	}
	for _, c := range cases {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestBelongs(t *testing.T) {
	info := func(parent string) string { return fmt.Sprintf(`{"config":{"linux":{"cgroup_parent":%q}}}`, parent) }
	cases := []struct {
		info, root string
		want       bool
	}{
		{info("/skiff/kubepods/podx"), "/skiff", true},
		{info("/skiff-2/kubepods/podx"), "/skiff", false},
		{info("/kubepods/podx"), "/skiff", false},
		{info("/kubepods/podx"), "", false},
		{"", "/skiff", false},
	}
	for _, c := range cases {
		if got := belongs(c.info, c.root); got != c.want {
			t.Errorf("belongs(%s, %s) = %v", c.info, c.root, got)
		}
	}
}

func TestCapability(t *testing.T) {
	file := filepath.Join(t.TempDir(), "status")
	if err := os.WriteFile(file, []byte("Name:\tx\nCapEff:\t0000000001000000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for capability, want := range map[int]bool{24: true, 21: false} {
		if got, err := hasCapability(file, capability); got != want || err != nil {
			t.Errorf("capability %d: %v, %v", capability, got, err)
		}
	}
}
