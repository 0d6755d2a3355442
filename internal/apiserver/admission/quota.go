package admission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota/apis/resourcequota/validation"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/quota"
	"skiff.dev/skiff/internal/registry"
)

// chargeTries is how often a quota that others write too is charged anew.
const chargeTries = 10

// charger charges quotas. Within this process one request charges a quota at a time; other servers are kept out by the resourceVersion.
type charger struct {
	limited quota.Limited
	mu      sync.Mutex
	locks   map[types.NamespacedName]*sync.Mutex
}

// quotas (ResourceQuota) charges what a new object uses to the quotas of its namespace, or refuses it. It is the last to be asked: what it
// charges is given back where storing fails.
func quotas(raw []byte) (made, error) {
	limited, err := limitedResources(raw)
	if err != nil {
		return made{}, err
	}
	c := &charger{limited: limited, locks: map[types.NamespacedName]*sync.Mutex{}}
	return made{validate: c.validate}, nil
}

// limitedResources reads the plug-in's configuration: what nobody may consume without a quota for it.
func limitedResources(raw []byte) (quota.Limited, error) {
	if raw == nil {
		return nil, nil
	}
	c, err := resourcequota.LoadConfiguration(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	errs := validation.ValidateConfiguration(c)
	for i := range c.LimitedResources {
		for j, s := range c.LimitedResources[i].MatchScopes {
			errs = append(errs, api.ValidateScopeRequirement(s, field.NewPath("limitedResources").Index(i).Child("matchScopes").Index(j))...)
		}
	}
	return c.LimitedResources, errs.ToAggregate()
}

func (c *charger) validate(ctx context.Context, a *registry.Attributes) error {
	if !chargeable(a) {
		return nil
	}
	list, err := all[*corev1.ResourceQuota](ctx, a, "", "resourcequotas", a.Namespace)
	if err != nil || len(list) == 0 && len(c.limited) == 0 {
		return err
	}
	now, gr := time.Now(), a.Resource.GroupResource()
	all, err := quota.Usage(gr, a.Object, now, lookup(ctx, a))
	if err != nil {
		return err
	}
	more := all
	if a.Old != nil {
		before, err := quota.Usage(gr, a.Old, now, lookup(ctx, a))
		if err != nil {
			return err
		}
		more = quota.Minus(all, before)
	}
	charges, err := dues(a, list, all, more)
	if err != nil {
		return err
	}
	if why := c.limited.Uncovered(gr, a.Object, all, list); why != "" && (grows(more) || slices.ContainsFunc(charges, func(d due) bool { return grows(d.amount) })) {
		return forbid(a, errors.New(why))
	}
	for _, d := range charges {
		if err := c.charge(ctx, a, d.quota, d.amount); err != nil {
			return err
		}
	}
	return nil
}

// due is what a quota is to be charged.
type due struct {
	quota  *corev1.ResourceQuota
	amount corev1.ResourceList
}

// dues are those of the quotas that a request's object counts in: all that it uses, or, where it counted before, what it uses more.
func dues(a *registry.Attributes, list []*corev1.ResourceQuota, all, more corev1.ResourceList) (out []due, err error) {
	for _, q := range list {
		if !quota.Matches(q, a.Object) {
			continue
		}
		if pod, is := a.Object.(*corev1.Pod); is && a.Operation == create {
			if why := quota.Unsaid(pod, q.Spec.Hard); why != "" {
				return nil, forbid(a, fmt.Errorf("failed quota: %s: %s", q.Name, why))
			}
		}
		amount := more
		if a.Old != nil && !quota.Matches(q, a.Old) { // it came into the quota's scope
			amount = all
		}
		out = append(out, due{q, amount})
	}
	return out, nil
}

// grows: there is something of what somebody uses more.
func grows(usage corev1.ResourceList) bool {
	for _, q := range usage {
		if q.Sign() > 0 {
			return true
		}
	}
	return false
}

// lookup reads what a claim's usage depends on.
func lookup(ctx context.Context, a *registry.Attributes) quota.Lookup {
	return quota.Lookup{
		Class: func(name string) (*resourcev1.DeviceClass, error) {
			return find[*resourcev1.DeviceClass](ctx, a, resourcev1.GroupName, "deviceclasses", name)
		},
		Pod: func(namespace, name string) (*corev1.Pod, error) {
			return find[*corev1.Pod](ctx, a, "", "pods", namespace+"/"+name)
		},
	}
}

// chargeable requests are those that make a namespace's usage grow.
func chargeable(a *registry.Attributes) bool {
	if !a.Resource.Namespaced || a.Object == nil || !quota.Counts(a.Resource) {
		return false
	}
	switch {
	case a.Operation == create:
		return a.Subresource == ""
	case a.Operation != update:
		return false
	}
	gr := a.Resource.GroupResource()
	return isResize(a) ||
		a.Subresource == "" && gr == schema.GroupResource{Resource: "services"} ||
		(a.Subresource == "" || a.Subresource == "status") && gr == schema.GroupResource{Resource: "persistentvolumeclaims"}
}

func (c *charger) lock(key types.NamespacedName) (unlock func()) {
	c.mu.Lock()
	l := c.locks[key]
	if l == nil {
		l = &sync.Mutex{}
		c.locks[key] = l
	}
	c.mu.Unlock()
	l.Lock()
	return l.Unlock
}

// charge adds an amount to a quota's usage, and sees to it that it is given back if the object is not stored after all.
func (c *charger) charge(ctx context.Context, a *registry.Attributes, q *corev1.ResourceQuota, amount corev1.ResourceList) error {
	amount = changed(quota.Only(amount, q.Spec.Hard))
	if len(amount) == 0 {
		return nil
	}
	key := types.NamespacedName{Namespace: q.Namespace, Name: q.Name}
	if err := c.write(ctx, a, key, amount, true); err != nil || a.DryRun {
		return err
	}
	a.Undo(func(ctx context.Context) error { return c.write(ctx, a, key, quota.Minus(nil, amount), false) })
	return nil
}

// changed drops what is nothing.
func changed(amount corev1.ResourceList) corev1.ResourceList {
	for name, q := range amount {
		if q.IsZero() {
			delete(amount, name)
		}
	}
	return amount
}

var quotaUser = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup}}

// write adds an amount to a quota's usage by compare and swap; check says whether the limits hold.
func (c *charger) write(ctx context.Context, a *registry.Attributes, key types.NamespacedName, amount corev1.ResourceList, check bool) error {
	defer c.lock(key)()
	for try := 1; ; try++ {
		q, err := find[*corev1.ResourceQuota](ctx, a, "", "resourcequotas", key.String())
		if err != nil || q == nil {
			return err
		}
		if check {
			if err := exceeded(a, q, amount); err != nil {
				return err
			}
		}
		if a.DryRun {
			return nil
		}
		next := q.DeepCopy()
		if next.Status.Used == nil {
			next.Status.Used = corev1.ResourceList{}
		}
		quota.Add(next.Status.Used, amount)
		row := a.Registry.Table().ByResource(schema.GroupResource{Resource: "resourcequotas"})
		req := &registry.Request{Resource: row, Subresource: "status", Namespace: q.Namespace, Name: q.Name, User: quotaUser}
		_, err = a.Registry.Update(ctx, req, next, &metav1.UpdateOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil
		case !apierrors.IsConflict(err) || try == chargeTries:
			return err
		}
	}
}

// exceeded refuses an amount that a quota has no room for, or of which the controller has not counted what there is. What a status says has happened already:
// it is charged, and not refused for want of room.
func exceeded(a *registry.Attributes, q *corev1.ResourceQuota, amount corev1.ResourceList) error {
	requested, used, limited := corev1.ResourceList{}, corev1.ResourceList{}, corev1.ResourceList{}
	var unknown []string
	for name, more := range amount {
		have, known := q.Status.Used[name]
		if _, limit := q.Status.Hard[name]; !known || !limit {
			unknown = append(unknown, string(name))
			continue
		}
		sum := have.DeepCopy()
		sum.Add(more)
		if hard := q.Spec.Hard[name]; a.Subresource != "status" && more.Sign() > 0 && sum.Cmp(hard) > 0 {
			requested[name], used[name], limited[name] = more, have, hard
		}
	}
	switch {
	case len(unknown) > 0:
		slices.Sort(unknown)
		return forbid(a, fmt.Errorf("status unknown for quota: %s, resources: %s", q.Name, strings.Join(unknown, ",")))
	case len(requested) > 0:
		return forbid(a, fmt.Errorf("exceeded quota: %s, requested: %s, used: %s, limited: %s", q.Name, quota.Text(requested), quota.Text(used), quota.Text(limited)))
	}
	return nil
}
