package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"skiff.dev/skiff/test/cluster"
)

// TestAddons: what comes with Skiff is listed and can be switched off; folders, charts and what lies in the data dir's folder are installed, updated and
// removed with all they brought.
func TestAddons(t *testing.T) {
	t.Parallel()
	whole := cluster.Start(t)
	run := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := whole.Skiff(append([]string{"addon", args[0], "--data-dir", whole.DataDir}, args[1:]...)...)
		if err != nil {
			t.Fatalf("skiff addon %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	becomes(t, "the shipped add-ons", func() bool {
		out, err := whole.Skiff("addon", "list", "--data-dir", whole.DataDir)
		return err == nil && strings.Count(out, "Ready") >= 4
	})
	t.Run("a part is switched off and on", func(t *testing.T) {
		c := whole.For(t)
		run(t, "disable", "metrics", "--wait")
		if out, err := c.TryKubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes"); err == nil {
			t.Errorf("metrics.k8s.io still answers: %s", out)
		}
		run(t, "enable", "metrics", "--wait")
		becomes(t, "metrics.k8s.io", func() bool {
			_, err := c.TryKubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes")
			return err == nil
		})
	})
	t.Run("a folder", func(t *testing.T) {
		c, dir := whole.For(t), t.TempDir()
		put := func(name, text string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		put("addon.yaml", "name: shop\nversion: '1'\ndescription: a shop\nnamespace: shop\n")
		put("web.yaml", `
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template: {metadata: {labels: {app: shop}}, spec: {containers: [{name: web, image: "skiff.dev/web:1"}]}}
`)
		put("words.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: words}\n")
		run(t, "install", dir, "--wait")
		if out := run(t, "show", "shop"); !strings.Contains(out, "Deployment") || !strings.Contains(out, "a shop") {
			t.Errorf("show says\n%s", out)
		}
		if out := c.Kubectl("get", "deployment", "shop", "-n", "shop", "-o", "jsonpath={.status.availableReplicas}"); out != "1" {
			t.Errorf("ready with %q replicas", out)
		}
		if err := os.Remove(filepath.Join(dir, "words.yaml")); err != nil {
			t.Fatal(err)
		}
		run(t, "install", dir, "--wait")
		becomes(t, "what left the folder to go", func() bool {
			return c.Kubectl("get", "configmap", "words", "-n", "shop", "--ignore-not-found") == ""
		})
		run(t, "remove", "shop")
		becomes(t, "the deployment to go", func() bool {
			return c.Kubectl("get", "deployment,configmap", "-n", "shop", "-l", "addons.skiff.dev/name=shop", "--ignore-not-found") == "" &&
				c.Kubectl("get", "addon", "shop", "--ignore-not-found") == ""
		})
	})
	t.Run("a chart in the data dir", func(t *testing.T) {
		c, chart := whole.For(t), filepath.Join(whole.DataDir, "addons", "harbour")
		for name, text := range map[string]string{
			"Chart.yaml":          "apiVersion: v2\nname: harbour\nversion: 0.1.0\n",
			"values.yaml":         "boats: 3\n",
			"templates/boat.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-boats}\ndata: {boats: {{ .Values.boats | quote }}}\n",
		} {
			file := filepath.Join(chart, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		boats := func() string {
			return c.Kubectl("get", "configmap", "harbour-boats", "-n", "kube-system", "--ignore-not-found", "-o", "jsonpath={.data.boats}")
		}
		becomes(t, "the chart", func() bool { return boats() == "3" })
		if err := os.WriteFile(filepath.Join(chart, "values.yaml"), []byte("boats: 4\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		becomes(t, "the change", func() bool { return boats() == "4" })
		if err := os.RemoveAll(chart); err != nil {
			t.Fatal(err)
		}
		becomes(t, "its end", func() bool { return boats() == "" })
	})
}

// becomes waits until check says yes.
func becomes(t *testing.T, what string, check func() bool) {
	t.Helper()
	cluster.Eventually(t, func() error {
		if check() {
			return nil
		}
		return fmt.Errorf("still waiting for %s", what)
	})
}
