package logs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	maxSize    = 10 << 20
	maxFiles   = 5
	checkEvery = 10 * time.Second
)

// Live lists logs that are being written, by container ID.
type Live interface {
	LiveLogs() map[string]string
}

// Rotator keeps the logs of running containers small: of 10 MiB files the newest five are kept.
type Rotator struct {
	live    Live
	runtime runtimeapi.RuntimeServiceClient
	log     *slog.Logger
	size    int64
}

func NewRotator(live Live, runtime runtimeapi.RuntimeServiceClient, log *slog.Logger) *Rotator {
	return &Rotator{live: live, runtime: runtime, log: log, size: maxSize}
}

// Run until ctx ends.
func (r *Rotator) Run(ctx context.Context) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for id, path := range r.live.LiveLogs() {
			if err := r.rotate(ctx, id, path); err != nil && ctx.Err() == nil {
				r.log.Warn("cannot rotate a container's log", "container", id, "err", err)
			}
		}
	}
}

func (r *Rotator) rotate(ctx context.Context, id, path string) error {
	info, err := os.Stat(path)
	if os.IsNotExist(err) || err == nil && info.Size() < r.size {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := rotated(path)
	if err != nil {
		return err
	}
	for len(old) > maxFiles-2 {
		if err := os.Remove(old[0]); err != nil && !os.IsNotExist(err) {
			return err
		}
		old = old[1:]
	}
	aside := path + "." + time.Now().UTC().Format("20060102-150405.000000")
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	if _, err := r.runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		// The runtime goes on writing to the old file, wherever it is: put it back.
		if back := os.Rename(aside, path); back != nil {
			return fmt.Errorf("%w; and put the log back: %w", err, back)
		}
		return err
	}
	return nil
}

// rotated files of a log, the oldest first.
func rotated(path string) ([]string, error) {
	old, err := filepath.Glob(path + ".*")
	slices.Sort(old)
	return old, err
}
