package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/scheduler/explain"
)

func explainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain",
		Short: "Say why a pod has no node",
		Long: `Why the scheduler has found no node for a pod. (For what the fields of a kind mean, see 'skiff kubectl
explain'.)`,
		Example: "  skiff explain pod web-0\n  skiff explain pod web-0 -n shop --all",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(explainPod(config.Default()))
	return cmd
}

func explainPod(conf *config.Config) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pod NAME",
		Short: "Node by node, why a pod cannot run there, what is nearest, and who would have to give way",
		Args:  cobra.ExactArgs(1),
	}
	namespace := cmd.Flags().StringP("namespace", "n", "default", "Namespace of the pod")
	all := cmd.Flags().Bool("all", false, "Show every node, not only those where least is missing")
	output := cmd.Flags().StringP("output", "o", "", "json or yaml: everything, for programs")
	return adminAction(cmd, conf, func(ctx context.Context, a admin, args []string) error {
		if !slices.Contains([]string{"", "json", "yaml"}, *output) {
			return fmt.Errorf("output: %q is not known; give json, yaml, or nothing", *output)
		}
		cs, err := kubernetes.NewForConfig(a.rest)
		if err != nil {
			return fmt.Errorf("reach the cluster at %s: %w", a.rest.Host, err)
		}
		result := cs.CoreV1().RESTClient().Get().Namespace(*namespace).Resource("pods").Name(args[0]).SubResource("explain").Do(ctx)
		if err := result.Error(); err != nil { // the server's own words; Raw has the status code's
			return err
		}
		raw, err := result.Raw()
		if err != nil {
			return err
		}
		if *output == "yaml" {
			if raw, err = yaml.JSONToYAML(raw); err != nil {
				return fmt.Errorf("read the server's answer: %w", err)
			}
		}
		if *output != "" {
			_, err := cmd.OutOrStdout().Write(raw)
			return err
		}
		var pod explain.Pod
		if err := json.Unmarshal(raw, &pod); err != nil {
			return fmt.Errorf("read the server's answer: %w", err)
		}
		return pod.Write(cmd.OutOrStdout(), *all, time.Now())
	})
}
