package serve

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestJournal: the real journalctl understands what it is asked. Its journal has two boots of a host, written by systemd-journal-remote; a script points it there.
func TestJournal(t *testing.T) {
	program, err := exec.LookPath("journalctl")
	if err != nil {
		t.Fatal("journalctl is not installed; run make test-deps, or: apt-get install systemd")
	}
	dir := t.TempDir()
	file, reader := filepath.Join(dir, "boots.journal"), filepath.Join(dir, "journalctl")
	if err := unpack("testdata/boots.journal.gz", file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(reader, fmt.Appendf(nil, "#!/bin/sh\nexec %s --file=%s \"$@\"\n", program, file), 0o755); err != nil {
		t.Fatal(err)
	}
	h := http.StripPrefix("/logs/", newHostLogs(hostFiles(dir), reader))
	const (
		began   = "Jan 02 01:00:00.000000 host web[42]: began\n"
		refused = "Jan 02 01:02:00.000000 host web[42]: refused the 1st request\n"
		served  = "Jan 02 01:03:00.000000 host web[42]: served the 2nd request\n"
		ended   = "Jan 02 01:04:00.000000 host web[42]: ended\n"
		stored  = "Jan 02 01:01:00.000000 host store[42]: of another service\n"
	)
	for ask, want := range map[string]string{
		"query=web":                  began + refused + served + ended,
		"query=web&query=store":      began + stored + refused + served + ended,
		"query=web&boot=-1":          "Jan 02 00:00:00.000000 host web[42]: before the reboot\n",
		"query=web&tailLines=2":      served + ended,
		"query=web&pattern=re.u[sx]": refused,
		"query=web&sinceTime=2026-01-02T02:02:00%2B01:00&untilTime=2026-01-02T01:03:00Z": refused + served,
		"query=store&pattern=nothing": "-- No entries --\n",
		"query=other":                 "\nlog not found for other\n",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/logs/?"+ask, nil))
		if w.Code != http.StatusOK || w.Body.String() != want {
			t.Errorf("%s: %d %q, want %q", ask, w.Code, w.Body, want)
		}
	}
}

func unpack(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		return err
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		return err
	}
	return os.WriteFile(to, raw, 0o600)
}
