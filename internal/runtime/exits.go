package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	shim "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/continuity"
	"github.com/containerd/ttrpc"
)

// keepExits notes how containers ended that ended while nobody looked. Their shims know, but containerd takes a shim without a process for one
// that was left over, and lets it go before it has asked: every such container would have failed for an unknown reason, a job
// that succeeded included. So the answers are written to where CRI keeps a container's last known state, before containerd starts.
func keepExits(ctx context.Context, cfg Config) {
	files, _ := filepath.Glob(filepath.Join(cfg.Root, uriCRI, "containers", "*", "status")) // fails on a bad pattern only
	for _, file := range files {
		id := filepath.Base(filepath.Dir(file))
		if err := keepExit(ctx, file, filepath.Join(cfg.State, uriTasks, namespace, id), id); err != nil {
			cfg.Log.Warn("cannot find out how a container ended while skiff was away", "container", id, "err", err)
		}
	}
}

// keepExit does so for one container. A container that runs, or whose shim is gone, stays as it is.
func keepExit(ctx context.Context, file, bundle, id string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var known struct{ StartedAt, FinishedAt int64 }
	if err := json.Unmarshal(raw, &known); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if known.StartedAt == 0 || known.FinishedAt != 0 {
		return nil
	}
	state, err := askShim(ctx, bundle, id)
	if err != nil || state == nil || state.Status != task.Status_STOPPED {
		return err
	}
	// Fields that this program does not know stay as they are.
	all := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	for key, value := range map[string]any{"FinishedAt": state.ExitedAt.AsTime().UnixNano(), "ExitCode": int32(state.ExitStatus)} {
		if all[key], err = json.Marshal(value); err != nil {
			return err
		}
	}
	if raw, err = json.Marshal(all); err != nil {
		return err
	}
	return continuity.AtomicWriteFile(file, raw, 0o600)
}

// askShim returns a container's state; nil where there is no shim to ask.
func askShim(ctx context.Context, bundle, id string) (*shim.StateResponse, error) {
	raw, err := os.ReadFile(filepath.Join(bundle, "bootstrap.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var params struct{ Address, Protocol string }
	if err := json.Unmarshal(raw, &params); err != nil || params.Protocol != "ttrpc" {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, namespace), 2*time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", strings.TrimPrefix(params.Address, "unix://"))
	if err != nil {
		return nil, nil // a dead shim's container is for containerd to bury
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	return shim.NewTTRPCTaskClient(client).State(ctx, &shim.StateRequest{ID: id})
}
