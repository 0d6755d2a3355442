package pod

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
)

const largestEnvFile = 1 << 20

// fromFile reads a variable that a container of the pod wrote into a file of an emptyDir (KEP-3721). The file is the pod's to make: neither a link
// nor a pipe leads this process anywhere else.
func fromFile(dir string, f *corev1.FileKeySelector) (value string, ok bool, err error) {
	optional := f.Optional != nil && *f.Optional
	text, err := readWithin(dir, f.Path)
	if errors.Is(err, fs.ErrNotExist) && optional {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("cannot read the file %q of volume %q: %w", f.Path, f.VolumeName, err)
	}
	values, err := parseEnvFile(text)
	if err != nil {
		return "", false, fmt.Errorf("the file %q of volume %q: %w", f.Path, f.VolumeName, err)
	}
	if value, ok = values[f.Key]; !ok && !optional {
		return "", false, fmt.Errorf("environment variable key %q not found in file %q of volume %q", f.Key, f.Path, f.VolumeName)
	}
	return value, ok, nil
}

func readWithin(dir, path string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	file, err := root.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Size() > largestEnvFile {
		return "", fmt.Errorf("it is no regular file of at most %d bytes", largestEnvFile)
	}
	raw, err := io.ReadAll(io.LimitReader(file, largestEnvFile))
	return string(raw), err
}

// parseEnvFile reads lines NAME='value'. What is within the quotes is taken as it stands, ends of lines included; blank lines and those that begin
// with # are left out.
func parseEnvFile(text string) (map[string]string, error) {
	out := map[string]string{}
	for line := 1; ; {
		trimmed := strings.TrimLeft(text, " \t\r\n")
		line += strings.Count(text[:len(text)-len(trimmed)], "\n")
		if text = trimmed; text == "" {
			return out, nil
		}
		if text[0] == '#' {
			_, text, _ = strings.Cut(text, "\n")
			line++
			continue
		}
		name, rest, ok := strings.Cut(text, "='")
		value, after, closed := strings.Cut(rest, "'")
		tail, next, _ := strings.Cut(after, "\n")
		if tail = strings.TrimSpace(tail); !ok || !closed || name == "" || strings.ContainsAny(name, "= \t\r\n") || tail != "" && tail[0] != '#' {
			return nil, fmt.Errorf("line %d is not of the form NAME='value'", line)
		}
		out[name] = value
		line += strings.Count(value, "\n") + 1
		text = next
	}
}
