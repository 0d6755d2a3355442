package encryption_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apiserver/pkg/storage/value"
	"k8s.io/client-go/kubernetes/scheme"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/encryption"
	"skiff.dev/skiff/internal/etcd"
	"skiff.dev/skiff/internal/registry/registrytest"
	"skiff.dev/skiff/internal/store"
)

// upstream is the codec that Kubernetes stores built-in kinds with.
var upstream = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)

var widgets = &api.Resource{
	Group: "example.com", Version: "v1", Kind: "Widget", Plural: "widgets", Key: "example.com/widgets", Namespaced: true,
	New: func() api.Object { return &unstructured.Unstructured{} },
}

func secrets() *api.Resource {
	return api.NewTable().ByResource(schema.GroupResource{Resource: "secrets"})
}

func pods() *api.Resource { return api.NewTable().ByResource(schema.GroupResource{Resource: "pods"}) }

func startEtcd(t *testing.T) *etcd.Client {
	t.Helper()
	m, err := etcd.New(etcd.Config{Dir: filepath.Join(t.TempDir(), "etcd"), Name: "test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	registrytest.Run(t, m)
	return m.Client()
}

func startStore(t *testing.T, client *etcd.Client, file string) *store.Store {
	t.Helper()
	s, _ := startChanging(t, client, file)
	return s
}

func startChanging(t *testing.T, client *etcd.Client, file string) (*store.Store, *encryption.Config) {
	t.Helper()
	c, err := encryption.Load(t.Context(), file, "test")
	if err != nil {
		t.Fatal(err)
	}
	s := store.New(store.Config{Client: client, Prefix: "/registry/", Sole: true, DetectMutation: true, AtRest: c.Of})
	for _, r := range []*api.Resource{secrets(), pods(), widgets} {
		s.Collection(r)
	}
	registrytest.Run(t, s)
	return s, c
}

func secret(name string) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, Type: corev1.SecretTypeOpaque,
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "u-1"}, Data: map[string][]byte{"password": []byte("correct horse")},
	}
}

// upstreamBytes is how Kubernetes encodes a built-in kind.
func upstreamBytes(t *testing.T, obj runtime.Object) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := upstream.Encode(obj, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t *testing.T, c *etcd.Client, key string, value []byte) {
	t.Helper()
	if _, err := c.Put(t.Context(), key, string(value)); err != nil {
		t.Fatal(err)
	}
}

func raw(t *testing.T, c *etcd.Client, key string) []byte {
	t.Helper()
	got, err := c.Get(t.Context(), key)
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("%s in etcd: %v, %v", key, got, err)
	}
	return got.Kvs[0].Value
}

var key = bytes.Repeat([]byte{7}, 32)

func block(t *testing.T) cipher.Block {
	t.Helper()
	b, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cbc encrypts by hand as Kubernetes' aescbc provider documents: a random block, then the padded value.
func cbc(t *testing.T, plain []byte) []byte {
	pad := aes.BlockSize - len(plain)%aes.BlockSize
	plain = append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	out := make([]byte, aes.BlockSize+len(plain))
	_, _ = rand.Read(out[:aes.BlockSize])
	cipher.NewCBCEncrypter(block(t), out[:aes.BlockSize]).CryptBlocks(out[aes.BlockSize:], plain)
	return append([]byte("k8s:enc:aescbc:v1:key1:"), out...)
}

// gcm opens by hand what the aesgcm provider writes: a nonce, then the sealed value, bound to the etcd key.
func gcm(t *testing.T, b cipher.Block, stored []byte, etcdKey string) []byte {
	t.Helper()
	sealed, ok := bytes.CutPrefix(stored, []byte("k8s:enc:aesgcm:v1:key1:"))
	if !ok {
		t.Fatalf("the value begins with %q", stored[:min(40, len(stored))])
	}
	aead, err := cipher.NewGCM(b)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], []byte(etcdKey))
	if err != nil {
		t.Fatalf("upstream could not decrypt the value: %v", err)
	}
	return plain
}

func configFile(t *testing.T, providers string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "encryption.yaml")
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n" +
		strings.ReplaceAll(providers, "KEY", base64.StdEncoding.EncodeToString(key))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const gcmThenCBC = `  - aesgcm: {keys: [{name: key1, secret: KEY}]}
  - aescbc: {keys: [{name: key1, secret: KEY}]}
  - identity: {}
`

func TestUpstreamsDataIsRead(t *testing.T) {
	client := startEtcd(t)
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u-2"}}
	write(t, client, "/registry/pods/default/p", upstreamBytes(t, pod))
	write(t, client, "/registry/example.com/widgets/default/w",
		[]byte(`{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"name":"w","namespace":"default","uid":"u-3"},"spec":{"size":3}}`+"\n"))
	write(t, client, "/registry/secrets/default/old", cbc(t, upstreamBytes(t, secret("old"))))
	write(t, client, "/registry/secrets/default/plain", upstreamBytes(t, secret("plain")))
	s := startStore(t, client, configFile(t, gcmThenCBC))

	read := func(r *api.Resource, name string) *store.Entry {
		t.Helper()
		e, err := s.Collection(r).Get(t.Context(), name, store.Read{})
		if err != nil || e == nil {
			t.Fatalf("%s: %v, %v; unreadable: %v", name, e, err, s.Corrupt())
		}
		return e
	}
	if got := read(pods(), "default/p").Object(); got.GetUID() != "u-2" {
		t.Errorf("the pod is %v", got)
	}
	var widget struct{ Spec struct{ Size int } }
	body, err := read(widgets, "default/w").Bytes(store.JSON)
	if err == nil {
		err = json.Unmarshal(body, &widget)
	}
	if err != nil || widget.Spec.Size != 3 {
		t.Errorf("the custom resource is %s, %v", body, err)
	}
	for _, name := range []string{"old", "plain"} {
		e := read(secrets(), "default/"+name)
		if got := e.Object().(*corev1.Secret); string(got.Data["password"]) != "correct horse" {
			t.Errorf("secret %s is %v", name, got)
		}
		if !s.Collection(secrets()).Stale(e) {
			t.Errorf("secret %s would not be encrypted anew by an update that changes nothing", name)
		}
	}
}

func TestUpstreamReadsWhatSkiffWrote(t *testing.T) {
	client := startEtcd(t)
	s := startStore(t, client, configFile(t, gcmThenCBC))
	in := secret("new")
	e, err := s.Collection(secrets()).Create(t.Context(), "default/new", in.DeepCopy())
	if err != nil {
		t.Fatal(err)
	}
	const etcdKey = "/registry/secrets/default/new"
	stored := raw(t, client, etcdKey)
	if bytes.Contains(stored, []byte("correct horse")) {
		t.Error("the secret is in etcd for everybody to read")
	}
	obj, _, err := upstream.Decode(gcm(t, block(t), stored, etcdKey), nil, nil)
	if err != nil || !apiequality.Semantic.DeepEqual(obj, in) {
		t.Errorf("upstream decodes %v, %v", obj, err)
	}
	if s.Collection(secrets()).Stale(e) || e.Object().(*corev1.Secret).Data["password"] == nil {
		t.Errorf("memory holds %v", e.Object())
	}
	write(t, client, "/registry/secrets/default/moved", stored)
	if _, err := s.Collection(secrets()).Create(t.Context(), "default/last", secret("last")); err != nil {
		t.Fatal(err)
	}
	if s.Corrupt()["/registry/secrets/default/moved"] == nil {
		t.Error("a value that was copied to another key was read")
	}
}

func TestOwnKeys(t *testing.T) {
	dir := t.TempDir()
	file, err := encryption.Own(filepath.Join(dir, "pki", "encryption.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v", st, err)
	}
	first, _ := os.ReadFile(file)
	if _, err := encryption.Own(file); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(file); !bytes.Equal(first, again) {
		t.Error("a key file was replaced")
	}
	c, err := encryption.Load(context.Background(), file, "test")
	if err != nil {
		t.Fatal(err)
	}
	of := func(plural string) value.Transformer { t, _ := c.Of(schema.GroupResource{Resource: plural}); return t }
	if of("secrets") == nil || of("pods") != nil || c.Remote() {
		t.Error("Secrets alone are encrypted by a key of one's own")
	}
}

func TestOthersProviders(t *testing.T) {
	for _, name := range []string{"aescbc", "secretbox"} {
		t.Run(name, func(t *testing.T) {
			client := startEtcd(t)
			s := startStore(t, client, configFile(t, fmt.Sprintf("  - %s: {keys: [{name: key1, secret: KEY}]}\n", name)))
			if _, err := s.Collection(secrets()).Create(t.Context(), "default/a", secret("a")); err != nil {
				t.Fatal(err)
			}
			if got := raw(t, client, "/registry/secrets/default/a"); !bytes.HasPrefix(got, []byte("k8s:enc:"+name+":v1:key1:")) {
				t.Errorf("stored as %q", got[:30])
			}
		})
	}
	_, err := encryption.Load(t.Context(), configFile(t, "  - aesgcm: {keys: [{name: key1, secret: c2hvcnQ=}]}\n"), "test")
	if err == nil || !strings.Contains(err.Error(), "encryption-provider-config") {
		t.Errorf("a key of the wrong length: %v", err)
	}
}

// Keys change while the store runs: what is written from then on has the new one, what is there is stale until it is written again, and a content of the file that
// would lose anything is refused.
func TestKeysChangeWhileRunning(t *testing.T) {
	client := startEtcd(t)
	const first, second, third = "aescbc: {keys: [{name: key1, secret: KEY}]}", "aesgcm: {keys: [{name: key2, secret: KEY}]}", "secretbox: {keys: [{name: key3, secret: KEY}]}"
	content := func(providers ...string) string {
		raw, err := os.ReadFile(configFile(t, "  - "+strings.Join(providers, "\n  - ")+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	file := configFile(t, "  - "+first+"\n")
	s, c := startChanging(t, client, file)
	change := func(text string) error {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return c.Change(t.Context(), func(ctx context.Context, of func(schema.GroupResource) (value.Transformer, uint32)) error {
			return s.Readable(ctx, of)
		})
	}
	create := func(name, by string) *store.Entry {
		t.Helper()
		e, err := s.Collection(secrets()).Create(t.Context(), "default/"+name, secret(name))
		if err != nil {
			t.Fatal(err)
		}
		if got := raw(t, client, "/registry/secrets/default/"+name); !bytes.HasPrefix(got, []byte("k8s:enc:"+by)) {
			t.Errorf("%s is stored as %q", name, got[:30])
		}
		if s.Collection(secrets()).Stale(e) {
			t.Errorf("%s would be written again", name)
		}
		return e
	}
	old := create("old", "aescbc:v1:key1:")
	pod, err := s.Collection(pods()).Create(t.Context(), "default/p", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}})
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"empty": "", "cut off": content(second, first)[:150], "no key": strings.ReplaceAll(content(second, first), base64.StdEncoding.EncodeToString(key), "c2hvcnQ="),
		"without the key of what is there": content(second), "about something else": strings.Replace(content(second, first), "secrets", "configmaps", 1),
	} {
		if err := change(text); err == nil || !strings.Contains(err.Error(), file) || strings.Contains(what, "there") && !strings.Contains(err.Error(), "/registry/secrets/default/old (k8s:enc:aescbc:v1:key1)") {
			t.Errorf("%s: %v", what, err)
		}
		if s.Collection(secrets()).Stale(old) {
			t.Errorf("%s: it counts", what)
		}
	}
	create("beside", "aescbc:v1:key1:")

	if err := change(content(second, first)); err != nil {
		t.Fatal(err)
	}
	create("new", "aesgcm:v1:key2:")
	if !s.Collection(secrets()).Stale(old) || s.Collection(pods()).Stale(pod) {
		t.Error("what the change is about would not be written again, or something else would")
	}
	for _, name := range []string{"old", "beside"} {
		e, err := s.Collection(secrets()).Get(t.Context(), "default/"+name, store.Read{})
		if err == nil {
			e, err = s.Collection(secrets()).Update(t.Context(), e, secret(name))
		}
		if err != nil || s.Collection(secrets()).Stale(e) {
			t.Errorf("%s, %v", name, err)
		}
	}
	if err := change(content(second)); err != nil { // nothing needs the first key any more
		t.Error(err)
	}

	// Another server knows a third key already. Its write is left out, and comes with the key.
	other := store.New(store.Config{Client: client, Prefix: "/registry/", AtRest: rulesOf(t, content(third))})
	other.Collection(secrets())
	w, err := s.Collection(secrets()).Watch(t.Context(), store.WatchOptions{FromNow: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	registrytest.Run(t, other)
	if _, err := other.Collection(secrets()).Create(t.Context(), "default/theirs", secret("theirs")); err != nil {
		t.Fatal(err)
	}
	create("last", "aesgcm:v1:key2:") // after it
	if s.Corrupt()["/registry/secrets/default/theirs"] == nil {
		t.Fatal("what nobody has the key of was read")
	}
	if err := change(content(second, third)); err != nil {
		t.Fatal(err)
	}
	if err := s.Retry(t.Context()); err != nil || len(s.Corrupt()) != 0 {
		t.Errorf("%v, unreadable: %v", err, s.Corrupt())
	}
	var seen []string
	for len(seen) < 2 {
		events, err := w.Next(t.Context(), nil, 10)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			seen = append(seen, e.Entry.Object().GetName())
		}
	}
	if got := strings.Join(seen, " "); got != "last theirs" {
		t.Errorf("a watch saw %s", got)
	}
}

func rulesOf(t *testing.T, text string) store.Transform {
	t.Helper()
	file := filepath.Join(t.TempDir(), "encryption.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := encryption.Load(t.Context(), file, "other")
	if err != nil {
		t.Fatal(err)
	}
	return c.Of
}
