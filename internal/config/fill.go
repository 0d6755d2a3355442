package config

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// Bind adds a flag for each key to fs. The flags write into c, whose present values are their defaults.
func (c *Config) Bind(fs *pflag.FlagSet) {
	fs.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName { return pflag.NormalizedName(keyOf(name)) })
	for key, f := range c.fields() {
		switch p := f.ptr.(type) {
		case *string:
			fs.StringVar(p, key, *p, f.help)
		case *int:
			fs.IntVar(p, key, *p, f.help)
		case *bool:
			fs.BoolVar(p, key, *p, f.help)
		case *[]string:
			fs.StringSliceVar(p, key, *p, f.help)
		}
	}
}

// Fill takes what the file (may be "") and the environment say of the keys that no flag has set.
func (c *Config) Fill(fs *pflag.FlagSet, file string, environ []string) error {
	values := map[string]string{}
	if file != "" {
		var err error
		if values, err = readFile(file); err != nil {
			return err
		}
	}
	for other, key := range others() {
		if v, ok := values[other]; ok {
			if _, twice := values[key]; twice {
				return fmt.Errorf("%s: %s and %s are the same; give one", file, other, key)
			}
			delete(values, other)
			values[key] = v
		}
	}
	fields := c.fields()
	keys := c.Keys()
	for key := range values {
		if !slices.Contains(keys, key) {
			return fmt.Errorf("%s: there is no key %q; the keys are %s", file, key, strings.Join(keys, ", "))
		}
	}
	source := map[string]string{}
	for key := range values {
		source[key] = file + ": " + key
	}
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if key := keyOf(strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "SKIFF_")), "_", "-")); strings.HasPrefix(name, "SKIFF_") && slices.Contains(keys, key) {
			values[key], source[key] = value, name
		}
	}
	for key, value := range values {
		if flag := fs.Lookup(key); flag == nil || flag.Changed {
			continue
		}
		if err := set(fields[key].ptr, value); err != nil {
			return fmt.Errorf("%s: %w", source[key], err)
		}
	}
	return nil
}

// readFile reads a YAML file of keys and values; lists become comma-separated, as in a flag.
func readFile(file string) (map[string]string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	var doc map[string]any
	if err := yaml.UnmarshalStrict(raw, &doc); err != nil {
		return nil, fmt.Errorf("%s is not valid YAML: %s", file, strings.Join(strings.Fields(err.Error()), " "))
	}
	values := make(map[string]string, len(doc))
	for key, v := range doc {
		switch v := v.(type) {
		case string:
			values[key] = v
		case bool:
			values[key] = strconv.FormatBool(v)
		case float64:
			values[key] = strconv.FormatFloat(v, 'f', -1, 64)
		case []any:
			parts := make([]string, len(v))
			for i, e := range v {
				s, ok := e.(string)
				if !ok {
					return nil, fmt.Errorf("%s: %s[%d]: want a string, got %v", file, key, i, e)
				}
				parts[i] = s
			}
			values[key] = strings.Join(parts, ",")
		default:
			return nil, fmt.Errorf("%s: %s: want a plain value or a list of strings, got %v", file, key, v)
		}
	}
	return values, nil
}

func set(ptr any, value string) error {
	switch p := ptr.(type) {
	case *string:
		*p = value
	case *int:
		n, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("want a whole number, got %q", value)
		}
		*p = n
	case *bool:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("want true or false, got %q", value)
		}
		*p = b
	case *[]string:
		*p = nil
		if value != "" {
			*p = strings.Split(value, ",")
		}
	}
	return nil
}

type fieldView struct {
	ptr  any
	help string
}

// fields gives a pointer to each field by its key.
func (c *Config) fields() map[string]fieldView {
	v := reflect.ValueOf(c).Elem()
	out := make(map[string]fieldView, v.NumField())
	for i := range v.NumField() {
		f := v.Type().Field(i)
		out[f.Tag.Get("key")] = fieldView{v.Field(i).Addr().Interface(), f.Tag.Get("help")}
	}
	return out
}

// others are the names that keys have besides their own: upstream's, where they differ.
func others() map[string]string {
	out, t := map[string]string{}, reflect.TypeFor[Config]()
	for i := range t.NumField() {
		if other, ok := t.Field(i).Tag.Lookup("also"); ok {
			out[other] = t.Field(i).Tag.Get("key")
		}
	}
	return out
}

func keyOf(name string) string {
	if key, ok := others()[name]; ok {
		return key
	}
	return name
}

// Keys lists every key, sorted.
func (c *Config) Keys() []string {
	return slices.Sorted(maps.Keys(c.fields()))
}
