package pod

import (
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestParseEnvFile(t *testing.T) {
	for _, test := range []struct {
		text string
		want map[string]string // nil: refused
	}{
		{"", map[string]string{}},
		{"A='b'", map[string]string{"A": "b"}},
		{"# A='x'\n\n  A='b c' # why\nB='$HOME \\n'\nC=''\n", map[string]string{"A": "b c", "B": "$HOME \\n", "C": ""}},
		{"A='one\ntwo'\nB='c'\n", map[string]string{"A": "one\ntwo", "B": "c"}},
		{"A=b\n", nil},
		{"A = 'b'\n", nil},
		{"A='b\n", nil},
		{"A='b'c\n", nil},
		{"='b'\n", nil},
	} {
		got, err := parseEnvFile(test.text)
		if (err != nil) != (test.want == nil) || err == nil && !maps.Equal(got, test.want) {
			t.Errorf("%q: %v, %v", test.text, got, err)
		}
	}
	if _, err := parseEnvFile("A='1\n2'\n\nbad\n"); err == nil || err.Error() != "line 4 is not of the form NAME='value'" {
		t.Errorf("the wrong line is told: %v", err)
	}
}

func TestFromFile(t *testing.T) {
	secret, dir, yes := t.TempDir(), t.TempDir(), true
	for path, text := range map[string]string{filepath.Join(secret, "f"): "A='secret'", filepath.Join(dir, "f"): "A='b'"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(secret, "f"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path, key string
		optional  *bool
		want      string
		ok, fails bool
	}{
		{"f", "A", nil, "b", true, false},
		{"f", "B", nil, "", false, true},
		{"f", "B", &yes, "", false, false},
		{"none", "A", nil, "", false, true},
		{"none", "A", &yes, "", false, false},
		{"link", "A", &yes, "", false, true},
		{"pipe", "A", nil, "", false, true},
	} {
		got, ok, err := fromFile(dir, &corev1.FileKeySelector{VolumeName: "v", Path: test.path, Key: test.key, Optional: test.optional})
		if got != test.want || ok != test.ok || (err != nil) != test.fails {
			t.Errorf("%s of %s: %q, %v, %v", test.key, test.path, got, ok, err)
		}
	}
}
