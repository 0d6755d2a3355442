package authz

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/registry"
)

// Of a claim's status each may write what is theirs: who allocates the allocation, a driver its own reports, and one that is bound to a node only there.
func TestClaimStatus(t *testing.T) {
	r, a := start(t)
	account := func(name, node string) user.Info {
		u := &user.DefaultInfo{Name: "system:serviceaccount:default:" + name, Groups: []string{user.AllAuthenticated}}
		if node != "" {
			u.Extra = map[string][]string{serviceaccount.NodeNameKey: {node}}
		}
		return u
	}
	for name, rules := range map[string][]rbacv1.PolicyRule{
		"allocator": {rule("resource.k8s.io", "resourceclaims/binding", "update")},
		"local":     {{APIGroups: []string{"resource.k8s.io"}, Resources: []string{"resourceclaims/driver"}, ResourceNames: []string{"d"}, Verbs: []string{"associated-node:update"}}},
		"central":   {{APIGroups: []string{"resource.k8s.io"}, Resources: []string{"resourceclaims/driver"}, ResourceNames: []string{"d"}, Verbs: []string{"arbitrary-node:update"}}},
	} {
		r.Must(&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules},
			&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
				Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: name}}})
	}
	for name, probe := range map[string]string{"allocator": "update resource.k8s.io:resourceclaims/binding", "local": "associated-node:update resource.k8s.io:resourceclaims/driver default/d",
		"central": "arbitrary-node:update resource.k8s.io:resourceclaims/driver default/d"} {
		eventually(t, name+"'s rights are known", func() bool { return allowed(t, a, account(name, ""), probe) })
	}
	allocated := resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{
		NodeSelector: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"n"}}}}}},
		Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{{Driver: "d", Pool: "p", Device: "x"}, {Driver: "e", Pool: "p", Device: "y"}}}}}
	reported := func(drivers ...string) resourcev1.ResourceClaimStatus {
		s := *allocated.DeepCopy()
		for _, d := range drivers {
			s.Devices = append(s.Devices, resourcev1.AllocatedDeviceStatus{Driver: d, Pool: "p", Device: map[string]string{"d": "x", "e": "y"}[d]})
		}
		return s
	}
	reserved := *allocated.DeepCopy()
	reserved.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "u"}}
	const binding, driver = `status: Forbidden: changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="update" permission`,
		`status.devices: Forbidden: changing status.devices requires resource="resourceclaims/driver", verb=[`
	for _, one := range []struct {
		name     string
		who      user.Info
		was, now resourcev1.ResourceClaimStatus
		options  runtime.Object
		refused  string
	}{
		{"allocate", account("allocator", ""), resourcev1.ResourceClaimStatus{}, allocated, nil, ""},
		{"reserve", account("allocator", ""), allocated, reserved, nil, ""},
		{"reserve by a patch", account("allocator", ""), allocated, reserved, &metav1.PatchOptions{}, `verb="patch" permission`},
		{"report, as who allocates", account("allocator", ""), allocated, reported("d"), nil, driver},
		{"give back what was reported on", account("allocator", ""), reported("d", "e"), resourcev1.ResourceClaimStatus{}, nil, ""},
		{"drop a report, as who allocates", account("allocator", ""), reported("d"), allocated, nil, driver},
		{"allocate, as a driver", account("central", ""), resourcev1.ResourceClaimStatus{}, allocated, nil, binding},
		{"report on the claim's node", account("local", "n"), allocated, reported("d"), nil, ""},
		{"report on another node", account("local", "m"), allocated, reported("d"), nil, driver + `"arbitrary-node:update"]`},
		{"report from no node", account("local", ""), allocated, reported("d"), nil, driver},
		{"report for another driver", account("local", "n"), allocated, reported("e"), nil, driver + `"associated-node:update" "arbitrary-node:update"]`},
		{"report from anywhere", account("central", ""), allocated, reported("d"), nil, ""},
		{"report from anywhere, bound to the node", account("central", "n"), allocated, reported("d"), nil, ""},
		{"leave another driver's report alone", account("central", ""), reported("e"), reported("d", "e"), nil, ""},
		{"report and reserve", account("central", ""), allocated, func() resourcev1.ResourceClaimStatus {
			s := reported("d")
			s.ReservedFor = reserved.ReservedFor
			return s
		}(), nil, binding},
		{"the scheduler", someone("system:kube-scheduler"), resourcev1.ResourceClaimStatus{}, allocated, nil, ""},
		{"the controllers", someone("system:kube-controller-manager"), reported("d"), resourcev1.ResourceClaimStatus{}, nil, ""},
		{"an administrator", someone("root", user.SystemPrivilegedGroup), allocated, reported("d", "e"), nil, ""},
	} {
		meta := metav1.ObjectMeta{Namespace: "default", Name: "c"}
		now := &resourcev1.ResourceClaim{ObjectMeta: meta, Status: one.now}
		at := &registry.Attributes{Request: r.About(one.who, now, "status"), Operation: "UPDATE", Options: one.options, Object: now,
			Old: &resourcev1.ResourceClaim{ObjectMeta: meta, Status: one.was}}
		err := a.Validate(context.Background(), at)
		if (err == nil) != (one.refused == "") || err != nil && !strings.Contains(err.Error(), one.refused) {
			t.Errorf("%s: %v", one.name, err)
		}
	}
}
