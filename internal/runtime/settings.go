package runtime

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/containerd/platforms"
	"github.com/containerd/plugin"
	"github.com/pelletier/go-toml/v2"
	"golang.org/x/sys/unix"
)

const (
	namespace = "k8s.io" // the one in containerd that CRI uses

	overlay = "overlayfs"
	native  = "native"

	uriCRI         = "io.containerd.grpc.v1.cri"
	uriCRIRuntime  = "io.containerd.cri.v1.runtime"
	uriCRIImages   = "io.containerd.cri.v1.images"
	uriTasks       = "io.containerd.runtime.v2.task"
	uriShims       = "io.containerd.shim.v1.manager"
	uriTransfer    = "io.containerd.transfer.v1.local"
	uriSnapshotter = "io.containerd.snapshotter.v1."

	// maxShimSockets is the longest folder that shims' sockets, which are named by a hash, can lie in.
	maxShimSockets = 42
)

// Socket is where containerd's own API and CRI are served as well, for ctr, crictl and `skiff image`.
func Socket(state string) string { return filepath.Join(state, "containerd.sock") }

func shimSockets(state string) string { return filepath.Join(state, "s") }

// known is the configuration of the plug-ins. They keep the types of their settings to themselves and read TOML, so that is what they get.
type known struct {
	snapshotter string
	plugins     map[string]map[string]any
}

// settings decides what containerd is told; it looks at the host for what only the host knows.
func settings(cfg Config) (*known, error) {
	k := &known{snapshotter: overlay}
	if err := overlayutils.Supported(cfg.Root); err != nil {
		cfg.Log.Warn("the data dir's file system cannot hold overlays; images are copied for each container instead", "folder", cfg.Root, "reason", err)
		k.snapshotter = native
	}
	capable, err := hasCapability("/proc/self/status", unix.CAP_SYS_RESOURCE)
	if err != nil {
		return nil, err
	}
	mirrors := filepath.Join(filepath.Dir(filepath.Clean(cfg.Root)), "registry", "certs.d")
	k.plugins = map[string]map[string]any{
		uriCRI: {
			"stream_server_address": "127.0.0.1",
			"stream_server_port":    "0",
		},
		uriCRIRuntime: runtimeSettings(cfg, !capable),
		uriCRIImages: {
			"snapshotter":   k.snapshotter,
			"pinned_images": map[string]any{"sandbox": cfg.PauseImage, "web": WebImage, "ingress": IngressImage},
			"registry":      map[string]any{"config_path": mirrors},
			// Usage of the images' disk is wanted now and then; finding it walks every layer.
			"stats_collect_period": 60,
		},
		uriTransfer: {
			"config_path": mirrors,
			"unpack_config": []map[string]any{
				{"platform": platforms.Format(platforms.DefaultSpec()), "snapshotter": k.snapshotter, "differ": "walking"},
			},
		},
		uriShims: {"socket_dir": shimSockets(cfg.State)},
	}
	return k, nil
}

func runtimeSettings(cfg Config, restrictOOM bool) map[string]any {
	return map[string]any{
		"containerd": map[string]any{
			"default_runtime_name": "runc",
			"runtimes": map[string]any{"runc": map[string]any{
				"runtime_type": "io.containerd.runc.v2",
				"runtime_path": filepath.Join(cfg.BinDir, "containerd-shim-runc-v2"),
				"sandboxer":    "podsandbox",
				"options": map[string]any{
					"BinaryName":    filepath.Join(cfg.BinDir, "runc"),
					"Root":          filepath.Join(cfg.State, "runc"),
					"SystemdCgroup": false,
				},
			}},
		},
		"cni": map[string]any{
			"conf_dir":              cfg.CNIConfDir,
			"bin_dirs":              []string{cfg.CNIBinDir},
			"max_conf_num":          1,
			"use_internal_loopback": true,
		},
		"restrict_oom_score_adj":       restrictOOM,
		"netns_mounts_under_state_dir": true,
		"cdi_spec_dirs":                []string{"/etc/cdi", "/var/run/cdi"}, // where drivers write what their devices are
		"enable_criu":                  false,
		// Telemetry reads cgroups; containerd need not ask every shim every second.
		"stats_collect_period":   "24h",
		"stats_retention_period": "48h",
	}
}

// left says whether a plug-in is not loaded: only one snapshotter is.
func (k *known) left(r *plugin.Registration) bool {
	uri := r.URI()
	return strings.HasPrefix(uri, uriSnapshotter) && uri != uriSnapshotter+k.snapshotter
}

// decode fills a plug-in's settings, which hold its defaults.
func (k *known) decode(uri string, into any) (any, error) {
	if into == nil || k.plugins[uri] == nil {
		return into, nil
	}
	raw, err := toml.Marshal(k.plugins[uri])
	if err != nil {
		return nil, err
	}
	if err := toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields().Decode(into); err != nil {
		return nil, fmt.Errorf("settings of %s: %w", uri, err)
	}
	return into, nil
}

// hasCapability looks into the effective set of a process. Without CAP_SYS_RESOURCE nobody may lower an OOM score.
func hasCapability(status string, capability int) (bool, error) {
	raw, err := os.ReadFile(status)
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(string(raw)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			set, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return set&(1<<capability) != 0, err
		}
	}
	return false, fmt.Errorf("%s names no capabilities", status)
}
