package logs

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const checkEvery = 10 * time.Second

// Limits of what is kept of logs.
type Limits struct {
	Size  int64         // of one file of a running container's log; it is rotated then
	Files int           // of one container, the live one included
	Keep  time.Duration // how long logs outlive their pod; zero: not at all
	Room  int64         // for the logs of pods that are gone, in bytes
}

// Default limits.
func Default() Limits {
	return Limits{Size: 10 << 20, Files: 5, Keep: 24 * time.Hour, Room: 256 << 20}
}

// Live lists logs that are being written, by container ID.
type Live interface {
	LiveLogs() map[string]string
}

// Rotator keeps the logs of running containers small. What is rotated is compressed.
type Rotator struct {
	live    Live
	runtime runtimeapi.RuntimeServiceClient
	log     *slog.Logger
	limits  Limits
}

func NewRotator(live Live, runtime runtimeapi.RuntimeServiceClient, limits Limits, log *slog.Logger) *Rotator {
	return &Rotator{live: live, runtime: runtime, log: log, limits: limits}
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
	if os.IsNotExist(err) || err == nil && info.Size() < r.limits.Size {
		return nil
	}
	if err != nil {
		return err
	}
	old, err := rotated(path)
	if err != nil {
		return err
	}
	for len(old) > max(r.limits.Files-2, 0) {
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
	if r.limits.Files < 2 {
		return os.Remove(aside)
	}
	return compress(aside) // the runtime has let go of it
}
