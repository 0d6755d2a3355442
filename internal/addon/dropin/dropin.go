// Package dropin keeps the cluster's Addons in step with a folder of a server: what is put into it is installed, what is changed is updated, what is taken
// out is removed.
//
// Each entry is an add-on: a folder, an archive (.zip, .tgz, .tar.gz) or a single manifest (.yaml, .yml, .json); its name is the add-on's, unless its
// addon.yaml says another. Its invariant: it touches no Addon but those that carry its server's name in the annotation addon.Origin. Package host
// runs it on servers.
package dropin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/addon"
	"skiff.dev/skiff/internal/api"
)

// settle is how long nothing must have changed before the folder is read: files are copied into it piece by piece.
const settle = 500 * time.Millisecond

// Config of a folder.
type Config struct {
	Dir    string
	Server string // whose folder it is
	Client crclient.Client
	Kinds  interface {
		All() []*api.Resource
		Changed() <-chan struct{}
	}
	Log *slog.Logger
}

// Folder follows a folder until its context ends.
type Folder struct {
	Config
	told map[string]string // the last complaint of each entry, which is made once
}

func New(cfg Config) *Folder { return &Folder{Config: cfg, told: map[string]string{}} }

// Ready at once: nothing waits for add-ons.
func (f *Folder) Ready() <-chan struct{} { return ready }

var ready = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Run follows the folder.
func (f *Folder) Run(ctx context.Context) error {
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of add-ons: %w", err)
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the folder of add-ons: %w", err)
	}
	defer w.Close()
	if !f.awaitKind(ctx) {
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Events:
			timer.Reset(settle)
		case err := <-w.Errors:
			f.Log.Warn("changes of the folder of add-ons may have been missed; looking at all of it", "err", err)
			timer.Reset(settle)
		case <-timer.C:
			f.watchAll(w)
			if err := f.sync(ctx); err != nil && ctx.Err() == nil {
				f.Log.Warn("add-ons of the folder could not be brought into the cluster, will be tried again", "err", err)
				timer.Reset(time.Minute)
			}
		}
	}
}

// awaitKind blocks until Addons are served.
func (f *Folder) awaitKind(ctx context.Context) bool {
	for {
		changed := f.Kinds.Changed()
		for _, row := range f.Kinds.All() {
			if row.GVK() == addon.GVK {
				return true
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// watchAll watches the folder and all below it; what is watched already stays so.
func (f *Folder) watchAll(w *fsnotify.Watcher) {
	err := filepath.WalkDir(f.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // it has gone again
		}
		return w.Add(path)
	})
	if err != nil {
		f.Log.Warn("a folder of add-ons is not watched; changes in it are seen at the next start", "err", err)
	}
}

// sync makes the cluster's Addons those of the folder. An entry that cannot be read keeps what it installed before.
func (f *Folder) sync(ctx context.Context) error {
	entries, err := os.ReadDir(f.Dir)
	if err != nil {
		return err
	}
	var errs []error
	present, broken := map[string]bool{}, map[string]bool{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		name, packed, meta, err := read(filepath.Join(f.Dir, e.Name()))
		present[name] = true
		if err != nil {
			broken[e.Name()] = true
			f.complain(e.Name(), err)
			continue
		}
		err = addon.Install(ctx, f.Client, name, packed, addon.Spec{Description: meta.Description, After: meta.After}, addon.Place{Server: f.Server, Entry: e.Name()})
		switch {
		case err == nil:
			delete(f.told, e.Name())
		case apierrors.IsInvalid(err) || errors.Is(err, addon.ErrTaken):
			f.complain(e.Name(), err)
		default:
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, f.removeOthers(ctx, present, broken))...)
}

// complain tells of an entry that its owner must put right, once.
func (f *Folder) complain(entry string, err error) {
	if f.told[entry] != err.Error() {
		f.told[entry] = err.Error()
		f.Log.Error("an add-on of the folder cannot be installed", "entry", filepath.Join(f.Dir, entry), "err", err)
	}
}

// removeOthers removes the add-ons that came from this folder and are not in it any more. What came from an entry that is broken now stays: it may have
// another name than the entry.
func (f *Folder) removeOthers(ctx context.Context, present, broken map[string]bool) error {
	l := addon.EmptyList()
	if err := f.Client.List(ctx, l); err != nil {
		return err
	}
	var errs []error
	for i := range l.Items {
		u := &l.Items[i]
		from := u.GetAnnotations()
		if from[addon.Origin] != f.Server || present[u.GetName()] || broken[from[addon.Entry]] || u.GetDeletionTimestamp() != nil {
			continue
		}
		errs = append(errs, crclient.IgnoreNotFound(addon.Remove(ctx, f.Client, u.GetName())))
	}
	return errors.Join(errs...)
}

// read packs one entry.
func read(path string) (name string, packed []byte, meta addon.Meta, err error) {
	name = nameOf(path)
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return name, nil, meta, errors.New("is empty") // perhaps it is just being written
	}
	files, err := addon.Open(path)
	if err != nil {
		return name, nil, meta, err
	}
	if meta, err = addon.ReadMeta(files); err != nil {
		return name, nil, meta, err
	}
	if meta.Name != "" {
		name = meta.Name
	}
	packed, err = addon.Pack(files)
	return name, packed, meta, err
}

func nameOf(path string) string {
	name := filepath.Base(path)
	for _, end := range []string{".tar.gz", ".tgz", ".zip", ".yaml", ".yml", ".json"} {
		if short, cut := strings.CutSuffix(name, end); cut {
			return short
		}
	}
	return name
}
