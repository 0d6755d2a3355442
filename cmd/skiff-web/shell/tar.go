package shell

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// archive is the command tar, as far as kubectl cp needs one: c, x and t, of plain files, folders and links.
func archive(s streams, args []string) int {
	const usage = "-c|-x|-t [-f FILE] [-C FOLDER] [-mv] [PATH…]"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		args = append([]string{"-" + args[0]}, args[1:]...) // the dash is optional in the first argument
	}
	o, err := parse(args, "cxtmvop", "fC", map[string]string{"no-same-permissions": "o", "no-same-owner": "o"})
	if err != nil {
		return s.fail("tar", err)
	}
	file := o.text["f"]
	if file == "" {
		file = "-"
	}
	switch {
	case o.set["c"] && !o.set["x"] && !o.set["t"] && len(o.rest) > 0:
		err = s.pack(file, o)
	case (o.set["x"] || o.set["t"]) && !o.set["c"]:
		err = s.open(file, func(_ string, r io.Reader) error { return s.unpack(r, o) })
	default:
		return s.misuse("tar", usage)
	}
	if err != nil {
		return s.fail("tar", err)
	}
	return 0
}

func (s streams) pack(file string, o options) (err error) {
	out := s.out
	if file != "-" {
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		defer f.Close()
		out = f
	}
	w := tar.NewWriter(out)
	for _, path := range o.rest {
		if err := packTree(w, o.text["C"], path); err != nil {
			return err
		}
	}
	return w.Close()
}

// packTree adds a path and all below it under their own names, without a leading slash, as tar always does.
func packTree(w *tar.Writer, folder, path string) error {
	from := path
	if !filepath.IsAbs(path) {
		from = filepath.Join(folder, path)
	}
	return filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		var target string
		if st.Mode()&fs.ModeSymlink != 0 {
			if target, err = os.Readlink(file); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(st, target)
		if err != nil {
			return nil // a socket, say, which no archive holds
		}
		rel, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		h.Name = strings.TrimLeft(filepath.Join(path, rel), "/")
		if d.IsDir() {
			h.Name += "/"
		}
		if err := w.WriteHeader(h); err != nil || !st.Mode().IsRegular() {
			return err
		}
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.CopyN(w, f, h.Size)
		return err
	})
}

// unpack never writes outside the folder, whatever names and links the archive holds: os.Root sees to it.
func (s streams) unpack(r io.Reader, o options) error {
	folder := o.text["C"]
	if folder == "" {
		folder = "."
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(strings.TrimLeft(h.Name, "/"))
		if o.set["v"] || o.set["t"] {
			fmt.Fprintln(s.out, h.Name)
		}
		if o.set["t"] {
			continue
		}
		if err := unpackOne(root, name, h, t, !o.set["m"]); err != nil {
			return err
		}
	}
}

func unpackOne(root *os.Root, name string, h *tar.Header, content io.Reader, times bool) error {
	mode := h.FileInfo().Mode().Perm()
	if h.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, mode|0o700)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		_ = root.Remove(name)
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		_ = root.Remove(name)
		return root.Link(strings.TrimLeft(h.Linkname, "/"), name)
	case tar.TypeReg:
	default:
		return nil
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, content); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil || !times {
		return err
	}
	return root.Chtimes(name, time.Now(), h.ModTime)
}
