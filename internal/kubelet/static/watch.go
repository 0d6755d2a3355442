package static

import (
	"context"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long the folder must be left alone before it is read: files are written in several steps.
const settle = 200 * time.Millisecond

// Watch calls changed after each change in the folder, until ctx ends.
func (f *Folder) Watch(ctx context.Context, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", f.path, err)
	}
	defer w.Close()
	if err := w.Add(f.path); err != nil {
		return fmt.Errorf("watch %s: %w", f.path, err)
	}
	quiet := time.NewTimer(0) // what changed since it was read last
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Events:
			quiet.Reset(settle)
		case <-w.Errors: // events were lost
			quiet.Reset(settle)
		case <-quiet.C:
			changed()
		}
	}
}
