package kubelet

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"skiff.dev/skiff/internal/kubelet/plugin"
)

// shutdownTimes are when the pods last began to end because their host shut down, and when that was over; zero while it isn't. They outlive the
// shutdown, below the kubelet's root.
type shutdownTimes struct {
	Start time.Time `json:"startTime,omitzero"`
	End   time.Time `json:"endTime,omitzero"`
}

func (k *Kubelet) shutdownFile() string {
	return filepath.Join(k.cfg.Root, "graceful_node_shutdown_state")
}

func (k *Kubelet) noteShutdown(t shutdownTimes) {
	k.shutdown.last.Store(&t)
	raw, err := json.Marshal(t)
	if err == nil {
		err = plugin.Keep(k.shutdownFile(), raw)
	}
	if err != nil {
		k.log.Warn("when the host shut down will not be known after it", "err", err)
	}
}

// recallShutdown reads what an earlier process noted.
func (k *Kubelet) recallShutdown() {
	var t shutdownTimes
	raw, err := os.ReadFile(k.shutdownFile())
	if err == nil {
		err = json.Unmarshal(raw, &t)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("when the host last shut down is not known", "err", err)
	}
	k.shutdown.last.Store(&t)
}

// shutdownMetrics are the times of the last shutdown, by upstream's names; 0 for one that there is not.
func (k *Kubelet) shutdownMetrics() []prometheus.Collector {
	gauge := func(name, help string, of func(*shutdownTimes) time.Time) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kubelet_graceful_shutdown_" + name, Help: help}, func() float64 {
			if t := k.shutdown.last.Load(); t != nil && !of(t).IsZero() {
				return float64(of(t).UnixMilli()) / 1000
			}
			return 0
		})
	}
	return []prometheus.Collector{
		gauge("start_time_seconds", "When the pods last began to end because the host shut down, in seconds since 1970", func(t *shutdownTimes) time.Time { return t.Start }),
		gauge("end_time_seconds", "When the pods had last ended because the host shut down, in seconds since 1970", func(t *shutdownTimes) time.Time { return t.End }),
	}
}
