package addon

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// File names that mean something in a bundle.
const (
	metaFile  = "addon.yaml"
	chartFile = "Chart.yaml"
)

// Meta is a bundle's addon.yaml. All of it may be left out.
type Meta struct {
	Name        string   `json:"name,omitempty"`
	Version     string   `json:"version,omitempty"`
	Description string   `json:"description,omitempty"`
	Namespace   string   `json:"namespace,omitempty"` // of objects that name none; kube-system if it says nothing
	After       []string `json:"after,omitempty"`     // add-ons that must be ready before
}

// Bundle is an add-on's manifests, ready to be applied.
type Bundle struct {
	Meta
	Objects []*unstructured.Unstructured // in the order they are applied in
}

// Release is what a bundle is rendered for.
type Release struct {
	Name      string
	Namespace string         // wins over the bundle's own
	Values    map[string]any // of a chart
	Kinds     []string       // "apps/v1", "apps/v1/Deployment": what the cluster serves, for charts that ask
	Version   string         // of Kubernetes
}

// ReadMeta reads what a bundle says of itself, without rendering it.
func ReadMeta(files fs.FS) (Meta, error) {
	raw, err := fs.ReadFile(files, metaFile)
	switch {
	case errors.Is(err, fs.ErrNotExist) && isChart(files):
		return chartMeta(files)
	case errors.Is(err, fs.ErrNotExist):
		return Meta{}, nil
	case err != nil:
		return Meta{}, err
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		return Meta{}, fmt.Errorf("%s: is empty", metaFile) // perhaps it is just being written
	}
	var m Meta
	if err := yaml.UnmarshalStrict(raw, &m); err != nil {
		return Meta{}, fmt.Errorf("%s: %w", metaFile, err)
	}
	if m.Name != "" {
		if errs := validation.IsDNS1123Label(m.Name); len(errs) > 0 {
			return Meta{}, fmt.Errorf("%s: name: %q: %s", metaFile, m.Name, errs[0])
		}
	}
	if m.Namespace != "" {
		if errs := validation.IsDNS1123Label(m.Namespace); len(errs) > 0 {
			return Meta{}, fmt.Errorf("%s: namespace: %q: %s", metaFile, m.Namespace, errs[0])
		}
	}
	return m, nil
}

func isChart(files fs.FS) bool {
	_, err := fs.Stat(files, chartFile)
	return err == nil
}

// Load renders a bundle. Its errors name the file, and are the bundle's fault.
func Load(files fs.FS, r Release) (*Bundle, error) {
	m, err := ReadMeta(files)
	if err != nil {
		return nil, err
	}
	if r.Namespace == "" {
		r.Namespace = m.Namespace
	}
	if r.Namespace == "" {
		r.Namespace = "kube-system"
	}
	m.Namespace = r.Namespace
	b := &Bundle{Meta: m}
	if isChart(files) {
		b.Objects, err = renderChart(files, r)
	} else {
		if len(r.Values) > 0 {
			return nil, errors.New("values: this add-on is no Helm chart, so there is nothing to put them into")
		}
		b.Objects, err = readManifests(files)
	}
	if err != nil {
		return nil, err
	}
	if len(b.Objects) == 0 {
		return nil, errors.New("there is no manifest in it: it needs at least one .yaml or .json file")
	}
	sortObjects(b.Objects)
	for _, o := range b.Objects {
		labels := o.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[Label] = r.Name
		o.SetLabels(labels)
	}
	return b, nil
}

// readManifests reads every manifest of a folder, in the order of their names.
func readManifests(files fs.FS) (out []*unstructured.Unstructured, err error) {
	var names []string
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && isManifest(name) && name != metaFile {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		raw, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		objects, err := parse(name, raw)
		if err != nil {
			return nil, err
		}
		out = append(out, objects...)
	}
	return out, twice(out)
}

func isManifest(name string) bool {
	return !strings.HasPrefix(path.Base(name), ".") && slices.Contains([]string{".yaml", ".yml", ".json"}, path.Ext(name))
}

// parse reads the documents of one file.
func parse(name string, raw []byte) (out []*unstructured.Unstructured, err error) {
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(raw)))
	for n := 1; ; n++ {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		objects, err := parseDocument(doc)
		if err != nil {
			return nil, fmt.Errorf("%s, document %d: %w", name, n, err)
		}
		out = append(out, objects...)
	}
}

// parseDocument reads one document: an object, a list of objects, or nothing.
func parseDocument(doc []byte) ([]*unstructured.Unstructured, error) {
	raw, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return nil, err
	}
	content := map[string]any{}
	if err := utiljson.Unmarshal(raw, &content); err != nil { // whole numbers stay whole
		return nil, err
	}
	if len(content) == 0 {
		return nil, nil
	}
	u := &unstructured.Unstructured{Object: content}
	if !u.IsList() {
		return []*unstructured.Unstructured{u}, identified(u)
	}
	var out []*unstructured.Unstructured
	err = u.EachListItem(func(item runtime.Object) error {
		o, ok := item.(*unstructured.Unstructured)
		if !ok {
			return fmt.Errorf("items: %T is no object", item)
		}
		out = append(out, o)
		return identified(o)
	})
	return out, err
}

func identified(u *unstructured.Unstructured) error {
	switch {
	case u.GetAPIVersion() == "":
		return errors.New("apiVersion: it says none")
	case u.GetKind() == "":
		return errors.New("kind: it says none")
	case u.GetName() == "" && u.GetGenerateName() != "":
		return fmt.Errorf("%s: metadata.generateName: an add-on is applied again and again, so its objects need a metadata.name", u.GetKind())
	case u.GetName() == "":
		return fmt.Errorf("%s: metadata.name: it says none", u.GetKind())
	}
	return nil
}

// twice refuses a bundle that says different things of one object.
func twice(objects []*unstructured.Unstructured) error {
	seen := map[Key]bool{}
	for _, o := range objects {
		key := Key{o.GroupVersionKind().Group, o.GetKind(), o.GetNamespace(), o.GetName()}
		if seen[key] {
			return fmt.Errorf("%s is in it twice", describe(o.GetKind(), o.GetNamespace(), o.GetName()))
		}
		seen[key] = true
	}
	return nil
}

// Merge puts values over others, key by key.
func Merge(into, over map[string]any) {
	for key, value := range over {
		deeper, isMap := value.(map[string]any)
		if there, ok := into[key].(map[string]any); ok && isMap {
			Merge(there, deeper)
			continue
		}
		into[key] = value
	}
}
