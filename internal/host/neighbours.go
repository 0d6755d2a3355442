package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"skiff.dev/skiff/internal/api/cidr"
	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/pki"
)

// neighbour is what clusters on one host must know of each other. It lies in each one's run dir.
type neighbour struct {
	DataDir     string `json:"dataDir"`
	PodCIDR     string `json:"podCIDR"`
	ServiceCIDR string `json:"serviceCIDR"`
	Network     string `json:"network"` // the network namespace; ranges must differ only within one
}

const neighbourFile = "neighbour.json"

// meetNeighbours refuses ranges and names that another cluster on this host has, then leaves word of this one's. A cluster keeps
// its ranges until 'skiff down', whether it runs or not, for its containers do.
func meetNeighbours(conf *config.Config) error {
	network, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return fmt.Errorf("find out this process's network namespace: %w; is /proc mounted?", err)
	}
	self := neighbour{conf.DataDir, conf.PodCIDR, conf.ServiceCIDR, network}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(conf.RunDir()), "*", neighbourFile))
	if err != nil {
		return err
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // it has just gone
		}
		var other neighbour
		if err != nil || json.Unmarshal(raw, &other) != nil {
			return fmt.Errorf("%s cannot be read; remove it if no cluster of that name is on this host", file)
		}
		if err := self.clash(other, filepath.Base(filepath.Dir(file)) == conf.ClusterName); err != nil {
			return err
		}
	}
	raw, err := json.Marshal(self)
	if err != nil {
		return err
	}
	return pki.WriteFile(filepath.Join(conf.RunDir(), neighbourFile), append(raw, '\n'), 0o644)
}

// clash is the reason why two clusters cannot be on one host; nil if they can.
func (n neighbour) clash(other neighbour, sameName bool) error {
	if other.DataDir == n.DataDir {
		return nil // what an earlier start of this cluster said
	}
	const remedy = "give another, or remove that cluster with 'skiff down --data-dir %s'"
	if sameName {
		return fmt.Errorf("cluster-name: the cluster at %s on this host has the same name; "+remedy, other.DataDir, other.DataDir)
	}
	if other.Network != n.Network {
		return nil
	}
	for _, mine := range []struct{ key, list string }{{"pod-cidr", n.PodCIDR}, {"service-cidr", n.ServiceCIDR}} {
		for _, theirs := range []string{other.PodCIDR, other.ServiceCIDR} {
			ours, err1 := cidr.ParseList(mine.list)
			taken, err2 := cidr.ParseList(theirs)
			if a, b, clash := cidr.Overlap(ours, taken); err1 == nil && err2 == nil && clash {
				return fmt.Errorf("%s: %s overlaps %s of the cluster at %s on this host; "+remedy, mine.key, a, b, other.DataDir, other.DataDir)
			}
		}
	}
	return nil
}

// apartFromPods refuses ranges of pods or services that hold one of the host's own addresses: what is sent to other hosts of its network would go
// to pods that are not there.
func apartFromPods(conf *config.Config, host []net.IP) error {
	for _, r := range []struct{ key, list string }{{"pod-cidr", conf.PodCIDR}, {"service-cidr", conf.ServiceCIDR}} {
		ranges, err := cidr.ParseList(r.list)
		if err != nil {
			return fmt.Errorf("%s: %w", r.key, err)
		}
		for _, own := range host {
			addr, _ := netip.AddrFromSlice(own)
			for _, held := range ranges {
				if held.Contains(addr.Unmap()) {
					return fmt.Errorf("%s: %s holds this host's own address %s; the cluster needs ranges that no host's network has (give the server another --%s), or the host another --node-ip",
						r.key, held, own, r.key)
				}
			}
		}
	}
	return nil
}
