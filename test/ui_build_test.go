package test

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestUIBundleIsReproducible builds the web UI afresh and finds in it what is committed. How well it is compressed may depend on Node.js.
func TestUIBundleIsReproducible(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("npm"); err != nil {
		t.Fatal("building the web UI needs Node.js and npm; run make test-deps, or: apt-get install nodejs npm")
	}
	source := t.TempDir()
	if out, err := exec.Command("cp", "-r", "../build", "../ui", source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.RemoveAll(filepath.Join(source, "ui", "node_modules")); err != nil {
		t.Fatal(err)
	}
	fresh, committed := filepath.Join(source, "dist"), filepath.Join("..", "internal", "dashboard", "dist")
	if out, err := exec.Command(filepath.Join(source, "build", "ui"), fresh).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range files(t, fresh, committed) {
		a, b := unpacked(t, filepath.Join(fresh, name)), unpacked(t, filepath.Join(committed, name))
		if !bytes.Equal(a, b) {
			t.Errorf("%s: %d bytes when built afresh, %d as committed; run make ui", name, len(a), len(b))
		}
	}
}

// files that one of the folders has.
func files(t *testing.T, dirs ...string) (names []string) {
	seen := map[string]bool{}
	for _, dir := range dirs {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			if !seen[f.Name()] {
				seen[f.Name()] = true
				names = append(names, f.Name())
			}
		}
	}
	return names
}

// unpacked is what a file holds; nothing if it is not there.
func unpacked(t *testing.T, name string) []byte {
	raw, err := os.ReadFile(name)
	if err != nil || filepath.Ext(name) != ".gz" {
		return raw
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(z)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}
