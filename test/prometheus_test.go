package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"k8s.io/client-go/rest"

	"skiff.dev/skiff/test/cluster"
)

// asScraper is what Prometheus says it takes, in two of its settings, and what curl takes.
var asScraper = map[string]string{
	"text first": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5," +
		"text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
	"protobuf first": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6," +
		"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
	"anything": "*/*",
}

// likeUpstream are complaints of the lint about names that Kubernetes or cAdvisor gave, and that dashboards and alerts go by.
var likeUpstream = map[string]string{
	"authentication_attempts":  `counter metrics should have "_total" suffix`,
	"container_memory_failcnt": `counter metrics should have "_total" suffix`,
}

// scraped: what there is at every address where Skiff serves figures is read as Prometheus reads it, and has no fault that upstream's has not.
func scraped(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	node := strings.TrimSpace(c.Kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	kubelet := "/api/v1/nodes/" + node + "/proxy"
	for path, least := range map[string]int{
		"/metrics": 40, kubelet + "/metrics": 3, kubelet + "/metrics/cadvisor": 30, kubelet + "/metrics/resource": 7, kubelet + "/metrics/probes": 1,
	} {
		for how, accept := range asScraper {
			families, err := scrape(c, path, accept)
			if err != nil || len(families) < least {
				t.Errorf("%s, %s: %d kinds of figures, %v", path, how, len(families), err)
			}
			if how == "anything" {
				lint(t, path, families)
			}
			if how == "protobuf first" && path == "/metrics" {
				bothKinds(t, families, "apiserver_request_duration_seconds", "apiserver_admission_controller_admission_duration_seconds", "etcd_request_duration_seconds")
			}
		}
	}
}

// scrapedByToken: a Prometheus in the cluster asks the kubelet itself, as its ServiceAccount, and gets what RBAC lets that have.
func scrapedByToken(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	c.Kubectl("create", "clusterrole", "scraper", "--verb=get", "--resource=nodes/metrics")
	c.Kubectl("create", "clusterrolebinding", "scraper", "--clusterrole=scraper", "--serviceaccount=default:scraper")
	tokens := map[string]string{"nobody": "nonsense"}
	for _, name := range []string{"scraper", "bystander"} {
		c.Kubectl("create", "serviceaccount", name)
		tokens[name] = strings.TrimSpace(c.Kubectl("create", "token", name))
	}
	for _, tc := range []struct {
		who, path string
		code      int
		says      string
	}{
		{"scraper", "/metrics/cadvisor", 200, "container_cpu_usage_seconds_total"},
		{"scraper", "/metrics/resource", 200, "node_cpu_usage_seconds_total"},
		{"scraper", "/pods", 403, "Forbidden (user=system:serviceaccount:default:scraper, verb=get, resource=nodes, subresource(s)=[pods proxy])"},
		{"bystander", "/metrics", 403, "Forbidden (user=system:serviceaccount:default:bystander"},
		{"nobody", "/metrics", 401, "Unauthorized"},
	} {
		cfg := rest.AnonymousClientConfig(c.RESTConfig())
		cfg.BearerToken = tokens[tc.who]
		client, err := rest.HTTPClientFor(cfg)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Get("https://" + cluster.HostIP + ":10250" + tc.path)
		if err != nil {
			t.Errorf("%s as %s: %v", tc.path, tc.who, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		client.CloseIdleConnections()
		if resp.StatusCode != tc.code || !strings.Contains(string(body), tc.says) {
			t.Errorf("%s as %s: %s: %.300s", tc.path, tc.who, resp.Status, body)
		}
	}
}

// scrapedByPrometheus: Prometheus itself, set up as docs/metrics.md says, reads everything and answers what dashboards ask.
func scrapedByPrometheus(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		program = cluster.Binary(t, "prometheus")
	}
	dir := t.TempDir()
	c.Kubectl("create", "serviceaccount", "prometheus")
	c.Apply(`
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: prometheus}
rules:
- {apiGroups: [""], resources: [nodes/metrics], verbs: [get]}
- {apiGroups: [""], resources: [nodes], verbs: [list, watch]}
- {nonResourceURLs: [/metrics], verbs: [get]}
`)
	c.Kubectl("create", "clusterrolebinding", "prometheus", "--clusterrole=prometheus", "--serviceaccount=default:prometheus")
	files := map[string]string{
		"token":      strings.TrimSpace(c.Kubectl("create", "token", "prometheus")),
		"ca.crt":     c.Kubectl("get", "configmap", "kube-root-ca.crt", "-o", `jsonpath={.data.ca\.crt}`),
		"config.yml": prometheusConfig(t, c, dir),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	const address = "127.0.0.1:9090" // of the cluster's own host
	cmd := c.Host().Command(program, "--config.file", filepath.Join(dir, "config.yml"), "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err := cmd.Wait()
		said, _, _ := strings.Cut(log.String(), `level=warn msg="Received SIGTERM`)
		if err != nil || strings.Contains(said, "level=warn") || strings.Contains(said, "level=error") || t.Failed() {
			t.Errorf("prometheus: %v\n%s", err, said)
		}
	}()
	for query, want := range map[string]int{
		`up{job="apiserver"} == 1`: 1, `up{job="kubelet"} == 1`: 1, `up{job="containers"} == 1`: 1,
		`sum by (pod) (rate(container_cpu_usage_seconds_total{pod=~"burner-.*", image!="", container!="POD"}[20s])) > 0`:  1,
		`container_memory_working_set_bytes{pod=~"burner-.*", container="web"} > 0`:                                       1,
		`histogram_quantile(0.99, sum by (le) (rate(apiserver_request_duration_seconds_bucket{verb!="WATCH"}[20s]))) > 0`: 1,
		`max(kubelet_running_pods) > 0`:                                             1,
		`sum(scrape_samples_scraped) == sum(scrape_samples_post_metric_relabeling)`: 1,
	} {
		eventually(t, c, query, func() error {
			out, err := c.HTTP("http://" + address + "/api/v1/query?query=" + url.QueryEscape(query))
			if err != nil {
				return err
			}
			var answer struct {
				Status string
				Data   struct{ Result []json.RawMessage }
			}
			if err := json.Unmarshal([]byte(out), &answer); err != nil || answer.Status != "success" || len(answer.Data.Result) != want {
				targets, _ := c.HTTP("http://" + address + "/api/v1/targets?state=active") // tells why one could not be read
				return fmt.Errorf("%v: %s\n%s", err, out, targets)
			}
			return nil
		})
	}
}

// prometheusConfig is what docs/metrics.md has users write, for a Prometheus that runs beside the cluster and asks more often.
func prometheusConfig(t *testing.T, c *cluster.Cluster, dir string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "```yaml\n")
	config, _, closed := strings.Cut(rest, "```")
	if !found || !closed {
		t.Fatal("docs/metrics.md shows no configuration")
	}
	return "global: {scrape_interval: 2s}\n" + strings.NewReplacer(
		"/var/run/secrets/kubernetes.io/serviceaccount", dir,
		"kubernetes_sd_configs: [{role: node}]", "static_configs: [{targets: ['"+cluster.HostIP+":10250']}]", // Debian's build lacks the other
		"kubernetes.default.svc:443", serviceIP(c, "kubernetes")+":443",
	).Replace(config)
}

func scrape(c *cluster.Cluster, path, accept string) (all []*dto.MetricFamily, err error) {
	var as string
	raw, err := c.Client().CoreV1().RESTClient().Get().AbsPath(path).SetHeader("Accept", accept).Do(context.Background()).ContentType(&as).Raw()
	if err != nil {
		return nil, err
	}
	format := expfmt.ResponseFormat(map[string][]string{"Content-Type": {as}})
	if format.FormatType() == expfmt.TypeUnknown {
		return nil, errors.New("Prometheus does not know the content type " + as)
	}
	dec := expfmt.NewDecoder(bytes.NewReader(raw), format)
	for {
		var f dto.MetricFamily
		if err := dec.Decode(&f); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, &f)
	}
}

// bothKinds: the histograms have classic buckets and native ones.
func bothKinds(t *testing.T, families []*dto.MetricFamily, names ...string) {
	t.Helper()
	for _, name := range names {
		if !slices.ContainsFunc(families, func(f *dto.MetricFamily) bool {
			return f.GetName() == name && slices.ContainsFunc(f.Metric, func(m *dto.Metric) bool {
				return len(m.Histogram.GetBucket()) > 0 && len(m.Histogram.GetPositiveSpan()) > 0
			})
		}) {
			t.Errorf("%s has not both kinds of buckets", name)
		}
	}
}

func lint(t *testing.T, path string, families []*dto.MetricFamily) {
	t.Helper()
	complaints, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	for _, p := range complaints {
		if likeUpstream[p.Metric] != p.Text {
			t.Errorf("%s: %s: %s", path, p.Metric, p.Text)
		}
	}
	for _, f := range families {
		if !model.UTF8Validation.IsValidMetricName(f.GetName()) || f.GetHelp() == "" {
			t.Errorf("%s: %q has no good name or no help", path, f.GetName())
		}
		seen := map[string]bool{}
		for _, m := range f.GetMetric() {
			key := labelsOf(m)
			if seen[key] {
				t.Errorf("%s: %s%s is there twice", path, f.GetName(), key)
			}
			seen[key] = true
		}
	}
}

func labelsOf(m *dto.Metric) string {
	var out strings.Builder
	for _, l := range m.GetLabel() {
		out.WriteString(l.String() + ";")
	}
	return "{" + out.String() + "}"
}
