package host

import (
	"net"
	"strings"
	"testing"

	"skiff.dev/skiff/internal/config"
)

func TestNeighbours(t *testing.T) {
	self := neighbour{"/var/lib/skiff", "10.42.0.0/16", "10.43.0.0/16", "net:[1]"}
	cases := []struct {
		name     string
		other    neighbour
		sameName bool
		want     string
	}{
		{"itself, earlier", self, true, ""},
		{"other ranges", neighbour{"/srv/two", "10.52.0.0/16", "10.53.0.0/16", "net:[1]"}, false, ""},
		{"same pods", neighbour{"/srv/two", "10.42.0.0/16", "10.53.0.0/16", "net:[1]"}, false, "pod-cidr: 10.42.0.0/16 overlaps"},
		{"same services", neighbour{"/srv/two", "10.52.0.0/16", "10.43.128.0/17", "net:[1]"}, false, "service-cidr: 10.43.0.0/16 overlaps 10.43.128.0/17"},
		{"its pods are our services", neighbour{"/srv/two", "10.43.0.0/16", "10.53.0.0/16", "net:[1]"}, false, "service-cidr:"},
		{"our services are its second pods", neighbour{"/srv/two", "fd52::/56,10.43.128.0/17", "fd53::/112", "net:[1]"}, false, "service-cidr: 10.43.0.0/16 overlaps 10.43.128.0/17"},
		{"same ranges elsewhere", neighbour{"/srv/two", "10.42.0.0/16", "10.43.0.0/16", "net:[2]"}, false, ""},
		{"same name elsewhere", neighbour{"/srv/two", "10.52.0.0/16", "10.53.0.0/16", "net:[2]"}, true, "cluster-name:"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := self.clash(c.other, c.sameName)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestApartFromPods(t *testing.T) {
	conf := &config.Config{PodCIDR: "10.42.0.0/16,fd42::/56", ServiceCIDR: "10.43.0.0/16"}
	for addr, want := range map[string]string{
		"192.0.2.1": "", "10.42.7.1": "pod-cidr: 10.42.0.0/16 holds this host's own address 10.42.7.1", "fd42::1": "pod-cidr: fd42::/56 holds",
		"10.43.0.9": "service-cidr: 10.43.0.0/16 holds", "127.0.0.1": "",
	} {
		err := apartFromPods(conf, []net.IP{net.ParseIP(addr)})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", addr, err, want)
		}
	}
}
