package cli

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/join"
)

func tokenCommand() *cobra.Command {
	conf := config.Default()
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and delete the tokens that let hosts join",
		Long: `Tokens that let hosts join the cluster, with 'skiff agent'. Whoever has a token can make a host a node: give it
to nobody else. A token that is deleted, or whose time is over, lets nobody in any more; nodes that have joined by it stay.`,
		Example: "  skiff token create --print-join-command\n  skiff token create --ttl 1h --description 'rack 7'\n  skiff token delete abcdef",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(tokenCreate(conf), tokenList(conf), tokenDelete(conf))
	return cmd
}

// admin is what a command on the cluster of a data dir works with.
type admin struct {
	crclient.Client
	rest *rest.Config
}

// adminAction is a command that works with the administrator's kubeconfig: that of the data dir, unless KUBECONFIG names another.
func adminAction(cmd *cobra.Command, conf *config.Config, do func(ctx context.Context, a admin, args []string) error) *cobra.Command {
	fill := configured(cmd, conf, "data-dir")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := fill(); err != nil {
			return err
		}
		file := conf.Kubeconfig()
		if given := os.Getenv("KUBECONFIG"); given != "" && !cmd.Flags().Changed("data-dir") {
			file = given
		}
		cfg, err := clientcmd.BuildConfigFromFlags("", file)
		switch {
		case errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("there is no kubeconfig at %s; run this on the cluster's server, or name its folder with --data-dir", file)
		case errors.Is(err, os.ErrPermission):
			return fmt.Errorf("%s is not yours to read; run it with sudo", file)
		case err != nil:
			return err
		}
		cl, err := crclient.New(cfg, crclient.Options{Scheme: api.Scheme()})
		if err != nil {
			return fmt.Errorf("reach the cluster at %s: %w", cfg.Host, err)
		}
		return do(cmd.Context(), admin{cl, cfg}, args)
	}
	return cmd
}

func tokenCreate(conf *config.Config) *cobra.Command {
	cmd := &cobra.Command{Use: "create", Short: "Make a token and print it", Args: cobra.NoArgs}
	ttl := cmd.Flags().Duration("ttl", 24*time.Hour, "How long the token is good; 0 for ever")
	description := cmd.Flags().String("description", "", "What the token is for")
	command := cmd.Flags().Bool("print-join-command", false, "Print the whole command that joins, not the token alone")
	return adminAction(cmd, conf, func(ctx context.Context, a admin, _ []string) error {
		if *ttl < 0 {
			return fmt.Errorf("ttl: %s is over already", *ttl)
		}
		server := ""
		if *command {
			var err error
			if server, err = a.advertised(ctx); err != nil {
				return err
			}
		}
		ca, err := a.authority()
		if err != nil {
			return err
		}
		token := join.NewToken(ca)
		var until time.Time
		if *ttl > 0 {
			until = time.Now().Add(*ttl)
		}
		if err := a.Create(ctx, token.Secretly(*description, until)); err != nil {
			return fmt.Errorf("make a token: %w", err)
		}
		if *command {
			fmt.Fprintf(cmd.OutOrStdout(), "skiff agent --server %s --token %s\n", server, token)
			return nil
		}
		fmt.Fprintln(cmd.OutOrStdout(), token)
		return nil
	})
}

// authority of the cluster, as the kubeconfig has it.
func (a admin) authority() (*x509.Certificate, error) {
	raw := a.rest.CAData
	if len(raw) == 0 && a.rest.CAFile != "" {
		var err error
		if raw, err = os.ReadFile(a.rest.CAFile); err != nil {
			return nil, fmt.Errorf("read the cluster's authority: %w", err)
		}
	}
	block, _ := pem.Decode(raw)
	if block == nil {
		return nil, errors.New("the kubeconfig does not hold the cluster's authority; use the one that the server has written (admin.kubeconfig)")
	}
	return x509.ParseCertificate(block.Bytes)
}

// advertised is where other hosts reach the server: the endpoints of the Service kubernetes.
func (a admin) advertised(ctx context.Context) (string, error) {
	var endpoints discoveryv1.EndpointSliceList
	err := a.List(ctx, &endpoints, crclient.InNamespace(metav1.NamespaceDefault), crclient.MatchingLabels{discoveryv1.LabelServiceName: "kubernetes"})
	var service corev1.Service
	if err == nil {
		err = a.Get(ctx, crclient.ObjectKey{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}, &service)
	}
	if err != nil {
		return "", fmt.Errorf("find out where the server is reached: %w", err)
	}
	for _, s := range endpoints.Items {
		for _, e := range s.Endpoints {
			// A server that listens on loopback alone is reached by its own pods under the Service's address.
			if len(s.Ports) > 0 && s.Ports[0].Port != nil && e.Addresses[0] != service.Spec.ClusterIP {
				return "https://" + net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*s.Ports[0].Port))), nil
			}
		}
	}
	return "", errors.New("this server listens on this host alone, so no other can join; start it with 'skiff server', or with --listen 0.0.0.0:6443")
}

func tokenList(conf *config.Config) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Aliases: []string{"ls"}, Short: "List tokens, without their secrets", Args: cobra.NoArgs}
	return adminAction(cmd, conf, func(ctx context.Context, a admin, _ []string) error {
		var list corev1.SecretList
		err := a.List(ctx, &list, crclient.InNamespace(join.SecretNamespace), crclient.MatchingFields{"type": string(join.SecretType)})
		if err != nil {
			return fmt.Errorf("list tokens: %w", err)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 3, ' ', 0)
		fmt.Fprintln(w, "ID\tTTL\tEXPIRES\tUSAGES\tDESCRIPTION")
		slices.SortFunc(list.Items, func(x, y corev1.Secret) int { return strings.Compare(x.Name, y.Name) })
		for i := range list.Items {
			t := join.List(&list.Items[i])
			left, until := "<forever>", "<never>"
			if !t.Until.IsZero() {
				until = t.Until.Format(time.RFC3339)
				if left = "<expired>"; time.Now().Before(t.Until) {
					left = duration.HumanDuration(time.Until(t.Until))
				}
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", t.ID, left, until, strings.Join(t.Usages, ","), orNone(t.Description))
		}
		return w.Flush()
	})
}

func orNone(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

func tokenDelete(conf *config.Config) *cobra.Command {
	cmd := &cobra.Command{Use: "delete ID…", Aliases: []string{"rm"}, Short: "Delete tokens: from then on they let nobody in", Args: cobra.MinimumNArgs(1)}
	return adminAction(cmd, conf, func(ctx context.Context, a admin, args []string) error {
		for _, arg := range args {
			name, err := join.SecretName(arg)
			if err != nil {
				return err
			}
			secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: join.SecretNamespace, Name: name}}
			err = a.Delete(ctx, secret)
			if apierrors.IsNotFound(err) {
				return fmt.Errorf("there is no token %s; 'skiff token list' shows those there are", strings.TrimPrefix(name, "bootstrap-token-"))
			}
			if err != nil {
				return fmt.Errorf("delete the token %s: %w", arg, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "deleted %s\n", strings.TrimPrefix(name, "bootstrap-token-"))
		}
		return nil
	})
}
