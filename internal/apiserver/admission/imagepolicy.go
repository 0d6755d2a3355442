package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	imagepolicyv1alpha1 "k8s.io/api/imagepolicy/v1alpha1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/cache"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/rest"

	"skiff.dev/skiff/internal/registry"
)

// imagePolicyFile is the configuration of ImagePolicyWebhook, in upstream's format: times are in seconds but for retryBackoff, which is in milliseconds; 0
// is the default, a negative time to live means that nothing is remembered.
type imagePolicyFile struct {
	ImagePolicy struct {
		KubeConfigFile string `json:"kubeConfigFile"`
		RetryBackoff   int64  `json:"retryBackoff,omitempty"`
		AllowTTL       int64  `json:"allowTTL,omitempty"`
		DenyTTL        int64  `json:"denyTTL,omitempty"`
		DefaultAllow   bool   `json:"defaultAllow,omitempty"`
	} `json:"imagePolicy"`
}

// bounds are what one of its times may be, and what it is if nothing is said.
type bounds struct{ least, most, standard time.Duration }

var (
	imageRetry = bounds{time.Millisecond, 5 * time.Minute, 500 * time.Millisecond}
	imageAllow = bounds{time.Second, 30 * time.Minute, 5 * time.Minute}
	imageDeny  = bounds{time.Second, 30 * time.Minute, 30 * time.Second}
)

func (b bounds) of(name string, n int64, unit time.Duration) (time.Duration, error) {
	switch d := time.Duration(n) * unit; {
	case n == 0:
		return b.standard, nil
	case n < 0:
		return 0, nil
	case n > int64(b.most/unit) || d < b.least:
		return 0, fmt.Errorf("imagePolicy.%s: valid value is between %v and %v, got %d × %v", name, b.least, b.most, n, unit)
	default:
		return d, nil
	}
}

// imageAnnotations of a pod are for the service to see.
const imageAnnotations = ".image-policy.k8s.io/"

// imagesRemembered is how many answers are kept.
const imagesRemembered = 1024

// imagePolicy asks a service whether pods may run their images.
type imagePolicy struct {
	ask          *webhookutil.GenericWebhook
	allow, deny  time.Duration
	defaultAllow bool
	answers      *cache.LRUExpireCache
}

// imagePolicyWebhook (ImagePolicyWebhook) asks a service by ImageReviews.
func imagePolicyWebhook(raw []byte) (made, error) {
	if raw == nil {
		return made{}, fmt.Errorf("ImagePolicyWebhook has nobody to ask: say whom with %s", configurationKey)
	}
	file, err := parse[imagePolicyFile](raw, "")
	if err != nil {
		return made{}, err
	}
	c := file.ImagePolicy
	if c.KubeConfigFile == "" {
		return made{}, errors.New("imagePolicy.kubeConfigFile is missing: the kubeconfig of the service to ask")
	}
	p := &imagePolicy{defaultAllow: c.DefaultAllow, answers: cache.NewLRUExpireCache(imagesRemembered)}
	retry, err := imageRetry.of("retryBackoff", c.RetryBackoff, time.Millisecond)
	if err == nil {
		p.allow, err = imageAllow.of("allowTTL", c.AllowTTL, time.Second)
	}
	if err == nil {
		p.deny, err = imageDeny.of("denyTTL", c.DenyTTL, time.Second)
	}
	if err != nil {
		return made{}, err
	}
	config, err := webhookutil.LoadKubeconfig(c.KubeConfigFile, nil)
	if err != nil {
		return made{}, fmt.Errorf("imagePolicy.kubeConfigFile: %s: %w", c.KubeConfigFile, err)
	}
	known := runtime.NewScheme()
	if err := imagepolicyv1alpha1.AddToScheme(known); err != nil {
		return made{}, err
	}
	p.ask, err = webhookutil.NewGenericWebhook(known, serializer.NewCodecFactory(known), config,
		[]schema.GroupVersion{imagepolicyv1alpha1.SchemeGroupVersion}, webhookutil.DefaultRetryBackoffWithInitialDelay(retry))
	return made{validate: p.validate}, err
}

func (p *imagePolicy) validate(ctx context.Context, a *registry.Attributes) error {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Resource.Plural != "pods" || a.Subresource != "" && a.Subresource != "ephemeralcontainers" || a.Operation != create && a.Operation != update {
		return nil
	}
	status, err := p.review(ctx, imageReview(pod, a.Namespace, a.Subresource != ""))
	switch {
	case err != nil && p.defaultAllow:
		return nil
	case err != nil:
		return forbid(a, err)
	case status.Allowed:
		return nil
	case status.Reason != "":
		return forbid(a, fmt.Errorf("image policy webhook backend denied one or more images: %s", status.Reason))
	}
	return forbid(a, errors.New("one or more images rejected by webhook backend"))
}

// imageReview is what is asked of a pod: its ephemeral containers, or all the others.
func imageReview(pod *corev1.Pod, namespace string, ephemeral bool) *imagepolicyv1alpha1.ImageReview {
	spec := imagepolicyv1alpha1.ImageReviewSpec{Namespace: namespace, Annotations: map[string]string{}}
	add := func(image string) {
		spec.Containers = append(spec.Containers, imagepolicyv1alpha1.ImageReviewContainerSpec{Image: image})
	}
	if ephemeral {
		for i := range pod.Spec.EphemeralContainers {
			add(pod.Spec.EphemeralContainers[i].Image)
		}
	} else {
		for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
			for i := range list {
				add(list[i].Image)
			}
		}
	}
	for k, v := range pod.Annotations {
		if strings.Contains(k, imageAnnotations) {
			spec.Annotations[k] = v
		}
	}
	return &imagepolicyv1alpha1.ImageReview{Spec: spec}
}

// review asks, unless the answer is known.
func (p *imagePolicy) review(ctx context.Context, r *imagepolicyv1alpha1.ImageReview) (*imagepolicyv1alpha1.ImageReviewStatus, error) {
	key, err := json.Marshal(r.Spec)
	if err != nil {
		return nil, err
	}
	if known, ok := p.answers.Get(string(key)); ok {
		return known.(*imagepolicyv1alpha1.ImageReviewStatus), nil
	}
	result := p.ask.WithExponentialBackoff(ctx, func() rest.Result { return p.ask.RestClient.Post().Body(r).Do(ctx) })
	if err := result.Error(); err != nil {
		return nil, err
	}
	var code int
	if result.StatusCode(&code); code < http.StatusOK || code >= http.StatusMultipleChoices {
		return nil, fmt.Errorf("Error contacting webhook: %d", code) //nolint:staticcheck // upstream's words
	}
	if err := result.Into(r); err != nil {
		return nil, err
	}
	life := p.deny
	if r.Status.Allowed {
		life = p.allow
	}
	if life > 0 {
		p.answers.Add(string(key), &r.Status, life)
	}
	return &r.Status, nil
}
