package main

import (
	"fmt"
	"html/template"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// site is what the server shows. Its facts are those of the process's environment, read once.
type site struct {
	mu      sync.Mutex // one log line at a time
	log     io.Writer
	facts   []fact
	message string
	mux     *http.ServeMux
}

type fact struct{ Name, Value string }

func newSite(log io.Writer) *site {
	s := &site{log: log, message: os.Getenv("MESSAGE"), mux: http.NewServeMux()}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	pod := os.Getenv("POD_NAME")
	if pod == "" {
		pod = host
	}
	for _, f := range []fact{
		{"pod", pod},
		{"namespace", os.Getenv("POD_NAMESPACE")},
		{"address", os.Getenv("POD_IP")},
		{"node", os.Getenv("NODE_NAME")},
		{"host name", host},
	} {
		if f.Value != "" {
			s.facts = append(s.facts, f)
		}
	}
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	if os.Getenv("BURN") == "1" {
		s.mux.HandleFunc("/burn", burn)
	}
	s.mux.HandleFunc("/", s.answer)
	return s
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/healthz" {
		s.mux.ServeHTTP(w, r)
		return
	}
	began := time.Now()
	rec := &recorder{ResponseWriter: w, code: http.StatusOK}
	s.mux.ServeHTTP(rec, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.log, "%s %s %s %d %s from %s\n",
		began.UTC().Format(time.RFC3339), r.Method, r.URL.RequestURI(), rec.code, time.Since(began).Round(time.Microsecond), r.RemoteAddr)
}

// recorder remembers the status for the log.
type recorder struct {
	http.ResponseWriter
	code int
}

func (r *recorder) WriteHeader(code int) {
	r.code = code
	r.ResponseWriter.WriteHeader(code)
}

// answer is the same for every path, so that whoever tries out routing sees where a request ended.
func (s *site) answer(w http.ResponseWriter, r *http.Request) {
	facts := append(s.facts[:len(s.facts):len(s.facts)], fact{"path", r.URL.Path}, fact{"you", r.RemoteAddr})
	w.Header().Set("Cache-Control", "no-store")
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, struct {
			Message string
			Facts   []fact
		}{s.message, facts})
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if s.message != "" {
		fmt.Fprintln(w, s.message)
	}
	for _, f := range facts {
		fmt.Fprintf(w, "%-10s %s\n", f.Name, f.Value)
	}
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{(index .Facts 0).Value}}</title>
<style>
  body { font: 1.1rem/1.6 system-ui, sans-serif; display: grid; place-items: center; min-height: 90vh; margin: 0; color: #123; background: #f4f7fa }
  main { background: #fff; padding: 2rem 3rem; border-radius: .8rem; box-shadow: 0 .3rem 1.5rem #1232 }
  h1 { font-size: 1.3rem; margin: 0 0 1rem }
  dl { display: grid; grid-template-columns: auto 1fr; gap: .2rem 1.5rem; margin: 0 }
  dt { color: #678 } dd { margin: 0; font-family: ui-monospace, monospace }
</style>
<main>
<h1>{{with .Message}}{{.}}{{else}}Hello from {{(index .Facts 0).Value}}{{end}}</h1>
<dl>{{range .Facts}}<dt>{{.Name}}</dt><dd>{{.Value}}</dd>{{end}}</dl>
</main>
</html>
`))
