package client

import (
	"context"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/registry"
)

// apply sends what body holds, about the object that obj names, and fills obj with the answer, as client-go does. A field that body leaves out
// is one that its manager gives up.
func (w localWriter) apply(ctx context.Context, subresource string, obj, body runtime.ApplyConfiguration, opts []crclient.ApplyOption) error {
	var o crclient.ApplyOptions
	o.ApplyOptions(opts)
	q, err := w.applied(obj)
	if err != nil {
		return err
	}
	q.Subresource = subresource
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode what is applied to %s %s: %w", q.Resource.Plural, q.Name, err)
	}
	out, err := w.rows.reg.Patch(ctx, q, types.ApplyYAMLPatchType, data, o.AsPatchOptions())
	if err != nil {
		return err
	}
	answer, err := json.Marshal(out.Object)
	if err != nil {
		return fmt.Errorf("encode what was applied to %s %s: %w", q.Resource.Plural, q.Name, err)
	}
	return json.Unmarshal(answer, obj)
}

// applied is a request for the object that an apply configuration names. Which Go type that has, tells no more than its JSON.
func (w localWriter) applied(obj runtime.ApplyConfiguration) (*registry.Request, error) {
	data, err := json.Marshal(obj)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", obj, err)
	}
	u := &unstructured.Unstructured{}
	if err := json.Unmarshal(data, &u.Object); err != nil {
		return nil, fmt.Errorf("encode %T: %w", obj, err)
	}
	q, err := w.rows.request(u, w.user)
	if err != nil {
		return nil, err
	}
	q.Name = u.GetName()
	if q.Resource.Namespaced {
		q.Namespace = u.GetNamespace()
	}
	return q, nil
}
