package apiserver_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	custommetrics "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalmetrics "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"

	"skiff.dev/skiff/internal/apiserver/authn"
	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/podautoscaler"
	"skiff.dev/skiff/internal/pki"
)

// adapter serves custom.metrics.k8s.io and external.metrics.k8s.io to whom the front proxy vouches for.
type adapter struct {
	t     *testing.T
	queue atomic.Int64 // what the external metric is
	hits  atomic.Int64 // what the metric of an Ingress is
	asked atomic.Value // by whom
}

// adapt starts an adapter and registers it.
func adapt(t *testing.T, f *fixture) *adapter {
	t.Helper()
	x := &adapter{t: t}
	ca, err := pki.OpenAuthority(t.TempDir(), "ca", "adapter", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	serving, err := ca.Issue(pki.Leaf{CommonName: "adapter", DNSNames: []string{"adapter.default.svc"}, Life: time.Hour}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(x)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{*serving}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: f.proxy.Pool()}
	server.StartTLS()
	t.Cleanup(server.Close)
	port := int32(server.Listener.Addr().(*net.TCPAddr).Port)
	f.Must(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "adapter"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"}})
	for group, version := range map[string]string{"custom.metrics.k8s.io": "v1beta2", "external.metrics.k8s.io": "v1beta1"} {
		f.Must(&apiregistrationv1.APIService{ObjectMeta: metav1.ObjectMeta{Name: version + "." + group}, Spec: apiregistrationv1.APIServiceSpec{
			Group: group, Version: version, GroupPriorityMinimum: 100, VersionPriority: 100, CABundle: ca.PEM,
			Service: &apiregistrationv1.ServiceReference{Namespace: "default", Name: "adapter", Port: &port},
		}})
	}
	return x
}

func (x *adapter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	var answer any
	switch path := r.URL.Path; {
	case strings.Count(path, "/") == 3: // discovery
		answer = metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: strings.TrimPrefix(path, "/apis/")}
	case path == "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue" && r.URL.Query().Get("labelSelector") == "of=orders":
		x.asked.Store(r.Header.Get(authn.RemoteUser) + " " + strings.Join(r.Header.Values(authn.RemoteGroup), ","))
		answer = externalmetrics.ExternalMetricValueList{Items: []externalmetrics.ExternalMetricValue{{MetricName: "queue", Value: *resource.NewQuantity(x.queue.Load(), resource.DecimalSI)}}}
	case path == "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/ingresses.networking.k8s.io/front/hits":
		answer = custommetrics.MetricValueList{Items: []custommetrics.MetricValue{{Value: *resource.NewQuantity(x.hits.Load(), resource.DecimalSI)}}}
	default:
		w.WriteHeader(http.StatusNotFound)
		answer = metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound,
			Code: http.StatusNotFound, Message: "the server could not find the metric requests for pods"}
	}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		x.t.Error(err)
	}
}

func amountOf(kind autoscalingv2.MetricTargetType, n int64) autoscalingv2.MetricTarget {
	q := resource.NewQuantity(n, resource.DecimalSI)
	if kind == autoscalingv2.ValueMetricType {
		return autoscalingv2.MetricTarget{Type: kind, Value: q}
	}
	return autoscalingv2.MetricTarget{Type: kind, AverageValue: q}
}

// TestAutoscalingByMetricsFromOutside: the autoscaler asks an adapter through its APIServices, as upstream's account.
func TestAutoscalingByMetricsFromOutside(t *testing.T) {
	f := start(t)
	x := adapt(t, f)
	x.queue.Store(90)
	x.hits.Store(100)
	one, none := int32(1), int32(0)
	f.Must(&corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ReplicationControllerSpec{
		Replicas: &one, Selector: map[string]string{"app": "web"}, Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "web"}}}},
	}}, &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "v1", Kind: "ReplicationController", Name: "web"},
		MinReplicas:    &none, MaxReplicas: 9,
		Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{StabilizationWindowSeconds: &none}},
		Metrics: []autoscalingv2.MetricSpec{
			{Type: autoscalingv2.ExternalMetricSourceType, External: &autoscalingv2.ExternalMetricSource{
				Metric: autoscalingv2.MetricIdentifier{Name: "queue", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"of": "orders"}}},
				Target: amountOf(autoscalingv2.AverageValueMetricType, 30),
			}},
			{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{
				DescribedObject: autoscalingv2.CrossVersionObjectReference{APIVersion: "networking.k8s.io/v1", Kind: "Ingress", Name: "front"},
				Metric:          autoscalingv2.MetricIdentifier{Name: "hits"}, Target: amountOf(autoscalingv2.AverageValueMetricType, 50),
			}},
		},
	}})
	wake := autoscaling(t, f)

	replicas := func(want int32, why string) autoscalingv2.HorizontalPodAutoscaler {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			wake()
			var rc corev1.ReplicationController
			var h autoscalingv2.HorizontalPodAutoscaler
			f.ask("GET /api/v1/namespaces/default/replicationcontrollers/web", "").ok(200).into(&rc)
			f.ask("GET /apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/web", "").ok(200).into(&h)
			said := conditionsOf(&h)
			if *rc.Spec.Replicas == want && strings.Contains(said, why) {
				return h
			}
			if time.Now().After(deadline) {
				t.Fatalf("want %d replicas and %q, got %d and %s", want, why, *rc.Spec.Replicas, said)
			}
		}
	}
	h := replicas(3, "ValidMetricFound: the HPA was able to successfully calculate a replica count from external metric queue(")
	if m := h.Status.CurrentMetrics; len(m) != 2 || m[0].External == nil || m[0].External.Metric.Selector == nil || m[1].Object == nil || m[1].Object.DescribedObject.Name != "front" {
		t.Errorf("current metrics: %+v", m)
	}
	if got := x.asked.Load(); got != "system:serviceaccount:kube-system:horizontal-pod-autoscaler system:serviceaccounts,system:serviceaccounts:kube-system" {
		t.Errorf("the adapter was asked by %s", got)
	}
	x.queue.Store(0)
	x.hits.Store(0)
	replicas(0, "ScaledToZero: the HPA controller scaled the workload to zero")
	x.hits.Store(60)
	replicas(2, "NotScaledToZero: the HPA controller did not scale the workload to zero")
	// A metric that nobody knows.
	f.ask("PATCH /apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers/web", `[{"op":"replace","path":"/spec/minReplicas","value":1},{"op":"replace","path":"/spec/metrics","value":[
		{"type":"Pods","pods":{"metric":{"name":"requests"},"target":{"type":"AverageValue","averageValue":"1"}}}]}]`, "Content-Type", "application/json-patch+json").ok(200)
	replicas(2, "FailedGetPodsMetric: the HPA was unable to compute the replica count: unable to get metric requests: "+
		"unable to fetch metrics from custom metrics API: the server could not find the metric requests for pods")
}

func conditionsOf(h *autoscalingv2.HorizontalPodAutoscaler) string {
	var out []string
	for _, c := range h.Status.Conditions {
		out = append(out, fmt.Sprintf("%s: %s", c.Reason, c.Message))
	}
	return strings.Join(out, "; ")
}

// autoscaling runs the autoscaler until the test ends; wake has it look again.
func autoscaling(t *testing.T, f *fixture) (wake func()) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	cl := client.Local(f.Registry.Registry, &user.DefaultInfo{Name: user.KubeControllerManager}, quiet)
	account := serviceaccount.UserInfo("kube-system", "horizontal-pod-autoscaler", "")
	var again atomic.Pointer[func()]
	loop := podautoscaler.New(cl, func(f func()) func() { again.Store(&f); return func() {} },
		func(ctx context.Context, path string) ([]byte, bool, error) {
			return f.server.Behind(ctx, account, path)
		})
	running, cancel := context.WithCancel(ctx)
	ended, synced := make(chan error, 2), make(chan struct{})
	go func() { ended <- cl.Run(running) }()
	go func() {
		ended <- harness.Run(running, loop, cl, harness.NewMetrics(nil), quiet, func() { close(synced) })
	}()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	<-synced
	return func() {
		if f := again.Load(); f != nil {
			(*f)()
		}
	}
}
