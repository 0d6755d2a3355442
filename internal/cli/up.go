package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/host"
)

func upCommand() *cobra.Command {
	conf := config.Default()
	conf.LogLevel = "warn" // the terminal belongs to the progress lines
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run a whole cluster in the foreground",
		Long: `Run a whole cluster, server and agent, in the foreground. Ctrl-C stops it in order; containers
go on running, and the next 'skiff up' takes them over. 'skiff down' removes them.`,
		Example: "  skiff up\n  skiff up --data-dir /srv/two --listen 127.0.0.1:7443 --pod-cidr 10.52.0.0/16 --service-cidr 10.53.0.0/16 \\\n           --kubelet-listen 0.0.0.0:0",
		Args:    cobra.NoArgs,
	}
	fill := configured(cmd, conf, serverKeys(conf)...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := fill(); err != nil {
			return err
		}
		p := &progress{out: cmd.OutOrStdout(), began: time.Now(), conf: conf}
		return runHost(cmd, conf, p.show)
	}
	return cmd
}

func serverCommand() *cobra.Command {
	conf := config.Default()
	conf.Listen = "0.0.0.0:6443"
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run a server, for a service manager",
		Long: `Run a server: the control plane and, unless --no-agent is given, a node. It logs instead of
showing progress and listens on every address; otherwise it is 'skiff up'.`,
		Args: cobra.NoArgs,
	}
	fill := configured(cmd, conf, serverKeys(conf)...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := fill(); err != nil {
			return err
		}
		log := logger(conf, cmd.ErrOrStderr())
		began := time.Now()
		return runHost(cmd, conf, func(e host.Progress) {
			log.Info("ready", "part", e.Part, "after", time.Since(began).Round(time.Millisecond), "detail", e.Detail)
		})
	}
	return cmd
}

func runHost(cmd *cobra.Command, conf *config.Config, show func(host.Progress)) error {
	return runOn(cmd, conf, show, host.Run)
}

// runOn runs a server or an agent in this process.
func runOn(cmd *cobra.Command, conf *config.Config, show func(host.Progress), run func(context.Context, host.Options) error) error {
	dir, err := binDir()
	if err != nil {
		return err
	}
	log := logger(conf, cmd.ErrOrStderr())
	klog.SetSlogLogger(slog.New(muted{log.Handler()}))
	if os.Getenv("GOGC") == "" {
		growHeap()
	}
	return run(cmd.Context(), host.Options{
		Config:   conf,
		BinDir:   dir,
		Log:      log,
		Progress: show,
	})
}

// muted is for libraries that log what is no news to an operator, such as each connection that a client closes: all of it is for debugging.
type muted struct{ slog.Handler }

func (m muted) Enabled(ctx context.Context, _ slog.Level) bool {
	return m.Handler.Enabled(ctx, slog.LevelDebug)
}

func (m muted) Handle(ctx context.Context, r slog.Record) error {
	r.Level = slog.LevelDebug
	if !m.Enabled(ctx, r.Level) {
		return nil // not every library asks before it logs an error
	}
	return m.Handler.Handle(ctx, r)
}

func (m muted) WithAttrs(a []slog.Attr) slog.Handler { return muted{m.Handler.WithAttrs(a)} }
func (m muted) WithGroup(g string) slog.Handler      { return muted{m.Handler.WithGroup(g)} }

// progress prints a line for each part that becomes ready, and says at the end what to do next.
type progress struct {
	mu    sync.Mutex
	out   io.Writer
	began time.Time
	conf  *config.Config
}

func (p *progress) show(e host.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	took := time.Since(p.began).Seconds()
	switch e.Part {
	case host.AllReady:
		fmt.Fprintf(p.out, "  Ready in %.1f s.  export KUBECONFIG=%s\n  Try: skiff kubectl apply -f examples/web.yaml\n", took, p.conf.Kubeconfig())
	case host.Stopping:
		fmt.Fprintf(p.out, "\n  stopping; containers go on running ('skiff down' removes them)\n")
	default:
		fmt.Fprintln(p.out, strings.TrimRight(fmt.Sprintf("  %-18s ready   %.2f s   %s", e.Part, took, e.Detail), " "))
	}
}
