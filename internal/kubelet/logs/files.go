package logs

import (
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	packed  = ".gz"
	packing = ".tmp" // a file that is being compressed
)

// rotated files of a log, the oldest first. A file whose compression is about to be done is listed once, as it was.
func rotated(path string) ([]string, error) {
	all, err := filepath.Glob(path + ".*")
	slices.Sort(all)
	return slices.DeleteFunc(all, func(name string) bool {
		plain, gz := strings.CutSuffix(name, packed)
		return strings.HasSuffix(name, packing) || plain == path || gz && slices.Contains(all, plain)
	}), err
}

// stem is a rotated file's name, compressed or not.
func stem(name string) string { return strings.TrimSuffix(name, packed) }

// open a log file, compressed or not. One that has been compressed since it was listed is found under its new name.
func open(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && !strings.HasSuffix(path, packed) {
		path += packed
		f, err = os.Open(path)
	}
	if err != nil || !strings.HasSuffix(path, packed) {
		return f, err
	}
	z, err := gzip.NewReader(bufio.NewReaderSize(f, 32<<10))
	if err != nil {
		f.Close()
		return nil, err
	}
	return &packedFile{z, f}, nil
}

type packedFile struct {
	*gzip.Reader
	f *os.File
}

func (p *packedFile) Close() error { return errors.Join(p.Reader.Close(), p.f.Close()) }

// compress replaces a file that nobody writes to any more by its compressed form. Whoever reads it goes on undisturbed.
func compress(path string) (err error) {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	temp := path + packing
	to, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	z, err := gzip.NewWriterLevel(to, gzip.BestSpeed)
	if err == nil {
		_, err = io.Copy(z, from)
		err = errors.Join(err, z.Close())
	}
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	// When it was last written to says whether anybody who asks for the last hour has to read it.
	if err = os.Chtimes(temp, time.Time{}, info.ModTime()); err != nil {
		return err
	}
	if err = os.Rename(temp, path+packed); err != nil {
		return err
	}
	return os.Remove(path)
}

// endedBefore says that a file has nothing from t on.
func endedBefore(path string, t time.Time) bool {
	if t.IsZero() {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && info.ModTime().Before(t)
}
