package test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/release"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"

	"skiff.dev/skiff/test/cluster"
)

const orchardSpace = "orchard"

// TestHelm: Helm's own library installs, tests, upgrades, rolls back and removes a chart with a definition, an object of it and hooks.
func TestHelm(t *testing.T) {
	t.Parallel()
	whole := cluster.Start(t)
	helm := &helmClient{T: t, config: helmConfig(t, whole)}
	var err error
	if helm.chart, err = loader.LoadDir("testdata/orchard"); err != nil {
		t.Fatal(err)
	}
	// Each step stands on the one before.
	for _, step := range []struct {
		name string
		do   func(*helmClient, *cluster.Cluster)
	}{
		{"install", helmInstall}, {"test", helmTest}, {"upgrade", helmUpgrade}, {"an upgrade that fails", helmBroken},
		{"roll back", helmRollBack}, {"uninstall", helmUninstall},
	} {
		ok := t.Run(step.name, func(t *testing.T) {
			c := whole.For(t)
			step.do(&helmClient{t, helm.config, helm.chart}, c)
		})
		if !ok {
			return
		}
	}
}

type helmClient struct {
	*testing.T
	config *action.Configuration
	chart  *chart.Chart
}

// helmConfig is what the helm command makes of a kubeconfig.
func helmConfig(t *testing.T, c *cluster.Cluster) *action.Configuration {
	t.Helper()
	flags := genericclioptions.NewConfigFlags(true)
	kubeconfig, space, cache := c.Kubeconfig(), orchardSpace, t.TempDir()
	flags.KubeConfig, flags.Namespace, flags.CacheDir = &kubeconfig, &space, &cache
	flags.WrapConfigFn = func(cfg *rest.Config) *rest.Config {
		cfg.Dial = c.Host().Dial
		return cfg
	}
	config := new(action.Configuration)
	if err := config.Init(flags, space, "secret", t.Logf); err != nil {
		t.Fatal(err)
	}
	return config
}

// done checks how a release stands after a step.
func (h *helmClient) done(r *release.Release, err error, version int, status release.Status) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
	if r.Version != version || r.Info.Status != status {
		h.Errorf("revision %d is %s, want %d %s", r.Version, r.Info.Status, version, status)
	}
}

func helmInstall(h *helmClient, c *cluster.Cluster) {
	install := action.NewInstall(h.config)
	install.ReleaseName, install.Namespace, install.CreateNamespace, install.Wait, install.Timeout = "grove", orchardSpace, true, true, time.Minute
	r, err := install.RunWithContext(h.Context(), h.chart, nil)
	h.done(r, err, 1, release.StatusDeployed)
	match(h.T, c, `^apple true$`, "get", "fruit", "grove", "-n", orchardSpace, "-o", "jsonpath={.spec.sort} {.spec.sweet}")
	match(h.T, c, `^2$`, "get", "deployment", "grove", "-n", orchardSpace, "-o", "jsonpath={.status.availableReplicas}")
	for _, hook := range r.Hooks {
		if slices.Contains(hook.Events, release.HookPreInstall) || slices.Contains(hook.Events, release.HookPostInstall) {
			if hook.LastRun.Phase != release.HookPhaseSucceeded {
				h.Errorf("hook %s: %s", hook.Name, hook.LastRun.Phase)
			}
		}
	}
	prepared := c.Kubectl("get", "job", "grove-prepare", "-n", orchardSpace, "-o", "jsonpath={.status.completionTime}")
	if made := c.Kubectl("get", "deployment", "grove", "-n", orchardSpace, "-o", "jsonpath={.metadata.creationTimestamp}"); prepared == "" || made < prepared {
		h.Errorf("the deployment was made at %s, the hook before it was done at %s", made, prepared)
	}
	if out := c.Kubectl("get", "jobs", "-n", orchardSpace, "-o", "name"); strings.Contains(out, "announce") {
		h.Errorf("a hook that was to go is there: %s", out)
	}
}

func helmTest(h *helmClient, c *cluster.Cluster) {
	run := action.NewReleaseTesting(h.config)
	run.Namespace, run.Timeout = orchardSpace, time.Minute
	if _, err := run.Run("grove"); err != nil {
		h.Fatal(err)
	}
	match(h.T, c, `^Succeeded$`, "get", "pod", "grove-test", "-n", orchardSpace, "-o", "jsonpath={.status.phase}")
}

func (h *helmClient) upgrade(values map[string]any, change ...func(*action.Upgrade)) (*release.Release, error) {
	upgrade := action.NewUpgrade(h.config)
	upgrade.Namespace, upgrade.Wait, upgrade.Timeout = orchardSpace, true, time.Minute
	for _, f := range change {
		f(upgrade)
	}
	return upgrade.RunWithContext(h.Context(), "grove", h.chart, values)
}

func helmUpgrade(h *helmClient, c *cluster.Cluster) {
	c.Kubectl("annotate", "deployment", "grove", "-n", orchardSpace, "by-hand=kept") // Helm merges three ways
	r, err := h.upgrade(map[string]any{"trees": 3, "fruit": "pear"})
	h.done(r, err, 2, release.StatusDeployed)
	match(h.T, c, `^3 kept$`, "get", "deployment", "grove", "-n", orchardSpace, "-o", "jsonpath={.status.availableReplicas} {.metadata.annotations.by-hand}")
	match(h.T, c, `^pear$`, "get", "fruit", "grove", "-n", orchardSpace, "-o", "jsonpath={.spec.sort}")
}

func helmBroken(h *helmClient, c *cluster.Cluster) {
	_, err := h.upgrade(map[string]any{"fruit": "plum", "broken": true})
	if err == nil || !strings.Contains(err.Error(), "pre-upgrade hooks failed") {
		h.Errorf("a hook failed and the upgrade says %v", err)
	}
	if _, err = h.upgrade(map[string]any{"fruit": ""}); err == nil || !strings.Contains(err.Error(), "spec.sort") {
		h.Errorf("an object was refused and the upgrade says %v", err)
	}
	match(h.T, c, `^pear$`, "get", "fruit", "grove", "-n", orchardSpace, "-o", "jsonpath={.spec.sort}")
}

func helmRollBack(h *helmClient, c *cluster.Cluster) {
	back := action.NewRollback(h.config)
	back.Version, back.Wait, back.Timeout = 1, true, time.Minute
	if err := back.Run("grove"); err != nil {
		h.Fatal(err)
	}
	r, err := action.NewGet(h.config).Run("grove")
	h.done(r, err, 5, release.StatusDeployed)
	match(h.T, c, `^apple 1$`, "get", "configmap", "grove-words", "-n", orchardSpace, "-o", "jsonpath={.data.fruit} {.data.revision}")
	becomes(h.T, "two replicas", func() bool {
		return c.Kubectl("get", "deployment", "grove", "-n", orchardSpace, "-o", "jsonpath={.status.replicas}") == "2"
	})
	history, err := action.NewHistory(h.config).Run("grove")
	if err != nil || len(history) != 5 {
		h.Errorf("%d revisions, %v", len(history), err)
	}
}

func helmUninstall(h *helmClient, c *cluster.Cluster) {
	remove := action.NewUninstall(h.config)
	remove.Wait, remove.Timeout = true, time.Minute
	if _, err := remove.Run("grove"); err != nil {
		h.Fatal(err)
	}
	if out := c.Kubectl("get", "deployments,services,fruits,secrets", "-n", orchardSpace, "-o", "name"); out != "" {
		h.Errorf("left behind: %s", out)
	}
	match(h.T, c, `farewell`, "get", "configmap", "-n", orchardSpace, "-o", "name")
	match(h.T, c, `fruits`, "get", "crd", "-o", "name") // Helm never removes definitions
}
