package admission

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// limited makes a quota that has been counted: nothing of it is used.
func limited(t *testing.T, r *registrytest.Registry, name string, hard map[corev1.ResourceName]string, change ...func(*corev1.ResourceQuota)) {
	t.Helper()
	q := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{}}}
	used := corev1.ResourceList{}
	for k, v := range hard {
		q.Spec.Hard[k], used[k] = resource.MustParse(v), resource.MustParse("0")
	}
	for _, f := range change {
		f(q)
	}
	r.Must(q)
	counted := used.DeepCopy()
	q = q.DeepCopy()
	q.ResourceVersion, q.Status = "", corev1.ResourceQuotaStatus{Hard: q.Spec.Hard, Used: counted}
	if err := r.Update(registrytest.Admin, q, "status"); err != nil {
		t.Fatal(err)
	}
}

func used(t *testing.T, r *registrytest.Registry, name string, of corev1.ResourceName) string {
	t.Helper()
	res, err := r.Get(context.Background(), r.Request(registrytest.Admin, "", "resourcequotas", "", "default", name), nil)
	if err != nil {
		t.Fatal(err)
	}
	q := res.Object.(*corev1.ResourceQuota).Status.Used[of]
	return q.String()
}

func asking(cpu string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Resources.Requests = list(cpu) }
}

func TestQuotas(t *testing.T) {
	r := start(t)
	limited(t, r, "compute", map[corev1.ResourceName]string{"pods": "3", "requests.cpu": "1", "count/configmaps": "1", "secrets": "5"})
	if _, err := r.Create(registrytest.Admin, registrytest.Pod("a", asking("600m"))); err != nil {
		t.Fatal(err)
	}
	if pods, cpu := used(t, r, "compute", "pods"), used(t, r, "compute", "requests.cpu"); pods != "1" || cpu != "600m" {
		t.Errorf("used: %s pods, cpu %s", pods, cpu)
	}
	_, err := r.Create(registrytest.Admin, registrytest.Pod("b", asking("500m")))
	refused(t, err, 403, `pods "b" is forbidden: exceeded quota: compute, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1`)
	_, err = r.Create(registrytest.Admin, registrytest.Pod("b"))
	refused(t, err, 403, `failed quota: compute: must specify requests.cpu for: c`)
	_, err = r.Create(registrytest.Admin, registrytest.Pod("a", asking("100m")))
	if !apierrors.IsAlreadyExists(err) || used(t, r, "compute", "pods") != "1" || used(t, r, "compute", "requests.cpu") != "600m" {
		t.Errorf("%v; what was not stored is charged: %s pods", err, used(t, r, "compute", "pods"))
	}
	r.Must(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}})
	_, err = r.Create(registrytest.Admin, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}})
	refused(t, err, 403, "exceeded quota: compute, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1")
}

// What a claim's status says that it was given is charged, whether there is room or not.
func TestQuotaOfGivenStorage(t *testing.T) {
	r := start(t)
	limited(t, r, "storage", map[corev1.ResourceName]string{"requests.storage": "1Gi"})
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"}, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}},
	}}
	made, err := r.Create(registrytest.Admin, claim)
	if err != nil {
		t.Fatal(err)
	}
	claim = made.(*corev1.PersistentVolumeClaim).DeepCopy()
	claim.Status.AllocatedResources = corev1.ResourceList{"storage": resource.MustParse("2Gi")}
	if err := r.Update(registrytest.Admin, claim, "status"); err != nil {
		t.Fatal(err)
	}
	if got := used(t, r, "storage", "requests.storage"); got != "2Gi" {
		t.Errorf("%s is charged", got)
	}
}

// A claim is charged what it may get of each class: of alternatives, the most.
func TestQuotaOfDevices(t *testing.T) {
	r := start(t)
	const gold, silver = "gold.deviceclass.resource.k8s.io/devices", "silver.deviceclass.resource.k8s.io/devices"
	limited(t, r, "devices", map[corev1.ResourceName]string{gold: "4", silver: "40", "count/resourceclaims.resource.k8s.io": "2"})
	claim := func(name string, requests ...resourcev1.DeviceRequest) *resourcev1.ResourceClaim {
		for i := range requests {
			requests[i].Name = fmt.Sprintf("r%d", i)
		}
		return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: requests}}}
	}
	exactly := func(class string, n int64) resourcev1.DeviceRequest {
		return resourcev1.DeviceRequest{Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: n}}
	}
	either := resourcev1.DeviceRequest{FirstAvailable: []resourcev1.DeviceSubRequest{
		{Name: "a", DeviceClassName: "gold", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 2},
		{Name: "b", DeviceClassName: "gold", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1},
		{Name: "c", DeviceClassName: "silver", AllocationMode: resourcev1.DeviceAllocationModeAll},
	}}
	r.Must(claim("a", exactly("gold", 1), either))
	if g, s, n := used(t, r, "devices", gold), used(t, r, "devices", silver), used(t, r, "devices", "count/resourceclaims.resource.k8s.io"); g != "3" || s != "32" || n != "1" {
		t.Errorf("%s of gold, %s of silver, %s claims", g, s, n)
	}
	_, err := r.Create(registrytest.Admin, claim("b", exactly("gold", 2)))
	refused(t, err, 403, "exceeded quota: devices, requested: "+gold+"=2, used: "+gold+"=3, limited: "+gold+"=4")
}

// Devices count under the name of their class and under those of the extended resources that it stands for. What a pod asked for by one of them is charged to
// the pod, and to the claim that the scheduler makes for it under the others.
func TestQuotaOfExtendedResources(t *testing.T) {
	r := start(t)
	const class, implicit, explicit = "gold.deviceclass.resource.k8s.io/devices", "requests.deviceclass.resource.kubernetes.io/gold", "requests.example.com/gold"
	limited(t, r, "devices", map[corev1.ResourceName]string{class: "9", implicit: "9", explicit: "9"})
	r.Must(&resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gold"}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: new("example.com/gold")}})
	sum := func() string {
		return fmt.Sprintf("%s of the class, %s implicit, %s explicit", used(t, r, "devices", class), used(t, r, "devices", implicit), used(t, r, "devices", explicit))
	}
	request := func(name string, n int64) resourcev1.DeviceRequest {
		return resourcev1.DeviceRequest{Name: name, Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gold", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: n}}
	}
	claim := func(name string, requests ...resourcev1.DeviceRequest) *resourcev1.ResourceClaim {
		return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: requests}}}
	}
	r.Must(claim("ordinary", request("it", 1)))
	if got := sum(); got != "1 of the class, 1 implicit, 1 explicit" {
		t.Error("an ordinary claim:", got)
	}
	made, err := r.Create(registrytest.Admin, registrytest.Pod("p", func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1"), "example.com/gold": resource.MustParse("2"), "deviceclass.resource.kubernetes.io/gold": resource.MustParse("3")}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got := sum(); got != "1 of the class, 4 implicit, 3 explicit" {
		t.Error("and a pod:", got)
	}
	owned := claim("owned", request("container-0-request-1", 3), request("container-0-request-2", 2))
	owned.Annotations = map[string]string{resourcev1.ExtendedResourceClaimAnnotation: "true"}
	owned.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(made.(*corev1.Pod), corev1.SchemeGroupVersion.WithKind("Pod"))}
	r.Must(owned)
	if got := sum(); got != "6 of the class, 6 implicit, 6 explicit" {
		t.Error("and its claim:", got)
	}
	pretending := claim("pretending", request("container-0-request-1", 1))
	pretending.Annotations = owned.Annotations
	r.Must(pretending)
	if got := sum(); got != "7 of the class, 7 implicit, 7 explicit" {
		t.Error("and a claim that is no pod's:", got)
	}
	_, err = r.Create(registrytest.Admin, registrytest.Pod("q", func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"deviceclass.resource.kubernetes.io/gold": resource.MustParse("3")}
	}))
	refused(t, err, 403, "exceeded quota: devices, requested: "+implicit+"=3, used: "+implicit+"=7, limited: "+implicit+"=9")
}

func TestQuotaScopes(t *testing.T) {
	r := start(t)
	limited(t, r, "best", map[corev1.ResourceName]string{"pods": "1"}, func(q *corev1.ResourceQuota) { q.Spec.Scopes = []corev1.ResourceQuotaScope{"BestEffort"} })
	limited(t, r, "ending", map[corev1.ResourceName]string{"pods": "1"}, func(q *corev1.ResourceQuota) { q.Spec.Scopes = []corev1.ResourceQuotaScope{"Terminating"} })
	deadline := int64(100)
	r.Must(registrytest.Pod("a"), registrytest.Pod("b", asking("1")), registrytest.Pod("c", asking("1"), func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = &deadline }))
	if best, ending := used(t, r, "best", "pods"), used(t, r, "ending", "pods"); best != "1" || ending != "1" {
		t.Errorf("%s best-effort, %s terminating", best, ending)
	}
	_, err := r.Create(registrytest.Admin, registrytest.Pod("d"))
	refused(t, err, 403, "exceeded quota: best")
}

// What is configured to need a quota is refused in a namespace that has none for it.
func TestLimitedResources(t *testing.T) {
	r := with(t, Config{File: configured(t, `[{name: ResourceQuota, configuration: {`+quotaKind+`, limitedResources: [
  {resource: pods, matchScopes: [{scopeName: PriorityClass, operator: In, values: [vital]}]},
  {resource: persistentvolumeclaims, matchContains: [.storageclass.storage.k8s.io/requests.storage]},
  {resource: services, matchContains: [services.nodeports]}]}}]`)})
	r.Must(&schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: "vital"}, Value: 1000})
	vital := func(name string) error {
		_, err := r.Create(registrytest.Admin, registrytest.Pod(name, func(p *corev1.Pod) { p.Spec.PriorityClassName = "vital" }))
		return err
	}
	claim := func(name, class string) error {
		_, err := r.Create(registrytest.Admin, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{"ReadWriteOnce"}, StorageClassName: &class,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}},
		}})
		return err
	}
	r.Must(registrytest.Pod("plain"))
	refused(t, vital("a"), 403, `pods "a" is forbidden: insufficient quota to match these scopes: [{PriorityClass In [vital]}]`)
	refused(t, claim("a", "fast"), 403, `persistentvolumeclaims "a" is forbidden: insufficient quota to consume: fast.storageclass.storage.k8s.io/requests.storage`)
	if err := claim("b", ""); err != nil {
		t.Errorf("a claim of no class: %v", err)
	}
	limited(t, r, "fast", map[corev1.ResourceName]string{"fast.storageclass.storage.k8s.io/requests.storage": "1Gi"})
	limited(t, r, "vital", map[corev1.ResourceName]string{"pods": "1"}, func(q *corev1.ResourceQuota) {
		q.Spec.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{{ScopeName: "PriorityClass", Operator: "In", Values: []string{"vital"}}}}
	})
	if err := vital("a"); err != nil || used(t, r, "vital", "pods") != "1" {
		t.Errorf("%v; %s pods are charged", err, used(t, r, "vital", "pods"))
	}
	refused(t, vital("b"), 403, "exceeded quota: vital, requested: pods=1, used: pods=1, limited: pods=1")
	if err := claim("a", "fast"); err != nil {
		t.Error(err)
	}
	refused(t, claim("c", "slow"), 403, "insufficient quota to consume: slow.storageclass.storage.k8s.io/requests.storage")

	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	made, err := r.Create(registrytest.Admin, svc)
	if err != nil {
		t.Fatal(err)
	}
	grown := made.(*corev1.Service).DeepCopy()
	grown.Spec.Type = corev1.ServiceTypeNodePort
	refused(t, r.Update(registrytest.Admin, grown, ""), 403, `services "s" is forbidden: insufficient quota to consume: services.nodeports`)
	relabelled := made.(*corev1.Service).DeepCopy()
	relabelled.Labels = map[string]string{"a": "b"}
	if err := r.Update(registrytest.Admin, relabelled, ""); err != nil {
		t.Errorf("an update that uses no more: %v", err)
	}
}

// Many at once get exactly what the quota has room for.
func TestQuotaIsChargedWithoutRaces(t *testing.T) {
	r := start(t)
	limited(t, r, "few", map[corev1.ResourceName]string{"count/configmaps": "7"})
	var made atomic.Int32
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			_, err := r.Create(registrytest.Admin, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("c%d", i)}})
			if err == nil {
				made.Add(1)
			} else if !apierrors.IsForbidden(err) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := used(t, r, "few", "count/configmaps"); made.Load() != 7 || n != "7" {
		t.Errorf("%d were made, %s are counted", made.Load(), n)
	}
}

// BenchmarkNoQuota is what the two plug-ins cost a pod in a namespace that has neither quota nor level.
func BenchmarkNoQuota(b *testing.B) {
	admit, validate := Default()
	r := registrytest.Start(b, admit, validate)
	a := attributes(r, registrytest.Pod("a"))
	quota, err := quotas(nil)
	security, err2 := podSecurity(nil)
	if err != nil || err2 != nil {
		b.Fatal(err, err2)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := quota.validate(context.Background(), a); err != nil {
			b.Fatal(err)
		}
		if err := security.validate(context.Background(), a); err != nil {
			b.Fatal(err)
		}
	}
}

func attributes(r *registrytest.Registry, p *corev1.Pod) *registry.Attributes {
	return &registry.Attributes{Request: r.About(registrytest.Admin, p, ""), Operation: create, Object: p, Registry: r.Registry}
}
