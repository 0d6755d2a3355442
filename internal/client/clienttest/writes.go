package clienttest

import (
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

func writesReturnCopies(s *suite) {
	c := s.configMap("c")
	c.Labels = map[string]string{"a": "b"}
	data := c.Data
	s.create(c)
	if c.UID == "" || c.ResourceVersion == "" || c.CreationTimestamp.IsZero() || c.Labels["a"] != "b" {
		s.Errorf("a create returned %+v", c)
	}
	data["n"], c.Labels["a"] = "mine", "mine" // what went in, and what came out
	live := s.configMap("c")
	s.live(live)
	if live.Data["n"] != "0" || live.Labels["a"] != "b" {
		s.Errorf("the caller changed what is stored: %v, %v", live.Data, live.Labels)
	}
	live.Data["n"] = "1"
	s.must(s.Update(s.ctx, live))
	live.Data["n"], live.Labels["a"] = "mine", "mine"
	again := s.configMap("c")
	s.live(again)
	if again.Data["n"] != "1" || again.ResourceVersion != live.ResourceVersion {
		s.Errorf("an update stored %+v and returned %+v", again, live)
	}
	p := s.pod("p")
	s.create(p)
	if p.Spec.RestartPolicy != corev1.RestartPolicyAlways || p.Status.Phase != corev1.PodPending || p.Generation != 1 {
		s.Errorf("what a create returned has no defaults: %+v", p)
	}
	named := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.space, GenerateName: "web-"}}
	s.create(named)
	if len(named.Name) != len("web-")+5 {
		s.Errorf("a generated name is %q", named.Name)
	}
	if err := s.Create(s.ctx, s.configMap("c")); !apierrors.IsAlreadyExists(err) {
		s.Errorf("a second create: %v", err)
	}
	if err := s.Create(s.ctx, s.configMap("A_b")); !apierrors.IsInvalid(err) {
		s.Errorf("an invalid create: %v", err)
	}
	dry := s.configMap("dry")
	s.must(s.Create(s.ctx, dry, crclient.DryRunAll))
	if err := s.Live().Get(s.ctx, crclient.ObjectKeyFromObject(dry), dry); !apierrors.IsNotFound(err) {
		s.Errorf("a dry run created: %v", err)
	}
}

func staleWritesConflict(s *suite) {
	c := s.configMap("c")
	s.create(c)
	stale := c.DeepCopy()
	c.Data["n"] = "1"
	s.must(s.Update(s.ctx, c))
	stale.Data["n"] = "2"
	if err := s.Update(s.ctx, stale); !apierrors.IsConflict(err) {
		s.Errorf("a stale update: %v", err)
	}
	patch := crclient.MergeFromWithOptions(stale.DeepCopy(), crclient.MergeFromWithOptimisticLock{})
	stale.Data["n"] = "3"
	if err := s.Patch(s.ctx, stale, patch); !apierrors.IsConflict(err) {
		s.Errorf("a stale patch: %v", err)
	}
	old := stale.ResourceVersion
	if err := s.Delete(s.ctx, c, crclient.Preconditions{ResourceVersion: &old}); !apierrors.IsConflict(err) {
		s.Errorf("a stale delete: %v", err)
	}
	other := types.UID("other")
	if err := s.Delete(s.ctx, c, crclient.Preconditions{UID: &other}); !apierrors.IsConflict(err) {
		s.Errorf("a delete of another: %v", err)
	}
	if err := s.Update(s.ctx, s.configMap("nobody")); !apierrors.IsNotFound(err) {
		s.Errorf("an update of what is not there: %v", err)
	}
}

func patches(s *suite) {
	d := s.deployment("d")
	s.create(d)
	for _, c := range []struct {
		what  string
		patch func(base crclient.Object) crclient.Patch
	}{
		{"merge", crclient.MergeFrom},
		{"strategic merge", func(o crclient.Object) crclient.Patch { return crclient.StrategicMergeFrom(o) }},
	} {
		base := d.DeepCopy()
		d.Labels = map[string]string{"by": c.what[:5]}
		d.Spec.Template.Spec.Containers[0].Image = "web:" + c.what[:5]
		s.must(s.Patch(s.ctx, d, c.patch(base)))
		if d.Spec.Template.Spec.Containers[0].Image != "web:"+c.what[:5] || d.ResourceVersion == base.ResourceVersion {
			s.Errorf("a %s returned %+v", c.what, d)
		}
	}
	s.must(s.Patch(s.ctx, d, crclient.RawPatch(types.JSONPatchType, []byte(`[{"op":"add","path":"/metadata/annotations","value":{"a":"b"}}]`))))
	live := s.deployment("d")
	s.live(live)
	if live.Annotations["a"] != "b" || live.Labels["by"] != "strat" || live.ResourceVersion != d.ResourceVersion {
		s.Errorf("patched, it is %+v", live.ObjectMeta)
	}
	if err := s.Patch(s.ctx, s.deployment("nobody"), crclient.RawPatch(types.MergePatchType, []byte(`{}`))); !apierrors.IsNotFound(err) {
		s.Errorf("a patch of what is not there: %v", err)
	}
}

func deletes(s *suite) {
	c := s.configMap("c")
	c.Finalizers = []string{"example.com/a"}
	s.create(c)
	s.must(s.Delete(s.ctx, c))
	s.live(c)
	if c.DeletionTimestamp == nil {
		s.Error("a delete did not begin")
	}
	c.Finalizers = nil
	s.must(s.Update(s.ctx, c))
	if err := s.Live().Get(s.ctx, crclient.ObjectKeyFromObject(c), c); !apierrors.IsNotFound(err) {
		s.Errorf("the last finalizer is gone: %v", err)
	}
	if err := s.Delete(s.ctx, c); !apierrors.IsNotFound(err) || crclient.IgnoreNotFound(err) != nil {
		s.Errorf("a delete of what is not there: %v", err)
	}
	p := s.pod("p", func(p *corev1.Pod) { p.Spec.NodeName = "n" })
	s.create(p)
	s.must(s.Delete(s.ctx, p, crclient.GracePeriodSeconds(7)))
	s.live(p)
	if p.DeletionGracePeriodSeconds == nil || *p.DeletionGracePeriodSeconds != 7 {
		s.Errorf("the pod's grace is %v", p.DeletionGracePeriodSeconds)
	}
	s.must(s.Delete(s.ctx, p, crclient.GracePeriodSeconds(0)))
	d := s.deployment("d")
	s.create(d)
	s.must(s.Delete(s.ctx, d, crclient.PropagationPolicy(metav1.DeletePropagationForeground)))
	s.live(d)
	if len(d.Finalizers) != 1 || d.Finalizers[0] != metav1.FinalizerDeleteDependents {
		s.Errorf("in the foreground, finalizers are %v", d.Finalizers)
	}
}

func deletesAll(s *suite) {
	for i := range 6 {
		c := s.configMap(fmt.Sprint("c", i))
		c.Labels = map[string]string{"odd": fmt.Sprint(i%2 == 1)}
		s.create(c)
	}
	elsewhere := s.configMap("elsewhere")
	elsewhere.Namespace, elsewhere.Labels = "default", map[string]string{"odd": "true"}
	s.create(elsewhere)
	left := func() string {
		list := &corev1.ConfigMapList{}
		s.must(s.Live().List(s.ctx, list))
		return names(list.Items)
	}
	s.must(s.DeleteAllOf(s.ctx, &corev1.ConfigMap{}, crclient.InNamespace(s.space), crclient.MatchingLabels{"odd": "true"}))
	if got := left(); got != "c0 c2 c4 elsewhere" {
		s.Errorf("left are %s", got)
	}
	s.must(s.DeleteAllOf(s.ctx, &corev1.ConfigMap{}, crclient.InNamespace(s.space)))
	if got := left(); got != "elsewhere" {
		s.Errorf("left are %s", got)
	}
}

func statusAndScale(s *suite) {
	d := s.deployment("d")
	s.create(d)
	seven := int32(7)
	d.Status.Replicas, d.Spec.Replicas = 2, &seven
	s.must(s.Status().Update(s.ctx, d))
	if d.Status.Replicas != 2 || *d.Spec.Replicas != 1 {
		s.Errorf("a status update returned %d replicas, status %d", *d.Spec.Replicas, d.Status.Replicas)
	}
	base := d.DeepCopy()
	d.Status.ReadyReplicas = 1
	s.must(s.Status().Patch(s.ctx, d, crclient.MergeFrom(base)))
	d.Status.Replicas, d.Spec.Replicas = 9, &seven
	s.must(s.Update(s.ctx, d))
	if d.Status.Replicas != 2 || d.Status.ReadyReplicas != 1 || *d.Spec.Replicas != 7 || d.Generation != 2 {
		s.Errorf("an update returned %+v, generation %d", d.Status, d.Generation)
	}
	scale := &autoscalingv1.Scale{}
	s.must(s.SubResource("scale").Get(s.ctx, d, scale))
	if scale.Spec.Replicas != 7 || scale.Status.Replicas != 2 || scale.Status.Selector != "app=d" {
		s.Errorf("the scale is %+v", scale)
	}
	scale.Spec.Replicas = 3
	s.must(s.SubResource("scale").Update(s.ctx, d, crclient.WithSubResourceBody(scale)))
	live := &appsv1.Deployment{ObjectMeta: s.meta("d")}
	s.live(live)
	if *live.Spec.Replicas != 3 || scale.ResourceVersion != live.ResourceVersion {
		s.Errorf("scaled, it has %d replicas at %s; the scale is at %s", *live.Spec.Replicas, live.ResourceVersion, scale.ResourceVersion)
	}
	stale := &autoscalingv1.Scale{ObjectMeta: s.meta("d"), Spec: autoscalingv1.ScaleSpec{Replicas: 4}}
	stale.ResourceVersion = d.ResourceVersion
	if err := s.SubResource("scale").Update(s.ctx, d, crclient.WithSubResourceBody(stale)); !apierrors.IsConflict(err) {
		s.Errorf("a stale scale: %v", err)
	}
}

func bindingAndEviction(s *suite) {
	label := map[string]string{"app": "web"}
	p := s.pod("p", func(p *corev1.Pod) { p.Labels = label })
	s.create(p)
	bind := func(node string) error {
		return s.SubResource("binding").Create(s.ctx, p, &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: node}})
	}
	s.must(bind("n"))
	s.live(p)
	if p.Spec.NodeName != "n" {
		s.Errorf("bound, its node is %q", p.Spec.NodeName)
	}
	if err := bind("m"); !apierrors.IsConflict(err) {
		s.Errorf("a second binding: %v", err)
	}
	p.Status.Phase = corev1.PodRunning
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	s.must(s.Status().Update(s.ctx, p))
	all := intstr.FromString("100%")
	budget := &policyv1.PodDisruptionBudget{ObjectMeta: s.meta("b"), Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: &all, Selector: &metav1.LabelSelector{MatchLabels: label}}}
	s.create(budget)
	budget.Status.ObservedGeneration = budget.Generation // nobody else here looks at budgets, and one that nobody has looked at makes clients wait
	s.must(s.Status().Update(s.ctx, budget))
	evict := func() error {
		return s.SubResource("eviction").Create(s.ctx, p, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}})
	}
	if err := evict(); !apierrors.IsTooManyRequests(err) {
		s.Errorf("an eviction against a budget: %v", err)
	}
	s.must(s.Delete(s.ctx, budget))
	s.soon(func() error {
		err := evict()
		if apierrors.IsTooManyRequests(err) {
			return err
		}
		s.must(err)
		return nil
	})
	s.live(p)
	if p.DeletionTimestamp == nil {
		s.Error("an evicted pod does not end")
	}
	if err := s.SubResource("binding").Create(s.ctx, s.pod("nobody"), &corev1.Binding{Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}); !apierrors.IsNotFound(err) {
		s.Errorf("a binding of nobody: %v", errors.Unwrap(err))
	}
}
