package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"skiff.dev/skiff/internal/config"
	"skiff.dev/skiff/internal/dashboard"
)

func dashboardCommand() *cobra.Command {
	conf := config.Default()
	cmd := &cobra.Command{
		Use:   "dashboard",
		Short: "Print a link that signs a browser in to the web UI",
		Long: `Print a link that signs a browser in to the cluster's web UI, as the user of the kubeconfig. The link is good once, and for
two minutes. Without it, sign in at https://SERVER/ui with a token or a kubeconfig.`,
		Example: "  skiff dashboard\n  skiff dashboard --open\n  KUBECONFIG=~/.kube/config skiff dashboard",
		Args:    cobra.NoArgs,
	}
	open := cmd.Flags().Bool("open", false, "Open the link in this host's browser instead of printing it")
	return adminAction(cmd, conf, func(ctx context.Context, a admin, _ []string) error {
		link, err := dashboardLink(ctx, a.rest)
		if err != nil {
			return err
		}
		if *open {
			return openBrowser(link)
		}
		fmt.Fprintln(cmd.OutOrStdout(), link)
		return nil
	})
}

// dashboardLink asks the server for a one-time link.
func dashboardLink(ctx context.Context, cfg *rest.Config) (string, error) {
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return "", fmt.Errorf("reach the cluster at %s: %w", cfg.Host, err)
	}
	base := strings.TrimSuffix(cfg.Host, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+dashboard.Prefix+"/link", nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask the cluster for a link: %w", err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return "", fmt.Errorf("ask the cluster for a link: %w", err)
	}
	var link dashboard.Link
	switch {
	case res.StatusCode == http.StatusUnauthorized:
		return "", errors.New("the server does not know the kubeconfig's user; its certificate may have expired")
	case res.StatusCode != http.StatusCreated || json.Unmarshal(raw, &link) != nil || link.Path == "":
		return "", fmt.Errorf("the server at %s has no dashboard (%s): it was started with --no-dashboard, or the add-on is disabled ('skiff addon enable dashboard')", base, res.Status)
	}
	return base + link.Path, nil
}

// openBrowser leaves the link to whatever opens links on this desktop.
func openBrowser(link string) error {
	for _, program := range []string{os.Getenv("BROWSER"), "xdg-open", "open", "x-www-browser"} {
		if program == "" {
			continue
		}
		if path, err := exec.LookPath(program); err == nil {
			return exec.Command(path, link).Start()
		}
	}
	return fmt.Errorf("this host has no browser that skiff knows of; open %s yourself", link)
}
