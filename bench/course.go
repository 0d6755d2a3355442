package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/scheduler/schedulertest"
)

// patience is how long pods may take to be tried or bound.
const patience = 10 * time.Minute

// course is a workload's way through its steps.
type course struct {
	*target
	w          *schedulertest.Workload
	namespaces []string // that were made
	bound      *arrivals
	loose      []string // pods that nobody has waited for yet

	aside sync.WaitGroup // what goes on beside the steps, until ctx ends
	began time.Time      // when the first pod that counts was made
	spent time.Duration  // the server's CPU until then
	count int            // pods that count and are bound, where they are replaced for a while
	stop  func()         // ends the profile
}

func newCourse(t *target, w *schedulertest.Workload) *course {
	return &course{target: t, w: w, stop: func() {}}
}

// run takes the steps.
func (c *course) run() (f figures) {
	ctx, cancel := context.WithCancel(c.ctx)
	defer func() { cancel(); c.aside.Wait() }()
	c.bound = c.watch()
	c.makeNamespaces()
	for k, step := range c.w.Steps {
		switch s := step.(type) {
		case schedulertest.Nodes:
			c.makeNodes(s)
		case schedulertest.Objects:
			c.makeAll(s)
		case schedulertest.Pods:
			c.makePods(s, s.In(k))
		case schedulertest.Churn:
			c.aside.Go(func() { c.churn(ctx, s) })
		case schedulertest.Remove:
			c.remove(ctx, s)
		case schedulertest.Change:
			c.change(s)
		case schedulertest.Tried:
			c.tried()
		case schedulertest.Bound:
			c.await(c.loose)
			c.loose = nil
		}
	}
	return c.figures()
}

// figures of the pods that count.
func (c *course) figures() (f figures) {
	took := time.Since(c.began)
	if !c.w.Steady() {
		c.count = c.w.Measured()
	}
	f.rate, f.spent = rounded(float64(c.count)/took.Seconds()), c.cpu()-c.spent
	f.cpu = rounded(f.spent.Seconds() * 1000 / float64(max(c.count, 1)))
	c.stop()
	report(c.w.Name+": create to bound", "pods/s", float64(f.rate))
	if c.own != nil {
		report(c.w.Name+": server CPU a pod", "ms", float64(f.cpu))
		f.resident = rounded(c.own.Memory().Resident)
		report(c.w.Name+": resident memory", "MB", float64(f.resident))
	}
	return f
}

// begin is when it counts.
func (c *course) begin() {
	if !c.began.IsZero() {
		return
	}
	c.stop = c.profile(c.w.Name)
	c.spent, c.began = c.cpu(), time.Now()
}

// each calls for n things, by all clients, and ends the run if one fails.
func (c *course) each(what string, n int, call func(caller, i int) error) {
	var next atomic.Int64
	var group sync.WaitGroup
	for caller := range c.clients {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := call(caller, i); err != nil {
					c.b.Errorf("%s: %s: %v", c.w.Name, what, err)
					return
				}
			}
		})
	}
	group.Wait()
	if c.b.Failed() {
		c.b.Fatalf("%s: %s: it failed", c.w.Name, what)
	}
}

func (c *course) makeNodes(s schedulertest.Nodes) {
	c.each("create nodes", s.Count, func(caller, i int) error {
		if err := hollow(c.ctx, c.clients[caller], s.Node(i)); err != nil || s.Objects == nil {
			return err
		}
		return c.makeEach(caller, s.Objects(i))
	})
}

func (c *course) makeAll(list schedulertest.Objects) {
	c.each("create objects", len(list), func(caller, i int) error { return c.make(c.clients[caller], list[i]) })
	for _, o := range list {
		if ns, ok := o.(*corev1.Namespace); ok {
			c.namespaces = append(c.namespaces, ns.Name)
			c.settled(ns.Name)
		}
	}
}

func (c *course) makePods(s schedulertest.Pods, namespace string) {
	if s.Objects != nil {
		c.each("create what pods need", s.Count, func(caller, i int) error { return c.makeEach(caller, s.Objects(namespace, i)) })
	}
	if s.Measured {
		c.begin()
	}
	if s.Steady {
		c.steady(s, namespace)
		return
	}
	names := make([]string, s.Count)
	call := func(caller, i int) error {
		p := s.Pod(namespace, i)
		names[i] = namespace + "/" + p.Name
		_, err := c.clients[caller].CoreV1().Pods(namespace).Create(c.ctx, p, metav1.CreateOptions{})
		return err
	}
	what := "create " + s.Shape.Name
	if s.Measured {
		meter{c.b, c.cpu}.measure(c.w.Name+": "+what, s.Count, len(c.clients), call)
	} else {
		c.each(what, s.Count, call)
	}
	if c.loose = append(c.loose, names...); !s.Loose {
		c.loose = c.loose[:len(c.loose)-len(names)]
		c.await(names)
	}
}

// steady replaces each pod as soon as it is bound. Upstream does that one at a time; here each place has a caller of its own, so that it is not their
// pace that is measured.
func (c *course) steady(s schedulertest.Pods, namespace string) {
	var next, seen atomic.Int64
	create := func(caller int) error {
		_, err := c.clients[caller].CoreV1().Pods(namespace).Create(c.ctx, s.Pod(namespace, int(next.Add(1))-1), metav1.CreateOptions{})
		return err
	}
	first, zero := c.bound.len(), int64(0)
	c.each("create "+s.Shape.Name, s.Count, func(caller, _ int) error { return create(caller) })
	ctx, cancel := context.WithTimeout(c.ctx, schedulertest.Steadily)
	defer cancel()
	c.each("replace "+s.Shape.Name, s.Count, func(caller, _ int) error {
		for {
			name, ok := c.bound.at(ctx, first+int(seen.Add(1))-1)
			if !ok {
				return nil
			}
			_, name, _ = strings.Cut(name, "/")
			if err := c.clients[caller].CoreV1().Pods(namespace).Delete(c.ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
				return err
			}
			if err := create(caller); err != nil {
				return err
			}
		}
	})
	c.count = c.bound.len() - first
}

// await waits until pods are bound.
func (c *course) await(names []string) {
	ctx, cancel := context.WithTimeout(c.ctx, patience)
	defer cancel()
	if missing := c.bound.all(ctx, names); missing != "" {
		c.b.Fatalf("%s: %s is not bound", c.w.Name, missing)
	}
}

// tried waits until all pods without a node were considered. That is asked again and again, for a watch of it would be a load beside what is measured.
func (c *course) tried() {
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		list, err := c.clients[0].CoreV1().Pods("").List(c.ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=", LabelSelector: schedulertest.Signature})
		if err != nil {
			c.b.Fatal(err)
		}
		left := ""
		for i := range list.Items {
			if p := &list.Items[i]; !wasTried(p) {
				left = p.Namespace + "/" + p.Name
			}
		}
		if left == "" {
			return
		}
		if time.Since(began) > patience {
			c.b.Fatalf("%s: nobody tried to place %s", c.w.Name, left)
		}
	}
}

func wasTried(p *corev1.Pod) bool {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == corev1.PodScheduled {
			return true
		}
	}
	return false
}

// remove deletes pods that are there now, beside what comes next.
func (c *course) remove(ctx context.Context, s schedulertest.Remove) {
	pods := c.clients[0].CoreV1().Pods(s.Namespace)
	list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: s.Label})
	if err != nil {
		c.b.Fatal(err)
	}
	c.aside.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(s.PerSecond))
		defer tick.Stop()
		for i := range list.Items {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := pods.Delete(ctx, list.Items[i].Name, metav1.DeleteOptions{}); err != nil && ctx.Err() == nil {
				c.b.Errorf("%s: delete: %v", c.w.Name, err)
				return
			}
		}
	})
}

func (c *course) change(s schedulertest.Change) {
	tick := time.NewTicker(time.Second / time.Duration(s.PerSecond))
	defer tick.Stop()
	for i := range s.Count {
		<-tick.C
		p := s.Patch(i)
		resource, rest := "nodes", c.clients[0].CoreV1().RESTClient()
		if p.Namespace != "" {
			resource = "pods"
		}
		r := rest.Patch(types.JSONPatchType).NamespaceIfScoped(p.Namespace, p.Namespace != "").Resource(resource).Name(p.Name).Body([]byte(p.Body))
		if p.Subresource != "" {
			r = r.SubResource(p.Subresource)
		}
		if err := r.Do(c.ctx).Error(); err != nil {
			c.b.Fatalf("%s: change %s %s: %v", c.w.Name, resource, p.Name, err)
		}
	}
}

// churn makes objects in slots, in turn. A slot that is taken is emptied instead.
func (c *course) churn(ctx context.Context, s schedulertest.Churn) {
	tick := time.NewTicker(s.Every)
	defer tick.Stop()
	slots := make([][]schedulertest.Object, s.Slots)
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := c.churnOnce(ctx, s, slots, round)
		if ctx.Err() == nil && err != nil {
			c.b.Errorf("%s: churn: %v", c.w.Name, err)
			return
		}
	}
}

func (c *course) churnOnce(ctx context.Context, s schedulertest.Churn, slots [][]schedulertest.Object, round int) error {
	if s.Slots > 0 && slots[round%s.Slots] != nil {
		for _, o := range slots[round%s.Slots] {
			if err := c.unmakeOne(ctx, o); err != nil {
				return err
			}
		}
		slots[round%s.Slots] = nil
		return nil
	}
	objects := s.Objects(round)
	if s.Slots > 0 {
		slots[round%s.Slots] = objects
	}
	return c.makeEach(0, objects)
}

// makeNamespaces makes those of pods and objects that no step makes.
func (c *course) makeNamespaces() {
	wanted, later := map[string]bool{}, map[string]bool{}
	want := func(list []schedulertest.Object) {
		for _, o := range list {
			if _, ok := o.(*corev1.Namespace); ok {
				later[o.GetName()] = true
			} else if o.GetNamespace() != "" {
				wanted[o.GetNamespace()] = true
			}
		}
	}
	for k, step := range c.w.Steps {
		switch s := step.(type) {
		case schedulertest.Objects:
			want(s)
		case schedulertest.Churn:
			want(s.Objects(0))
		case schedulertest.Pods:
			wanted[s.In(k)] = true
		}
	}
	for name := range wanted {
		if later[name] {
			continue
		}
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := c.clients[0].CoreV1().Namespaces().Create(c.ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			c.b.Fatal(fmt.Errorf("namespace %s: %w", name, err))
		}
		c.namespaces = append(c.namespaces, name)
		c.settled(name)
	}
}
