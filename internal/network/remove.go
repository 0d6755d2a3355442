package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Remove removes what a cluster's network left on this host: links with their addresses and routes, the nft table, network namespaces of
// its pods, the CNI configuration and the reservations. It knows them by the cluster's name alone. Doing it twice does no harm.
func Remove(ctx context.Context, cfg Config, progress func(string)) error {
	var errs []error
	names, err := clusterLinks(cfg.Cluster)
	errs = append(errs, err)
	if len(names) > 0 {
		progress(fmt.Sprintf("removing the links of %d pods", len(names)))
	}
	for _, name := range append(names, anchor(cfg.Cluster), tunnelName(cfg.Cluster)) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		errs = append(errs, deleteLink(name))
	}
	errs = append(errs, removeDirect(cfg.PodCIDRs))
	progress("removing the nft table")
	if err := newRuleset(facts{cluster: cfg.Cluster}, cfg.Log).Delete(); err != nil {
		errs = append(errs, fmt.Errorf("remove nft table %s: %w", cfg.Cluster, err))
	}
	errs = append(errs, removeNamespaces(cfg.StateDir))
	for _, path := range []string{cfg.conflistPath(), cfg.socketPath()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(cfg.StateDir)
}

// removeNamespaces removes the pods' network namespaces that the runtime left mounted where runtimes mount them.
func removeNamespaces(stateDir string) error {
	if _, err := os.Stat(stateDir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	p, err := openPool(reservationDir(stateDir))
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range p.all() {
		dir := filepath.Dir(strings.TrimPrefix(filepath.Clean(r.Netns), "/var"))
		if dir != "/run/netns" || !strings.HasPrefix(filepath.Base(r.Netns), "cni-") {
			continue
		}
		if err := unix.Unmount(r.Netns, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", r.Netns, err))
			continue
		}
		if err := os.Remove(r.Netns); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func reservationDir(stateDir string) string { return filepath.Join(stateDir, "pods") }
