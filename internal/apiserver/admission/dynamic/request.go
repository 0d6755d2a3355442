package dynamic

import (
	"context"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/warning"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
)

// request is a request as upstream's plug-ins see it: its attributes, and what they need to know of its kind.
type request struct {
	admission.Attributes
	objects
	ctx  context.Context // of the request: where its audit event is
	warn func(string)
	mu   sync.Mutex // validating webhooks warn all at once
}

// requestOf is the same in both halves of admission, unless the registry has put another object in the first one's place.
func requestOf(ctx context.Context, a *registry.Attributes) *request {
	if r, ok := a.Dynamic.(*request); ok && r.GetObject() == a.Object {
		return r
	}
	r := &request{objects: objects{ctx, a.Registry.Table(), a.Resource}, ctx: ctx, warn: a.Warn}
	kind := kindOf(a)
	if obj, ok := a.Object.(api.Object); ok && obj.GetObjectKind().GroupVersionKind().Empty() { // the request's own object
		obj.GetObjectKind().SetGroupVersionKind(storedKind(a, kind))
	}
	r.Attributes = admission.NewAttributesRecord(a.Object, a.Old, kind, namespaceOf(a), nameOf(a), resourceOf(a), a.Subresource,
		admission.Operation(a.Operation), options(a), a.DryRun, userOf(a))
	if was, ok := a.Dynamic.(*request); ok && was.GetReinvocationContext().IsReinvoke() {
		r.GetReinvocationContext().SetIsReinvoke()
	}
	a.Dynamic = r
	return r
}

func userOf(a *registry.Attributes) user.Info {
	if a.User == nil { // the server itself
		return &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup}}
	}
	return a.User
}

// kindOf is the kind that the request's body has.
func kindOf(a *registry.Attributes) schema.GroupVersionKind {
	if a.Operation == string(admission.Connect) && a.Object != nil {
		return a.Object.GetObjectKind().GroupVersionKind()
	}
	if kind, is := bodyOf(a.Resource, a.Subresource); is {
		return kind
	}
	if a.Served != nil {
		return a.Served.Row().GVK()
	}
	return a.Resource.GVK()
}

// bodyOf is the kind of a subresource whose body is not the object itself.
func bodyOf(row *api.Resource, sub string) (schema.GroupVersionKind, bool) {
	if sub == "scale" {
		return schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}, true
	}
	for i := range row.Subresources {
		if s := &row.Subresources[i]; s.Name == sub && s.Kind != "" && s.Version != "" {
			return schema.GroupVersionKind{Group: s.Group, Version: s.Version, Kind: s.Kind}, true
		}
	}
	return schema.GroupVersionKind{}, false
}

// storedKind is the kind of the Go type that the registry works with, where a request may speak another version of it.
func storedKind(a *registry.Attributes, kind schema.GroupVersionKind) schema.GroupVersionKind {
	if _, is := bodyOf(a.Resource, a.Subresource); !is && a.Operation != string(admission.Connect) {
		return a.Resource.GVK()
	}
	return kind
}

func resourceOf(a *registry.Attributes) schema.GroupVersionResource {
	if a.Served != nil {
		return a.Served.Row().GVR()
	}
	return a.Resource.GVR()
}

func nameOf(a *registry.Attributes) string {
	if obj, ok := a.Object.(metav1.Object); ok && a.Name == "" {
		return obj.GetName()
	}
	return a.Name
}

// namespaceOf counts a namespace that is there as within itself, as upstream does.
func namespaceOf(a *registry.Attributes) string {
	if a.Resource.Group == "" && a.Resource.Plural == "namespaces" {
		return a.Name
	}
	return a.Namespace
}

// options are those of the operation: a patch is, to admission, a creation or an update.
func options(a *registry.Attributes) runtime.Object {
	kind := func(o runtime.Object, name string) runtime.Object {
		o.GetObjectKind().SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind(name))
		return o
	}
	switch o := a.Options.(type) {
	case *metav1.CreateOptions:
		return kind(o.DeepCopy(), "CreateOptions")
	case *metav1.UpdateOptions:
		return kind(o.DeepCopy(), "UpdateOptions")
	case *metav1.DeleteOptions:
		return kind(o.DeepCopy(), "DeleteOptions")
	case *metav1.PatchOptions:
		if a.Operation == string(admission.Create) {
			return kind(&metav1.CreateOptions{DryRun: o.DryRun, FieldManager: o.FieldManager, FieldValidation: o.FieldValidation}, "CreateOptions")
		}
		return kind(&metav1.UpdateOptions{DryRun: o.DryRun, FieldManager: o.FieldManager, FieldValidation: o.FieldValidation}, "UpdateOptions")
	}
	return nil
}

// warnings makes what plug-ins warn of reach the client.
func (r *request) warnings(ctx context.Context) context.Context {
	return warning.WithWarningRecorder(ctx, r)
}

// AddWarning implements warning.Recorder.
func (r *request) AddWarning(_, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.warn != nil {
		r.warn(text)
	}
}

// AddAnnotation keeps an annotation for the audit event too, if there is one.
func (r *request) AddAnnotation(key, value string) error {
	return r.AddAnnotationWithLevel(key, value, auditinternal.LevelMetadata)
}

// AddAnnotationWithLevel is AddAnnotation for events of at least that level.
func (r *request) AddAnnotationWithLevel(key, value string, level auditinternal.Level) error {
	if err := r.Attributes.AddAnnotationWithLevel(key, value, level); err != nil {
		return err
	}
	if event := audit.AuditContextFrom(r.ctx); event != nil && event.GetEventLevel().GreaterOrEqual(level) {
		audit.AddAuditAnnotation(r.ctx, key, value)
	}
	return nil
}
