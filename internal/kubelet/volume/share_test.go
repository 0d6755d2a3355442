package volume

import (
	"strings"
	"testing"
)

func TestHolder(t *testing.T) {
	all, err := parseMounts(strings.NewReader(`27 1 254:0 / / rw,relatime - ext4 /dev/root rw
28 27 0:30 / /mnt/a\040b rw shared:7 - tmpfs none rw
29 27 0:31 / /mnt/c rw master:3 - tmpfs none rw
30 27 0:32 / /mnt/c rw,nosuid shared:4 master:3 - tmpfs none rw
`))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]mountPoint{
		"/":            {path: "/"},
		"/mnt/ab":      {path: "/"},
		"/mnt/a b":     {path: "/mnt/a b", shared: true},
		"/mnt/a b/x/y": {path: "/mnt/a b", shared: true},
		"/mnt/c/d":     {path: "/mnt/c", shared: true, slave: true},
		"/mnt/cd":      {path: "/"},
	} {
		if got := holder(all, path); got != want {
			t.Errorf("%s is on %+v, want %+v", path, got, want)
		}
	}
}
