package authz

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// start runs a registry with an authorizer that guards its writes.
func start(t testing.TB) (*registrytest.Registry, *Authorizer) {
	t.Helper()
	var a *Authorizer
	r := registrytest.Start(t, nil, []registry.Validate{func(ctx context.Context, at *registry.Attributes) error {
		if a == nil {
			return nil
		}
		return a.Validate(ctx, at)
	}})
	a = New(r.Registry, slog.New(slog.DiscardHandler))
	begun := time.Now()
	registrytest.Run(t, a)
	t.Logf("the default policy took %v", time.Since(begun))
	return r, a
}

func someone(name string, groups ...string) user.Info {
	return &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}
}

// ask reads "verb group/resource/sub namespace/name" or "verb /path".
func ask(u user.Info, text string) authorizer.AttributesRecord {
	words := strings.Fields(text)
	at := authorizer.AttributesRecord{User: u, Verb: words[0]}
	if strings.HasPrefix(words[1], "/") {
		at.Path = words[1]
		return at
	}
	at.ResourceRequest = true
	parts := strings.Split(words[1], ":")
	at.APIGroup = parts[0]
	at.Resource, at.Subresource, _ = strings.Cut(parts[1], "/")
	if len(words) > 2 {
		at.Namespace, at.Name, _ = strings.Cut(words[2], "/")
	}
	return at
}

func allowed(t *testing.T, a *Authorizer, u user.Info, text string) bool {
	t.Helper()
	d, _, err := a.Authorize(context.Background(), ask(u, text))
	if err != nil {
		t.Errorf("%s: %v", text, err)
	}
	return d == authorizer.DecisionAllow
}

// eventually waits for what the watches bring.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

func roleBinding(ns, name, roleKind, role string, subjects ...rbacv1.Subject) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: roleKind, Name: role},
	}
}

func userSubject(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "User", Name: name}
}

func TestDefaultPolicy(t *testing.T) {
	r, a := start(t)
	r.Must(
		roleBinding("default", "ann-edits", "ClusterRole", "edit", userSubject("ann")),
		roleBinding("default", "bob-views", "ClusterRole", "view", userSubject("bob")),
		roleBinding("default", "eve-administers", "ClusterRole", "admin", userSubject("eve")),
	)
	ann, bob, eve := someone("ann"), someone("bob"), someone("eve")
	eventually(t, "eve's binding is known", func() bool { return allowed(t, a, eve, "get :pods default") })
	account := someone("system:serviceaccount:kube-system:deployment-controller", "system:serviceaccounts", "system:serviceaccounts:kube-system")
	nobody := &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}
	for _, c := range []struct {
		who  user.Info
		text string
		want bool
	}{
		{registrytest.Admin, "delete :nodes /a", true},
		{registrytest.Admin, "get /anything", true},
		{nobody, "get /healthz", true}, {nobody, "get /version", true}, {nobody, "get /api", false}, {nobody, "list :pods default", false},
		{ann, "get /apis/apps/v1", true}, {ann, "post /apis/apps/v1", false},
		{ann, "create authorization.k8s.io:selfsubjectaccessreviews", true},
		{ann, "create :pods default", true}, {ann, "create :pods other", false}, {ann, "create :pods", false},
		{ann, "create :pods/exec default/a", true}, {ann, "get :pods/log default/a", true}, {ann, "update :pods/status default/a", false},
		{ann, "patch apps:deployments/scale default/a", true}, {ann, "create rbac.authorization.k8s.io:roles default", false},
		{bob, "list :pods default", true}, {bob, "get :secrets default/a", false}, {bob, "delete :pods default/a", false},
		{eve, "create rbac.authorization.k8s.io:roles default", true}, {eve, "delete :pods default/a", true}, {eve, "list :nodes", false},
		{account, "update apps:deployments/status default/a", true}, {account, "delete apps:deployments default/a", false},
		{account, "get /openid/v1/jwks", true},
		{someone("system:kube-scheduler"), "create :pods/binding default/a", true},
		{someone("system:kube-scheduler"), "update coordination.k8s.io:leases kube-system/kube-scheduler", true},
		{someone("system:kube-scheduler"), "update coordination.k8s.io:leases kube-system/other", false},
		{someone("system:kube-scheduler"), "get :configmaps kube-system/extension-apiserver-authentication", true},
		{someone("system:kube-controller-manager"), "list example.org:things", true},
		{someone("system:serviceaccount:kube-system:horizontal-pod-autoscaler"), "update example.org:things/scale default/a", true},
		{someone("system:serviceaccount:kube-system:horizontal-pod-autoscaler"), "update example.org:things default/a", false},
		{someone("system:serviceaccount:kube-system:generic-garbage-collector"), "patch example.org:things default/a", true},
	} {
		if got := allowed(t, a, c.who, c.text); got != c.want {
			t.Errorf("%s: %s: %v", c.who.GetName(), c.text, got)
		}
	}
	_, why, _ := a.Authorize(context.Background(), ask(bob, "list :pods default"))
	if why != `RBAC: allowed by RoleBinding "bob-views/default" of ClusterRole "view" to User "bob"` {
		t.Errorf("reason: %s", why)
	}
}

// TestBootstrapAgain: a second start writes nothing, repairs what is lacking and leaves alone what says so.
func TestBootstrapAgain(t *testing.T) {
	r, a := start(t)
	ctx := context.Background()
	p, err := defaultPolicy(r.Table().Serves)
	if err != nil {
		t.Fatal(err)
	}
	before := r.Store().Revision()
	begun := time.Now()
	if err := a.ensureAll(ctx, p); err != nil {
		t.Fatal(err)
	}
	t.Logf("comparing took %v", time.Since(begun))
	if now := r.Store().Revision(); now != before {
		t.Errorf("%d writes though all was there", now-before)
	}

	change := func(name string, f func(*rbacv1.ClusterRole)) {
		res, err := r.Get(ctx, r.Request(registrytest.Admin, rbacv1.GroupName, "clusterroles", "", "", name), &metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		role := res.Object.DeepCopyObject().(*rbacv1.ClusterRole)
		f(role)
		if err := r.Update(registrytest.Admin, role, ""); err != nil {
			t.Fatal(err)
		}
	}
	change("system:discovery", func(c *rbacv1.ClusterRole) { c.Rules = nil })
	change("system:basic-user", func(c *rbacv1.ClusterRole) { c.Rules, c.Annotations[autoupdate] = nil, "false" })
	if err := a.ensureAll(ctx, p); err != nil {
		t.Fatal(err)
	}
	eventually(t, "discovery is repaired", func() bool { return allowed(t, a, someone("x"), "get /apis") })
	if allowed(t, a, someone("x"), "create authorization.k8s.io:selfsubjectaccessreviews") {
		t.Error("a role that must not be updated was")
	}
}

func TestChangesAreFollowed(t *testing.T) {
	r, a := start(t)
	ann := someone("ann", "devs")
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "r"}, Rules: []rbacv1.PolicyRule{rule("", "secrets", "get")}}
	binding := roleBinding("default", "b", "Role", "r", rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "devs"})
	r.Must(binding)
	eventually(t, "the missing role is named", func() bool {
		_, why, _ := a.Authorize(context.Background(), ask(ann, "get :secrets default/a"))
		return why == `RBAC: role.rbac.authorization.k8s.io "r" not found`
	})
	r.Must(role)
	eventually(t, "the role allows", func() bool { return allowed(t, a, ann, "get :secrets default/a") })
	if err := r.Delete(registrytest.Admin, binding); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the binding is gone", func() bool { return !allowed(t, a, ann, "get :secrets default/a") })

	more := &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "things", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
		Rules:      []rbacv1.PolicyRule{rule("example.org", "things", "get", "list")},
	}
	r.Must(more, roleBinding("default", "all", "ClusterRole", "admin", userSubject("ann")))
	eventually(t, "view, edit and admin aggregate", func() bool { return allowed(t, a, ann, "get example.org:things default/a") })
	if err := r.Delete(registrytest.Admin, more); err != nil {
		t.Fatal(err)
	}
	eventually(t, "and forget", func() bool { return !allowed(t, a, ann, "get example.org:things default/a") })
}

func TestNoEscalation(t *testing.T) {
	r, a := start(t)
	eve := someone("eve")
	r.Must(roleBinding("default", "eve", "ClusterRole", "admin", userSubject("eve")))
	eventually(t, "eve's binding is known", func() bool { return allowed(t, a, eve, "get :pods default") })

	role := func(name string, rules ...rbacv1.PolicyRule) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Rules: rules}
	}
	if _, err := r.Create(eve, role("fine", rule("", "pods", "get", "list"))); err != nil {
		t.Error(err)
	}
	_, err := r.Create(eve, role("more", rule("", "pods,nodes", "get", "list")))
	want := `roles.rbac.authorization.k8s.io "more" is forbidden: user "eve" (groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently held:` +
		"\n" + `{APIGroups:[""], Resources:["nodes"], Verbs:["get" "list"]}`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	for name, c := range map[string]struct {
		obj  api.Object
		text string // "" = allowed
	}{
		"bind what is held":     {roleBinding("default", "b1", "ClusterRole", "view", userSubject("x")), ""},
		"bind what is not":      {roleBinding("default", "b2", "ClusterRole", "cluster-admin", userSubject("eve")), "not currently held"},
		"bind elsewhere":        {roleBinding("kube-system", "b3", "ClusterRole", "view", userSubject("eve")), "not currently held"},
		"bind what isn't there": {roleBinding("default", "b4", "Role", "nothing", userSubject("eve")), `role.rbac.authorization.k8s.io "nothing" not found`},
		"aggregate without rights": {&rbacv1.ClusterRole{
			ObjectMeta:      metav1.ObjectMeta{Name: "c"},
			AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{}}},
		}, "must have cluster-admin privileges to use the aggregationRule"},
	} {
		_, err := r.Create(eve, c.obj)
		if (err == nil) != (c.text == "") || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.Must(&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "binder"}, Rules: []rbacv1.PolicyRule{
		{Verbs: []string{"bind"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}, ResourceNames: []string{"cluster-admin"}},
		{Verbs: []string{"escalate"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles"}},
	}}, roleBinding("default", "binder", "Role", "binder", userSubject("eve")))
	eventually(t, "eve may bind", func() bool {
		return allowed(t, a, eve, "bind rbac.authorization.k8s.io:clusterroles default/cluster-admin")
	})
	if _, err := r.Create(eve, role("more", rule("", "nodes", "get"))); err != nil {
		t.Errorf("with escalate: %v", err)
	}
	if _, err := r.Create(eve, roleBinding("default", "b2", "ClusterRole", "cluster-admin", userSubject("eve"))); err != nil {
		t.Errorf("with bind: %v", err)
	}
}

func sliceOf(node string) *resourcev1.ResourceSlice {
	return &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: resourcev1.ResourceSliceSpec{
		Driver: "d.example.com", NodeName: &node, Pool: resourcev1.ResourcePool{Name: node, ResourceSliceCount: 1},
	}}
}

// extended tells a pod in which claim it has the devices of its extended resource.
func extended(t *testing.T, r *registrytest.Registry, pod, claim string) {
	t.Helper()
	res, err := r.Get(context.Background(), r.Request(registrytest.Admin, "", "pods", "", "default", pod), nil)
	if err != nil {
		t.Fatal(err)
	}
	p := res.Object.(*corev1.Pod).DeepCopy()
	p.Status.ExtendedResourceClaimStatus = &corev1.PodExtendedResourceClaimStatus{ResourceClaimName: claim, RequestMappings: []corev1.ContainerExtendedResourceRequest{
		{ContainerName: "c", ResourceName: "example.com/gpu", RequestName: "container-0-request-0"}}}
	if err := r.Update(registrytest.Admin, p, "status"); err != nil {
		t.Fatal(err)
	}
}

func TestNodes(t *testing.T) {
	r, a := start(t)
	one := registrytest.Node("one")
	r.Must(
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "claim"}, Spec: corev1.PersistentVolumeClaimSpec{
			VolumeName: "volume", AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		}},
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "volume"}, Spec: corev1.PersistentVolumeSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				CSI: &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h", NodeStageSecretRef: &corev1.SecretReference{Namespace: "storage", Name: "stage"}},
			},
		}},
		registrytest.Pod("here", func(p *corev1.Pod) {
			p.Spec.NodeName, p.Spec.ServiceAccountName = "one", "worker"
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
			p.Spec.Volumes = []corev1.Volume{
				{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "mounted"}}},
				{Name: "w", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}}},
			}
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "r", ResourceClaimName: new("devices")}}
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"example.com/gpu": resource.MustParse("1")}
			p.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "env"}}}}
		}),
		registrytest.Pod("there", func(p *corev1.Pod) { p.Spec.NodeName, p.Spec.ServiceAccountName = "two", "other" }),
		sliceOf("one"), sliceOf("two"),
	)
	extended(t, r, "here", "extended")
	for text, want := range map[string]bool{
		"get :secrets default/mounted": true, "get :secrets default/pull": true, "get :secrets storage/stage": true, "watch :secrets default/mounted": true,
		"get :secrets default/other": false, "get :secrets other/mounted": false, "list :secrets default": false, "update :secrets default/mounted": false,
		"get :configmaps default/env": true, "get :configmaps default/other": false,
		"get :persistentvolumeclaims default/claim": true, "watch :persistentvolumeclaims default/claim": true, "get :persistentvolumes /volume": true, "get :persistentvolumes /other": false,
		"create :serviceaccounts/token default/worker": true, "create :serviceaccounts/token default/other": false, "delete :serviceaccounts default/worker": false,
		"get :pods default/here": true, "get :pods default/there": false, "get :pods default/gone": true, "list :pods": false, "delete :pods default/here": true,
		"update coordination.k8s.io:leases kube-node-lease/one": true, "update coordination.k8s.io:leases kube-node-lease/two": false,
		"create coordination.k8s.io:leases kube-node-lease": true, "create coordination.k8s.io:leases default": false, "list coordination.k8s.io:leases kube-node-lease": false,
		"list :services": true, "watch discovery.k8s.io:endpointslices": true, "list :nodes": true, "create :nodes": true, "delete :nodes /one": false,
		"patch :nodes/status /one": true, "patch :pods/status default/here": true, "create :events default": true, "create :pods/eviction default/here": true,
		"create certificates.k8s.io:certificatesigningrequests": true, "list apps:deployments": false, "create rbac.authorization.k8s.io:clusterroles": false,
		"get resource.k8s.io:resourceclaims default/devices": true, "get resource.k8s.io:resourceclaims default/extended": true, "get resource.k8s.io:resourceclaims default/other": false,
		"list resource.k8s.io:resourceclaims default": false, "update resource.k8s.io:resourceclaims default/devices": false,
		"create resource.k8s.io:resourceslices": true, "update resource.k8s.io:resourceslices /one": true, "delete resource.k8s.io:resourceslices /two": false,
		"list resource.k8s.io:resourceslices": false, "deletecollection resource.k8s.io:resourceslices": false,
		"create certificates.k8s.io:podcertificaterequests default": true, "list certificates.k8s.io:podcertificaterequests default": false,
		"get certificates.k8s.io:podcertificaterequests default/other": false, "update certificates.k8s.io:podcertificaterequests/status default/x": false,
		"get /api": true,
	} {
		if got := allowed(t, a, one, text); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	for _, text := range []string{"list :pods", "deletecollection resource.k8s.io:resourceslices", "watch certificates.k8s.io:podcertificaterequests"} {
		at := ask(one, text)
		at.FieldSelectorRequirements = fields.OneTermEqualSelector("spec.nodeName", "one").Requirements()
		if d, _, _ := a.Authorize(context.Background(), at); d != authorizer.DecisionAllow {
			t.Errorf("a node must be able to %s of its own", text)
		}
	}
	r.Must(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "deny"}})
	if !allowed(t, a, one, "watch :pods") || allowed(t, a, one, "get :pods default/there") {
		t.Error("a node that enforces policies must be able to follow all pods, and still not read one of another node")
	}
	if allowed(t, a, someone("system:node:one"), "list :services") {
		t.Error("a user of a node's name outside the nodes' group is no node")
	}
}

func TestReviews(t *testing.T) {
	r, a := start(t)
	for path, v := range a.Virtuals() {
		r.Handle(path, v)
	}
	ctx := context.Background()
	r.Must(roleBinding("default", "bob", "ClusterRole", "view", userSubject("bob")))
	bob := someone("bob")
	eventually(t, "bob's binding is known", func() bool { return allowed(t, a, bob, "get :pods default") })
	review := func(u user.Info, plural, ns string, obj api.Object) (api.Object, error) {
		res, err := r.Registry.Create(ctx, r.Request(u, authorizationv1.GroupName, plural, "", ns, ""), obj, &metav1.CreateOptions{})
		if err != nil {
			return nil, err
		}
		return res.Object.(api.Object), nil
	}
	pods := func(verb string) *authorizationv1.ResourceAttributes {
		return &authorizationv1.ResourceAttributes{Namespace: "default", Verb: verb, Resource: "pods"}
	}
	for verb, want := range map[string]bool{"list": true, "delete": false, "*": false} {
		got, err := review(bob, "selfsubjectaccessreviews", "", &authorizationv1.SelfSubjectAccessReview{
			Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: pods(verb)},
		})
		if err != nil || got.(*authorizationv1.SelfSubjectAccessReview).Status.Allowed != want {
			t.Errorf("may bob %s: %v, %v", verb, got, err)
		}
	}
	got, err := review(registrytest.Admin, "subjectaccessreviews", "", &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: "bob", ResourceAttributes: pods("get")},
	})
	if err != nil || !got.(*authorizationv1.SubjectAccessReview).Status.Allowed || got.(*authorizationv1.SubjectAccessReview).Status.Reason == "" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err = review(registrytest.Admin, "subjectaccessreviews", "", &authorizationv1.SubjectAccessReview{}); err == nil ||
		!strings.Contains(err.Error(), "at least one of user or group must be specified") {
		t.Errorf("an empty review: %v", err)
	}
	_, err = review(registrytest.Admin, "localsubjectaccessreviews", "other", &authorizationv1.LocalSubjectAccessReview{
		ObjectMeta: metav1.ObjectMeta{Namespace: "other"}, Spec: authorizationv1.SubjectAccessReviewSpec{User: "bob", ResourceAttributes: pods("get")},
	})
	if err == nil || !strings.Contains(err.Error(), "must match metadata.namespace") {
		t.Errorf("another namespace: %v", err)
	}
	got, err = review(bob, "selfsubjectrulesreviews", "", &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "default"}})
	if err != nil {
		t.Fatal(err)
	}
	status := got.(*authorizationv1.SelfSubjectRulesReview).Status
	if status.Incomplete || len(status.NonResourceRules) == 0 || !slices.ContainsFunc(status.ResourceRules, func(r authorizationv1.ResourceRule) bool {
		return slices.Contains(r.Resources, "pods") && slices.Contains(r.Verbs, "watch")
	}) {
		t.Errorf("rules: %+v", status)
	}
}

func TestForbidden(t *testing.T) {
	for text, want := range map[string]string{
		"list :pods default":                   `pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default"`,
		"get apps:deployments/scale default/a": `deployments.apps "a" is forbidden: User "x" cannot get resource "deployments/scale" in API group "apps" in the namespace "default"`,
		"list :nodes":                          `nodes is forbidden: User "x" cannot list resource "nodes" in API group "" at the cluster scope`,
		"get /metrics":                         `forbidden: User "x" cannot get path "/metrics"`,
	} {
		if err := Forbidden(ask(&user.DefaultInfo{Name: "x"}, text), ""); err.Error() != want || err.ErrStatus.Code != 403 {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

func BenchmarkAuthorize(b *testing.B) {
	r, a := start(b)
	r.Must(roleBinding("default", "worker", "ClusterRole", "edit", rbacv1.Subject{Kind: "ServiceAccount", Namespace: "default", Name: "worker"}))
	worker := someone("system:serviceaccount:default:worker", "system:serviceaccounts", "system:serviceaccounts:default")
	time.Sleep(100 * time.Millisecond)
	for name, text := range map[string]string{
		"allowed": "get :pods default/a", "denied": "get :nodes /a", "subresource": "create :pods/exec default/a", "path": "get /apis/apps/v1",
	} {
		b.Run(name, func(b *testing.B) {
			var at authorizer.Attributes = ask(worker, text)
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = a.Authorize(context.Background(), at)
			}
		})
	}
}
