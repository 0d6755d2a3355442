package addon

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// maxPacked is what fits into a Secret, maxFiles and maxUnpacked what a bundle may hold.
	maxPacked   = 1 << 20
	maxUnpacked = 16 << 20
	maxFiles    = 2000
)

// Pack makes an archive of a bundle. Equal files make equal archives.
func Pack(files fs.FS) ([]byte, error) {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	count, size := 0, int64(0)
	err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is no regular file; a bundle holds files and folders alone", name)
		}
		raw, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		count, size = count+1, size+int64(len(raw))
		if count > maxFiles || size > maxUnpacked {
			return fmt.Errorf("it is too large: a bundle holds %d files and %d MiB at most", maxFiles, maxUnpacked>>20)
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: time.Time{}})
		if err == nil {
			_, err = f.Write(raw)
		}
		return err
	})
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	if out.Len() > maxPacked {
		return nil, fmt.Errorf("it is too large: packed it has %d KiB, and %d KiB fit into a Secret; split it into several add-ons", out.Len()>>10, maxPacked>>10)
	}
	return out.Bytes(), nil
}

// Unpack opens an archive that Pack made, or that somebody else zipped.
func Unpack(packed []byte) (fs.FS, error) {
	r, err := zip.NewReader(bytes.NewReader(packed), int64(len(packed)))
	if err != nil {
		return nil, fmt.Errorf("the bundle is no zip archive: %w", err)
	}
	size := uint64(0)
	for _, f := range r.File {
		if !fs.ValidPath(strings.TrimSuffix(f.Name, "/")) {
			return nil, fmt.Errorf("the bundle holds a file with the name %q", f.Name)
		}
		size += f.UncompressedSize64 // archive/zip reads no more than this of a file
	}
	if len(r.File) > maxFiles || size > maxUnpacked {
		return nil, fmt.Errorf("the bundle is too large: it holds %d files and %d MiB at most", maxFiles, maxUnpacked>>20)
	}
	return top(r)
}

// top is the bundle's own folder: archives often hold one folder with everything in it.
func top(files fs.FS) (fs.FS, error) {
	entries, err := fs.ReadDir(files, ".")
	if err != nil || len(entries) != 1 || !entries[0].IsDir() {
		return files, err
	}
	return fs.Sub(files, entries[0].Name())
}

// Archive turns what a user has — a zip or a .tgz, such as a packaged chart — into a bundle's files.
func Archive(raw []byte) (fs.FS, error) {
	if !bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) {
		return Unpack(raw)
	}
	zipped, err := tarToZip(raw)
	if err != nil {
		return nil, fmt.Errorf("the archive cannot be read: %w", err)
	}
	return Unpack(zipped)
}

// Open reads what a user names: a folder, an archive, or a single manifest.
func Open(file string) (fs.FS, error) {
	st, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return os.DirFS(file), nil
	}
	if st.Size() > maxUnpacked {
		return nil, fmt.Errorf("%s is too large: a bundle holds %d MiB at most", file, maxUnpacked>>20)
	}
	if isManifest(file) {
		return only{os.DirFS(filepath.Dir(file)), filepath.Base(file)}, nil
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return Archive(raw)
}

// only is a file system of which one file can be seen.
type only struct {
	fs.FS
	name string
}

func (o only) Open(name string) (fs.File, error) {
	if name != "." && name != o.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return o.FS.Open(name)
}

func (o only) ReadDir(name string) ([]fs.DirEntry, error) {
	all, err := fs.ReadDir(o.FS, name)
	return slices.DeleteFunc(all, func(e fs.DirEntry) bool { return e.Name() != o.name }), err
}

func tarToZip(raw []byte) ([]byte, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	in := tar.NewReader(io.LimitReader(unzipped, maxUnpacked+1<<20))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			err := w.Close() // which writes the list of what is in it
			return out.Bytes(), err
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		name := path.Clean(h.Name)
		if !fs.ValidPath(name) {
			return nil, fmt.Errorf("it holds a file with the name %q", h.Name)
		}
		f, err := w.Create(name)
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(f, in); err != nil {
			return nil, err
		}
	}
}

// Digest names what a bundle rendered to.
func (b *Bundle) Digest() (string, error) {
	h := sha256.New()
	for _, o := range b.Objects {
		raw, err := o.MarshalJSON() // maps are written in the order of their keys
		if err != nil {
			return "", err
		}
		h.Write(raw)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// Shipped is an add-on that comes with Skiff: a bundle, or a part of the program.
type Shipped struct {
	Name, Description string
	Files             fs.FS  // nil for a part
	Off               bool   // it is disabled until somebody enables it
	Absent            string // why this server has not got the part, whatever its Addon says
}

// Find is the shipped add-on of that name.
func Find(all []Shipped, name string) (Shipped, bool) {
	i := slices.IndexFunc(all, func(s Shipped) bool { return s.Name == name })
	if i < 0 {
		return Shipped{}, false
	}
	return all[i], true
}
