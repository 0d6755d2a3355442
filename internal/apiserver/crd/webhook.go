package crd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/apiserver/service"
	"skiff.dev/skiff/internal/registry"
)

// Upstream's limits of a conversion webhook.
const (
	webhookTimeout = 30 * time.Second
	webhookAnswer  = 64 << 20
)

// webhook converts by asking a service of the cluster, or a URL.
type webhook struct {
	url     string
	version string // of ConversionReview: the first that both sides know
	client  *http.Client
}

func newWebhook(crd *apiextensionsv1.CustomResourceDefinition, reg *registry.Registry) (*webhook, error) {
	hook := crd.Spec.Conversion.Webhook
	if hook == nil || hook.ClientConfig == nil {
		return nil, fmt.Errorf("definition %s converts by a webhook and names none", crd.Name)
	}
	w := &webhook{}
	known := func(v string) bool { return v == "v1" || v == "v1beta1" }
	if i := slices.IndexFunc(hook.ConversionReviewVersions, known); i >= 0 {
		w.version = hook.ConversionReviewVersions[i]
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca := bytes.TrimSpace(hook.ClientConfig.CABundle); len(ca) > 0 {
		conf.RootCAs = x509.NewCertPool()
		conf.RootCAs.AppendCertsFromPEM(ca)
	}
	transport := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, MaxIdleConns: 10, IdleConnTimeout: time.Minute}
	if u := hook.ClientConfig.URL; u != nil {
		w.url, transport.Proxy = *u, http.ProxyFromEnvironment
	} else if s := hook.ClientConfig.Service; s != nil {
		port := int32(443)
		if s.Port != nil {
			port = *s.Port
		}
		w.url = fmt.Sprintf("https://%s.%s.svc:%d", s.Name, s.Namespace, port)
		if s.Path != nil {
			w.url += *s.Path
		}
		ref := service.Ref{Namespace: s.Namespace, Name: s.Name, Port: port}
		conf.ServerName = ref.ServerName()
		transport.DialContext = service.Dialer(reg, ref)
	} else {
		return nil, fmt.Errorf("definition %s converts by a webhook with neither url nor service", crd.Name)
	}
	w.client = &http.Client{Transport: transport, Timeout: webhookTimeout}
	return w, nil
}

// review is a ConversionReview, of whose versions v1 and v1beta1 the parts that are used are alike.
type review struct {
	metav1.TypeMeta `json:",inline"`
	Request         *reviewRequest  `json:"request,omitempty"`
	Response        *reviewResponse `json:"response,omitempty"`
}

type reviewRequest struct {
	UID     types.UID                    `json:"uid"`
	Desired string                       `json:"desiredAPIVersion"`
	Objects []*unstructured.Unstructured `json:"objects"`
}

type reviewResponse struct {
	UID     types.UID         `json:"uid"`
	Objects []json.RawMessage `json:"convertedObjects"`
	Result  metav1.Status     `json:"result"`
}

func (w *webhook) convert(ctx context.Context, objs []*unstructured.Unstructured, to schema.GroupVersion) ([]*unstructured.Unstructured, error) {
	if w.version == "" {
		return nil, errors.New("the webhook understands no version of ConversionReview that this server knows")
	}
	ask := review{
		TypeMeta: metav1.TypeMeta{APIVersion: apiextensionsv1.GroupName + "/" + w.version, Kind: "ConversionReview"},
		Request:  &reviewRequest{UID: uuid.NewUUID(), Desired: to.String(), Objects: objs},
	}
	answer, err := w.ask(ctx, &ask)
	if err != nil {
		return nil, fmt.Errorf("conversion webhook for %v failed: %w", objs[0].GroupVersionKind(), err)
	}
	if len(answer.Objects) != len(objs) {
		return nil, fmt.Errorf("conversion webhook for %v returned %d objects, expected %d", objs[0].GroupVersionKind(), len(answer.Objects), len(objs))
	}
	out := make([]*unstructured.Unstructured, len(objs))
	for i, raw := range answer.Objects {
		if out[i], err = accepted(objs[i], raw, to); err != nil {
			return nil, fmt.Errorf("conversion webhook for %v returned invalid converted object at index %d: %w", objs[0].GroupVersionKind(), i, err)
		}
	}
	return out, nil
}

func (w *webhook) ask(ctx context.Context, ask *review) (*reviewResponse, error) {
	body, err := json.Marshal(ask)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, webhookAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("it answered %s: %.200s", resp.Status, raw)
	}
	var got review
	if err := json.Unmarshal(raw, &got); err != nil {
		return nil, err
	}
	switch {
	case w.version == "v1" && got.GroupVersionKind() != ask.GroupVersionKind():
		return nil, fmt.Errorf("expected webhook response of %v, got %v", ask.GroupVersionKind(), got.GroupVersionKind())
	case got.Response == nil:
		return nil, errors.New("no response provided")
	case w.version == "v1" && got.Response.UID != ask.Request.UID:
		return nil, fmt.Errorf("expected response.uid=%q, got %q", ask.Request.UID, got.Response.UID)
	case got.Response.Result.Status == metav1.StatusSuccess:
		return got.Response, nil
	case got.Response.Result.Message != "":
		return nil, errors.New(got.Response.Result.Message)
	}
	return nil, fmt.Errorf("response.result.status was '%s', not 'Success'", got.Response.Result.Status)
}

// accepted is a converted object, if it still is the object it was made of: a webhook may change labels and annotations of the metadata, no more.
func accepted(was *unstructured.Unstructured, raw []byte, to schema.GroupVersion) (*unstructured.Unstructured, error) {
	is := &unstructured.Unstructured{}
	if err := is.UnmarshalJSON(raw); err != nil {
		return nil, err
	}
	before, after := was.GroupVersionKind(), is.GroupVersionKind()
	switch {
	case after.GroupVersion() != to:
		return nil, fmt.Errorf("invalid groupVersion (expected %v, received %v)", to, after.GroupVersion())
	case after.Kind != before.Kind:
		return nil, fmt.Errorf("invalid kind (expected %v, received %v)", before.Kind, after.Kind)
	case is.GetName() != was.GetName():
		return nil, fmt.Errorf("must have the same name: %v != %v", was.GetName(), is.GetName())
	case is.GetNamespace() != was.GetNamespace():
		return nil, fmt.Errorf("must have the same namespace: %v != %v", was.GetNamespace(), is.GetNamespace())
	case is.GetUID() != was.GetUID():
		return nil, fmt.Errorf("must have the same UID: %v != %v", was.GetUID(), is.GetUID())
	}
	return is, keepMetadata(was, is)
}

// keepMetadata gives a converted object its old metadata with the labels and annotations that the webhook made of them.
func keepMetadata(was, is *unstructured.Unstructured) error {
	made, ok := is.Object["metadata"].(map[string]any)
	if !ok {
		return errors.New("it has no metadata")
	}
	old, _ := was.Object["metadata"].(map[string]any)
	out := make(map[string]any, len(old))
	for k, v := range old {
		out[k] = v
	}
	for _, k := range []string{"labels", "annotations"} {
		if v, has := made[k]; has && v != nil {
			out[k] = v
		} else {
			delete(out, k)
		}
	}
	is.Object["metadata"] = out
	at := field.NewPath("metadata")
	if labels, wrong, err := unstructured.NestedStringMap(is.Object, "metadata", "labels"); err != nil {
		return fmt.Errorf("labels: %w (%v)", err, wrong)
	} else if errs := metavalidation.ValidateLabels(labels, at.Child("labels")); len(errs) > 0 && !apiequality.Semantic.DeepEqual(labels, was.GetLabels()) {
		return errs.ToAggregate()
	}
	annotations, _, err := unstructured.NestedStringMap(is.Object, "metadata", "annotations")
	if err != nil {
		return fmt.Errorf("annotations: %w", err)
	}
	return apivalidation.ValidateAnnotations(annotations, at.Child("annotations")).ToAggregate()
}
