// Package operator is an operator as people write them with controller-runtime: a kind of its own, a finalizer, an owned object, status conditions
// and events, a defaulting and a validating webhook that it serves itself, and leader election between its replicas.
//
// It runs as a process of its own beside the API server; tests start it by running themselves again (Main). Whoever is elected points the webhooks
// to itself, where a cluster would have a Service.
package operator

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	corev1 "k8s.io/api/core/v1"
)

// What a process is told by its environment.
const (
	PortVariable  = "SKIFF_TEST_OPERATOR_PORT"  // of its webhooks; set only for operators
	CertsVariable = "SKIFF_TEST_OPERATOR_CERTS" // a folder with tls.crt and tls.key
)

// Main is the operator's process. It ends on SIGTERM.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "operator:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context) error {
	ctrllog.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(os.Stdout, nil)))
	port, err := strconv.Atoi(os.Getenv(PortVariable))
	if err != nil {
		return err
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return reads{next} })
	mgr, err := newManager(cfg, port, os.Getenv(CertsVariable))
	if err != nil {
		return err
	}
	r := &reconciler{Client: mgr.GetClient(), events: mgr.GetEventRecorder("hives")}
	if err := builder.ControllerManagedBy(mgr).For(&Hive{}).Owns(&corev1.ConfigMap{}).Complete(r); err != nil {
		return err
	}
	if err := builder.WebhookManagedBy(mgr, &Hive{}).WithDefaulter(defaulter{}).WithValidator(validator{}).Complete(); err != nil {
		return err
	}
	bundle, err := os.ReadFile(filepath.Join(os.Getenv(CertsVariable), "tls.crt"))
	if err != nil {
		return err
	}
	if err := mgr.Add(manager.RunnableFunc(func(ctx context.Context) error { return register(ctx, mgr.GetClient(), port, bundle) })); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func newManager(cfg *rest.Config, port int, certs string) (manager.Manager, error) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, err
	}
	if err := addToScheme(scheme); err != nil {
		return nil, err
	}
	// A leader that stops says so; one that only lost the API server for a while stays the leader.
	lease, renew, retry := time.Minute, 45*time.Second, time.Second
	return manager.New(cfg, manager.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"},
		WebhookServer:  webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: port, CertDir: certs}),
		LeaderElection: true, LeaderElectionID: "hives.bees.example.com", LeaderElectionNamespace: "default", LeaderElectionReleaseOnCancel: true,
		LeaseDuration: &lease, RenewDeadline: &renew, RetryPeriod: &retry,
	})
}

// reads tells how the caches read hives.
type reads struct{ http.RoundTripper }

func (t reads) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.RoundTripper.RoundTrip(r)
	if q := r.URL.Query(); err == nil && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/hives") {
		fmt.Printf("read hives watch=%s initial=%s code=%d\n", q.Get("watch"), q.Get("sendInitialEvents"), resp.StatusCode)
	}
	return resp, err
}
