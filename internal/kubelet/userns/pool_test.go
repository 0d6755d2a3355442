package userns

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func readPool(t *testing.T, subuid, subgid string) (Pool, error) {
	t.Helper()
	etc := t.TempDir()
	for name, text := range map[string]string{"subuid": subuid, "subgid": subgid} {
		if text == "none" {
			continue
		}
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return ReadPool(etc)
}

func TestPool(t *testing.T) {
	for _, test := range []struct {
		subuid, subgid string
		n              int
		first, last    uint32
	}{
		{"none", "none", 32767, 65536, 32767 * 65536},
		{"", "", 32767, 65536, 32767 * 65536},
		{"# nothing\n\nalice:bad:1\n", "alice\n", 32767, 65536, 32767 * 65536},
		{"alice:100000:65536\n", "alice:100000:65536\nbob:2147418112:131072\n", 32764, 3 * 65536, 32766 * 65536},
		{"alice:100000:65536\nkubelet:65536:131072\n", "kubelet:65536:131072\n", 2, 65536, 131072},
		{"kubelet:4294836224:65536\n", "kubelet:4294836224:65536\n", 1, 65534 * 65536, 65534 * 65536},
		{"kubelet:655360:65536\nkubelet:131072:65536\n", "kubelet:655360:65536\nkubelet:131072:65536\n", 2, 131072, 655360},
	} {
		p, err := readPool(t, test.subuid, test.subgid)
		if err != nil {
			t.Errorf("%q: %v", test.subuid, err)
			continue
		}
		if n := p.Len(); n != test.n || p.at(0) != test.first || p.at(n-1) != test.last {
			t.Errorf("%q: %d ranges from %d to %d", test.subuid, n, p.at(0), p.at(n-1))
		}
	}
}

func TestBadPool(t *testing.T) {
	for _, test := range []struct{ subuid, subgid, want string }{
		{"kubelet:65536:65536\n", "", "the same ids"},
		{"kubelet:65536:65536\n", "kubelet:131072:65536\n", "the same ids"},
		{"kubelet:100000:65536\n", "kubelet:100000:65536\n", "must be multiples of 65536"},
		{"kubelet:65536:70000\n", "kubelet:65536:70000\n", "must be multiples of 65536"},
		{"kubelet:0:65536\n", "kubelet:0:65536\n", "from 65536 on"},
		{"kubelet:4294901760:65536\n", "kubelet:4294901760:65536\n", "below 4294901760"},
		{"kubelet:65536:196608\nkubelet:131072:65536\n", "kubelet:65536:196608\nkubelet:131072:65536\n", "some ids twice"},
		{"kubelet:many:65536\n", "", `subuid: "kubelet:many:65536"`},
		{"kubelet:65536\n", "", "user:first:number"},
	} {
		if p, err := readPool(t, test.subuid, test.subgid); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, %v", test.subuid, p, err)
		}
	}
}

func TestProbe(t *testing.T) {
	if err := Probe("/proc"); err == nil || !strings.Contains(err.Error(), "the filesystem of /proc cannot be mounted with ids mapped") {
		t.Errorf("a filesystem that maps no ids: %v", err)
	}
	if err := Probe("/no/such"); err == nil {
		t.Error("a folder that is not there has a filesystem that maps ids")
	}
}
