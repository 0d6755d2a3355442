package admission

import (
	"context"
	"fmt"
	"slices"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/util/flowcontrol"

	"skiff.dev/skiff/internal/registry"
)

// eventLimits is the configuration of EventRateLimit, in upstream's format.
type eventLimits struct {
	metav1.TypeMeta `json:",inline"`
	Limits          []eventLimit `json:"limits"`
}

// eventLimit is how many events there may be a second of what its type tells apart; that many of these are remembered.
type eventLimit struct {
	Type      string `json:"type"`
	QPS       int32  `json:"qps"`
	Burst     int32  `json:"burst"`
	CacheSize int32  `json:"cacheSize,omitempty"`
}

// What upstream remembers of a limit that doesn't say.
const eventCacheSize = 4096

// eventKeys are what each type of limit tells apart.
var eventKeys = map[string]func(a *registry.Attributes) string{
	"Server":          func(*registry.Attributes) string { return "" },
	"Namespace":       func(a *registry.Attributes) string { return a.Namespace },
	"User":            func(a *registry.Attributes) string { return a.User.GetName() },
	"SourceAndObject": sourceAndObject,
}

func sourceAndObject(a *registry.Attributes) string {
	var source corev1.EventSource
	var of corev1.ObjectReference
	switch e := a.Object.(type) {
	case *corev1.Event:
		source, of = e.Source, e.InvolvedObject
	case *eventsv1.Event:
		source, of = e.DeprecatedSource, e.Regarding
	}
	return strings.Join([]string{source.Component, source.Host, of.Kind, of.Namespace, of.Name, string(of.UID), of.APIVersion}, "")
}

// eventRateLimit (EventRateLimit) refuses events that come faster than its limits allow.
func eventRateLimit(raw []byte) (made, error) {
	if raw == nil {
		return made{}, fmt.Errorf("EventRateLimit has no limits: give them with %s", configurationKey)
	}
	c, err := parse[eventLimits](raw, "eventratelimit.admission.k8s.io/v1alpha1 Configuration")
	if err != nil {
		return made{}, err
	}
	if errs := checkEventLimits(c.Limits); len(errs) > 0 {
		return made{}, errs.ToAggregate()
	}
	var all []*eventBuckets
	for _, l := range c.Limits {
		all = append(all, newEventBuckets(l))
	}
	return made{validate: func(_ context.Context, a *registry.Attributes) (err error) {
		if a.Resource.Kind != "Event" || a.Subresource != "" || a.Operation != create && a.Operation != update || a.DryRun {
			return nil
		}
		for _, b := range all { // each is charged, also for what another refuses
			if why := b.accept(a); why != nil {
				err = why
			}
		}
		return err
	}}, nil
}

func checkEventLimits(limits []eventLimit) (errs field.ErrorList) {
	path := field.NewPath("limits")
	if len(limits) == 0 {
		return field.ErrorList{field.Invalid(path, limits, "must not be empty")}
	}
	var types []string
	for name := range eventKeys {
		types = append(types, name)
	}
	slices.Sort(types)
	for i, l := range limits {
		at := path.Index(i)
		if eventKeys[l.Type] == nil {
			errs = append(errs, field.NotSupported(at.Child("type"), l.Type, types))
		}
		if l.Burst <= 0 {
			errs = append(errs, field.Invalid(at.Child("burst"), l.Burst, "must be positive"))
		}
		if l.QPS <= 0 {
			errs = append(errs, field.Invalid(at.Child("qps"), l.QPS, "must be positive"))
		}
		if l.CacheSize < 0 {
			errs = append(errs, field.Invalid(at.Child("cacheSize"), l.CacheSize, "must not be negative"))
		}
	}
	return errs
}

// eventBuckets are the token buckets of one limit, the least used forgotten first.
type eventBuckets struct {
	eventLimit
	buckets *lru.Cache[string, flowcontrol.PassiveRateLimiter]
}

func newEventBuckets(l eventLimit) *eventBuckets {
	if l.CacheSize == 0 {
		l.CacheSize = eventCacheSize
	}
	if l.Type == "Server" {
		l.CacheSize = 1
	}
	cache, err := lru.New[string, flowcontrol.PassiveRateLimiter](int(l.CacheSize))
	if err != nil {
		panic(err) // the size is positive
	}
	return &eventBuckets{l, cache}
}

func (b *eventBuckets) accept(a *registry.Attributes) error {
	key := eventKeys[b.Type](a)
	bucket, known := b.buckets.Get(key)
	if !known {
		bucket = flowcontrol.NewTokenBucketPassiveRateLimiter(float32(b.QPS), int(b.Burst))
		if first, was, _ := b.buckets.PeekOrAdd(key, bucket); was {
			bucket = first
		}
	}
	if bucket.TryAccept() {
		return nil
	}
	return apierrors.NewTooManyRequestsError(fmt.Sprintf("limit reached on type %v for key %v", b.Type, key))
}
