package authz

import (
	"context"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// This file is about objects that say in their spec which node they belong to. What a created one says is admission's to judge.

// slices: a node publishes its own devices.
func (n *nodes) slices(ctx context.Context, node string, at authorizer.Attributes) (bool, string, error) {
	if at.GetSubresource() != "" {
		return false, "cannot authorize ResourceSlice subresources", nil
	}
	switch at.GetVerb() {
	case "create":
		return true, "", nil
	case "get", "update", "patch", "delete":
		return n.belongs(ctx, node, at, func(o api.Object) bool {
			s, ok := o.(*resourcev1.ResourceSlice)
			return ok && s.Spec.NodeName != nil && *s.Spec.NodeName == node
		})
	}
	if selects(at, resourcev1.ResourceSliceSelectorNodeName, node) {
		return true, "", nil
	}
	return false, "can only list/watch/deletecollection resourceslices with nodeName field selector", nil
}

// podCertificates: a node asks for certificates for its own pods.
func (n *nodes) podCertificates(ctx context.Context, node string, at authorizer.Attributes) (bool, string, error) {
	if at.GetSubresource() != "" {
		return false, "nodes may not access the status subresource of PodCertificateRequests", nil
	}
	switch at.GetVerb() {
	case "create":
		return true, "", nil
	case "get":
		return n.belongs(ctx, node, at, func(o api.Object) bool {
			r, ok := o.(*certificatesv1.PodCertificateRequest)
			return ok && string(r.Spec.NodeName) == node
		})
	case "list", "watch":
		return selects(at, "spec.nodeName", node), "can only list/watch podcertificaterequests with nodeName field selector", nil
	}
	return false, fmt.Sprintf("nodes may not %s podcertificaterequests", at.GetVerb()), nil
}

// belongs looks at the object that is there.
func (n *nodes) belongs(ctx context.Context, node string, at authorizer.Attributes, own func(api.Object) bool) (bool, string, error) {
	key := at.GetName()
	if at.GetNamespace() != "" {
		key = at.GetNamespace() + "/" + key
	}
	row := n.reg.Table().ByResource(schema.GroupResource{Group: at.GetAPIGroup(), Resource: at.GetResource()})
	e, err := n.reg.Store().Collection(row).Get(ctx, key, store.Read{})
	if err != nil {
		return false, "", err
	}
	if e != nil && own(e.Object()) {
		return true, "", nil
	}
	return false, fmt.Sprintf("no relationship found between node '%s' and this object", node), nil
}

// selects says whether a request is held to what belongs to the node by a field selector.
func selects(at authorizer.Attributes, field, node string) bool {
	requirements, err := at.GetFieldSelector()
	if err != nil {
		return false
	}
	for _, r := range requirements {
		if equal := r.Operator == selection.Equals || r.Operator == selection.DoubleEquals; equal && r.Field == field && r.Value == node {
			return true
		}
	}
	return false
}
