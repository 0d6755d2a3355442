package cli

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/util/homedir"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"

	"skiff.dev/skiff/internal/config"
)

// kubectlCommand is what the help shows; Main hands the arguments to kubectl itself before cobra reads them.
func kubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl",
		Aliases:            []string{"k"},
		Short:              "The kubectl that is built in; uses the cluster of --data-dir's default, or of KUBECONFIG",
		DisableFlagParsing: true,
		RunE:               func(*cobra.Command, []string) error { return errors.New("kubectl is run before this") },
	}
}

// kubectlMain runs kubectl with args[0] as its name. The arguments go where the program's are: kubectl sets its own there when a kuberc file has aliases or defaults.
func kubectlMain(args []string) int {
	os.Args = args
	if kubeconfig := findKubeconfig(); kubeconfig != "" {
		os.Setenv("KUBECONFIG", kubeconfig)
	}
	flags := genericclioptions.NewConfigFlags(true).WithDeprecatedPasswordFlag().WithDiscoveryBurst(300).WithDiscoveryQPS(50)
	command := cmd.NewDefaultKubectlCommandWithArgs(cmd.KubectlOptions{
		PluginHandler: cmd.NewDefaultPluginHandler([]string{"kubectl"}),
		Arguments:     args,
		ConfigFlags:   flags,
		IOStreams:     genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
	})
	command.SilenceErrors = true // they are told below
	if err := command.Execute(); err != nil {
		util.CheckErr(err) // prints it as kubectl does, and exits
		return 1
	}
	return 0
}

// findKubeconfig is the cluster's own kubeconfig, where the user has said nothing else.
func findKubeconfig() string {
	if os.Getenv("KUBECONFIG") != "" {
		return ""
	}
	conf := config.Default()
	if dir := os.Getenv("SKIFF_DATA_DIR"); dir != "" {
		conf.DataDir = dir
	}
	if _, err := os.Stat(conf.Kubeconfig()); err == nil {
		return conf.Kubeconfig()
	}
	if home := homedir.HomeDir(); home == "" {
		return conf.Kubeconfig() // kubectl's error will name the file that is missing
	}
	return ""
}
