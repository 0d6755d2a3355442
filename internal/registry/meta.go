package registry

import (
	"fmt"
	"reflect"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api"
)

// now is the API's clock: whole seconds, as it is stored.
func now() metav1.Time { return metav1.NewTime(time.Now().UTC().Truncate(time.Second)) }

const (
	randomLength  = 5
	maxNameLength = 63
)

// generateName is upstream's: a base, cut if need be, and five characters that hardly ever collide.
func generateName(base string) string {
	if len(base) > maxNameLength-randomLength {
		base = base[:maxNameLength-randomLength]
	}
	return base + rand.String(randomLength)
}

// place checks an object's namespace and name against the request's and fills in what is missing.
func place(q *Request, obj api.Object) error {
	if err := addressed(q, obj); err != nil {
		return err
	}
	switch ns := obj.GetNamespace(); {
	case q.Resource.Namespaced:
		obj.SetNamespace(q.Namespace)
	case ns != "":
		return invalid(q, obj, field.Forbidden(field.NewPath("metadata", "namespace"), "not allowed on this type"))
	}
	if obj.GetName() == "" {
		obj.SetName(q.Name)
	}
	return nil
}

// addressed refuses a body that says it is of another namespace or name than the path. What is a subresource's is held to it like an object.
func addressed(q *Request, body metav1.Object) error {
	if ns := body.GetNamespace(); q.Resource.Namespaced && ns != "" && ns != q.Namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	if name := body.GetName(); q.Name != "" && name != "" && name != q.Name {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", name, q.Name))
	}
	return nil
}

// beginMeta gives a new object its system metadata; a client's are dropped.
func beginMeta(res *api.Resource, obj api.Object) {
	obj.SetUID(uuid.NewUUID())
	obj.SetCreationTimestamp(now())
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
	obj.SetGeneration(0)
	if res.Generation {
		obj.SetGeneration(1)
	}
	obj.GetObjectKind().SetGroupVersionKind(res.GVK())
}

// keepMeta carries an object's system metadata over an update. An empty field means "as it was".
func keepMeta(obj, old api.Object) {
	if obj.GetUID() == "" {
		obj.SetUID(old.GetUID())
	}
	obj.SetCreationTimestamp(old.GetCreationTimestamp())
	obj.SetDeletionTimestamp(old.GetDeletionTimestamp())
	obj.SetDeletionGracePeriodSeconds(old.GetDeletionGracePeriodSeconds())
	obj.SetSelfLink("")
	obj.SetGeneration(old.GetGeneration())
	if obj.GetGenerateName() == "" {
		obj.SetGenerateName(old.GetGenerateName())
	}
	if obj.GetResourceVersion() == "" {
		obj.SetResourceVersion(old.GetResourceVersion())
	}
}

func nameRule(res *api.Resource) func(string, bool) []string {
	if res.ValidateName != nil {
		return res.ValidateName
	}
	return apivalidation.NameIsDNSSubdomain
}

func validateMeta(res *api.Resource, obj api.Object) field.ErrorList {
	at := field.NewPath("metadata")
	errs := apivalidation.ValidateObjectMetaAccessor(obj, res.Namespaced, nameRule(res), at)
	for _, why := range path.IsValidPathSegmentName(obj.GetName()) {
		errs = append(errs, field.Invalid(at.Child("name"), obj.GetName(), why))
	}
	return errs
}

func validateMetaUpdate(obj, old api.Object) field.ErrorList {
	at := field.NewPath("metadata")
	errs := apivalidation.ValidateObjectMetaAccessorUpdate(obj, old, at)
	errs = append(errs, metavalidation.ValidateLabels(obj.GetLabels(), at.Child("labels"))...)
	return append(errs, apivalidation.ValidateAnnotations(obj.GetAnnotations(), at.Child("annotations"))...)
}

func invalid(q *Request, obj api.Object, errs ...*field.Error) error {
	name := obj.GetName()
	if name == "" {
		name = obj.GetGenerateName()
	}
	return apierrors.NewInvalid(q.groupKind(), name, errs)
}

// part is the field of that name of an object's struct; invalid if it has none.
func part(obj api.Object, name string) reflect.Value {
	return reflect.ValueOf(obj).Elem().FieldByName(name)
}

// copyPart sets a field of obj to what it is in from. The objects share it then: from is not to be changed any more.
func copyPart(obj, from api.Object, name string) {
	if p := part(obj, name); p.IsValid() {
		p.Set(part(from, name))
	}
}

// specChanged says whether anything besides metadata and status differs.
func specChanged(obj, old api.Object) bool {
	a, b := reflect.ValueOf(obj).Elem(), reflect.ValueOf(old).Elem()
	for i := range a.NumField() {
		switch a.Type().Field(i).Name {
		case "TypeMeta", "ObjectMeta", "Status":
			continue
		}
		if !apiequality.Semantic.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			return true
		}
	}
	return false
}

// same says that writing obj over old would change nothing.
func same(obj, old api.Object) bool {
	return apiequality.Semantic.DeepEqual(obj, old)
}
