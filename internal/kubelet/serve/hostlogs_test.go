package serve

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
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
	h := http.StripPrefix("/logs/", hostLogs{http.Dir(filepath.Join(dir, "var")), journal})
	const read = "read --utc --no-pager --output=short-precise "
	for ask, want := range map[string]string{
		"":                              "200 <pre>",
		"foo.log":                       "200 of foo",
		"?query=kubelet":                "200 " + read + "--unit=kubelet --boot=0\n",
		"?query=kubelet&query=ssh@1":    "200 " + read + "--unit=kubelet --unit=ssh@1 --boot=0\n",
		"?query=kubelet&boot=-1":        "200 " + read + "--unit=kubelet --boot=-1\n",
		"?query=kubelet&pattern=a+b":    "200 " + read + "--unit=kubelet --grep=a b --boot=0\n",
		"?query=kubelet&tailLines=0":    "200 " + read + "--pager-end --lines=0 --unit=kubelet --boot=0\n",
		"?query=kubelet&query=foo":      "200 " + read + "--unit=kubelet --boot=0\nof foo\n",
		"?query=foo":                    "200 of foo\n",
		"?query=bar":                    "200 of bar\n",
		"?query=plain":                  "200 of plain\n",
		"?query=none":                   "200 \nlog not found for none\n",
		"?query=foo&tailLines=3":        "200 \noptions present and query resolved to log files for [foo]\ntry without",
		"?query=/foo.log":               "200 of foo\n",
		`?query=deep\inner.lg`:          "200 of inner\n",
		"?query=/../outside.log":        "406 query: Invalid value: [\"/../outside.log\"]: open ",
		"?query=/none":                  "406 query: Invalid value: [\"/none\"]: open ",
		"?query=":                       `400 query: Invalid value: [""]: query cannot be empty`,
		"?query=+":                      `400 query: Invalid value: [" "]: query cannot be empty`,
		"?tailLines=3":                  "406 query: Required value: cannot be empty with options",
		"foo.log?query=kubelet":         "406 path not allowed in query mode",
		"?query=kubelet&query=/foo.log": `406 query: Invalid value: "[/foo.log], [kubelet]": cannot specify a file and service`,
		"?query=/foo.log&query=/none":   `406 query: Invalid value: ["/foo.log","/none"]: cannot specify more than one file`,
		"?query=/foo.log&boot=0":        `406 query: Invalid value: ["/foo.log"]: cannot specify file with options`,
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
		"?query=kubelet&sinceTime=2026-01-02T03:04:05%2B01:00&untilTime=2026-01-02T03:04:05Z": "200 " + read + "--since=2026-01-02 02:04:05 --until=2026-01-02 03:04:05 --unit=kubelet --boot=0\n",
		"?query=kubelet&sinceTime=2026-01-02T03:04:05Z&untilTime=2026-01-01T03:04:05Z":        "406 untilTime: Invalid value: \"2026-01-01T03:04:05Z\": must be after `sinceTime`",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/logs/"+ask, nil))
		if code, text, _ := strings.Cut(want, " "); code != strconv.Itoa(w.Code) || !strings.Contains(strings.ReplaceAll(w.Body.String(), `\"`, `"`), text) {
			t.Errorf("%s: %d %q, want %q", ask, w.Code, w.Body, want)
		}
	}
	w := httptest.NewRecorder()
	hostLogs{http.Dir(dir), filepath.Join(dir, "none")}.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/?query=kubelet", nil))
	if got := w.Body.String(); got != "\nlog not found for kubelet\n" {
		t.Errorf("without a journal: %q", got)
	}
}
