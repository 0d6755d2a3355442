package test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	custommetrics "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalmetrics "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"

	"skiff.dev/skiff/internal/pki"
	"skiff.dev/skiff/test/cluster"
)

// TestAutoscaleByOthers: an adapter outside the cluster serves metrics behind APIServices, as prometheus-adapter and KEDA do, and workloads follow them.
func TestAutoscaleByOthers(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t)
	a := adapt(t, c)
	with := func(do func(*testing.T, *adapter, *cluster.Cluster)) func(*testing.T, *cluster.Cluster) {
		return func(t *testing.T, c *cluster.Cluster) { do(t, a, c) }
	}
	subtests(t, c, map[string]func(*testing.T, *cluster.Cluster){
		"to zero and back":       with(scaleToZero),
		"an object's metric":     with(scaleByObject),
		"the metric of each pod": with(scaleByPods),
		"one container's usage":  scaleByContainer,
		"policies":               with(scalePolicies),
		"stabilisation":          with(scaleStabilised),
		"a metric that is lost":  with(scaleLost),
		"faulty autoscalers":     with(scaleFaulty),
	})
}

// adapter knows metrics by what is asked for: the path below the group's version, and the selector of the metric if there is one.
type adapter struct {
	t    *testing.T
	port int

	mu     sync.Mutex
	values map[string]string
	asked  map[string]string // by whom
}

// adapt starts an adapter on the cluster's host and registers it. It believes only whom the front proxy vouches for, as every API server of that sort does.
func adapt(t *testing.T, c *cluster.Cluster) *adapter {
	t.Helper()
	a := &adapter{t: t, values: map[string]string{}, asked: map[string]string{}}
	ca, err := pki.OpenAuthority(t.TempDir(), "ca", "adapter", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	serving, err := ca.Issue(pki.Leaf{CommonName: "adapter", DNSNames: []string{"adapter.default.svc"}, Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	proxies := x509.NewCertPool()
	if !proxies.AppendCertsFromPEM([]byte(c.Kubectl("get", "configmap", "extension-apiserver-authentication", "-n", "kube-system", "-o", `jsonpath={.data.requestheader-client-ca-file}`))) {
		t.Fatal("extension-apiserver-authentication names no authority of the front proxy")
	}
	l := listen(t, c, cluster.HostIP+":0")
	a.port = l.Addr().(*net.TCPAddr).Port
	server := &http.Server{
		Handler: a, ErrorLog: log.New(t.Output(), "adapter: ", 0), ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{*serving}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: proxies, MinVersion: tls.VersionTLS12},
	}
	go func() { _ = server.ServeTLS(l, "", "") }() // ends with Close
	t.Cleanup(func() { _ = server.Close() })
	bundle, err := json.Marshal(ca.PEM)
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: adapter}
spec: {ports: [{name: https, port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: adapter, labels: {kubernetes.io/service-name: adapter}}
addressType: IPv4
ports: [{name: https, port: %d, protocol: TCP}]
endpoints: [{addresses: [%s]}]
`, a.port, cluster.HostIP))
	for group, version := range map[string]string{"custom.metrics.k8s.io": "v1beta2", "external.metrics.k8s.io": "v1beta1"} {
		c.Apply(fmt.Sprintf(`
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: %s.%s}
spec: {group: %[2]s, version: %[1]s, groupPriorityMinimum: 100, versionPriority: 100, caBundle: %[3]s, service: {name: adapter, namespace: default}}
`, version, group, bundle))
		c.Kubectl("wait", "apiservice/"+version+"."+group, "--for=condition=Available", "--timeout=3m")
	}
	return a
}

// put says what a metric is from now on; "" makes it unknown.
func (a *adapter) put(metric, value string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.values[metric] = value
}

func (a *adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	parts := strings.SplitN(strings.TrimPrefix(r.URL.Path, "/apis/"), "/", 3)
	query := r.URL.Query()
	var answer any
	switch gv := strings.Join(parts[:min(2, len(parts))], "/"); {
	case len(parts) == 2:
		answer = metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv}
	case len(parts) < 2:
	case parts[0] == "external.metrics.k8s.io":
		if all := a.known(r, parts[2], query.Get("labelSelector")); len(all) > 0 {
			list := externalmetrics.ExternalMetricValueList{TypeMeta: metav1.TypeMeta{Kind: "ExternalMetricValueList", APIVersion: gv}}
			for _, v := range all {
				list.Items = append(list.Items, externalmetrics.ExternalMetricValue{Value: v})
			}
			answer = list
		}
	default:
		if all := a.known(r, parts[2], query.Get("metricLabelSelector")); len(all) > 0 {
			list := custommetrics.MetricValueList{TypeMeta: metav1.TypeMeta{Kind: "MetricValueList", APIVersion: gv}}
			for i, v := range all { // of pods: one each, of a StatefulSet
				list.Items = append(list.Items, custommetrics.MetricValue{DescribedObject: corev1.ObjectReference{Kind: "Pod", Name: fmt.Sprintf("web-%d", i)}, Timestamp: metav1.Now(), Value: v})
			}
			answer = list
		}
	}
	if answer == nil {
		w.WriteHeader(http.StatusNotFound)
		answer = metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound, Message: "nobody measures that"}
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		a.t.Log(err)
	}
}

// known are the values of a metric, and notes who asked for them.
func (a *adapter) known(r *http.Request, metric, selector string) (out []resource.Quantity) {
	if selector != "" {
		metric += "?" + selector
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked[metric] = r.Header.Get("X-Remote-User")
	for _, v := range strings.Fields(a.values[metric]) {
		out = append(out, resource.MustParse(v))
	}
	return out
}

// scaled is a workload "web" and its autoscaler; the metrics and what else the autoscaler says are YAML in a line.
func scaled(c *cluster.Cluster, kind string, replicas, least, most int, metrics, more string) {
	service := ""
	if kind == "StatefulSet" {
		service = "serviceName: web, podManagementPolicy: Parallel, "
	}
	c.Apply(fmt.Sprintf(`
apiVersion: apps/v1
kind: %s
metadata: {name: web}
spec: {replicas: %d, %sselector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {terminationGracePeriodSeconds: 0, containers: [{name: web, image: "skiff.dev/web:1"}]}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: %[1]s, name: web}
  minReplicas: %[4]d
  maxReplicas: %[5]d
  metrics: %[6]s
%[7]s`, kind, replicas, service, least, most, metrics, more))
}

const atOnce = "  behavior: {scaleDown: {stabilizationWindowSeconds: 0}}\n"

// hpa waits until the autoscaler wants so many replicas, which its target has, and its conditions ("ScalingActive=True/ValidMetricFound") include these.
func hpa(t *testing.T, c *cluster.Cluster, replicas int32, conditions ...string) *autoscalingv2.HorizontalPodAutoscaler {
	t.Helper()
	var h autoscalingv2.HorizontalPodAutoscaler
	cluster.Eventually(t, func() error {
		h = autoscalingv2.HorizontalPodAutoscaler{}
		out, err := c.TryKubectl("get", "hpa", "web", "-o", "json")
		if err == nil {
			err = json.Unmarshal([]byte(out), &h)
		}
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		var said []string
		for _, x := range h.Status.Conditions {
			said = append(said, fmt.Sprintf("%s=%s/%s: %s", x.Type, x.Status, x.Reason, x.Message))
		}
		for _, want := range conditions {
			if !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, want) }) {
				return fmt.Errorf("no %q among the conditions %q; %d replicas are wanted", want, said, h.Status.DesiredReplicas)
			}
		}
		kind := strings.ToLower(h.Spec.ScaleTargetRef.Kind)
		if has := c.Kubectl("get", kind, "web", "-o", "jsonpath={.spec.replicas}"); has != fmt.Sprint(replicas) || h.Status.DesiredReplicas != replicas {
			return fmt.Errorf("%s replicas, %d are wanted, not %d; %q", has, h.Status.DesiredReplicas, replicas, said)
		}
		return nil
	})
	return &h
}

// stays checks that an autoscaler leaves the replicas alone while it is evaluated some times: its figures say when.
func stays(t *testing.T, a *adapter, c *cluster.Cluster, metric string, values []string, replicas int32) {
	t.Helper()
	for _, v := range values {
		a.put(metric, v)
		cluster.Eventually(t, func() error {
			shown := c.Kubectl("get", "hpa", "web", "-o", "jsonpath={.status.currentMetrics[*].external.current.value}")
			if shown != v {
				return fmt.Errorf("the autoscaler shows %q, not %q", shown, v)
			}
			return nil
		})
		if has := c.Kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"); has != fmt.Sprint(replicas) {
			t.Fatalf("at %s there are %s replicas, not %d", v, has, replicas)
		}
	}
}

func scaleToZero(t *testing.T, a *adapter, c *cluster.Cluster) {
	const metric = "namespaces/to-zero-and-back/queue?of=orders"
	a.put(metric, "40 50") // two series, which are summed up
	scaled(c, "Deployment", 1, 0, 5, "[{type: External, external: {metric: {name: queue, selector: {matchLabels: {of: orders}}}, target: {type: AverageValue, averageValue: 30}}}]", atOnce)
	hpa(t, c, 3, "ScalingActive=True/ValidMetricFound: the HPA was able to successfully calculate a replica count from external metric queue(")
	a.mu.Lock()
	if by := a.asked[metric]; by != "system:serviceaccount:kube-system:horizontal-pod-autoscaler" {
		t.Errorf("%q asked", by)
	}
	a.mu.Unlock()
	cluster.Eventually(t, func() error { // the average is over the pods that there are
		if out := c.Kubectl("get", "hpa", "web", "--no-headers"); !strings.Contains(out, "30/30 (avg)") {
			return fmt.Errorf("get hpa: %s", out)
		}
		return nil
	})
	a.put(metric, "0")
	hpa(t, c, 0, "ScaledToZero=True/ScaledToZero")
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("get", "pods", "-o", "name"); out != "" {
			return fmt.Errorf("still there: %s", out)
		}
		return nil
	})
	a.put(metric, "45")
	hpa(t, c, 2, "ScaledToZero=False/NotScaledToZero", "ScalingActive=True/ValidMetricFound")
	c.Kubectl("rollout", "status", "deployment/web", "--timeout=3m")

	// Somebody switches it off, and that holds although the metric asks for two.
	c.Kubectl("scale", "deployment/web", "--replicas=0")
	hpa(t, c, 0, "ScalingActive=False/ScalingDisabled: scaling is disabled since the replica count of the target is zero")
	c.Kubectl("scale", "deployment/web", "--replicas=1")
	hpa(t, c, 2, "ScalingActive=True/ValidMetricFound")
}

// scaleByObject: of two metrics the one that wants the most wins.
func scaleByObject(t *testing.T, a *adapter, c *cluster.Cluster) {
	const hits, depth = "namespaces/an-object-s-metric/ingresses.networking.k8s.io/front/hits?verb=GET", "namespaces/an-object-s-metric/services/web/depth"
	a.put(hits, "100")
	a.put(depth, "10")
	scaled(c, "Deployment", 2, 1, 4, `
  - {type: Object, object: {describedObject: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: front}, metric: {name: hits, selector: {matchLabels: {verb: GET}}}, target: {type: Value, value: 100}}}
  - {type: Object, object: {describedObject: {apiVersion: v1, kind: Service, name: web}, metric: {name: depth}, target: {type: AverageValue, averageValue: 5}}}`, atOnce)
	hpa(t, c, 2, "ScalingActive=True/ValidMetricFound", "ScalingLimited=False/DesiredWithinRange")
	c.Kubectl("rollout", "status", "deployment/web", "--timeout=3m")
	a.put(hits, "200") // twice what it should be, so twice as many as are ready, and again as often as it is looked at: four are the most for now
	hpa(t, c, 4, "from Ingress metric hits")
	a.put(hits, "100")
	a.put(depth, "60")
	c.Kubectl("patch", "hpa", "web", "-p", `{"spec": {"maxReplicas": 6}}`)
	h := hpa(t, c, 6, "ScalingLimited=True/TooManyReplicas")
	if n := len(h.Status.CurrentMetrics); n != 2 || h.Status.CurrentMetrics[0].Object.Current.Value.String() != "100" {
		t.Errorf("its metrics: %+v", h.Status.CurrentMetrics)
	}
}

func scaleByPods(t *testing.T, a *adapter, c *cluster.Cluster) {
	const metric = "namespaces/the-metric-of-each-pod/pods/*/lag"
	a.put(metric, "15 25")
	scaled(c, "StatefulSet", 2, 1, 8, "[{type: Pods, pods: {metric: {name: lag}, target: {type: AverageValue, averageValue: 10}}}]", atOnce)
	hpa(t, c, 4, "from pods metric lag")
	a.put(metric, "2 2 2 2")
	hpa(t, c, 1, "ScalingActive=True/ValidMetricFound")
}

// scaleByContainer: a pod's idle neighbour of the busy container counts for nothing.
func scaleByContainer(t *testing.T, c *cluster.Cluster) {
	c.Apply(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: idle, image: "skiff.dev/web:1", resources: {requests: {cpu: 500m}}}
      - {name: busy, image: "skiff.dev/web:1", command: [sh, -c, "while :; do :; done"], resources: {requests: {cpu: 20m}, limits: {cpu: 100m}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 2
  metrics: [{type: ContainerResource, containerResource: {name: cpu, container: busy, target: {type: Utilization, averageUtilization: 60}}}]
`)
	h := hpa(t, c, 2, "ScalingActive=True/ValidMetricFound: the HPA was able to successfully calculate a replica count from cpu resource utilization (percentage of request)")
	if m := h.Status.CurrentMetrics; len(m) != 1 || m[0].ContainerResource == nil || m[0].ContainerResource.Container != "busy" || *m[0].ContainerResource.Current.AverageUtilization < 60 {
		t.Errorf("its metrics: %+v", m)
	}
	c.Kubectl("patch", "hpa", "web", "--type=json", "-p", `[{"op": "replace", "path": "/spec/metrics/0/containerResource/container", "value": "third"}]`)
	hpa(t, c, 2, "ScalingActive=False/FailedGetContainerResourceMetric", "container third not present in metrics for pod")
}

const loadOfTen = "[{type: External, external: {metric: {name: load}, target: {type: Value, value: 10}}}]"

// scalePolicies: no more pods in a period than a policy allows, and none are taken where that is disabled.
func scalePolicies(t *testing.T, a *adapter, c *cluster.Cluster) {
	const metric = "namespaces/policies/load"
	a.put(metric, "10")
	scaled(c, "Deployment", 2, 1, 9, loadOfTen, `
  behavior:
    scaleUp: {policies: [{type: Pods, value: 1, periodSeconds: 1800}]}
    scaleDown: {stabilizationWindowSeconds: 0, selectPolicy: Disabled}
`)
	hpa(t, c, 2, "ScalingActive=True/ValidMetricFound")
	c.Kubectl("rollout", "status", "deployment/web", "--timeout=3m")
	a.put(metric, "40")
	hpa(t, c, 3, "ScalingLimited=True/ScaleUpLimit: the desired replica count is increasing faster than the maximum scale rate")
	stays(t, a, c, metric, []string{"41", "42"}, 3)
	a.put(metric, "1")
	hpa(t, c, 3, "ScalingLimited=True/ScaleDownLimit: the desired replica count is decreasing faster than the maximum scale rate")
	stays(t, a, c, metric, []string{"2", "1"}, 3)
}

// scaleStabilised: less load for a moment takes no pod, for long enough it does.
func scaleStabilised(t *testing.T, a *adapter, c *cluster.Cluster) {
	const metric = "namespaces/stabilisation/load"
	a.put(metric, "10")
	scaled(c, "Deployment", 3, 1, 9, loadOfTen, "")
	hpa(t, c, 3, "AbleToScale=True/ReadyForNewScale: recommended size matches current size")
	c.Kubectl("rollout", "status", "deployment/web", "--timeout=3m")
	a.put(metric, "1")
	hpa(t, c, 3, "AbleToScale=True/ScaleDownStabilized: recent recommendations were higher than current one, applying the highest recent recommendation")
	stays(t, a, c, metric, []string{"2", "1"}, 3)
	c.Kubectl("patch", "hpa", "web", "-p", `{"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 1}}}}`)
	hpa(t, c, 1)
	if out := c.Kubectl("get", "events", "--field-selector=reason=SuccessfulRescale", "-o", "jsonpath={.items[*].message}"); !strings.Contains(out, "New size: 1; reason: All metrics below target") {
		t.Errorf("events: %s", out)
	}
}

// scaleLost: without one of its metrics an autoscaler takes no pods away, but gives what another asks for; the reason is told once.
func scaleLost(t *testing.T, a *adapter, c *cluster.Cluster) {
	const metric = "namespaces/a-metric-that-is-lost/load"
	a.put(metric, "10")
	a.put("namespaces/a-metric-that-is-lost/other", "10")
	scaled(c, "Deployment", 2, 1, 4, `
  - {type: External, external: {metric: {name: other}, target: {type: Value, value: 10}}}
  - {type: External, external: {metric: {name: load}, target: {type: Value, value: 10}}}`, atOnce)
	hpa(t, c, 2, "ScalingActive=True/ValidMetricFound")
	c.Kubectl("rollout", "status", "deployment/web", "--timeout=3m")
	a.put("namespaces/a-metric-that-is-lost/other", "")
	a.put(metric, "5")
	const why = "unable to get external metric a-metric-that-is-lost/other/nil: unable to fetch metrics from external metrics API: "
	hpa(t, c, 2, "ScalingActive=False/FailedGetExternalMetric: the HPA was unable to compute the replica count: "+why)
	cluster.Eventually(t, func() error {
		out := c.Kubectl("get", "events", "--field-selector=type=Warning", "-o", `jsonpath={range .items[*]}{.reason}: {.message}{"\n"}{end}`)
		if !strings.Contains(out, "FailedGetExternalMetric: "+why) || !strings.Contains(out, "FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 2), first error is: failed to get other external metric value: failed to get external metric other: "+why) {
			return fmt.Errorf("events: %s", out)
		}
		return nil
	})
	a.put(metric, "20")
	hpa(t, c, 4, "ScalingActive=True/ValidMetricFound", "external metric load(")
	a.put(metric, "2.5")
	a.put("namespaces/a-metric-that-is-lost/other", "2.5")
	hpa(t, c, 1, "ScalingActive=True/ValidMetricFound")
}

// scaleFaulty: what users do wrong is said where they look.
func scaleFaulty(t *testing.T, a *adapter, c *cluster.Cluster) {
	const metric = "namespaces/faulty-autoscalers/load"
	a.put(metric, "10")
	scaled(c, "Deployment", 2, 1, 6, loadOfTen, "")
	hpa(t, c, 2, "ScalingActive=True/ValidMetricFound")
	again := `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: rival}
spec: {scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}, maxReplicas: 6, metrics: ` + loadOfTen + "}\n"
	c.Apply(again)
	hpa(t, c, 2, "ScalingActive=False/AmbiguousSelector: pods by selector app=web are controlled by multiple HPAs: [faulty-autoscalers/rival faulty-autoscalers/web]")
	c.Kubectl("delete", "hpa", "rival")
	hpa(t, c, 2, "ScalingActive=True/ValidMetricFound")
	c.Kubectl("patch", "hpa", "web", "-p", `{"spec": {"scaleTargetRef": {"name": "nobody"}}}`)
	cluster.Eventually(t, func() error {
		if out := c.Kubectl("describe", "hpa", "web"); !strings.Contains(out, "FailedGetScale") || !strings.Contains(out, `"nobody" not found`) {
			return fmt.Errorf("describe hpa:\n%s", out)
		}
		return nil
	})
	for what, want := range map[string]string{
		`{"spec": {"minReplicas": 7}}`:                                                "must be greater than or equal to `minReplicas`",
		`{"spec": {"maxReplicas": 0}}`:                                                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
		`{"spec": {"minReplicas": -1}}`:                                               "spec.minReplicas: Invalid value: -1",
		`{"spec": {"metrics": [{"type": "External"}]}}`:                               "spec.metrics[0].external: Required value",
		`{"spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": 3601}}}}`: "must be less than or equal to 3600",
		`{"spec": {"behavior": {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 1801}]}}}}`: "must be less than or equal to 1800",
	} {
		if out, err := c.TryKubectl("patch", "hpa", "web", "--type=merge", "-p", what); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, %s", what, err, out)
		}
	}
}
