package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/test/cluster"
)

// healthChecks are what a 1.37 server looks at: the names of those whose parts Skiff has.
var healthChecks = []string{
	"ping", "log", "etcd", "poststarthook/start-apiserver-admission-initializer", "poststarthook/generic-apiserver-start-informers",
	"poststarthook/priority-and-fairness-config-consumer", "poststarthook/priority-and-fairness-filter", "poststarthook/start-apiextensions-informers",
	"poststarthook/start-apiextensions-controllers", "poststarthook/crd-informer-synced", "poststarthook/start-system-namespaces-controller",
	"poststarthook/start-cluster-authentication-info-controller", "poststarthook/start-service-ip-repair-controllers", "poststarthook/rbac/bootstrap-roles",
	"poststarthook/scheduling/bootstrap-system-priority-classes", "poststarthook/priority-and-fairness-config-producer", "poststarthook/bootstrap-controller",
	"poststarthook/start-kubernetes-service-cidr-controller", "poststarthook/start-kube-aggregator-informers",
	"poststarthook/apiservice-status-local-available-controller", "poststarthook/apiservice-status-remote-available-controller",
	"poststarthook/apiservice-registration-controller", "poststarthook/apiservice-discovery-controller", "poststarthook/kube-apiserver-autoregistration",
	"autoregister-completion", "poststarthook/apiservice-openapi-controller", "poststarthook/apiservice-openapiv3-controller",
}

// TestCommands: those that need no cluster.
func TestCommands(t *testing.T) {
	t.Parallel()
	c := cluster.New(t)
	run := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := c.Skiff(args...)
		if err != nil {
			t.Fatalf("skiff %v: %v\n%s", args, err, out)
		}
		return out
	}
	t.Run("version", func(t *testing.T) {
		out := run(t, "version")
		for _, want := range []string{`(?m)^skiff +v?\S+$`, `(?m)^kubernetes +v1\.37\.\d`, `(?m)^etcd +v3\.7\.`, `(?m)^containerd +v2\.`, `(?m)^go +go1\.`} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("no line like %s in\n%s", want, out)
			}
		}
		if out := run(t, "kubectl", "version", "--client"); !strings.HasPrefix(out, "Client Version: v1.37.") {
			t.Errorf("kubectl says of itself\n%s", out)
		}
	})
	t.Run("help", func(t *testing.T) {
		out := run(t, "up", "--help")
		for _, flag := range []string{"data-dir", "listen", "node-name", "pod-cidr", "service-cidr", "cri-endpoint", "controllers", "no-scheduler", "log-level",
			"log-format", "config", "etcd-endpoints"} {
			if !strings.Contains(out, "--"+flag) {
				t.Errorf("up --help does not name --%s", flag)
			}
		}
		out = run(t)
		for _, command := range []string{"up", "server", "down", "kubectl", "image", "version", "completion"} {
			if !regexp.MustCompile(`(?m)^  ` + command + ` `).MatchString(out) {
				t.Errorf("skiff does not name the command %s:\n%s", command, out)
			}
		}
	})
	for _, shell := range []string{"bash", "zsh", "fish"} {
		t.Run("completion "+shell, func(t *testing.T) {
			script := filepath.Join(t.TempDir(), "completion")
			if err := os.WriteFile(script, []byte(run(t, "completion", shell)), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := c.Run(shell, "-n", script); err != nil && !os.IsNotExist(err) && !strings.Contains(out, "No such file") {
				t.Errorf("%s does not read its completion: %v\n%s", shell, err, out)
			}
		})
	}
	t.Run("kubectl with preferences", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "kuberc")
		if err := os.WriteFile(file, []byte("apiVersion: kubectl.config.k8s.io/v1beta1\nkind: Preference\naliases: [{name: comp, command: completion, prependArgs: [bash]}]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := run(t, "kubectl", "comp", "--kuberc", file); !strings.Contains(out, "bash completion") {
			t.Errorf("an alias says %.200q", out)
		}
	})
	t.Run("kubectl without a cluster", func(t *testing.T) {
		if out, err := c.Skiff("kubectl", "get", "pods"); err == nil || strings.Contains(out, "panic") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// TestServerAlone: 'skiff server --no-agent --no-scheduler' with some controllers is a control plane and nothing else.
func TestServerAlone(t *testing.T) {
	t.Parallel()
	whole := cluster.New(t, "--no-agent", "--no-scheduler", "--controllers=*,-replicaset-controller", "--log-format=json")
	whole.Server()
	t.Run("it listens for others too", func(t *testing.T) {
		if out, err := whole.HTTP("https://" + cluster.HostIP + ":6443/healthz"); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("on the host's address: %q, %v", out, err)
		}
	})
	t.Run("it logs JSON", func(t *testing.T) {
		for line := range strings.Lines(whole.Output()) {
			var entry struct{ Level, Msg string }
			if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Msg == "" {
				t.Errorf("no JSON: %q", line)
			}
		}
	})
	t.Run("controllers", func(t *testing.T) {
		c := whole.For(t)
		c.Kubectl("create", "deployment", "d", "--image=none")
		cluster.Eventually(t, func() error {
			if out := c.Kubectl("get", "replicasets", "-o", "name"); !strings.Contains(out, "replicaset.apps/d-") {
				return fmt.Errorf("the deployment controller has made no replica set: %q", out)
			}
			return nil
		})
		time.Sleep(time.Second)
		if out := c.Kubectl("get", "pods", "-o", "name"); out != "" {
			t.Errorf("the replica set controller is left out, but there are %q", out)
		}
	})
	t.Run("no node, no scheduler", func(t *testing.T) {
		c := whole.For(t)
		c.Kubectl("run", "p", "--image=none")
		time.Sleep(time.Second)
		p := c.WaitPod("p", "there", func(*corev1.Pod) bool { return true })
		if p.Spec.NodeName != "" || len(p.Status.Conditions) != 0 {
			t.Errorf("somebody looked at it: %s, %+v", p.Spec.NodeName, p.Status.Conditions)
		}
		if out := c.Kubectl("get", "nodes", "-o", "name"); out != "" {
			t.Errorf("there is a node: %s", out)
		}
	})
	t.Run("the host is left alone", func(t *testing.T) {
		for _, left := range whole.For(t).Leftovers() {
			if !strings.HasPrefix(left, "process ") && !strings.HasPrefix(left, "folder /run/skiff/") {
				t.Errorf("it made %s", left)
			}
		}
	})
	t.Run("system priority classes", func(t *testing.T) {
		c := whole.For(t)
		if out := c.Kubectl("get", "priorityclasses", "-o", "jsonpath={range .items[*]}{.metadata.name} {.value} {end}"); out != "system-cluster-critical 2000000000 system-node-critical 2000001000 " {
			t.Errorf("there are %q", out)
		}
		out, err := c.TryKubectl("delete", "priorityclass", "system-node-critical")
		if err == nil || !strings.Contains(out, `"system-node-critical" is forbidden: this is a system priority class and cannot be deleted`) {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("health", func(t *testing.T) {
		c := whole.For(t)
		cluster.Eventually(t, func() error {
			out, err := c.TryKubectl("get", "--raw=/readyz")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		})
		for _, path := range []string{"/healthz", "/livez", "/readyz"} {
			out := c.Kubectl("get", "--raw="+path+"?verbose")
			for _, name := range healthChecks {
				if !strings.Contains(out, "[+]"+name+" ok\n") {
					t.Errorf("%s has no check %s:\n%s", path, name, out)
				}
			}
			if !strings.HasSuffix(out, path[1:]+" check passed\n") || strings.Contains(out, "[+]informer-sync ok\n") != (path == "/readyz") {
				t.Errorf("%s:\n%s", path, out)
			}
		}
		if out := c.Kubectl("get", "--raw=/livez/poststarthook/crd-informer-synced"); out != "ok" {
			t.Errorf("one check: %q", out)
		}
		if out, err := c.TryKubectl("get", "--raw=/livez/poststarthook/nothing"); err == nil {
			t.Errorf("a check that there is not: %q", out)
		}
		for _, path := range []string{"/healthz", "/livez"} {
			if out := c.Kubectl("get", "--raw="+path); out != "ok" {
				t.Errorf("%s: %q", path, out)
			}
		}
		if out := c.Kubectl("get", "--raw=/metrics"); !strings.Contains(out, "apiserver_request_total") {
			t.Errorf("/metrics lacks apiserver_request_total")
		}
		if out := c.Kubectl("get", "--raw=/version"); !strings.Contains(out, `"minor":"37"`) {
			t.Errorf("/version: %s", out)
		}
	})
}

// TestSettings: a file, then the environment, then flags; the later beats the earlier.
func TestSettings(t *testing.T) {
	t.Parallel()
	c := cluster.New(t)
	file := write(t, "node-name: from-file\npod-cidr: 10.61.0.0/16\nservice-cidr: 10.62.0.0/16\nmax-pods: 7\nlisten: 127.0.0.1:7001\n")
	c.Flags("--config", file, "--listen=127.0.0.1:7003")
	c.Env("SKIFF_NODE_NAME=from-env", "SKIFF_LISTEN=127.0.0.1:7002")
	c.Up()
	if out := c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name} {.items[0].spec.podCIDR} {.items[0].status.capacity.pods}"); out != "from-env 10.61.0.0/24 7" {
		t.Errorf("the node is %q", out)
	}
	if out := c.Kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"); out != "10.62.0.1" {
		t.Errorf("the API's service has %s", out)
	}
	if got := c.RESTConfig().Host; got != "https://127.0.0.1:7003" {
		t.Errorf("it listens on %s", got)
	}
	st, err := os.Stat(c.Kubeconfig())
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the administrator's kubeconfig: %v, %v", st.Mode(), err)
	}
	if out := c.Output(); !regexp.MustCompile(`(?m)^  api server +ready +\d+\.\d\d s +https://127\.0\.0\.1:7003$`).MatchString(out) ||
		!regexp.MustCompile(`(?m)^  Ready in \d+\.\d s\.  export KUBECONFIG=`+regexp.QuoteMeta(c.Kubeconfig())+`$`).MatchString(out) {
		t.Errorf("what it printed:\n%s", out)
	}
}
