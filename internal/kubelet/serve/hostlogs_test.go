package serve

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestHostLogs: the journal is asked for services that it knows, files are read for others, and what cannot be answered is refused.
func TestHostLogs(t *testing.T) {
	dir := t.TempDir()
	journal := filepath.Join(dir, "journalctl")
	for name, text := range map[string]string{
		"journalctl":        "#!/bin/sh\nif [ \"$1\" = --field ]; then echo kubelet.service; echo ssh@1.service; else echo \"read $*\"; fi\n",
		"var/foo.log":       "of foo\n",
		"var/bar/bar.log":   "of bar\n",
		"var/plain":         "of plain\n",
		"outside.log":       "of nobody's business\n",
		"var/deep/inner.lg": "of inner\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := http.StripPrefix("/logs/", newHostLogs(hostFiles(filepath.Join(dir, "var")), journal))
	const read = "read --utc --no-pager --output=short-precise "
	for ask, want := range map[string]string{
		"":                            "200 <pre>",
		"foo.log":                     "200 of foo",
		"?query=kubelet":              "200 " + read + "--unit=kubelet --boot=0\n",
		"?query=kubelet&query=ssh@1":  "200 " + read + "--unit=kubelet --unit=ssh@1 --boot=0\n",
		"?query=kubelet&boot=-1":      "200 " + read + "--unit=kubelet --boot=-1\n",
		"?query=kubelet&pattern=a+b":  "200 " + read + "--unit=kubelet --grep=a b --boot=0\n",
		"?query=kubelet&tailLines=0":  "200 " + read + "--pager-end --lines=0 --unit=kubelet --boot=0\n",
		"?query=kubelet&query=foo":    "200 " + read + "--unit=kubelet --boot=0\nof foo\n",
		"?query=foo":                  "200 of foo\n",
		"?query=bar":                  "200 of bar\n",
		"?query=plain":                "200 of plain\n",
		"?query=none":                 "200 \nlog not found for none\n",
		"?query=foo&tailLines=3":      "200 \noptions present and query resolved to log files for [foo]\ntry without",
		"?query=/foo.log":             "200 of foo\n",
		`?query=deep\inner.lg`:        "200 of inner\n",
		"?query=/../outside.log":      "406 query: Invalid value: [\"/../outside.log\"]: open ",
		"?query=/deep":                "200 <pre>",
		"?query=kubelet&pattern=a%00": `406 pattern: Invalid value: "a\x00": input contains unsupported characters`,
		"?query=kubelet&pattern=" + strings.Repeat("a", 4097): "406 pattern: Too long: may not be more than 4096 bytes",
		"?query=/none":                             "406 query: Invalid value: [\"/none\"]: open ",
		"?query=":                                  `400 query: Invalid value: [""]: query cannot be empty`,
		"?query=+":                                 `400 query: Invalid value: [" "]: query cannot be empty`,
		"?tailLines=3":                             "406 query: Required value: cannot be empty with options",
		"foo.log?query=kubelet":                    "406 path not allowed in query mode",
		"?query=kubelet&query=/foo.log":            `406 query: Invalid value: "[/foo.log], [kubelet]": cannot specify a file and service`,
		"?query=/foo.log&query=/none":              `406 query: Invalid value: ["/foo.log","/none"]: cannot specify more than one file`,
		"?query=/foo.log&boot=0":                   `406 query: Invalid value: ["/foo.log"]: cannot specify file with options`,
		"?query=a&query=b&query=c&query=d&query=e": "406 query: Too many: 5: must have at most 4 items",
		"?query=--flag%3Dx":                        `406 query: Invalid value: "--flag=x": input contains unsupported characters`,
		"?query=" + strings.Repeat("a", 257):       "406 query: Too long: may not be more than 256 bytes",
		"?query=kubelet&boot=1":                    "406 boot: Invalid value: 1: must be less than 1",
		"?query=kubelet&boot=x":                    `400 boot: Invalid value: "x": strconv.Atoi`,
		"?query=kubelet&tailLines=100001":          "406 tailLines: Invalid value: 100001: must be between 0 and 100000",
		"?query=kubelet&tailLines=x":               `400 tailLines: Invalid value: "x": strconv.Atoi`,
		"?query=kubelet&pattern=(":                 `406 pattern: Invalid value: "("`,
		"?query=kubelet&sinceTime=yesterday":       `400 sinceTime: Invalid value: "yesterday": invalid time format`,
		"?query=kubelet&untilTime=2026-01-01":      `400 untilTime: Invalid value: "2026-01-01": invalid time format`,
		"?query=kubelet&sinceTime=2026-01-02T03:04:05%2B01:00&untilTime=2026-01-02T03:04:05Z": "200 " + read + "--since=2026-01-02 02:04:05 UTC --until=2026-01-02 03:04:05 UTC --unit=kubelet --boot=0\n",
		"?query=kubelet&sinceTime=2026-01-02T03:04:05Z&untilTime=2026-01-01T03:04:05Z":        "406 untilTime: Invalid value: \"2026-01-01T03:04:05Z\": must be after `sinceTime`",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/logs/"+ask, nil))
		if code, text, _ := strings.Cut(want, " "); code != strconv.Itoa(w.Code) || !strings.Contains(strings.ReplaceAll(w.Body.String(), `\"`, `"`), text) {
			t.Errorf("%s: %d %q, want %q", ask, w.Code, w.Body, want)
		}
	}
	w := httptest.NewRecorder()
	newHostLogs(hostFiles(dir), filepath.Join(dir, "none")).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?query=kubelet", nil))
	if got := w.Body.String(); got != "\nlog not found for kubelet\n" {
		t.Errorf("without a journal: %q", got)
	}
}

// TestHostFiles: what a link leads to is shown if it is among the files, whoever made the link; pipes and devices are not opened.
func TestHostFiles(t *testing.T) {
	dir := t.TempDir()
	logs := filepath.Join(dir, "log")
	if err := errors.Join(os.MkdirAll(filepath.Join(logs, "pods"), 0o755), os.MkdirAll(logs+"-other", 0o755),
		os.WriteFile(filepath.Join(logs, "pods", "0.log"), []byte("inside\n"), 0o600), os.WriteFile(filepath.Join(dir, "secret"), []byte("outside\n"), 0o600),
		os.WriteFile(filepath.Join(logs+"-other", "f"), []byte("beside\n"), 0o600),
		os.Symlink("pods/0.log", filepath.Join(logs, "near")), os.Symlink(filepath.Join(logs, "pods"), filepath.Join(logs, "whole")),
		os.Symlink("../secret", filepath.Join(logs, "out")), os.Symlink("/", filepath.Join(logs, "root")), os.Symlink("../log-other", filepath.Join(logs, "beside")),
		os.Symlink("/proc/self/root/etc/hostname", filepath.Join(logs, "magic")), os.Symlink("loop", filepath.Join(logs, "loop")),
		os.Symlink("/dev/zero", filepath.Join(logs, "device")), syscall.Mkfifo(filepath.Join(logs, "pipe"), 0o600), os.Symlink(logs, filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{logs, filepath.Join(dir, "link")} {
		h := http.StripPrefix("/logs/", newHostLogs(hostFiles(root), "journalctl"))
		for name, want := range map[string]string{
			"near": "inside", "whole/0.log": "inside", "pods/": "0.log", "out": "", "root/etc/hostname": "", "root/": "", "beside/f": "", "magic": "", "loop": "", "device": "", "pipe": "",
		} {
			for _, ask := range []string{name, "?query=/" + name} {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/logs/"+ask, nil))
				if (w.Code == http.StatusOK) != (want != "") || !strings.Contains(w.Body.String(), want) {
					t.Errorf("%s of %s: %d %q, want %q", ask, root, w.Code, w.Body, want)
				}
			}
		}
	}
	w := httptest.NewRecorder()
	newHostLogs(hostFiles(logs), "journalctl").ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?query=out", nil))
	if got := w.Body.String(); !strings.Contains(got, "error getting log for out: open out: it leads out of "+logs) {
		t.Errorf("a service's log that is a link: %q", got)
	}
}

// TestHostLogsAsked: queries end with whoever asks, and so does what the journal's reader has begun; there are so many at a time and no more.
func TestHostLogsAsked(t *testing.T) {
	dir := t.TempDir()
	journal := filepath.Join(dir, "journalctl")
	script := "#!/bin/sh\nif [ \"$1\" = --field ]; then echo slow.service; exit; fi\nsleep 1000 & echo $$ $! >> " + dir + "/pids; echo begun; wait\n"
	if err := os.WriteFile(journal, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	h := newHostLogs(hostFiles(dir), journal)
	server := httptest.NewServer(h)
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ask := func() (*http.Response, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/?query=slow", nil)
		if err != nil {
			return nil, err
		}
		return http.DefaultClient.Do(r)
	}
	var asked sync.WaitGroup
	for range mostQueries {
		asked.Go(func() {
			if resp, err := ask(); err == nil || ctx.Err() == nil {
				t.Errorf("a query without end ended: %v, %v", resp, err)
			}
		})
	}
	await(t, func() bool { return len(pidsIn(t, dir)) == 2*mostQueries })
	resp, err := ask()
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one more query: %s", resp.Status)
	}
	cancel()
	await(t, func() bool {
		return !slices.ContainsFunc(pidsIn(t, dir), func(pid int) bool { return syscall.Kill(pid, 0) == nil && !zombie(pid) }) && len(h.asked) == 0
	})
	asked.Wait()
}

func pidsIn(t *testing.T, dir string) (pids []int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "pids"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

// zombie: the process has ended, and whoever has become its parent has not looked yet.
func zombie(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func await(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 20 s")
		}
	}
}
