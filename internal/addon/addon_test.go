package addon

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func folder(files ...string) fstest.MapFS {
	out := fstest.MapFS{}
	for i := 0; i < len(files); i += 2 {
		out[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	return out
}

func kinds(b *Bundle) (out []string) {
	for _, o := range b.Objects {
		out = append(out, o.GetKind()+"/"+o.GetName())
	}
	return out
}

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"

func TestFolder(t *testing.T) {
	b, err := Load(folder(
		"addon.yaml", "name: demo\nversion: '2'\nnamespace: demo\nafter: [dns]\n",
		"10.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n---\n# nothing\n---\n"+configMap,
		"20/crd.yml", "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: c}\n",
		"30.json", `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"n","labels":{"x":"y"}}}]}`,
		"README.md", "not a manifest",
	), Release{Name: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := kinds(b), []string{"CustomResourceDefinition/c", "Namespace/n", "ConfigMap/a", "Deployment/d"}; !reflect.DeepEqual(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
	if b.Namespace != "demo" || b.Version != "2" || b.After[0] != "dns" {
		t.Errorf("%+v", b.Meta)
	}
	if l := b.Objects[1].GetLabels(); l[Label] != "mine" || l["x"] != "y" {
		t.Errorf("labels %v", l)
	}
}

func TestFaultyBundles(t *testing.T) {
	for _, c := range []struct {
		name string
		fs   fstest.MapFS
		want string
	}{
		{"empty", folder("README.md", ""), "there is no manifest in it"},
		{"no kind", folder("a.yaml", "apiVersion: v1\nmetadata: {name: a}\n"), "a.yaml, document 1: kind: it says none"},
		{"no name", folder("a.yaml", configMap+"---\napiVersion: v1\nkind: Secret\n"), "a.yaml, document 2: Secret: metadata.name: it says none"},
		{"generated", folder("a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x}\n"), "metadata.generateName"},
		{"twice", folder("a.yaml", configMap, "b.yaml", configMap), "ConfigMap a is in it twice"},
		{"no yaml", folder("a.yaml", "a: [b"), "a.yaml, document 1"},
		{"key twice", folder("a.yaml", "kind: A\nkind: B\n"), "a.yaml, document 1"},
		{"unknown setting", folder("addon.yaml", "nmae: x\n", "a.yaml", configMap), `addon.yaml: error unmarshaling JSON: while decoding JSON: json: unknown field "nmae"`},
		{"bad name", folder("addon.yaml", "name: ../x\n", "a.yaml", configMap), "addon.yaml: name"},
		{"a chart that does not render", folder("Chart.yaml", "apiVersion: v2\nname: c\nversion: 1.0.0\n", "templates/a.yaml", "{{ .Values.a.b.c }}"), "render the chart"},
		{"a chart without a version", folder("Chart.yaml", "apiVersion: v2\nname: c\n"), "chart.metadata.version is required"},
		{"a chart for another cluster", folder("Chart.yaml", "apiVersion: v2\nname: c\nversion: 1.0.0\nkubeVersion: '<1.20'\n"), "the chart wants Kubernetes <1.20, this is v1.37.2"},
	} {
		if _, err := Load(c.fs, Release{Name: "x", Version: "v1.37.2"}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := Load(folder("a.yaml", configMap), Release{Name: "x", Values: map[string]any{"a": 1}}); err == nil || !strings.Contains(err.Error(), "no Helm chart") {
		t.Errorf("values without a chart: %v", err)
	}
}

func TestChart(t *testing.T) {
	chart := folder(
		"Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.2.3\nkubeVersion: '>=1.30-0'\n",
		"values.yaml", "replicas: 1\nimage: {name: a, tag: b}\n",
		"crds/c.yaml", "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: c}\n",
		"templates/_helpers.tpl", `{{ define "name" }}{{ .Release.Name }}-web{{ end }}`,
		"templates/NOTES.txt", "thank you",
		"templates/deploy.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: {{ include \"name\" . }}, namespace: {{ .Release.Namespace }}}\n"+
			"spec: {replicas: {{ .Values.replicas }}, template: {metadata: {annotations: {image: '{{ .Values.image.name }}:{{ .Values.image.tag }}'}}}}\n"+
			"{{ if .Capabilities.APIVersions.Has \"apps/v1/Deployment\" }}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: has}\n{{ end }}",
		"templates/hooks.yaml", "apiVersion: batch/v1\nkind: Job\nmetadata: {name: before, annotations: {helm.sh/hook: 'pre-install,pre-upgrade'}}\n---\n"+
			"apiVersion: v1\nkind: Pod\nmetadata: {name: test, annotations: {helm.sh/hook: test}}\n",
	)
	b, err := Load(chart, Release{
		Name: "mine", Namespace: "there", Version: "v1.37.2+skiff", Kinds: []string{"v1", "apps/v1/Deployment"},
		Values: map[string]any{"replicas": 3, "image": map[string]any{"tag": "c"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := kinds(b), []string{"CustomResourceDefinition/c", "ConfigMap/has", "Deployment/mine-web", "Job/before"}; !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
	d := b.Objects[2]
	image, _, _ := unstructured.NestedString(d.Object, "spec", "template", "metadata", "annotations", "image")
	if n := number(d, 0, "spec", "replicas"); n != 3 || image != "a:c" || d.GetNamespace() != "there" {
		t.Errorf("%d replicas of %q in %q", n, image, d.GetNamespace())
	}
	one, _ := b.Digest()
	again, err := Load(chart, Release{Name: "mine", Namespace: "there", Version: "v1.37.2+skiff", Kinds: []string{"v1", "apps/v1/Deployment"},
		Values: map[string]any{"replicas": 3, "image": map[string]any{"tag": "c"}}})
	if err != nil {
		t.Fatal(err)
	}
	if two, _ := again.Digest(); one != two {
		t.Error("the same bundle rendered to something else")
	}
}

// TestUnset: a chart that wants a value which nobody set says which, and where it is set.
func TestUnset(t *testing.T) {
	chart := folder("Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.2.3\n", "templates/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Values.web.host.name }}}\n")
	_, err := Load(chart, Release{Name: "mine", Version: "v1.37.2"})
	if err == nil || !strings.Contains(err.Error(), ".Values.web.host.name, or what it is part of, is not set: set it in spec.values") {
		t.Errorf("%v", err)
	}
}

func TestArchives(t *testing.T) {
	files := folder("a.yaml", configMap, "sub/b.yaml", "x")
	packed, err := Pack(files)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := Pack(files); !bytes.Equal(packed, again) {
		t.Error("equal files made different archives")
	}
	back, err := Unpack(packed)
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(back, "a.yaml", "sub/b.yaml"); err != nil {
		t.Error(err)
	}
	tgz, err := Archive(tarred(t, "chart/a.yaml", configMap, "chart/sub/b.yaml", "x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(tgz, "a.yaml", "sub/b.yaml"); err != nil {
		t.Errorf("a .tgz: %v", err)
	}
	if _, err := Archive(tarred(t, "../../etc/passwd", "x")); err == nil {
		t.Error("a name that climbs was taken from a .tgz")
	}
	var hostile bytes.Buffer
	w := zip.NewWriter(&hostile)
	if _, err := w.Create("../../etc/passwd"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := Unpack(hostile.Bytes()); err == nil {
		t.Error("a name that climbs was taken")
	}
	if _, err := Archive([]byte("PK not really")); err == nil {
		t.Error("a broken archive was taken")
	}
	if _, err := Archive([]byte{0x1f, 0x8b, 0, 0}); err == nil {
		t.Error("a broken archive was taken")
	}
	noise := make([]byte, 2<<20)
	f, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Read(noise); err != nil {
		t.Fatal(err)
	}
	if _, err := Pack(fstest.MapFS{"a": {Data: noise}}); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a bundle that fits into no Secret: %v", err)
	}
}

// tarred packs files (name, text, …) as tar and gzip do.
func tarred(t *testing.T, files ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))})
		if err == nil {
			_, err = w.Write([]byte(files[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestCycle(t *testing.T) {
	after := map[string][]string{"a": {"b"}, "b": {"c", "d"}, "c": nil, "d": {"a"}, "e": {"a"}, "f": {"f"}}
	if got := Cycle("a", after); !reflect.DeepEqual(got, []string{"a", "b", "d", "a"}) {
		t.Errorf("a: %v", got)
	}
	if got := Cycle("e", after); got != nil {
		t.Errorf("e waits for a cycle and is in none: %v", got)
	}
	if got := Cycle("f", after); !reflect.DeepEqual(got, []string{"f", "f"}) {
		t.Errorf("f: %v", got)
	}
}

func TestHealth(t *testing.T) {
	for _, c := range []struct {
		object, message string
		want            State
	}{
		{"kind: ConfigMap", "", Ready},
		{"kind: Deployment\nspec: {replicas: 2}\nstatus: {updatedReplicas: 2, availableReplicas: 1}", "1 of 2 replicas are available", Progressing},
		{"kind: Deployment\nmetadata: {generation: 2}\nstatus: {observedGeneration: 1, updatedReplicas: 1, availableReplicas: 1}", "is not seen by its controller yet", Progressing},
		{"kind: Deployment\nstatus: {updatedReplicas: 1, availableReplicas: 1}", "", Ready},
		{"kind: Deployment\nstatus: {conditions: [{type: Progressing, status: 'False', reason: ProgressDeadlineExceeded, message: late}]}", "late", Failed},
		{"kind: DaemonSet", "is not seen by its controller yet", Progressing},
		{"kind: DaemonSet\nstatus: {observedGeneration: 1, desiredNumberScheduled: 3, updatedNumberScheduled: 3, numberAvailable: 2}", "it is available on 2 of 3 nodes", Progressing},
		{"kind: Job\nstatus: {conditions: [{type: Failed, status: 'True', message: why}]}", "why", Failed},
		{"kind: Job\nstatus: {conditions: [{type: Complete, status: 'True'}]}", "", Ready},
		{"kind: Pod\nstatus: {phase: Running, conditions: [{type: Ready, status: 'False', message: not yet}]}", "not yet", Progressing},
		{"kind: CustomResourceDefinition", "is not Established", Progressing},
		{"kind: Service\nmetadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}", "is being deleted", Progressing},
	} {
		o := &unstructured.Unstructured{}
		raw, err := yaml.YAMLToJSON([]byte("apiVersion: v1\n" + c.object))
		if err != nil {
			t.Fatal(err)
		}
		if err := o.UnmarshalJSON(raw); err != nil {
			t.Fatal(err)
		}
		if state, message := Health(o); state != c.want || message != c.message {
			t.Errorf("%s\ngot %s %q, want %s %q", c.object, state, message, c.want, c.message)
		}
	}
}
