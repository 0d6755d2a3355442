package telemetry

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// link is one network interface's counters.
type link struct {
	name   string
	rx, tx traffic
}

type traffic struct{ bytes, packets, errors, dropped uint64 }

// ownNetwork is the process that a pod's sandbox holds its namespace with; 0 for pods in the host's. Known sandboxes are not looked at again.
func (s *Sampler) ownNetwork(sandbox, group string) int {
	if pid, known := s.holders[sandbox]; known {
		return pid
	}
	pid := s.host.groups.process(group)
	if pid == 0 {
		return 0
	}
	own, err := os.Readlink(filepath.Join(s.host.proc, strconv.Itoa(pid), "ns/net"))
	hosts, err2 := os.Readlink(filepath.Join(s.host.proc, "self/ns/net"))
	if err != nil || err2 != nil {
		return 0
	}
	if own == hosts {
		pid = 0
	}
	s.holders[sandbox] = pid
	return pid
}

// podLinks reads the counters of a pod's own network namespace.
func (s *Sampler) podLinks(sandbox, group string) []link {
	pid := s.ownNetwork(sandbox, group)
	if pid == 0 {
		return nil
	}
	links, err := readLinks(filepath.Join(s.host.proc, strconv.Itoa(pid), "net/dev"))
	if err != nil {
		delete(s.holders, sandbox)
		return nil
	}
	return links
}

// readLinks reads /proc/…/net/dev, without loopback.
func readLinks(file string) ([]link, error) {
	var buf [page]byte
	raw, err := slurp(file, buf[:])
	if err != nil {
		return nil, err
	}
	var links []link
	for line := range bytes.Lines(raw) {
		name, rest, ok := bytes.Cut(line, []byte(":"))
		fields := bytes.Fields(rest)
		if name = bytes.TrimSpace(name); !ok || string(name) == "lo" || len(fields) < 12 {
			continue
		}
		var n [12]uint64
		for i := range n {
			if n[i], ok = decimal(fields[i]); !ok {
				return nil, fmt.Errorf("%s: %q is no counter", file, fields[i])
			}
		}
		links = append(links, link{string(name), traffic{n[0], n[1], n[2], n[3]}, traffic{n[8], n[9], n[10], n[11]}})
	}
	return links, nil
}

// network names one link as the default: a pod's is eth0, a node's the first that is no container's.
func network(links []link, now time.Time) *stats.NetworkStats {
	if len(links) == 0 {
		return nil
	}
	n := &stats.NetworkStats{Time: metav1.NewTime(now)}
	for _, l := range links {
		n.Interfaces = append(n.Interfaces, stats.InterfaceStats{
			Name: l.name, RxBytes: value(l.rx.bytes), RxErrors: value(l.rx.errors), TxBytes: value(l.tx.bytes), TxErrors: value(l.tx.errors),
		})
	}
	n.InterfaceStats = n.Interfaces[0]
	for _, i := range n.Interfaces {
		if i.Name == "eth0" {
			n.InterfaceStats = i
		}
	}
	return n
}
