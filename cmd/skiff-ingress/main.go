// Command skiff-ingress serves Ingresses: it runs in a pod on each node, watches what internal/ingress makes its table of, and carries requests that arrive at
// the node's ports 80 and 443. One of its pods, the holder of a Lease, writes the nodes' addresses into the status of Ingresses.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"skiff.dev/skiff/internal/ingress"
)

// Ports in the pod; the DaemonSet maps the node's to them, so that no privilege is needed.
const (
	plainAddr  = ":8080"
	secureAddr = ":8443"
	healthAddr = ":10254"
)

// Bounds of what a client may do.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 90 * time.Second
	headerBytes   = 64 << 10
	drainTimeout  = 20 * time.Second // for requests that run when the pod ends
)

func main() {
	ctx, restore := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer restore()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := run(ctx, log); err != nil {
		fmt.Fprintf(os.Stderr, "skiff-ingress: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, log *slog.Logger) error {
	conf, err := rest.InClusterConfig()
	if err != nil {
		return fmt.Errorf("find the cluster; this program runs in a pod, as the add-on ingress starts it: %w", err)
	}
	conf.ContentType = "application/vnd.kubernetes.protobuf"
	conf.UserAgent = "skiff-ingress"
	self := self{namespace: os.Getenv("POD_NAMESPACE"), pod: os.Getenv("POD_NAME")}
	if self.namespace == "" || self.pod == "" {
		return errors.New("POD_NAMESPACE and POD_NAME must name this pod; set them from metadata.namespace and metadata.name")
	}
	c, err := newClients(conf)
	if err != nil {
		return err
	}
	var table atomic.Pointer[ingress.Table]
	w := newWatcher(c, self.namespace)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.run(ctx, func(t *ingress.Table) { table.Store(t) }, log) })
	group.Go(func() error { return lead(ctx, c, self, w, log) })
	handler := ingress.NewHandler(table.Load, log)
	group.Go(func() error { return serve(ctx, &http.Server{Addr: healthAddr, Handler: health(ctx, &table)}, log) })
	group.Go(func() error {
		select { // before there is a table there is nothing true to answer
		case <-w.first:
		case <-ctx.Done():
			return nil
		}
		group.Go(func() error { return serve(ctx, &http.Server{Addr: plainAddr, Handler: handler}, log) })
		return serve(ctx, &http.Server{Addr: secureAddr, Handler: handler, TLSConfig: tlsConfig(table.Load)}, log)
	})
	return group.Wait()
}

// serve answers until ctx ends, then lets running requests end.
func serve(ctx context.Context, s *http.Server, log *slog.Logger) error {
	s.ReadHeaderTimeout, s.IdleTimeout, s.MaxHeaderBytes = headerTimeout, idleTimeout, headerBytes
	s.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelDebug) // handshakes that strangers break off
	s.Protocols = &http.Protocols{}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.Protocols.SetUnencryptedHTTP2(s.TLSConfig == nil)
	ended := make(chan error, 1)
	go func() {
		if s.TLSConfig != nil {
			ended <- s.ListenAndServeTLS("", "")
		} else {
			ended <- s.ListenAndServe()
		}
	}()
	select {
	case err := <-ended:
		return fmt.Errorf("serve at %s: %w", s.Addr, err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if err := s.Shutdown(drain); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return s.Close()
}

func tlsConfig(table func() *ingress.Table) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := table().Certificate(ingress.Hostname(hello.ServerName)); c != nil {
				return c, nil
			}
			return nil, fmt.Errorf("no Ingress has a certificate for %q", hello.ServerName)
		},
	}
}

// health says whether requests are carried.
func health(ctx context.Context, table *atomic.Pointer[ingress.Table]) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		switch {
		case ctx.Err() != nil:
			http.Error(w, "ending", http.StatusServiceUnavailable)
		case table.Load() == nil:
			http.Error(w, "waiting for the API server's objects", http.StatusServiceUnavailable)
		}
	})
	return mux
}
