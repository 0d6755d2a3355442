package telemetry

import (
	"bytes"
	"path/filepath"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// underPressure are the resources of which the kernel knows how long processes waited for them (PSI).
var underPressure = []string{"cpu", "memory", "io"}

// pressure on a group, by resource. Groups of version 1 have none.
func (c cgroups) pressure(group string) map[string]*stats.PSIStats {
	if !c.v2 {
		return nil
	}
	return c.files.pressure(func(resource string) string { return c.file("", group, resource+".pressure") })
}

// pressure on the whole host.
func (h host) pressure() map[string]*stats.PSIStats {
	return h.groups.files.pressure(func(resource string) string { return filepath.Join(h.proc, "pressure", resource) })
}

func (f *files) pressure(file func(resource string) string) map[string]*stats.PSIStats {
	out := map[string]*stats.PSIStats{}
	for _, resource := range underPressure {
		var buf [256]byte
		if raw, err := f.read(file(resource), buf[:]); err == nil {
			out[resource] = stalls(raw)
		}
	}
	return out
}

// stalls reads "some …" and "full …".
func stalls(raw []byte) *stats.PSIStats {
	var out stats.PSIStats
	for line := range bytes.Lines(raw) {
		var to *stats.PSIData
		for i, field := range bytes.Fields(line) {
			name, text, _ := bytes.Cut(field, []byte("="))
			switch {
			case i == 0 && string(name) == "some":
				to = &out.Some
			case i == 0 && string(name) == "full":
				to = &out.Full
			case to == nil:
			case string(name) == "total":
				n, _ := decimal(text)
				to.Total = n * 1000
			case string(name) == "avg10":
				to.Avg10, _ = strconv.ParseFloat(string(text), 64)
			case string(name) == "avg60":
				to.Avg60, _ = strconv.ParseFloat(string(text), 64)
			case string(name) == "avg300":
				to.Avg300, _ = strconv.ParseFloat(string(text), 64)
			}
		}
	}
	return &out
}

// press puts the pressure into the figures of each resource; those of io are nothing else.
func press(pressure map[string]*stats.PSIStats, at metav1.Time, cpu *stats.CPUStats, memory *stats.MemoryStats) *stats.IOStats {
	cpu.PSI, memory.PSI = pressure["cpu"], pressure["memory"]
	if io := pressure["io"]; io != nil {
		return &stats.IOStats{Time: at, PSI: io}
	}
	return nil
}
