package fairness

import (
	"context"
	"fmt"
	"sync"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apischema "k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

var self = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup}}

func (c *Controller) row(plural string) *api.Resource {
	return c.cfg.Registry.Table().ByResource(apischema.GroupResource{Group: flowcontrolv1.GroupName, Resource: plural})
}

// Run creates the objects that every cluster has, and follows all of them until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	poke := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	var following sync.WaitGroup
	defer following.Wait()
	for _, plural := range []string{"flowschemas", "prioritylevelconfigurations"} {
		following.Go(func() { c.follow(ctx, plural, poke) })
	}
	first := true
	for {
		if err := c.align(ctx, first); err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("cannot keep the flow schemas and priority levels; trying again", "err", err)
			time.AfterFunc(time.Second, poke)
		} else if first && err == nil {
			first = false
			close(c.ready)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// follow pokes whenever an object of a resource has changed.
func (c *Controller) follow(ctx context.Context, plural string, poke func()) {
	collection := c.cfg.Registry.Store().Collection(c.row(plural))
	for ctx.Err() == nil {
		page, err := collection.List(ctx, store.ListOptions{})
		if err != nil {
			return
		}
		poke()
		w, err := collection.Watch(ctx, store.WatchOptions{Revision: page.Revision})
		if err != nil {
			continue
		}
		for buf := make([]store.Event, 0, 16); err == nil; {
			if buf, err = w.Next(ctx, buf, cap(buf)); err == nil {
				poke()
			}
		}
		w.Stop()
	}
}

// align repairs what must be there, plans by what is, and says in schemas' status whether their level exists.
func (c *Controller) align(ctx context.Context, suggest bool) error {
	schemas, configs, err := c.objects(ctx)
	if err != nil {
		return err
	}
	wrote, err := c.bootstrap(ctx, schemas, configs, suggest)
	if err != nil {
		return err
	}
	if wrote {
		if schemas, configs, err = c.objects(ctx); err != nil {
			return err
		}
	}
	var fs []*flowcontrolv1.FlowSchema
	for _, o := range schemas {
		fs = append(fs, o.(*flowcontrolv1.FlowSchema))
	}
	var ps []*flowcontrolv1.PriorityLevelConfiguration
	for _, o := range configs {
		ps = append(ps, o.(*flowcontrolv1.PriorityLevelConfiguration))
	}
	c.replan(fs, ps)
	for _, f := range fs {
		if err := c.tell(ctx, f, configs[f.Spec.PriorityLevelConfiguration.Name] != nil); err != nil {
			return err
		}
	}
	return nil
}

func (c *Controller) objects(ctx context.Context) (schemas, configs map[string]api.Object, err error) {
	read := func(plural string) map[string]api.Object {
		page, e := c.cfg.Registry.Store().Collection(c.row(plural)).List(ctx, store.ListOptions{})
		if e != nil {
			err = e
			return nil
		}
		out := make(map[string]api.Object, len(page.Entries))
		for _, entry := range page.Entries {
			out[entry.Key()] = entry.Object()
		}
		return out
	}
	schemas, configs = read("flowschemas"), read("prioritylevelconfigurations")
	return schemas, configs, err
}

// bootstrap creates what is missing: the mandatory objects always, the suggested ones when the server starts, as upstream. Mandatory objects can't be changed but
// by deleting them.
func (c *Controller) bootstrap(ctx context.Context, schemas, configs map[string]api.Object, suggest bool) (wrote bool, err error) {
	create := func(plural string, there map[string]api.Object, o api.Object) {
		if err != nil || there[o.GetName()] != nil {
			return
		}
		_, e := c.cfg.Registry.Create(ctx, c.request(plural, ""), o.DeepCopyObject(), &metav1.CreateOptions{})
		if e != nil && !apierrors.IsAlreadyExists(e) {
			err = fmt.Errorf("create %s %s: %w", plural, o.GetName(), e)
		}
		wrote = true
	}
	levels, flows := bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.MandatoryFlowSchemas
	if suggest {
		levels = append(levels[:len(levels):len(levels)], bootstrap.SuggestedPriorityLevelConfigurations...)
		flows = append(flows[:len(flows):len(flows)], bootstrap.SuggestedFlowSchemas...)
	}
	for _, p := range levels {
		create("prioritylevelconfigurations", configs, p)
	}
	for _, f := range flows {
		create("flowschemas", schemas, f)
	}
	return wrote, err
}

func (c *Controller) request(plural, name string) *registry.Request {
	return &registry.Request{Resource: c.row(plural), Name: name, User: self, UserAgent: "skiff"}
}

// tell writes into a schema's status whether its level exists, if that is news.
func (c *Controller) tell(ctx context.Context, f *flowcontrolv1.FlowSchema, exists bool) error {
	name := f.Spec.PriorityLevelConfiguration.Name
	cond := flowcontrolv1.FlowSchemaCondition{
		Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionFalse, Reason: "Found",
		Message: fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q and it exists", name),
	}
	if !exists {
		cond.Status, cond.Reason = flowcontrolv1.ConditionTrue, "NotFound"
		cond.Message = fmt.Sprintf("This FlowSchema references the PriorityLevelConfiguration object named %q but there is no such object", name)
	}
	others := []flowcontrolv1.FlowSchemaCondition{}
	for _, old := range f.Status.Conditions {
		if old.Type != cond.Type {
			others = append(others, old)
			continue
		}
		cond.LastTransitionTime = old.LastTransitionTime
		if apiequality.Semantic.DeepEqual(old, cond) {
			return nil
		}
		if old.Status != cond.Status {
			cond.LastTransitionTime = metav1.Time{}
		}
	}
	if cond.LastTransitionTime.IsZero() {
		cond.LastTransitionTime = metav1.Now()
	}
	next := f.DeepCopy()
	next.Status.Conditions = append(others, cond)
	q := c.request("flowschemas", f.Name)
	q.Subresource = "status"
	_, err := c.cfg.Registry.Update(ctx, q, next, &metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // what changed it woke us again
	}
	return err
}
