package audit

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	internal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/api"
)

// level is what is recorded of the request that ctx belongs to.
func level(ctx context.Context) internal.Level {
	c := audit.AuditContextFrom(ctx)
	if c == nil {
		return internal.LevelNone
	}
	return c.GetEventLevel()
}

// Impersonated notes as whom a request goes on, and the verb that allowed it, if that is not simply "impersonate".
func Impersonated(ctx context.Context, u user.Info, constraint string) {
	if level(ctx) != internal.LevelNone {
		audit.LogImpersonatedUser(ctx, u, constraint)
	}
}

// Decided notes whether a request was allowed, and why: upstream's annotations.
func Decided(ctx context.Context, why string, err error) {
	const decision, reason = "authorization.k8s.io/decision", "authorization.k8s.io/reason"
	switch {
	case err == nil:
		audit.AddAuditAnnotations(ctx, decision, "allow", reason, why)
	case apierrors.IsForbidden(err):
		audit.AddAuditAnnotations(ctx, decision, "forbid", reason, why)
	default:
		audit.AddAuditAnnotation(ctx, reason, "internal error")
	}
}

// Deprecated notes that a request was for a deprecated version of an API.
func Deprecated(ctx context.Context) { audit.AddAuditAnnotation(ctx, "k8s.io/deprecated", "true") }

// Unsafe notes that a deletion was to remove what cannot be read.
func Unsafe(ctx context.Context) {
	audit.AddAuditAnnotation(ctx, "apiserver.k8s.io/unsafe-delete-ignore-read-error", "")
}

// Request notes the object that came with a request.
func Request(ctx context.Context, obj runtime.Object, gv schema.GroupVersion, gvr schema.GroupVersionResource, subresource string) {
	if level(ctx) != internal.LevelNone {
		audit.LogRequestObject(ctx, obj, gv, gvr, subresource, api.Codecs())
	}
}

// Patch notes the patch that came with a request.
func Patch(ctx context.Context, patch []byte) {
	if level(ctx) != internal.LevelNone {
		audit.LogRequestPatch(ctx, patch)
	}
}

// Response notes what was answered.
func Response(ctx context.Context, obj runtime.Object) {
	if level(ctx) != internal.LevelNone {
		audit.LogResponseObject(ctx, obj, obj.GetObjectKind().GroupVersionKind().GroupVersion(), api.Codecs())
	}
}

// WantsResponse says whether answers are recorded whole, for those that have to be put together first.
func WantsResponse(ctx context.Context) bool { return level(ctx) == internal.LevelRequestResponse }
