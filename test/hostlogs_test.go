package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skiff.dev/skiff/test/cluster"
)

// TestHostLogs: the logs of a host's services are there for administrators to ask for, where the node is told to answer that.
func TestHostLogs(t *testing.T) {
	t.Parallel()
	f, err := os.CreateTemp("/var/log", "skiff-test-*.log")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString("what the service said\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Base(f.Name())
	service := strings.TrimSuffix(file, ".log")
	c := cluster.Start(t, "--node-name=n1", "--enable-system-log-query")
	const logs = "/api/v1/nodes/n1/proxy/logs/"
	for _, ask := range []string{file, "?query=" + service, "?query=/" + file} {
		if out := c.Kubectl("get", "--raw", logs+ask); out != "what the service said\n" {
			t.Errorf("%s: %q", ask, out)
		}
	}
	for ask, want := range map[string]string{
		"?query=" + service + "&boot=1":       "boot: Invalid value: 1: must be less than 1",
		"?query=a&query=/" + file:             "cannot specify a file and service",
		"?query=a&sinceTime=yesterday":        `sinceTime: Invalid value: "yesterday": invalid time format`,
		"?tailLines=1":                        "query: Required value: cannot be empty with options",
		file + "?query=" + service:            "path not allowed in query mode",
		"?query=" + service + "&tailLines=-1": "tailLines: Invalid value: -1: must be between 0 and 100000",
	} {
		if out, err := c.TryKubectl("get", "--raw", logs+ask); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, %q; want %q", ask, err, out, want)
		}
	}
	if out, err := c.TryKubectl("get", "--raw", logs+"?query="+service, "--as=somebody"); err == nil || !strings.Contains(out, "forbidden") {
		t.Errorf("somebody else may read it: %v, %q", err, out)
	}
}
