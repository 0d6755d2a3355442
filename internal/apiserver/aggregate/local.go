package aggregate

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiversion "k8s.io/apimachinery/pkg/version"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// managed marks the APIServices that are kept here: "onstart" those of built-in groups, "true" those of custom resources.
const managed = "kube-aggregator.kubernetes.io/automanaged"

// priority is how a group is ordered in front of others, as upstream does.
var priority = map[string]int32{
	"": 18000, "apps": 17800, "events.k8s.io": 17750, "authentication.k8s.io": 17700, "authorization.k8s.io": 17600, "autoscaling": 17500, "batch": 17400,
	"certificates.k8s.io": 17300, "networking.k8s.io": 17200, "policy": 17100, "rbac.authorization.k8s.io": 17000, "storage.k8s.io": 16800,
	"apiextensions.k8s.io": 16700, "admissionregistration.k8s.io": 16700, "scheduling.k8s.io": 16600, "coordination.k8s.io": 16500, "node.k8s.io": 16300,
	"discovery.k8s.io": 16200, "resource.k8s.io": 16200, "flowcontrol.apiserver.k8s.io": 16100, "storagemigration.k8s.io": 16000, "metrics.k8s.io": 100,
}

// otherPriority is for groups of custom resources, and for built-in ones that upstream doesn't order.
const otherPriority = 1000

// local is the APIService of what this server serves.
func local(gv schema.GroupVersion, custom bool, rank int) *apiregistrationv1.APIService {
	group, mark := priority[gv.Group], "onstart"
	if custom {
		group, mark = otherPriority, "true"
	}
	if group == 0 {
		group = otherPriority
	}
	return &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: gv.Version + "." + gv.Group, Labels: map[string]string{managed: mark}},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: gv.Group, Version: gv.Version, GroupPriorityMinimum: group, VersionPriority: int32(max(100-rank, 1)), //nolint:gosec // a rank is small
		},
	}
}

// ranked says how many newer versions of its group each has.
func ranked(all map[schema.GroupVersion]bool) map[schema.GroupVersion]int {
	out := make(map[schema.GroupVersion]int, len(all))
	for gv := range all {
		for other := range all {
			if other.Group == gv.Group && apiversion.CompareKubeAwareVersionStrings(other.Version, gv.Version) > 0 {
				out[gv]++
			}
		}
	}
	return out
}

// keepLocal keeps an APIService for everything that this server serves, as definitions come and go.
func (a *Aggregator) keepLocal(ctx context.Context) {
	registered := sync.OnceFunc(func() { close(a.kept) })
	for {
		changed := a.cfg.Registry.Table().Changed()
		if err := a.alignLocal(ctx); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("cannot keep the API services of this server; trying again", "err", err)
			select {
			case <-time.After(time.Second):
				continue
			case <-ctx.Done():
				return
			}
		}
		if ctx.Err() == nil {
			registered()
		}
		select {
		case <-changed:
		case <-a.gone:
		case <-ctx.Done():
			return
		}
	}
}

func (a *Aggregator) alignLocal(ctx context.Context) error {
	wanted := a.cfg.Local()
	page, err := a.cfg.Registry.Store().Collection(a.row()).List(ctx, store.ListOptions{})
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(page.Entries))
	for _, e := range page.Entries {
		s := e.Object().(*apiregistrationv1.APIService)
		there[s.Name] = true
		_, served := wanted[schema.GroupVersion{Group: s.Spec.Group, Version: s.Spec.Version}]
		if served || s.Labels[managed] == "" || s.Spec.Service != nil {
			continue
		}
		if _, err := a.cfg.Registry.Delete(ctx, a.request(s.Name), &metav1.DeleteOptions{}); ignoreNotFound(err) != nil {
			return fmt.Errorf("delete APIService %s: %w", s.Name, err)
		}
	}
	ranks := ranked(wanted)
	for _, gv := range sorted(wanted) {
		s := local(gv, wanted[gv], ranks[gv])
		if there[s.Name] {
			continue
		}
		_, err := a.cfg.Registry.Create(ctx, a.request(""), s, &metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create APIService %s: %w", s.Name, err)
		}
	}
	return nil
}

func (a *Aggregator) request(name string) *registry.Request {
	return &registry.Request{Resource: a.row(), Name: name, User: self, UserAgent: "skiff"}
}
