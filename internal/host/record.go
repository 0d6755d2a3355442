package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/network"
	"skiff.dev/skiff/internal/pki"
	skiffruntime "skiff.dev/skiff/internal/runtime"
)

// record is what must be known to remove a cluster from a host whose flags nobody remembers.
type record struct {
	ClusterName string `json:"clusterName"`
	PodCIDR     string `json:"podCIDR"`
	ServiceCIDR string `json:"serviceCIDR"`
	CRIEndpoint string `json:"criEndpoint,omitempty"`

	// Of a host that has joined a cluster: where its server is, under which name it joined, and what the cluster goes by.
	Agent         bool   `json:"agent,omitempty"`
	Server        string `json:"server,omitempty"`
	NodeName      string `json:"nodeName,omitempty"`
	ClusterDomain string `json:"clusterDomain,omitempty"`
	NodePorts     string `json:"nodePorts,omitempty"`
}

func recordFile(conf *config.Config) string { return filepath.Join(conf.DataDir, "cluster.json") }

// saveRecord notes the settings, and refuses those that a cluster cannot change once it has started.
func saveRecord(conf *config.Config) error {
	now := record{ClusterName: conf.ClusterName, PodCIDR: conf.PodCIDR, ServiceCIDR: conf.ServiceCIDR, CRIEndpoint: conf.CRIEndpoint}
	old, err := loadRecord(conf)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil && old.Agent {
		return fmt.Errorf("data-dir: %s is that of a node which has joined %s; start it with 'skiff agent', or give another --data-dir", conf.DataDir, old.Server)
	}
	if err == nil {
		for _, f := range []struct{ key, was, is string }{
			{"cluster-name", old.ClusterName, now.ClusterName},
			{"pod-cidr", old.PodCIDR, now.PodCIDR},
			{"service-cidr", old.ServiceCIDR, now.ServiceCIDR},
			{"cri-endpoint", old.CRIEndpoint, now.CRIEndpoint},
		} {
			if f.was != f.is && !gained(f.was, f.is) {
				return fmt.Errorf("%s: this cluster was made with %q and cannot change to %q; give the old value, or start over with 'skiff down --purge'", f.key, f.was, f.is)
			}
		}
		if now == old {
			return nil
		}
	}
	return writeRecord(conf, now)
}

// gained: a range of the other family was added to the one that a cluster was made with.
func gained(was, is string) bool {
	second, ok := strings.CutPrefix(is, was+",")
	return ok && second != "" && !strings.Contains(was, ",")
}

func writeRecord(conf *config.Config, r record) error {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return pki.WriteFile(recordFile(conf), append(raw, '\n'), 0o600)
}

func loadRecord(conf *config.Config) (record, error) {
	var r record
	raw, err := os.ReadFile(recordFile(conf))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("%s is damaged (%w); remove it and give the cluster's flags", recordFile(conf), err)
	}
	return r, nil
}

// Recall gives the settings that a cluster was made with, whatever the caller's flags say; os.ErrNotExist if the data dir holds none.
func Recall(conf *config.Config) error {
	rec, err := loadRecord(conf)
	if err != nil {
		return err
	}
	conf.ClusterName, conf.PodCIDR, conf.ServiceCIDR, conf.CRIEndpoint = rec.ClusterName, rec.PodCIDR, rec.ServiceCIDR, rec.CRIEndpoint
	return nil
}

// makeRunDir makes the folder one that everybody can pass through: the root of a pod with users of its own is nobody on the host, and its
// root filesystem is mounted below.
func makeRunDir(dir string) error {
	err := os.MkdirAll(dir, 0o755)
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err == nil {
			err = os.Chmod(d, 0o755)
		}
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", dir, err)
	}
	return nil
}

// cgroupRoot, runtimeConfig and networkConfig say where a cluster's things are on a host, for running and for removing alike.
func cgroupRoot(conf *config.Config) string { return "/" + conf.ClusterName }

func runtimeConfig(conf *config.Config, binDir string, log *slog.Logger) skiffruntime.Config {
	return skiffruntime.Config{
		Root:        filepath.Join(conf.DataDir, "containerd"),
		State:       filepath.Join(conf.RunDir(), "containerd"),
		BinDir:      binDir,
		CNIConfDir:  filepath.Join(conf.DataDir, "cni", "net.d"),
		CNIBinDir:   binDir,
		CgroupRoot:  cgroupRoot(conf),
		CRIEndpoint: conf.CRIEndpoint,
		ImagesDir:   filepath.Join(conf.DataDir, "images"),
		Log:         log.With("part", "containerd"),
	}
}

func networkConfig(conf *config.Config, binDir string, log *slog.Logger) network.Config {
	return network.Config{
		Cluster:      conf.ClusterName,
		NodeName:     conf.NodeName,
		PodCIDRs:     conf.ClusterCIDRs(),
		ServiceCIDRs: conf.ServiceCIDRs(),
		DNSAddr:      conf.ServiceAddr(10),
		NodePorts:    conf.NodePorts,
		Healthz:      conf.ProxyHealthz,
		Metrics:      conf.ProxyMetrics,
		StateDir:     filepath.Join(conf.DataDir, "network"),
		RunDir:       conf.RunDir(),
		CNIConfDir:   filepath.Join(conf.DataDir, "cni", "net.d"),
		CNIBinDir:    binDir,
		Log:          log.With("part", "network"),
	}
}
