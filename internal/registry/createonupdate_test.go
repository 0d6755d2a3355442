package registry_test

import (
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// Some kinds are created by an update of what there is not: upstream's, and no others.
func TestUpdatesThatCreate(t *testing.T) {
	f := start(t)
	in := metav1.ObjectMeta{Namespace: "default", Name: "new", Labels: map[string]string{"by": "update"}}
	everywhere := metav1.ObjectMeta{Name: "new", Labels: in.Labels}
	role := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"}
	for _, obj := range []api.Object{
		&corev1.Endpoints{ObjectMeta: in}, //nolint:staticcheck // old clients write it
		&corev1.LimitRange{ObjectMeta: in},
		&corev1.Service{ObjectMeta: in, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}},
		&corev1.Event{ObjectMeta: in, InvolvedObject: corev1.ObjectReference{Namespace: "default"}},
		&coordinationv1.Lease{ObjectMeta: in},
		&rbacv1.Role{ObjectMeta: in}, &rbacv1.ClusterRole{ObjectMeta: everywhere},
		&rbacv1.RoleBinding{ObjectMeta: in, RoleRef: role}, &rbacv1.ClusterRoleBinding{ObjectMeta: everywhere, RoleRef: role},
		&nodev1.RuntimeClass{ObjectMeta: everywhere, Handler: "runc"},
	} {
		q := f.About(registrytest.Admin, obj, "")
		res, err := f.Registry.Registry.Update(ctx, q, obj.DeepCopyObject(), &metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil || !res.Created {
			t.Errorf("%T, tried: %+v, %v", obj, res, err)
		}
		res, err = f.Registry.Registry.Update(ctx, q, obj.DeepCopyObject(), &metav1.UpdateOptions{FieldManager: "me"})
		if err != nil || !res.Created {
			t.Errorf("%T: %+v, %v", obj, res, err)
			continue
		}
		made := res.Object.(api.Object)
		if made.GetUID() == "" || made.GetCreationTimestamp() == (metav1.Time{}) || made.GetResourceVersion() == "" || len(made.GetManagedFields()) == 0 || made.GetManagedFields()[0].Manager != "me" {
			t.Errorf("%T is made as %+v", obj, made)
		}
		res, err = f.Registry.Registry.Update(ctx, q, made.DeepCopyObject(), &metav1.UpdateOptions{})
		if err != nil || res.Created {
			t.Errorf("%T, again: %+v, %v", obj, res, err)
		}
	}
	_, err := update(f, configMap("new"), "")
	refused(t, err, 404, `configmaps "new" not found`)
}
