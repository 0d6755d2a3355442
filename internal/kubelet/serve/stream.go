package serve

import (
	"net/http"
	"net/url"
	"strconv"

	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/proxy"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// flag reads a parameter under either of the names it goes by: those of the kubelet's API, and those of the API server's.
func flag(q url.Values, names ...string) bool {
	for _, name := range names {
		if v := q.Get(name); v == "1" || v == "true" {
			return true
		}
	}
	return false
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	c, _, err := s.running(r)
	if err != nil {
		refuse(w, err)
		return
	}
	if len(q["command"]) == 0 {
		http.Error(w, "you must specify a command", http.StatusBadRequest)
		return
	}
	request := &runtimeapi.ExecRequest{
		ContainerId: c.ID, Cmd: q["command"], Tty: flag(q, "tty"),
		Stdin: flag(q, "input", "stdin"), Stdout: flag(q, "output", "stdout"), Stderr: flag(q, "error", "stderr"),
	}
	request.Stderr = request.Stderr && !request.Tty // a terminal has one output
	if !request.Stdin && !request.Stdout && !request.Stderr {
		http.Error(w, "you must specify at least 1 of stdin, stdout, stderr", http.StatusBadRequest)
		return
	}
	resp, err := s.cfg.Runtime.Exec(r.Context(), request)
	s.pass(w, r, resp.GetUrl(), err)
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	c, spec, err := s.running(r)
	if err != nil {
		refuse(w, err)
		return
	}
	request := &runtimeapi.AttachRequest{
		ContainerId: c.ID, Tty: spec != nil && spec.TTY,
		Stdin: flag(q, "input", "stdin"), Stdout: flag(q, "output", "stdout"), Stderr: flag(q, "error", "stderr"),
	}
	request.Stderr = request.Stderr && !request.Tty
	if !request.Stdin && !request.Stdout && !request.Stderr {
		http.Error(w, "you must specify at least 1 of stdin, stdout, stderr", http.StatusBadRequest)
		return
	}
	resp, err := s.cfg.Runtime.Attach(r.Context(), request)
	s.pass(w, r, resp.GetUrl(), err)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	_, view, err := s.find(r)
	if err != nil {
		refuse(w, err)
		return
	}
	if len(view.Sandboxes) == 0 || !view.Sandboxes[0].Ready {
		http.Error(w, "pod is not running", http.StatusNotFound)
		return
	}
	request := &runtimeapi.PortForwardRequest{PodSandboxId: view.Sandboxes[0].ID}
	q := r.URL.Query()
	for _, text := range append(q["port"], q["ports"]...) {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			http.Error(w, "invalid port "+strconv.Quote(text), http.StatusBadRequest)
			return
		}
		request.Port = append(request.Port, int32(n))
	}
	resp, err := s.cfg.Runtime.PortForward(r.Context(), request)
	s.pass(w, r, resp.GetUrl(), err)
}

// pass hands the connection on to the runtime's streaming server.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, location string, err error) {
	if err != nil {
		http.Error(w, status.Convert(err).Message(), http.StatusInternalServerError)
		return
	}
	target, err := url.Parse(location)
	if err != nil || target.Host == "" {
		http.Error(w, "the container runtime has no address to stream from", http.StatusInternalServerError)
		return
	}
	handler := proxy.NewUpgradeAwareHandler(target, nil, false, true, responder{s})
	handler.ServeHTTP(w, r)
}

type responder struct{ s *Server }

func (e responder) Error(w http.ResponseWriter, _ *http.Request, err error) {
	e.s.cfg.Log.Info("a stream failed", "err", err)
	http.Error(w, err.Error(), http.StatusInternalServerError)
}
