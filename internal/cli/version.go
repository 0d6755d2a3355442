package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"skiff.dev/skiff/internal/version"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say what this skiff is made of",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "skiff       %s\nkubernetes  %s\n", version.Skiff, version.Kubernetes)
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, dep := range info.Deps {
					if name := versionNames[dep.Path]; name != "" {
						fmt.Fprintf(out, "%-11s %s\n", name, dep.Version)
					}
				}
			}
			fmt.Fprintf(out, "%-11s %s %s/%s\n", "go", runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}

// versionNames are the libraries whose versions a user may ask about.
var versionNames = map[string]string{
	"go.etcd.io/etcd/server/v3":           "etcd",
	"github.com/containerd/containerd/v2": "containerd",
	"github.com/coredns/coredns":          "coredns",
	"k8s.io/kubectl":                      "kubectl",
	"sigs.k8s.io/controller-runtime":      "controllers",
}
