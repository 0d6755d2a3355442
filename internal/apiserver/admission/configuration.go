package admission

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/apiserver/configfile"
	"skiff.dev/skiff/internal/registry"
)

// configurationKey is the setting that names the file with plug-ins' configurations.
const configurationKey = "admission-control-config-file"

// made are a plug-in's functions, made of its configuration.
type made struct {
	admit    registry.Admit
	validate registry.Validate
}

// configurations reads what an AdmissionConfiguration says of each plug-in, by name: YAML, from the file itself or from one that it names, whose path may
// be relative to it. Without a file there are none.
func configurations(file string) (map[string][]byte, error) {
	out := map[string][]byte{}
	if file == "" {
		return out, nil
	}
	c, err := configfile.Read[apiserver.AdmissionConfiguration](configurationKey, file)
	if err != nil {
		return nil, err
	}
	for i, p := range c.Plugins {
		if err := configurable(p.Name, out); err != nil {
			return nil, fmt.Errorf("%s: %s: plugins[%d]: %w", configurationKey, file, i, err)
		}
		switch {
		case p.Configuration != nil:
			out[p.Name] = p.Configuration.Raw
		case p.Path == "":
			return nil, fmt.Errorf("%s: %s: plugins[%d]: %s has neither a configuration nor a path", configurationKey, file, i, p.Name)
		default:
			path := p.Path
			if !filepath.IsAbs(path) {
				path = filepath.Join(filepath.Dir(file), path)
			}
			if out[p.Name], err = os.ReadFile(path); err != nil {
				return nil, fmt.Errorf("%s: %s: plugins[%d]: %s: %w", configurationKey, file, i, p.Name, err)
			}
		}
	}
	return out, nil
}

// configurable says whether there is a plug-in that takes a configuration, and has none yet.
func configurable(name string, known map[string][]byte) error {
	i := slices.IndexFunc(plugins, func(p plugin) bool { return p.name == name })
	switch {
	case i < 0:
		return fmt.Errorf("there is no plug-in %q; there are %s", name, strings.Join(Names(), ", "))
	case plugins[i].make == nil && !plugins[i].configured:
		return fmt.Errorf("%s takes no configuration", name)
	case known[name] != nil:
		return fmt.Errorf("%s is configured twice", name)
	}
	return nil
}

// parse reads a plug-in's configuration of a type that upstream has not published. kind, if any, is what its apiVersion and kind must say.
func parse[T any](raw []byte, kind string) (out T, err error) {
	if err := yaml.UnmarshalStrict(raw, &out); err != nil {
		return out, err
	}
	var meta struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal(raw, &meta); err != nil {
		return out, err
	}
	if got := strings.Trim(meta.APIVersion+" "+meta.Kind, " "); kind != "" && got != kind {
		return out, fmt.Errorf("it is a %q, want %q", got, kind)
	}
	return out, nil
}
