package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/mergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/store"
)

// A write that races with other writers is computed anew that often. Each time somebody else got through, so only a bug comes near it.
const patchTries = 1000

const maxPatchOperations = 10_000

// Patch applies a JSON, merge or strategic merge patch or a server-side apply, retrying on conflict unless the patch names a resourceVersion.
func (r *Registry) Patch(ctx context.Context, q *Request, kind types.PatchType, body []byte, o *metav1.PatchOptions) (*Result, error) {
	if errs := metavalidation.ValidatePatchOptions(o, kind); len(errs) > 0 {
		return nil, invalidOptions("PatchOptions", errs)
	}
	q, dryRun := q.by(o.FieldManager, o), len(o.DryRun) > 0
	if kind == types.ApplyYAMLPatchType {
		return r.apply(ctx, q, body, o, dryRun)
	}
	if err := patchable(q, kind); err != nil {
		return nil, err
	}
	apply, err := patcher(kind, body)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		prev, err := r.get(ctx, q, store.Read{Consistent: true})
		if err != nil {
			return nil, err
		}
		out, pinned, err := r.patch(ctx, q, prev, kind, apply, o.FieldValidation, dryRun)
		if err == nil || pinned || !apierrors.IsConflict(err) || try == patchTries {
			return out, err
		}
	}
}

// patch makes one attempt; pinned says that the patch itself names the state it is for.
func (r *Registry) patch(
	ctx context.Context, q *Request, prev *store.Entry, kind types.PatchType, apply applyPatch, validation string, dryRun bool,
) (out *Result, pinned bool, err error) {
	var target runtime.Object = q.View(prev).Object()
	if q.Subresource == "scale" {
		target = scaleOf(q, prev)
	}
	before, err := encodeTarget(q, prev, target)
	if err != nil {
		return nil, false, err
	}
	after, err := apply(before, target)
	if err != nil {
		return nil, true, err
	}
	var body runtime.Object = newTarget(q)
	if err := decodeStrictly(after, body, validation, q); err != nil {
		return nil, true, err
	}
	if have, want := body.GetObjectKind().GroupVersionKind(), target.GetObjectKind().GroupVersionKind(); have != want && kind != types.StrategicMergePatchType {
		// Upstream refuses this too, but for strategic patches.
		return nil, true, unprocessable(fmt.Errorf("it cannot become a %q of %q: it is a %s of %s", have.Kind, have.GroupVersion(), want.Kind, want.GroupVersion()))
	}
	if scale, ok := body.(*autoscalingv1.Scale); ok && q.Subresource == "scale" {
		pinned = scale.ResourceVersion != target.(*autoscalingv1.Scale).ResourceVersion
		e, err := r.updateScale(ctx, q, prev, scale, dryRun)
		if err != nil {
			return nil, pinned, err
		}
		return scaleResult(q, e), pinned, nil
	}
	obj, err := q.stored(body)
	if err != nil {
		return nil, true, err
	}
	pinned = obj.GetResourceVersion() != prev.Object().GetResourceVersion()
	e, err := r.update(ctx, q, prev, obj, dryRun)
	if err != nil {
		return nil, pinned, err
	}
	return q.result(e), pinned, nil
}

func newTarget(q *Request) runtime.Object {
	switch {
	case q.Subresource == "scale":
		return &autoscalingv1.Scale{}
	case q.Served != nil:
		return q.Served.New()
	}
	return q.Resource.New()
}

func encodeTarget(q *Request, prev *store.Entry, target runtime.Object) ([]byte, error) {
	if q.Subresource == "scale" {
		return json.Marshal(target)
	}
	return q.View(prev).Bytes(store.JSON)
}

// applyPatch makes the JSON of a patched object out of that of the present one.
type applyPatch func(before []byte, shape runtime.Object) ([]byte, error)

func patcher(kind types.PatchType, body []byte) (applyPatch, error) {
	switch kind {
	case types.JSONPatchType:
		return jsonPatcher(body)
	case types.MergePatchType, types.StrategicMergePatchType:
		raw, err := yaml.YAMLToJSON(body)
		if err == nil && !strings.HasPrefix(strings.TrimSpace(string(raw)), "{") {
			err = errors.New("a merge patch must be an object")
		}
		if err != nil {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
		}
		if kind == types.MergePatchType {
			return func(before []byte, _ runtime.Object) ([]byte, error) {
				out, err := jsonpatch.MergePatch(before, raw)
				return out, unprocessable(err)
			}, nil
		}
		return func(before []byte, shape runtime.Object) ([]byte, error) {
			out, err := strategicpatch.StrategicMergePatch(before, raw, shape)
			switch {
			case mergepatch.IsPreconditionFailed(err):
				return nil, apierrors.NewConflict(metav1.Unversioned.WithResource("").GroupResource(), "", err)
			case errors.Is(err, mergepatch.ErrBadJSONDoc), errors.Is(err, mergepatch.ErrBadPatchFormatForPrimitiveList),
				errors.Is(err, mergepatch.ErrBadPatchFormatForRetainKeys), errors.Is(err, mergepatch.ErrBadPatchFormatForSetElementOrderList),
				errors.Is(err, mergepatch.ErrUnsupportedStrategicMergePatchFormat):
				return nil, apierrors.NewBadRequest(err.Error())
			}
			return out, unprocessable(err)
		}, nil
	}
	return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnsupportedMediaType, Reason: metav1.StatusReasonUnsupportedMediaType,
		Message: fmt.Sprintf("the body of the request was in an unknown format - accepted media types include: %s, %s, %s, %s; this server does not have %s",
			types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType, types.ApplyYAMLPatchType, kind),
	}}
}

func jsonPatcher(body []byte) (applyPatch, error) {
	p, err := jsonpatch.DecodePatch(body)
	if err != nil {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("error decoding patch: %v", err))
	}
	if len(p) > maxPatchOperations {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("The allowed maximum operations in a JSON patch is %d, got %d", maxPatchOperations, len(p)))
	}
	return func(before []byte, _ runtime.Object) (out []byte, err error) {
		defer func() {
			// The library follows nil pointers where a test has no value, or one with nulls in it. It works on copies: nothing is half-done.
			if recover() != nil {
				out, err = nil, unprocessable(errors.New("an operation of the JSON patch uses a value that is not there"))
			}
		}()
		out, err = p.Apply(before)
		return out, unprocessable(err)
	}, nil
}

// unprocessable is the answer to a patch that is well-formed but does not fit the object.
func unprocessable(err error) error {
	if err == nil {
		return nil
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
		Message: fmt.Sprintf("the server rejected our request due to an error in our request: %v", err),
	}}
}

// decodeStrictly decodes what a patch made. Unknown and repeated fields are an error or a warning, as the client asked.
func decodeStrictly(raw []byte, into runtime.Object, validation string, q *Request) error {
	strict, err := decodeInto(raw, into, validation, q)
	if err != nil {
		return unprocessable(err)
	}
	if len(strict) == 0 || validation == metav1.FieldValidationIgnore {
		return nil
	}
	texts := make([]string, len(strict))
	for i, e := range strict {
		texts[i] = e.Error()
	}
	if validation == metav1.FieldValidationStrict {
		return apierrors.NewBadRequest("strict decoding error: " + strings.Join(texts, ", "))
	}
	q.warn(texts)
	return nil
}
