package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/host"
)

func downCommand() *cobra.Command {
	conf := config.Default()
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop a cluster and remove what it left on this host",
		Long: `Stop the skiff that runs on --data-dir, if one does, then remove what the cluster left on this
host: containers, mounts, network namespaces, links, its nft table, cgroups. Its data stays,
and 'skiff up' starts the same workloads again; --purge removes the data too.`,
		Args: cobra.NoArgs,
	}
	fill := configured(cmd, conf, "data-dir", "cluster-name", "log-level", "log-format")
	purge := cmd.Flags().Bool("purge", false, "Remove the cluster's data as well")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := fill(); err != nil {
			return err
		}
		dir, err := binDir()
		if err != nil {
			return err
		}
		return host.Down(cmd.Context(), host.Options{
			Config: conf,
			BinDir: dir,
			Log:    logger(conf, cmd.ErrOrStderr()),
			Progress: func(e host.Progress) {
				fmt.Fprintf(cmd.OutOrStdout(), "  %-18s %s\n", e.Part, e.Detail)
			},
		}, *purge)
	}
	return cmd
}
