package test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/etcd"
	"skiff.dev/skiff/test/cluster"
)

// upstreamCodec is what Kubernetes stores built-in kinds with.
var upstreamCodec = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)

// withEtcd opens the etcd of a cluster that doesn't run.
func withEtcd(t *testing.T, c *cluster.Cluster, do func(*clientv3.Client)) {
	t.Helper()
	m, err := etcd.New(etcd.Config{Dir: filepath.Join(c.DataDir, "etcd"), Name: "upstream", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	select {
	case <-m.Ready():
		do(m.Client().Client)
	case err := <-ended:
		t.Fatalf("etcd: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatalf("etcd: %v", err)
	}
}

// upstreamStores encodes as Kubernetes does.
func upstreamStores(t *testing.T, obj runtime.Object) string {
	t.Helper()
	var b bytes.Buffer
	if err := upstreamCodec.Encode(obj, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// atRestKey of the aesgcm provider, which both sides are told.
var atRestKey = bytes.Repeat([]byte{42}, 32)

func atRest(t *testing.T) cipher.AEAD {
	t.Helper()
	block, err := aes.NewCipher(atRestKey)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead
}

const sealedBy = "k8s:enc:aesgcm:v1:key1:"

// TestUpstreamsDataOnDisk: an etcd written by Kubernetes is served over HTTPS, and Kubernetes can read what Skiff writes beside it.
func TestUpstreamsDataOnDisk(t *testing.T) {
	t.Parallel()
	keys := write(t, fmt.Sprintf("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n"+
		"  providers: [{aesgcm: {keys: [{name: key1, secret: %s}]}}, {identity: {}}]\n", base64.StdEncoding.EncodeToString(atRestKey)))
	c := cluster.New(t, "--no-agent", "--no-scheduler", "--encryption-provider-config", keys)
	withEtcd(t, c, func(db *clientv3.Client) { writeAsUpstream(t, db) })
	c.Server()
	match(t, c, `^blue 12345678$`, "get", "configmap", "words", "-n", "old", "-o", "jsonpath={.data.sky} {.metadata.uid}")
	match(t, c, `^aHVudGVyMg==$`, "get", "secret", "password", "-n", "old", "-o", "jsonpath={.data.password}")
	match(t, c, `^acme 4 true$`, "get", "windmill", "first", "-n", "old", "-o", "jsonpath={.spec.maker} {.spec.blades} {.metadata.labels.kept}")
	match(t, c, `^web:9$`, "get", "pod", "worker", "-n", "old", "-o", "jsonpath={.spec.containers[0].image}")
	c.Kubectl("create", "secret", "generic", "new", "-n", "old", "--from-literal=password=swordfish")
	c.Kubectl("create", "configmap", "new", "-n", "old", "--from-literal=sea=green")
	c.Kubectl("scale", "windmill/first", "-n", "old", "--replicas=5")
	c.Kubectl("label", "pod", "worker", "-n", "old", "seen=yes")
	c.Stop()
	withEtcd(t, c, func(db *clientv3.Client) { readAsUpstream(t, db) })
}

func writeAsUpstream(t *testing.T, db *clientv3.Client) {
	put := func(key, value string) {
		t.Helper()
		if _, err := db.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	created := metav1.Now()
	meta := func(name, uid string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "old", Name: name, UID: types.UID(uid), CreationTimestamp: created}
	}
	put("/registry/namespaces/old", upstreamStores(t, &corev1.Namespace{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "old", UID: "n-1", CreationTimestamp: created},
		Spec: corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}}, Status: corev1.NamespaceStatus{Phase: corev1.NamespaceActive},
	}))
	put("/registry/configmaps/old/words", upstreamStores(t, &corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: meta("words", "12345678"), Data: map[string]string{"sky": "blue"},
	}))
	put("/registry/pods/old/worker", upstreamStores(t, &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: meta("worker", "p-1"),
		Spec: corev1.PodSpec{
			Containers:    []corev1.Container{{Name: "c", Image: "web:9", ImagePullPolicy: "IfNotPresent", TerminationMessagePath: "/dev/termination-log", TerminationMessagePolicy: "File"}},
			RestartPolicy: "Always", DNSPolicy: "ClusterFirst",
		},
		Status: corev1.PodStatus{Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort},
	}))
	secret := upstreamStores(t, &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: meta("password", "s-1"), Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{"password": []byte("hunter2")},
	})
	const secretKey = "/registry/secrets/old/password"
	nonce := []byte("twelve bytes")
	put(secretKey, sealedBy+string(nonce)+string(atRest(t).Seal(nil, nonce, []byte(secret), []byte(secretKey))))
	put("/registry/apiextensions.k8s.io/customresourcedefinitions/windmills.power.example.com", storedWindmills(t, created))
	put("/registry/power.example.com/windmills/old/first", `{"apiVersion":"power.example.com/v1","kind":"Windmill","metadata":{"creationTimestamp":"2024-01-01T00:00:00Z",`+
		`"generation":1,"labels":{"kept":"true"},"name":"first","namespace":"old","uid":"w-1"},"spec":{"blades":4,"maker":"acme"}}`+"\n")
}

// readAsUpstream checks that Kubernetes' codec understands every value, and what some of them say.
func readAsUpstream(t *testing.T, db *clientv3.Client) {
	all, err := db.Get(t.Context(), "/registry/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]runtime.Object{}
	for _, kv := range all.Kvs {
		key, value := string(kv.Key), kv.Value
		if sealed, is := bytes.CutPrefix(value, []byte(sealedBy)); is {
			n := atRest(t).NonceSize()
			if value, err = atRest(t).Open(nil, sealed[:n], sealed[n:], kv.Key); err != nil {
				t.Errorf("upstream could not decrypt %s: %v", key, err)
				continue
			}
		} else if strings.HasPrefix(key, "/registry/secrets/") {
			t.Errorf("%s is not encrypted", key)
		}
		if bytes.HasPrefix(value, []byte("k8s\x00")) {
			obj, _, err := upstreamCodec.Decode(value, nil, nil)
			if err != nil && !runtime.IsNotRegisteredError(err) { // kinds of other libraries: definitions, API services
				t.Errorf("upstream could not decode %s: %v", key, err)
			}
			values[key] = obj
			continue
		}
		if !json.Valid(value) {
			t.Errorf("%s is neither protobuf nor JSON: %.60q", key, value)
		}
		if strings.HasSuffix(key, "/windmills/old/first") && !strings.Contains(string(value), `"blades":5`) {
			t.Errorf("the windmill is stored as %s", value)
		}
	}
	if s, ok := values["/registry/secrets/old/new"].(*corev1.Secret); !ok || string(s.Data["password"]) != "swordfish" || s.ResourceVersion != "" {
		t.Errorf("the new secret: %+v", values["/registry/secrets/old/new"])
	}
	if m, ok := values["/registry/configmaps/old/new"].(*corev1.ConfigMap); !ok || m.Data["sea"] != "green" {
		t.Errorf("the new ConfigMap: %+v", values["/registry/configmaps/old/new"])
	}
	if p, ok := values["/registry/pods/old/worker"].(*corev1.Pod); !ok || p.Labels["seen"] != "yes" || p.Spec.Containers[0].Image != "web:9" {
		t.Errorf("the pod: %+v", values["/registry/pods/old/worker"])
	}
}

// TestLostKeys: a cluster whose keys for secrets are gone does not come up without its secrets, and makes no new keys.
func TestLostKeys(t *testing.T) {
	t.Parallel()
	c := cluster.New(t, "--no-agent", "--no-scheduler")
	c.Server()
	c.Kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
	c.Stop()
	file := filepath.Join(c.DataDir, "pki", "encryption.yaml")
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first try changes nothing
		out, err := c.Skiff("server", "--data-dir", c.DataDir, "--no-agent", "--no-scheduler")
		if want := "there is no " + file + "; restore it from a backup, or name the file with their keys with --encryption-provider-config"; err == nil || !strings.Contains(out, want) {
			t.Errorf("%v, want %q in:\n%s", err, want, out)
		}
		if _, err := os.Stat(file); err == nil {
			t.Error("new keys were made")
		}
	}
	if err := os.WriteFile(file, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	c.Server()
	match(t, c, `^Yg==$`, "get", "secret", "s", "-o", "jsonpath={.data.a}")
}

// TestKeysAreRotatedWhileRunning: a server takes another key for secrets into use, and gives the old one up, without a restart; a file that it cannot use changes nothing.
func TestKeysAreRotatedWhileRunning(t *testing.T) {
	t.Parallel()
	provider := func(name string) string {
		return fmt.Sprintf("{aesgcm: {keys: [{name: %s, secret: %s}]}}", name, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte(name[:1]), 32)))
	}
	content := func(providers ...string) string {
		return "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: [{resources: [secrets], providers: [" + strings.Join(providers, ", ") + "]}]\n"
	}
	old, fresh := provider("old"), provider("fresh")
	keys := write(t, content(old))
	c := cluster.New(t, "--no-agent", "--no-scheduler", "--encryption-provider-config", keys)
	c.Server()
	c.Kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
	reload := func(status string, n int, text string) {
		t.Helper()
		next := keys + ".next"
		if err := errors.Join(os.WriteFile(next, []byte(text), 0o600), os.Rename(next, keys)); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`apiserver_encryption_config_controller_automatic_reloads_total{status="%s"} %d`, status, n)
		cluster.Eventually(t, func() error {
			if out, err := c.TryKubectl("get", "--raw", "/metrics"); err != nil || !strings.Contains(out, want) {
				return fmt.Errorf("%s is not in the metrics: %v", want, err)
			}
			return nil
		})
	}
	reload("failure", 1, "resources: [")
	reload("failure", 2, content(fresh)) // the secret would be lost
	if out := c.Output(); !strings.Contains(out, "what it held before stays in force") || !strings.Contains(out, "/registry/secrets/default/s (k8s:enc:aesgcm:v1:old)") {
		t.Errorf("the log does not say what would be lost:\n%s", out)
	}
	c.Kubectl("create", "secret", "generic", "beside", "--from-literal=a=b")
	reload("success", 1, content(fresh, old))
	all := c.Kubectl("get", "secrets", "-A", "-o", "json")
	again := c.KubectlCommand("replace", "-f", "-")
	again.Stdin = strings.NewReader(all)
	if out, err := again.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	reload("success", 2, content(fresh))
	c.Stop()
	withEtcd(t, c, func(db *clientv3.Client) {
		found, err := db.Get(t.Context(), "/registry/secrets/", clientv3.WithPrefix())
		if err != nil || len(found.Kvs) < 2 {
			t.Fatalf("%v, %v", found, err)
		}
		for _, kv := range found.Kvs {
			if !bytes.HasPrefix(kv.Value, []byte("k8s:enc:aesgcm:v1:fresh:")) {
				t.Errorf("%s begins with %q", kv.Key, kv.Value[:min(len(kv.Value), 30)])
			}
		}
	})
	c.Server()
	match(t, c, `^Yg==$`, "get", "secret", "s", "-o", "jsonpath={.data.a}")
}

// storedWindmills is the definition of Windmills as Kubernetes stores it: as JSON, established.
func storedWindmills(t *testing.T, created metav1.Time) string {
	t.Helper()
	var d apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal([]byte(windmills), &d); err != nil {
		t.Fatal(err)
	}
	d.UID, d.CreationTimestamp, d.Generation = "d-1", created, 1
	d.Spec.Names.ListKind, d.Spec.Conversion = "WindmillList", &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.NoneConverter}
	d.Status.AcceptedNames, d.Status.StoredVersions = d.Spec.Names, []string{"v1"}
	for _, is := range []apiextensionsv1.CustomResourceDefinitionConditionType{apiextensionsv1.NamesAccepted, apiextensionsv1.Established} {
		d.Status.Conditions = append(d.Status.Conditions, apiextensionsv1.CustomResourceDefinitionCondition{Type: is, Status: apiextensionsv1.ConditionTrue, LastTransitionTime: created})
	}
	raw, err := json.Marshal(&d)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw) + "\n"
}
