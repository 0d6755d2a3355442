package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/host"
)

// agentKeys are the settings of a node; the cluster's own come from its server.
var agentKeys = []string{
	"server", "token", "token-file", "data-dir", "cluster-name", "log-level", "log-format", "node-name", "node-ip", "kubelet-listen", "max-pods", "pod-manifest-path", "eviction-hard",
	"eviction-soft", "eviction-soft-grace-period", "eviction-max-pod-grace-period", "eviction-minimum-reclaim", "eviction-pressure-transition-period",
	"enable-system-log-query", "shutdown-grace-period", "shutdown-grace-period-critical-pods", "shutdown-grace-period-by-pod-priority",
	"proxy-healthz-bind-address", "proxy-metrics-bind-address", "cri-endpoint", "resolv-conf", "vxlan-port", "direct-routing",
}

// serverKeys are all settings but those of a host that joins another's cluster.
func serverKeys(conf *config.Config) []string {
	return slices.DeleteFunc(conf.Keys(), func(key string) bool { return key == "server" || key == "token" || key == "token-file" })
}

func agentCommand() *cobra.Command {
	conf := config.Default()
	conf.LogLevel = "warn" // the terminal belongs to the progress lines
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run a node of a cluster whose server is on another host",
		Long: `Run a node of a cluster whose server is on another host. 'skiff token create --print-join-command' on the
server prints the command that joins. The token says which authority the server must have, so nothing is sent to a
server that is not the cluster's; it is needed once: afterwards the node comes back by its own certificates, which
renew themselves. Ctrl-C stops it in order; containers go on running. 'skiff down' removes them.`,
		Example: "  skiff agent --server https://10.0.0.1:6443 --token skiff1…::abcdef.0123456789abcdef\n  skiff agent --server https://10.0.0.1:6443 --token-file /etc/skiff/token",
		Args:    cobra.NoArgs,
	}
	fill := configured(cmd, conf, agentKeys...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := fill(); err != nil {
			return err
		}
		p := &agentProgress{out: cmd.OutOrStdout(), began: time.Now()}
		return runOn(cmd, conf, p.show, host.RunAgent)
	}
	return cmd
}

// agentProgress prints a line for each part that becomes ready.
type agentProgress struct {
	mu    sync.Mutex
	out   io.Writer
	began time.Time
}

func (p *agentProgress) show(e host.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	took := time.Since(p.began).Seconds()
	switch e.Part {
	case host.AllReady:
		fmt.Fprintf(p.out, "  Ready in %.1f s.  On the server: skiff kubectl get nodes\n", took)
	case host.Stopping:
		fmt.Fprintf(p.out, "\n  stopping; containers go on running ('skiff down' removes them)\n")
	default:
		fmt.Fprintln(p.out, strings.TrimRight(fmt.Sprintf("  %-18s ready   %.2f s   %s", e.Part, took, e.Detail), " "))
	}
}
