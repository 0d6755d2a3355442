package test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
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
