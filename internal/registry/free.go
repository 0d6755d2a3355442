package registry

import (
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"skiff.dev/skiff/internal/api"
)

// Objects without a Go type: their parts are found by name.

func content(obj api.Object) map[string]any {
	if u, free := obj.(*unstructured.Unstructured); free {
		if u.Object == nil {
			u.Object = map[string]any{}
		}
		return u.Object
	}
	return nil
}

// dropStatus empties an object's status.
func dropStatus(obj api.Object) {
	if c := content(obj); c != nil {
		delete(c, "status")
		return
	}
	part(obj, "Status").SetZero()
}

// copyStatus sets an object's status to what it is in from, which is not to be changed any more.
func copyStatus(obj, from api.Object) {
	c := content(obj)
	if c == nil {
		copyPart(obj, from, "Status")
		return
	}
	if status, has := content(from)["status"]; has {
		c["status"] = status
	} else {
		delete(c, "status")
	}
}

// changedContent says whether anything but metadata differs, and the status if that has a subresource of its own.
func changedContent(res *api.Resource, obj, old api.Object) bool {
	a, b := content(obj), content(old)
	if a == nil || b == nil {
		return specChanged(obj, old)
	}
	counts := func(key string) bool { return key != "metadata" && (key != "status" || !res.Status) }
	for key, v := range a {
		if counts(key) && !apiequality.Semantic.DeepEqual(v, b[key]) {
			return true
		}
	}
	for key := range b {
		if _, has := a[key]; counts(key) && !has {
			return true
		}
	}
	return false
}
