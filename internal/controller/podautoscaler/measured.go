package podautoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	custommetrics "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	externalmetrics "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
)

// Ask gets a document from the API server that serves a path behind this one; served is false if none does.
type Ask func(ctx context.Context, path string) (body []byte, served bool, err error)

// asking is how long somebody who knows a metric may take to answer.
const asking = 10 * time.Second

// reading is what a metric that isn't a resource of the pods was found to be, in thousandths.
type reading struct {
	byPod map[string]measure // of metrics of pods
	value int64              // of the others
	err   error
}

// measured asks for those metrics of an autoscaler that somebody outside knows, by their place among its metrics.
func (a *autoscaler) measured(ctx context.Context, f *facts) map[int]reading {
	out := map[int]reading{}
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	for i, m := range f.autoscaler.Spec.Metrics {
		switch {
		case m.Type == autoscalingv2.PodsMetricSourceType && m.Pods != nil:
			out[i] = a.ofPods(ctx, f, m.Pods.Metric)
		case m.Type == autoscalingv2.ObjectMetricSourceType && m.Object != nil:
			out[i] = a.ofObject(ctx, f.autoscaler.Namespace, m.Object)
		case m.Type == autoscalingv2.ExternalMetricSourceType && m.External != nil:
			out[i] = a.external(ctx, f.autoscaler.Namespace, m.External.Metric)
		}
	}
	return out
}

func (a *autoscaler) ofPods(ctx context.Context, f *facts, m autoscalingv2.MetricIdentifier) reading {
	query := url.Values{"labelSelector": {f.selector.String()}}
	all, err := a.custom(ctx, "namespaces/"+segment(f.autoscaler.Namespace)+"/pods/*/"+segment(m.Name), query, m.Selector)
	r := reading{byPod: map[string]measure{}, err: err}
	for i := range all {
		r.byPod[all[i].DescribedObject.Name] = measure{value: all[i].Value.MilliValue(), at: all[i].Timestamp.Time}
	}
	return r
}

func (a *autoscaler) ofObject(ctx context.Context, namespace string, m *autoscalingv2.ObjectMetricSource) reading {
	of := m.DescribedObject
	path := "namespaces/" + segment(namespace) + "/metrics/" + segment(m.Metric.Name) // of the namespace itself
	if gv, err := schema.ParseGroupVersion(of.APIVersion); err != nil || of.Kind != "Namespace" || gv.Group != "" {
		if err == nil {
			mapping, mapErr := a.client.RESTMapper().RESTMapping(gv.WithKind(of.Kind).GroupKind(), gv.Version)
			if err = mapErr; err == nil {
				path = "namespaces/" + segment(namespace) + "/" + mapping.Resource.GroupResource().String() + "/" + segment(of.Name) + "/" + segment(m.Metric.Name)
			}
		}
		if err != nil {
			return reading{err: fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)}
		}
	}
	all, err := a.custom(ctx, path, url.Values{}, m.Metric.Selector)
	if err != nil {
		return reading{err: err}
	}
	return reading{value: all[0].Value.MilliValue()}
}

// custom asks the API of custom metrics, in the newest version that is served. What is read is the same in both.
func (a *autoscaler) custom(ctx context.Context, path string, query url.Values, of *metav1.LabelSelector) ([]custommetrics.MetricValue, error) {
	const group = "custom.metrics.k8s.io"
	fail := func(err error) ([]custommetrics.MetricValue, error) {
		return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
	}
	if of != nil {
		query.Set("metricLabelSelector", metav1.FormatLabelSelector(of))
	}
	for _, version := range []string{"v1beta2", "v1beta1"} {
		var list custommetrics.MetricValueList
		served, err := a.get(ctx, "/apis/"+group+"/"+version+"/"+path, query, &list)
		if err != nil {
			return fail(err)
		}
		if served && len(list.Items) == 0 {
			return nil, errors.New("no metrics returned from custom metrics API")
		}
		if served {
			return list.Items, nil
		}
	}
	return fail(errors.New("no custom metrics API (" + group + ") registered"))
}

// external sums up the values that the API of external metrics has under a name.
func (a *autoscaler) external(ctx context.Context, namespace string, m autoscalingv2.MetricIdentifier) reading {
	const group = "external.metrics.k8s.io"
	query := url.Values{}
	if m.Selector != nil {
		query.Set("labelSelector", metav1.FormatLabelSelector(m.Selector))
	}
	var list externalmetrics.ExternalMetricValueList
	served, err := a.get(ctx, "/apis/"+group+"/v1beta1/namespaces/"+segment(namespace)+"/"+segment(m.Name), query, &list)
	if err == nil && !served {
		err = errors.New("no external metrics API (" + group + ") registered")
	}
	if err != nil {
		return reading{err: fmt.Errorf("unable to fetch metrics from external metrics API: %w", err)}
	}
	if len(list.Items) == 0 {
		return reading{err: errors.New("no metrics returned from external metrics API")}
	}
	var r reading
	for i := range list.Items {
		r.value += list.Items[i].Value.MilliValue()
	}
	return r
}

func (a *autoscaler) get(ctx context.Context, path string, query url.Values, into any) (served bool, err error) {
	if a.ask == nil {
		return false, nil
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	body, served, err := a.ask(ctx, path)
	if err != nil || !served {
		return served, err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return true, fmt.Errorf("the answer is no list of metrics: %w", err)
	}
	return true, nil
}

// segment of a path.
func segment(s string) string { return url.PathEscape(s) }
