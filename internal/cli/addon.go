package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/addon"
	"skiff.dev/skiff/internal/config"
)

func addonCommand() *cobra.Command {
	conf := config.Default()
	cmd := &cobra.Command{
		Use:   "addon",
		Short: "List, enable, disable, install and remove add-ons",
		Long: `Add-ons of the cluster: parts of Skiff that can be switched off, and bundles of manifests that Skiff applies,
keeps, and removes again when the add-on goes.

A bundle is a folder of manifests, an archive of one (.zip, .tgz), a single manifest, or a Helm chart (a folder or a
packaged one). A file addon.yaml beside the manifests may say more: name, version, description, namespace, after.
What lies in <data-dir>/addons on a server is installed by itself.`,
		Example: "  skiff addon list\n  skiff addon disable dashboard\n  skiff addon install ./monitoring --namespace monitoring\n  skiff addon install chart-1.2.3.tgz --name db --set replicas=3 --wait",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(addonList(conf), addonShow(conf), addonSwitch(conf, true), addonSwitch(conf, false), addonInstall(conf), addonRemove(conf))
	return cmd
}

func readAddons(ctx context.Context, c crclient.Client) ([]*addon.Addon, error) {
	l := addon.EmptyList()
	if err := c.List(ctx, l); err != nil {
		if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
			return nil, errors.New("the cluster does not know add-ons (yet): its addon-controller is still starting, or switched off with --controllers")
		}
		return nil, fmt.Errorf("list add-ons: %w", err)
	}
	out := make([]*addon.Addon, 0, len(l.Items))
	for i := range l.Items {
		a, err := addon.From(&l.Items[i])
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(x, y *addon.Addon) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

func readAddon(ctx context.Context, c crclient.Client, name string) (*addon.Addon, error) {
	u := addon.Empty()
	err := c.Get(ctx, crclient.ObjectKey{Name: name}, u)
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("there is no add-on %s; 'skiff addon list' shows those there are", name)
	case err != nil:
		return nil, fmt.Errorf("read the add-on %s: %w", name, err)
	}
	return addon.From(u)
}

func addonList(conf *config.Config) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List add-ons and how they are", Args: cobra.NoArgs}
	return adminAction(cmd, conf, func(ctx context.Context, a admin, _ []string) error {
		all, err := readAddons(ctx, a)
		if err != nil {
			return err
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 3, ' ', 0)
		fmt.Fprintln(w, "NAME\tSTATE\tVERSION\tOBJECTS\tDESCRIPTION")
		for _, x := range all {
			about := x.Spec.Description
			if x.Status.Message != "" {
				about = x.Status.Message
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\n", x.Name, orNone(string(x.Status.State)), orNone(x.Status.Version), len(x.Status.Applied), about)
		}
		return w.Flush()
	})
}

func addonShow(conf *config.Config) *cobra.Command {
	cmd := &cobra.Command{Use: "show NAME", Short: "Show what an add-on brought, object by object", Args: cobra.ExactArgs(1)}
	return adminAction(cmd, conf, func(ctx context.Context, a admin, args []string) error {
		x, err := readAddon(ctx, a, args[0])
		if err != nil {
			return err
		}
		out := cmd.OutOrStdout()
		fmt.Fprintf(out, "Name:         %s\nState:        %s\nDescription:  %s\nVersion:      %s\n", x.Name, x.Status.State, orNone(x.Spec.Description), orNone(x.Status.Version))
		if x.Status.Message != "" {
			fmt.Fprintf(out, "Message:      %s\n", x.Status.Message)
		}
		if len(x.Status.Applied) == 0 {
			return nil
		}
		w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
		fmt.Fprintln(w, "\nKIND\tNAMESPACE\tNAME\tHEALTH\tMESSAGE")
		for _, o := range x.Status.Applied {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", o.Kind, o.Namespace, o.Name, o.Health, o.Message)
		}
		return w.Flush()
	})
}

func addonSwitch(conf *config.Config, on bool) *cobra.Command {
	word, short := "enable", "Bring add-ons into the cluster"
	if !on {
		word, short = "disable", "Take add-ons out of the cluster; they can be enabled again"
	}
	cmd := &cobra.Command{Use: word + " NAME…", Short: short, Args: cobra.MinimumNArgs(1)}
	wait := waitFlags(cmd)
	return adminAction(cmd, conf, func(ctx context.Context, a admin, args []string) error {
		for _, name := range args {
			if _, err := readAddon(ctx, a, name); err != nil {
				return err
			}
			if err := addon.Enable(ctx, a, name, on); err != nil {
				return fmt.Errorf("%s %s: %w", word, name, err)
			}
			if err := wait.forState(ctx, cmd.ErrOrStderr(), a, name, on); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%sd %s\n", word, name)
		}
		return nil
	})
}

// waiting is whether and how long a command waits for what it asked for.
type waiting struct {
	on      *bool
	timeout *time.Duration
}

func waitFlags(cmd *cobra.Command) waiting {
	return waiting{
		cmd.Flags().Bool("wait", false, "Wait until it has happened, and tell how far it is"),
		cmd.Flags().Duration("timeout", 5*time.Minute, "How long to wait"),
	}
}

// forState waits until an add-on is ready, or disabled, and tells of the states before. One that has failed is not waited for.
func (w waiting) forState(ctx context.Context, progress io.Writer, a admin, name string, on bool) error {
	if !*w.on {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, *w.timeout)
	defer cancel()
	told := ""
	for {
		x, err := readAddon(ctx, a, name)
		if err != nil {
			return err
		}
		if now := strings.TrimSuffix(fmt.Sprintf("%s is %s: %s", name, x.Status.State, x.Status.Message), ": "); now != told && x.Status.Message != "" {
			fmt.Fprintln(progress, now)
			told = now
		}
		current := x.Status.ObservedGeneration == x.Generation
		switch {
		case current && on && x.Status.State == addon.Ready, current && !on && x.Status.State == addon.Disabled:
			return nil
		case current && on && x.Status.State == addon.Disabled && x.Status.Message != "":
			return fmt.Errorf("the add-on %s cannot be there: %s", name, x.Status.Message)
		case current && x.Status.State == addon.Failed:
			return fmt.Errorf("the add-on %s has failed: %s", name, x.Status.Message)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the add-on %s is %s after %s: %s", name, x.Status.State, *w.timeout, x.Status.Message)
		}
	}
}

func addonInstall(conf *config.Config) *cobra.Command {
	cmd := &cobra.Command{
		Use: "install PATH", Short: "Install an add-on, or bring one up to date", Args: cobra.ExactArgs(1),
		Long: `Install an add-on from a folder of manifests, an archive of one (.zip, .tgz), a single manifest or a Helm chart.
Installing one that is there updates it: what left the bundle is removed from the cluster.

The bundle is recorded in the cluster, which applies it from there. Without --wait the command ends then, and
'skiff addon show NAME' tells how it goes on; with --wait it ends when the add-on is ready, and fails if that has failed.`,
	}
	name := cmd.Flags().String("name", "", "Name of the add-on (default: what addon.yaml or the chart says, or the file's)")
	namespace := cmd.Flags().StringP("namespace", "n", "", "Namespace of objects that name none (default: what addon.yaml says, or kube-system)")
	values := cmd.Flags().StringArrayP("values", "f", nil, "YAML file with a chart's values; later ones win")
	sets := cmd.Flags().StringArray("set", nil, "One of a chart's values, such as image.tag=2; wins over files")
	valuesFrom := cmd.Flags().StringArray("values-from", nil, "ConfigMap with a chart's values, as NAMESPACE/NAME or NAMESPACE/NAME/KEY (default key: values.yaml); --values and --set win")
	wait := waitFlags(cmd)
	return adminAction(cmd, conf, func(ctx context.Context, a admin, args []string) error {
		files, err := addon.Open(args[0])
		if err != nil {
			return err
		}
		about, err := addon.ReadMeta(files)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if *name == "" {
			*name = about.Name
		}
		if *name == "" {
			base := filepath.Base(args[0])
			*name = strings.TrimSuffix(strings.TrimSuffix(base, filepath.Ext(base)), ".tar")
		}
		spec := addon.Spec{Description: about.Description, Namespace: *namespace, After: about.After}
		if spec.Values, err = readValues(*values, *sets); err != nil {
			return err
		}
		if spec.ValuesFrom, err = valuesSources(*valuesFrom); err != nil {
			return err
		}
		if _, err := readAddons(ctx, a); err != nil {
			return err
		}
		packed, err := addon.Pack(files)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		if err := addon.Install(ctx, a, *name, packed, spec, addon.Place{}); err != nil {
			return err
		}
		return installed(ctx, cmd, a, *name, wait)
	})
}

// installed says what happens to an add-on that was recorded, or waits for it.
func installed(ctx context.Context, cmd *cobra.Command, a admin, name string, wait waiting) error {
	x, err := readAddon(ctx, a, name)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	switch {
	case !x.Wanted():
		fmt.Fprintf(out, "recorded %s, which is disabled: 'skiff addon enable %s' brings it into the cluster\n", name, name)
	case !*wait.on:
		fmt.Fprintf(out, "recorded %s; the cluster applies it now, and 'skiff addon show %s' tells how it goes on\n", name, name)
	default:
		if err := wait.forState(ctx, cmd.ErrOrStderr(), a, name, true); err != nil {
			return err
		}
		fmt.Fprintf(out, "installed %s\n", name)
	}
	return nil
}

// valuesSources reads NAMESPACE/NAME and NAMESPACE/NAME/KEY.
func valuesSources(given []string) (out []addon.ValuesSource, err error) {
	for _, g := range given {
		parts := strings.Split(g, "/")
		if len(parts) < 2 || len(parts) > 3 || slices.Contains(parts, "") {
			return nil, fmt.Errorf("--values-from %s: give NAMESPACE/NAME or NAMESPACE/NAME/KEY of a ConfigMap", g)
		}
		from := addon.ValuesSource{Namespace: parts[0], Name: parts[1]}
		if len(parts) == 3 {
			from.Key = parts[2]
		}
		out = append(out, from)
	}
	return out, nil
}

// readValues reads a chart's values from files and from key=value pairs.
func readValues(files, sets []string) (map[string]any, error) {
	values := map[string]any{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var more map[string]any
		if err := yaml.Unmarshal(raw, &more); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		addon.Merge(values, more)
	}
	for _, set := range sets {
		if err := addon.Set(values, set); err != nil {
			return nil, fmt.Errorf("--set %s: %w", set, err)
		}
	}
	if len(values) == 0 {
		return nil, nil
	}
	return values, nil
}

func addonRemove(conf *config.Config) *cobra.Command {
	cmd := &cobra.Command{Use: "remove NAME…", Aliases: []string{"rm"}, Short: "Remove add-ons and all that they brought", Args: cobra.MinimumNArgs(1)}
	return adminAction(cmd, conf, func(ctx context.Context, a admin, args []string) error {
		for _, name := range args {
			x, err := readAddon(ctx, a, name)
			if err != nil {
				return err
			}
			if origin := x.Annotations[addon.Origin]; origin != "" {
				return fmt.Errorf("%s lies in the folder of add-ons of the server %s; take it out there", name, origin)
			}
			if err := addon.Remove(ctx, a, name); err != nil {
				return fmt.Errorf("remove %s: %w", name, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "removed %s\n", name)
		}
		return nil
	})
}
