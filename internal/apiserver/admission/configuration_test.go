package admission

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	imagepolicyv1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// written writes a file of a test's own.
func written(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// configured is a file with plug-ins, in YAML's flow style.
func configured(t *testing.T, plugins string) string {
	t.Helper()
	return written(t, "admission.yaml", "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: "+plugins+"\n")
}

const (
	limitedKind = "apiVersion: eventratelimit.admission.k8s.io/v1alpha1, kind: Configuration"
	quotaKind   = "apiVersion: apiserver.config.k8s.io/v1, kind: ResourceQuotaConfiguration"
	securedKind = "apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration"
)

func TestConfigurationsAreRefused(t *testing.T) {
	for _, c := range []struct{ plugins, want string }{
		{`[{name: Nobody, configuration: {}}]`, `plugins[0]: there is no plug-in "Nobody"; there are NamespaceLifecycle, `},
		{`[{name: LimitRanger, configuration: {}}]`, `plugins[0]: LimitRanger takes no configuration`},
		{`[{name: PodSecurity}]`, `plugins[0]: PodSecurity has neither a configuration nor a path`},
		{`[{name: PodSecurity, path: no/such/file}]`, `no/such/file: no such file`},
		{`[{name: PodSecurity, configuration: {` + securedKind + `}}, {name: PodSecurity, path: a}]`, `plugins[1]: PodSecurity is configured twice`},
		{`[{name: PodSecurity, configuration: {` + securedKind + `, defaults: {enforce: much}}}]`, `PodSecurity: defaults.enforce: Invalid value: "much"`},
		{`[{name: ResourceQuota, configuration: {limitedResources: []}}]`, `ResourceQuota: `},
		{`[{name: ResourceQuota, configuration: {` + quotaKind + `, limited: []}}]`, `unknown field "limited"`},
		{`[{name: ResourceQuota, configuration: {` + quotaKind + `, limitedResources: [{apiGroup: apps}]}}]`, `ResourceQuota: limitedResources[0].resource: Required value`},
		{`[{name: ResourceQuota, configuration: {` + quotaKind + `, limitedResources: [{resource: pods, matchScopes: [{scopeName: Priority, operator: In}]}]}}]`,
			`[limitedResources[0].matchScopes[0].scopeName: Invalid value: "Priority": unsupported scope, limitedResources[0].matchScopes[0].values: Required value`},
		{`[{name: EventRateLimit, configuration: {` + limitedKind + `, limits: []}}]`, `EventRateLimit: limits: Invalid value: `},
		{`[{name: EventRateLimit, configuration: {` + limitedKind + `, limits: [{type: Galaxy, qps: 0, burst: 1}]}}]`,
			`[limits[0].type: Unsupported value: "Galaxy": supported values: "Namespace", "Server", "SourceAndObject", "User", limits[0].qps: Invalid value: 0: must be positive]`},
		{`[{name: EventRateLimit, configuration: {` + limitedKind + `, limit: []}}]`, `unknown field "limit"`},
		{`[{name: EventRateLimit, configuration: {apiVersion: v1, kind: Configuration, limits: []}}]`, `it is a "v1 Configuration", want "eventratelimit.admission.k8s.io/v1alpha1 Configuration"`},
		{`[{name: ImagePolicyWebhook, configuration: {imagePolicy: {}}}]`, `imagePolicy.kubeConfigFile is missing`},
		{`[{name: ImagePolicyWebhook, configuration: {imagePolicy: {kubeConfigFile: none, allowTTL: 100000}}}]`, `imagePolicy.allowTTL: valid value is between 1s and 30m0s`},
		{`[{name: PodNodeSelector, configuration: {podNodeSelectorPluginConfig: {a: "b in (c)"}}}]`, `podNodeSelectorPluginConfig.a: `},
	} {
		var enable []string
		for _, name := range []string{"EventRateLimit", "ImagePolicyWebhook", "PodNodeSelector"} {
			if strings.Contains(c.plugins, name) {
				enable = append(enable, name)
			}
		}
		_, _, err := New(Config{Enable: enable, File: configured(t, c.plugins)})
		if err == nil || !strings.HasPrefix(err.Error(), "admission-control-config-file: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.plugins, err, c.want)
		}
	}
	for _, name := range []string{"EventRateLimit", "ImagePolicyWebhook"} {
		if _, _, err := New(Config{Enable: []string{name}}); err == nil || !strings.Contains(err.Error(), "admission-control-config-file") {
			t.Errorf("%s without a configuration: %v", name, err)
		}
	}
	if _, _, err := New(Config{File: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a file that isn't there is no error")
	}
}

func TestEventsAreLimited(t *testing.T) {
	r := with(t, Config{Enable: []string{"EventRateLimit"}, File: configured(t, `[{name: EventRateLimit, configuration: {`+limitedKind+`, limits: [
  {type: Namespace, qps: 1, burst: 2}, {type: SourceAndObject, qps: 1, burst: 1}]}}]`)})
	n := 0
	event := func(namespace, of string) error {
		n++
		_, err := r.Create(registrytest.Admin, &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint("e", n)},
			InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: of, APIVersion: "v1"}, Source: corev1.EventSource{Component: "c"},
		})
		return err
	}
	for _, of := range []string{"a", "b"} {
		if err := event("default", of); err != nil {
			t.Error(err)
		}
	}
	refused(t, event("default", "c"), 429, "limit reached on type Namespace for key default")
	if err := event("kube-system", "a"); err != nil {
		t.Errorf("another namespace: %v", err)
	}
	refused(t, event("kube-system", "a"), 429, "limit reached on type SourceAndObject for key cPodkube-systemav1")
	r.Must(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}}) // is no event
}

func TestImagesAreReviewed(t *testing.T) {
	var asked atomic.Int64
	var saw atomic.Pointer[imagepolicyv1alpha1.ImageReview]
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		var review imagepolicyv1alpha1.ImageReview
		_ = json.NewDecoder(r.Body).Decode(&review)
		saw.Store(&review)
		review.Status.Allowed = !slices.ContainsFunc(review.Spec.Containers, func(c imagepolicyv1alpha1.ImageReviewContainerSpec) bool { return strings.Contains(c.Image, "bad") })
		if !review.Status.Allowed {
			review.Status.Reason = "it is bad"
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	defer service.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"c": {Server: service.URL}}, Contexts: map[string]*clientcmdapi.Context{"c": {Cluster: "c"}}, CurrentContext: "c",
	}, kubeconfig); err != nil {
		t.Fatal(err)
	}
	chain := func(more string) *registrytest.Registry {
		return with(t, Config{Enable: []string{"ImagePolicyWebhook"}, File: configured(t,
			`[{name: ImagePolicyWebhook, configuration: {imagePolicy: {kubeConfigFile: `+kubeconfig+`, retryBackoff: 1`+more+`}}}]`)})
	}
	r := chain("")
	pod := func(name, image string) *corev1.Pod {
		return registrytest.Pod(name, func(p *corev1.Pod) {
			p.Spec.Containers[0].Image = image
			p.Annotations = map[string]string{"break.image-policy.k8s.io/glass": "yes", "other": "no"}
		})
	}
	create := func(r *registrytest.Registry, p *corev1.Pod) error {
		_, err := r.Create(registrytest.Admin, p)
		return err
	}
	if err := create(r, pod("a", "good")); err != nil {
		t.Fatal(err)
	}
	if spec := saw.Load().Spec; spec.Namespace != "default" || len(spec.Annotations) != 1 || spec.Annotations["break.image-policy.k8s.io/glass"] != "yes" || spec.Containers[0].Image != "good" {
		t.Errorf("asked about %+v", spec)
	}
	if err := create(r, pod("b", "good")); err != nil || asked.Load() != 1 {
		t.Errorf("a known answer: %v, asked %d times", err, asked.Load())
	}
	refused(t, create(r, pod("c", "bad")), 403, "image policy webhook backend denied one or more images: it is bad")
	service.Close()
	refused(t, create(r, pod("d", "unknown")), 403, "connection refused")
	if err := create(chain(", defaultAllow: true"), pod("e", "unknown")); err != nil {
		t.Errorf("nobody answers, and pods are to be let in then: %v", err)
	}
}

func TestConfiguredDefaults(t *testing.T) {
	r := with(t, Config{Enable: []string{"PodNodeSelector", "PodTolerationRestriction"}, File: configured(t, `
- {name: PodSecurity, path: `+written(t, "security.yaml", strings.ReplaceAll(securedKind, ", ", "\n")+"\ndefaults: {enforce: baseline}\nexemptions: {namespaces: [free]}\n")+`}
- {name: PodNodeSelector, configuration: {podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: pool=all, free: "pool=all,disk=ssd"}}}
- {name: PodTolerationRestriction, configuration: {apiVersion: podtolerationrestriction.admission.k8s.io/v1alpha1, kind: Configuration,
    default: [{key: team, operator: Exists, effect: NoSchedule}]}}`)})
	r.Must(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "free"}}, registrytest.Account("default", func(a *corev1.ServiceAccount) { a.Namespace = "free" }))
	create := func(name, namespace string, host bool, nodes map[string]string) (*corev1.Pod, error) {
		out, err := r.Create(registrytest.Admin, registrytest.Pod(name, func(p *corev1.Pod) {
			p.Namespace, p.Spec.HostNetwork, p.Spec.NodeSelector = namespace, host, nodes
		}))
		pod, _ := out.(*corev1.Pod)
		return pod, err
	}
	pod, err := create("a", "default", false, nil)
	if err != nil || pod.Spec.NodeSelector["pool"] != "all" || !tolerates(pod, "team") {
		t.Errorf("%v: %+v", err, pod)
	}
	_, err = create("b", "default", true, nil)
	refused(t, err, 403, `violates PodSecurity "baseline:latest": host namespaces (hostNetwork=true)`)
	if pod, err = create("c", "free", true, map[string]string{"disk": "ssd"}); err != nil || pod.Spec.NodeSelector["pool"] != "all" {
		t.Errorf("an exempt namespace: %v: %+v", err, pod)
	}
	_, err = create("d", "free", false, map[string]string{"disk": "hdd"})
	refused(t, err, 403, "pod node label selector labels conflict with its namespace whitelist")
}

// Plug-ins that live elsewhere are handed their configurations.
func TestConfigurationsGoElsewhere(t *testing.T) {
	got := ""
	_, _, err := New(Config{
		File:      configured(t, `[{name: ValidatingAdmissionWebhook, configuration: {kubeConfigFile: /a}}]`),
		Configure: map[string]func([]byte) error{"ValidatingAdmissionWebhook": func(raw []byte) error { got = string(raw); return nil }},
		Validate:  map[string]registry.Validate{"ValidatingAdmissionWebhook": func(context.Context, *registry.Attributes) error { return nil }},
	})
	if err != nil || !strings.Contains(got, `"kubeConfigFile":"/a"`) {
		t.Errorf("%v: %s", err, got)
	}
}
