package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/host"
	"skiff.dev/skiff/internal/runtime"
)

func imageCommand() *cobra.Command {
	conf := config.Default()
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Import, list, pull and remove images on this node",
		Long: `Images of the node that runs on this host. An imported image needs no registry: pods use it by its
name, with imagePullPolicy IfNotPresent or Never.`,
		Example: "  docker save app:1 | skiff image import -\n  skiff image ls",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(imageImport(conf), imageList(conf), imagePull(conf), imageRemove(conf))
	return cmd
}

// imageAction is a command on the images of the cluster that the settings name.
func imageAction(cmd *cobra.Command, conf *config.Config, do func(ctx context.Context, images *runtime.Images, args []string) error) *cobra.Command {
	fill := configured(cmd, conf, "data-dir", "cluster-name", "cri-endpoint")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := fill(); err != nil {
			return err
		}
		asked := conf.CRIEndpoint
		if err := host.Recall(conf); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		conf.CRIEndpoint = cmp.Or(asked, conf.CRIEndpoint)
		images, err := runtime.OpenImages(cmd.Context(), filepath.Join(conf.RunDir(), "containerd"), conf.CRIEndpoint)
		switch {
		case errors.Is(err, runtime.ErrNotRunning):
			return fmt.Errorf("no cluster is running on %s; start one with 'skiff up', or name another with --data-dir", conf.DataDir)
		case errors.Is(err, os.ErrPermission):
			return errors.New("only root can reach the container runtime; run it with sudo")
		case err != nil:
			return err
		}
		defer images.Close()
		return do(cmd.Context(), images, args)
	}
	return cmd
}

func imageImport(conf *config.Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FILE|- …",
		Short: "Load images from archives (docker save, OCI layout), packed or not; - reads standard input",
		Args:  cobra.MinimumNArgs(1),
	}
	return imageAction(cmd, conf, func(ctx context.Context, images *runtime.Images, files []string) error {
		for _, file := range files {
			names, err := importArchive(ctx, images, file, cmd.InOrStdin())
			for _, name := range names {
				fmt.Fprintf(cmd.OutOrStdout(), "imported %s\n", name)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		return nil
	})
}

func importArchive(ctx context.Context, images *runtime.Images, file string, in io.Reader) ([]string, error) {
	if file == "-" {
		return images.Import(ctx, in)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	return images.Import(ctx, f)
}

func imageList(conf *config.Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the images on this node",
		Args:    cobra.NoArgs,
	}
	output := cmd.Flags().StringP("output", "o", "", "Print as json instead of a table, or only names with name")
	return imageAction(cmd, conf, func(ctx context.Context, images *runtime.Images, _ []string) error {
		list, err := images.List(ctx)
		if err != nil {
			return err
		}
		switch *output {
		case "":
			return imageTable(cmd.OutOrStdout(), list)
		case "json":
			e := json.NewEncoder(cmd.OutOrStdout())
			e.SetIndent("", "  ")
			return e.Encode(list)
		case "name":
			for _, image := range list {
				for _, name := range image.Names {
					fmt.Fprintln(cmd.OutOrStdout(), name)
				}
			}
			return nil
		}
		return fmt.Errorf("-o %s: there are json and name", *output)
	})
}

// imageTable has a line for each name; an image without any has one too.
func imageTable(out io.Writer, list []runtime.Image) error {
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	fmt.Fprintln(w, "REPOSITORY\tTAG\tIMAGE ID\tSIZE")
	for _, image := range list {
		names := image.Names
		if len(names) == 0 {
			repository := "<none>"
			if len(image.Digests) > 0 {
				repository, _, _ = strings.Cut(image.Digests[0], "@")
			}
			names = []string{repository + ":<none>"}
		}
		for _, name := range names {
			at := strings.LastIndexByte(name, ':')
			id := strings.TrimPrefix(image.ID, "sha256:")
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", name[:at], name[at+1:], id[:min(12, len(id))], size(image.Size))
		}
	}
	return w.Flush()
}

// size in the units that registries use.
func size(n uint64) string {
	const units = "kMGTP"
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}
	f, unit := float64(n)/1000, 0
	for f >= 999.95 && unit < len(units)-1 {
		f, unit = f/1000, unit+1
	}
	return fmt.Sprintf("%.1f%cB", f, units[unit])
}

func imagePull(conf *config.Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pull NAME",
		Short: "Get an image from its registry",
		Args:  cobra.ExactArgs(1),
	}
	return imageAction(cmd, conf, func(ctx context.Context, images *runtime.Images, args []string) error {
		id, err := images.Pull(ctx, args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "pulled %s as %s\n", args[0], id)
		return nil
	})
}

func imageRemove(conf *config.Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rm NAME…",
		Aliases: []string{"remove"},
		Short:   "Remove images from this node",
		Args:    cobra.MinimumNArgs(1),
	}
	return imageAction(cmd, conf, func(ctx context.Context, images *runtime.Images, names []string) error {
		var errs []error
		for _, name := range names {
			if err := images.Remove(ctx, name); err != nil {
				errs = append(errs, err)
				continue
			}
			fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", name)
		}
		return errors.Join(errs...)
	})
}
