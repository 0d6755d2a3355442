package configfile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Document is one of a folder's manifests: what a file holds between two separators.
type Document struct {
	Where string // the file, and which document of it if it has several
	JSON  []byte
}

// ReadFolder reads a folder's manifests (.yaml, .yml, .json; no folders in it) as one content, which a Follower can compare, and Documents takes apart.
func ReadFolder(folder string) ([]byte, error) {
	entries, err := os.ReadDir(folder) // in the order of their names
	if err != nil {
		return nil, err
	}
	var files []manifest
	for _, e := range entries {
		if e.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(e.Name()))) {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			return nil, err
		}
		files = append(files, manifest{e.Name(), raw})
	}
	return json.Marshal(files)
}

type manifest struct {
	Name string
	Raw  []byte
}

// Documents are what a content that ReadFolder read from folder consists of. Empty ones don't count; fields that are given twice are errors.
func Documents(folder string, content []byte) (out []Document, err error) {
	var files []manifest
	if err := json.Unmarshal(content, &files); err != nil {
		return nil, err
	}
	for _, f := range files {
		docs, err := documents(filepath.Join(folder, f.Name), f.Raw)
		if err != nil {
			return nil, err
		}
		out = append(out, docs...)
	}
	return out, nil
}

func documents(file string, raw []byte) (out []Document, err error) {
	parts := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(raw)))
	for n := 1; ; n++ {
		part, err := parts.Read()
		switch {
		case errors.Is(err, io.EOF) && n == 2 && len(out) == 1:
			out[0].Where = file
			return out, nil
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		d := Document{Where: fmt.Sprintf("%s, document %d", file, n)}
		if d.JSON, err = yaml.YAMLToJSONStrict(part); err != nil {
			return nil, fmt.Errorf("%s: %w", d.Where, err)
		}
		if !bytes.Equal(d.JSON, []byte("null")) {
			out = append(out, d)
		}
	}
}
