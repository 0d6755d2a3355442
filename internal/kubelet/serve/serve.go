// Package serve is the kubelet's HTTP API: logs, exec, attach, port-forward, pods, figures.
//
// The API server and members of system:masters, known by client certificates, may ask everything; of others the API server is asked who they are and what
// they may do (access.go). Streams are the container runtime's: it is asked for a URL, and the connection is passed on to that, upgraded as the caller wished (SPDY
// or WebSocket). Package kubelet runs the server.
package serve

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/kubelet/logs"
	"skiff.dev/skiff/internal/kubelet/pod"
)

// Pods of this node.
type Pods interface {
	List() []pod.View
	Find(namespace, name string, uid types.UID) *pod.Actor
}

// Config of the server.
type Config struct {
	NodeName string
	API      crclient.Writer // asked about callers; nil: nobody but the API server and administrators is let in
	Pods     Pods
	Runtime  runtimeapi.RuntimeServiceClient
	Summary  func(context.Context) (any, error) // nil: there are no figures
	// Containers serves /metrics/cadvisor; nil: there is nothing to serve.
	Containers http.Handler
	// Search through the logs of all pods, those that are gone included.
	Search   func(ctx context.Context, q logs.Query, found func(*logs.Line) error) error
	LogQuery bool // the logs of the host's services can be asked for
	// History serves /stats/history; nil: there is none.
	History http.Handler
	Probes  prometheus.Collector   // of /metrics/probes; may be nil
	Counts  []prometheus.Collector // of pods and containers, for /metrics
	Metrics prometheus.Gatherer
	TLS     *tls.Config
	Log     *slog.Logger
}

// Server of one kubelet.
type Server struct {
	cfg    Config
	access *access
	mux    *http.ServeMux
}

// systemLogs are the host's own, for who may read nodes/log.
const systemLogs = "/var/log"

func New(cfg Config) *Server {
	s := &Server{cfg: cfg, access: newAccess(cfg.NodeName, cfg.API), mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	s.mux.HandleFunc("GET /pods", s.pods)
	s.mux.HandleFunc("GET /runningpods", s.pods)
	s.mux.HandleFunc("GET /runningpods/", s.pods)
	s.mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	hosts := http.FileServer(hostFiles(systemLogs))
	if cfg.LogQuery {
		hosts = newHostLogs(hostFiles(systemLogs), "journalctl")
	}
	s.mux.Handle("GET /logs/", http.StripPrefix("/logs/", hosts))
	if cfg.Search != nil {
		s.mux.HandleFunc("GET /logs/search", s.search)
	}
	for _, verb := range []string{"GET", "POST"} {
		s.mux.HandleFunc(verb+" /exec/{namespace}/{pod}/{container}", s.exec)
		s.mux.HandleFunc(verb+" /exec/{namespace}/{pod}/{uid}/{container}", s.exec)
		s.mux.HandleFunc(verb+" /attach/{namespace}/{pod}/{container}", s.attach)
		s.mux.HandleFunc(verb+" /attach/{namespace}/{pod}/{uid}/{container}", s.attach)
		s.mux.HandleFunc(verb+" /portForward/{namespace}/{pod}", s.portForward)
		s.mux.HandleFunc(verb+" /portForward/{namespace}/{pod}/{uid}", s.portForward)
	}
	if cfg.Summary != nil {
		s.mux.HandleFunc("GET /stats/summary", s.summary)
		s.mux.HandleFunc("GET /metrics/resource", s.resource)
	}
	if cfg.History != nil {
		s.mux.Handle("GET /stats/history", cfg.History)
	}
	if cfg.Containers != nil {
		s.mux.Handle("GET /metrics/cadvisor", cfg.Containers)
	}
	if cfg.Probes != nil {
		probes := prometheus.NewRegistry()
		probes.MustRegister(cfg.Probes)
		s.mux.Handle("GET /metrics/probes", promhttp.HandlerFor(probes, promhttp.HandlerOpts{}))
	}
	metrics := cfg.Metrics
	if metrics == nil {
		metrics = s.ownMetrics()
	}
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return s
}

// Run serves until ctx ends; streams that are still open then are cut.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler: s, TLSConfig: s.cfg.TLS, ReadHeaderTimeout: 30 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.ServeTLS(listener, "", "") }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	_ = server.Close()
	<-ended
	return nil
}

// ServeHTTP lets in who may ask.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if no := s.access.check(r); no != nil {
		http.Error(w, no.message, no.code)
		return
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []corev1.Pod{}}
	for _, v := range s.cfg.Pods.List() {
		list.Items = append(list.Items, *v.Pod)
	}
	s.json(w, &list)
}

func (s *Server) json(w http.ResponseWriter, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}

// refusal is an answer that isn't what was asked for.
type refusal struct {
	code    int
	message string
}

func (r *refusal) Error() string { return r.message }

func refuse(w http.ResponseWriter, err error) {
	var r *refusal
	if errors.As(err, &r) {
		http.Error(w, r.message, r.code)
		return
	}
	http.Error(w, err.Error(), http.StatusInternalServerError)
}

// find the pod of a request.
func (s *Server) find(r *http.Request) (*pod.Actor, pod.View, error) {
	namespace, name, uid := r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("uid")
	a := s.cfg.Pods.Find(namespace, name, types.UID(uid))
	if a == nil {
		return nil, pod.View{}, &refusal{http.StatusNotFound, "pod does not exist"}
	}
	return a, a.View(), nil
}

// running finds the container of a request, which must run.
func (s *Server) running(r *http.Request) (*pod.Container, *corev1.Container, error) {
	_, view, err := s.find(r)
	if err != nil {
		return nil, nil, err
	}
	name := r.PathValue("container")
	for i := range view.Containers {
		if c := &view.Containers[i]; c.Name == name && c.Running() {
			return c, pod.Spec(view.Pod, name), nil
		}
	}
	return nil, nil, &refusal{http.StatusNotFound, "container not found (\"" + name + "\")"}
}
