package addon

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/strvals"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilversion "k8s.io/apimachinery/pkg/util/version"
)

// hookAnnotation marks what Helm runs at some moment rather than applies.
const hookAnnotation = "helm.sh/hook"

func loadChart(files fs.FS) (*chart.Chart, error) {
	var all []*loader.BufferedFile
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := fs.ReadFile(files, name)
		all = append(all, &loader.BufferedFile{Name: name, Data: raw})
		return err
	})
	if err != nil {
		return nil, err
	}
	c, err := loader.LoadFiles(all)
	if err != nil {
		return nil, fmt.Errorf("load the chart: %w", err)
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", chartFile, err)
	}
	if c.Metadata.Type == "library" {
		return nil, fmt.Errorf("%s: type: a library chart renders nothing; use it as another chart's dependency", chartFile)
	}
	return c, nil
}

// chartMeta is what a chart says of itself where there is no addon.yaml.
func chartMeta(files fs.FS) (Meta, error) {
	c, err := loadChart(files)
	if err != nil {
		return Meta{}, err
	}
	return Meta{Name: c.Metadata.Name, Version: c.Metadata.Version, Description: c.Metadata.Description}, nil
}

// renderChart renders a chart with Helm's own engine. Nothing in it can ask the cluster: "lookup" finds nothing, so equal values render equal objects.
func renderChart(files fs.FS, r Release) ([]*unstructured.Unstructured, error) {
	c, err := loadChart(files)
	if err != nil {
		return nil, err
	}
	values := r.Values
	if values == nil {
		values = map[string]any{}
	}
	if err := chartutil.ProcessDependencies(c, values); err != nil {
		return nil, fmt.Errorf("resolve the chart's dependencies: %w", err)
	}
	caps, err := capabilities(r)
	if err != nil {
		return nil, err
	}
	if want := c.Metadata.KubeVersion; want != "" && !chartutil.IsCompatibleRange(want, caps.KubeVersion.String()) {
		return nil, fmt.Errorf("%s: kubeVersion: the chart wants Kubernetes %s, this is %s", chartFile, want, caps.KubeVersion.String())
	}
	release := chartutil.ReleaseOptions{Name: r.Name, Namespace: r.Namespace, Revision: 1, IsInstall: true}
	full, err := chartutil.ToRenderValues(c, values, release, caps)
	if err != nil {
		return nil, fmt.Errorf("values: %w", err)
	}
	rendered, err := engine.Render(c, full)
	if err != nil {
		return nil, fmt.Errorf("render the chart: %w%s", err, unset(err))
	}
	for _, crd := range c.CRDObjects() {
		rendered[crd.Filename] = string(crd.File.Data)
	}
	return chartObjects(rendered)
}

// missing is how Go's templates say that something on the way to a value is not there.
var missing = regexp.MustCompile(`<\$?(\.Values\.[\w.]+)>: nil pointer`)

// unset names what a template wants of the values and they have not.
func unset(err error) string {
	if m := missing.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Sprintf("; %s, or what it is part of, is not set: set it in spec.values (--set, --values), spec.valuesFrom, or the chart's values.yaml", m[1])
	}
	return ""
}

// capabilities tell the chart what it is rendered for.
func capabilities(r Release) (*chartutil.Capabilities, error) {
	v, err := utilversion.ParseGeneric(r.Version)
	if err != nil {
		return nil, fmt.Errorf("kubernetes version %q: %w", r.Version, err)
	}
	caps := chartutil.DefaultCapabilities.Copy()
	caps.KubeVersion = chartutil.KubeVersion{Version: r.Version, Major: fmt.Sprint(v.Major()), Minor: fmt.Sprint(v.Minor())}
	if len(r.Kinds) > 0 {
		caps.APIVersions = chartutil.VersionSet(r.Kinds)
	}
	return caps, nil
}

// chartObjects reads what a chart rendered. Hooks that install or upgrade are applied like all else; those that test or delete have no place here.
func chartObjects(rendered map[string]string) (out []*unstructured.Unstructured, err error) {
	for _, name := range slices.Sorted(maps.Keys(rendered)) {
		if strings.HasPrefix(path.Base(name), "_") || !isManifest(name) {
			continue
		}
		objects, err := parse(name, []byte(rendered[name]))
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			if applies(o.GetAnnotations()[hookAnnotation]) {
				out = append(out, o)
			}
		}
	}
	return out, twice(out)
}

// applies says whether an object with these hooks is part of the add-on.
func applies(hooks string) bool {
	if hooks == "" {
		return true
	}
	for hook := range strings.SplitSeq(hooks, ",") {
		switch strings.TrimSpace(hook) {
		case "pre-install", "post-install", "pre-upgrade", "post-upgrade", "crd-install":
			return true
		}
	}
	return false
}

// Set reads one of a chart's values as Helm's --set does: "image.tag=2,ports[0]=80".
func Set(values map[string]any, text string) error { return strvals.ParseInto(text, values) }
