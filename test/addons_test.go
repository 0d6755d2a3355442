package test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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
	t.Run("that wait for one another", func(t *testing.T) { circularAddons(t, whole.For(t)) })
	t.Run("charts that do not render", func(t *testing.T) { faultyCharts(t, whole.For(t)) })
	t.Run("health", func(t *testing.T) { addonHealth(t, whole.For(t)) })
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

// bundle makes a folder of files (name, text, …).
func bundle(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		file := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// addonDo runs 'skiff addon' and checks that it ends as it should, and what it says: a part of it, or "" for a good end.
func addonDo(t *testing.T, c *cluster.Cluster, fails string, args ...string) string {
	t.Helper()
	out, err := c.Skiff(append([]string{"addon", args[0], "--data-dir", c.DataDir}, args[1:]...)...)
	if (err != nil) != (fails != "") || !strings.Contains(out, fails) {
		t.Errorf("skiff addon %s: %v, want %q\n%s", strings.Join(args, " "), err, fails, out)
	}
	return out
}

// addonIs waits until an add-on's object says so.
func addonIs(t *testing.T, c *cluster.Cluster, name, state, message string) {
	t.Helper()
	cluster.Eventually(t, func() error {
		out, err := c.TryKubectl("get", "addon", name, "-o", "jsonpath={.status.state}: {.status.message}")
		if is, why, _ := strings.Cut(out, ": "); err != nil || is != state || !strings.Contains(why, message) {
			return fmt.Errorf("%s is %s, want %s: %s (%v)", name, out, state, message, err)
		}
		return nil
	})
}

func circularAddons(t *testing.T, c *cluster.Cluster) {
	words := func(name, after string) string {
		return bundle(t, "addon.yaml", "name: "+name+"\nafter: ["+after+"]\n", "words.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+name+", namespace: default}\n")
	}
	addonDo(t, c, "", "install", words("hen", "egg"))
	addonIs(t, c, "hen", "Waiting", `there is no add-on "egg"`)
	addonDo(t, c, "add-ons wait for one another, so none will ever start: egg after hen after egg", "install", words("egg", "hen"), "--wait")
	addonIs(t, c, "hen", "Failed", "hen after egg after hen")
	if out := addonDo(t, c, "", "list"); strings.Count(out, "Failed") != 2 {
		t.Errorf("the list says\n%s", out)
	}
	if out := c.Kubectl("get", "configmap", "hen", "egg", "--ignore-not-found"); out != "" {
		t.Errorf("there is, although both wait: %s", out)
	}
	addonDo(t, c, "", "install", words("egg", ""), "--wait")
	addonIs(t, c, "hen", "Ready", "")
	addonDo(t, c, "", "remove", "hen", "egg")
}

func faultyCharts(t *testing.T, c *cluster.Cluster) {
	chart := func(template string) string {
		return bundle(t, "Chart.yaml", "apiVersion: v2\nname: barge\nversion: 0.1.0\n", "templates/cargo.yaml", template)
	}
	const cargo = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cargo}\ndata: {what: {{ .Values.what.kind }}}\n"
	addonDo(t, c, "what.kind, or what it is part of, is not set", "install", chart(cargo), "--wait")
	addonIs(t, c, "barge", "Failed", "barge/templates/cargo.yaml:4")
	addonDo(t, c, "", "install", chart(cargo), "--set", "what.kind=coal", "--wait")
	if out := c.Kubectl("get", "configmap", "cargo", "-n", "kube-system", "-o", "jsonpath={.data.what}"); out != "coal" {
		t.Errorf("the chart made %q", out)
	}
	packed := filepath.Join(t.TempDir(), "barge-0.1.0.tgz")
	if out, err := c.Run("tar", "-C", chart(cargo), "--transform=s,^.,barge,", "-czf", packed, "."); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	addonDo(t, c, "", "install", packed, "--set", "what.kind=coal", "--wait")
	// One that is broken later takes nothing away.
	addonDo(t, c, `function "nonesuch" not defined`, "install", chart("{{ nonesuch }}"), "--wait")
	addonDo(t, c, "cargo.yaml", "install", chart("apiVersion: v1\nkind: [\n"), "--wait")
	if out := c.Kubectl("get", "configmap", "cargo", "-n", "kube-system", "-o", "jsonpath={.data.what}"); out != "coal" {
		t.Errorf("the chart's object is now %q", out)
	}
	addonDo(t, c, "name", "install", bundle(t, "Chart.yaml", "apiVersion: v2\nversion: 0.1.0\n", "templates/a.yaml", cargo), "--name=nameless", "--wait")
	addonDo(t, c, "no such file or directory", "install", "/nonesuch.tgz")
	addonDo(t, c, "", "remove", "barge")
	becomes(t, "the chart's object to go", func() bool {
		return c.Kubectl("get", "configmap", "cargo", "-n", "kube-system", "--ignore-not-found") == ""
	})
	_, _ = c.Skiff("addon", "remove", "nameless", "--data-dir", c.DataDir) // there is none if it was refused at once
}

// addonHealth: an add-on is as well as what it brought, and says which of it is not.
func addonHealth(t *testing.T, c *cluster.Cluster) {
	install := func(command string) {
		t.Helper()
		addonDo(t, c, "", "install", bundle(t, "addon.yaml", "name: mill\nnamespace: mill\n", "a.yaml", `
apiVersion: apps/v1
kind: Deployment
metadata: {name: mill}
spec:
  progressDeadlineSeconds: 8
  selector: {matchLabels: {app: mill}}
  template: {metadata: {labels: {app: mill}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: c, image: "skiff.dev/web:1", command: [sh, -c, "`+command+`"], readinessProbe: {exec: {command: [ls, /milling]}, periodSeconds: 1}}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: grain}
`))
	}
	install("sleep 9999")
	addonIs(t, c, "mill", "Progressing", "Deployment mill/mill: 0 of 1 replicas are available")
	addonIs(t, c, "mill", "Failed", `Deployment mill/mill: ReplicaSet "mill-`)
	out := addonDo(t, c, "", "show", "mill")
	for _, want := range []string{`State:\s+Failed`, `Deployment\s+mill\s+mill\s+Failed\s+ReplicaSet "mill-\S+" has timed out progressing`, `ConfigMap\s+mill\s+grain\s+Ready`} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("show lacks %s:\n%s", want, out)
		}
	}
	if out := c.Kubectl("get", "addons"); !regexp.MustCompile(`(?m)^mill\s+Failed\s`).MatchString(out) {
		t.Errorf("get addons:\n%s", out)
	}
	install("echo > /milling; sleep 9999")
	addonIs(t, c, "mill", "Ready", "")
	c.Kubectl("delete", "configmap", "grain", "-n", "mill") // and it is well again by itself
	becomes(t, "the deleted object", func() bool { return c.Kubectl("get", "configmap", "grain", "-n", "mill", "--ignore-not-found") != "" })
	addonDo(t, c, "", "remove", "mill")
	addonDo(t, c, "spec.containers: Required value", "install", bundle(t, "a.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: empty}\nspec: {containers: []}\n"), "--name=empty", "--wait")
	addonDo(t, c, "", "remove", "empty")
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
