// Package cli is the skiff command: one file a command, each a thin view of what another package does.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"skiff.dev/skiff/internal/config"
)

const rootHelp = `Skiff is a Kubernetes cluster in one program: API server, scheduler, controllers, etcd,
kubelet, service proxy, container runtime and DNS.

  skiff up                                  a whole cluster in the foreground
  skiff kubectl apply -f examples/web.yaml  talk to it (any kubectl will do)
  skiff dashboard                           sign in to its web UI
  skiff logs --search REGEX                 the logs of all pods, deleted ones included
  skiff server, skiff agent, skiff token    a cluster of several hosts
  skiff down                                remove what it left on this host

Every flag of up and server is also a key of the YAML file given with --config (data-dir: /srv/skiff)
and an environment variable (SKIFF_DATA_DIR=/srv/skiff). A flag beats a variable, a variable the file.`

// Main runs the command line and returns the exit code. Errors go to stderr, a line each.
func Main(args []string) int {
	if base := filepath.Base(args[0]); base == "kubectl" {
		return kubectlMain(args)
	}
	if len(args) > 1 && (args[1] == "kubectl" || args[1] == "k") {
		return kubectlMain(args[1:])
	}
	// The first signal asks for an orderly stop; a second one, while stopping, ends the process at once, as is usual.
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, restore)
	defer restore()

	root := newRoot(os.Stdout, os.Stderr)
	root.SetArgs(args[1:])
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "skiff: %s\n", strings.TrimSpace(err.Error()))
	return 1
}

func newRoot(out, errOut io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:           "skiff",
		Short:         "Kubernetes in one program",
		Long:          rootHelp,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(out)
	root.SetErr(errOut)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath())
	})
	root.AddCommand(
		upCommand(), serverCommand(), agentCommand(), downCommand(),
		tokenCommand(), addonCommand(), dashboardCommand(), imageCommand(),
		kubectlCommand(), explainCommand(), logsCommand(),
		versionCommand(),
	)
	return root
}

// configured adds the settings' flags to cmd and fills conf from flags, environment and file when cmd runs.
func configured(cmd *cobra.Command, conf *config.Config, keys ...string) (fill func() error) {
	conf.Bind(cmd.Flags())
	if len(keys) > 0 {
		for _, key := range conf.Keys() {
			if !slices.Contains(keys, key) {
				cmd.Flags().Lookup(key).Hidden = true
			}
		}
	}
	file := cmd.Flags().String("config", os.Getenv("SKIFF_CONFIG"), "YAML file with the same keys as these flags")
	return func() error {
		if err := conf.Fill(cmd.Flags(), *file, os.Environ()); err != nil {
			return err
		}
		return conf.Complete()
	}
}

// logger writes to w what the settings ask for.
func logger(conf *config.Config, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(conf.LogLevel)); err != nil {
		level = slog.LevelInfo // Complete has checked it
	}
	opts := &slog.HandlerOptions{Level: level}
	if conf.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// binDir is the folder of this program; its companions lie beside it.
func binDir() (string, error) {
	exe, err := os.Executable() // follows links
	if err != nil {
		return "", errors.New("cannot find out where this program lies; is /proc mounted?")
	}
	return filepath.Dir(exe), nil
}
