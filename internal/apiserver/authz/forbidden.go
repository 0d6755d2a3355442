package authz

import (
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// Forbidden is the 403 for a request that was not allowed, in upstream's words.
func Forbidden(at authorizer.Attributes, reason string) *apierrors.StatusError {
	text := denial(at)
	if reason != "" {
		text += ": " + reason
	}
	return apierrors.NewForbidden(schema.GroupResource{Group: at.GetAPIGroup(), Resource: at.GetResource()}, at.GetName(), errors.New(text))
}

func denial(at authorizer.Attributes) string {
	name := ""
	if u := at.GetUser(); u != nil {
		name = u.GetName()
	}
	if !at.IsResourceRequest() {
		return fmt.Sprintf("User %q cannot %s path %q", name, at.GetVerb(), at.GetPath())
	}
	resource := at.GetResource()
	if sub := at.GetSubresource(); sub != "" {
		resource += "/" + sub
	}
	text := fmt.Sprintf("User %q cannot %s resource %q in API group %q", name, at.GetVerb(), resource, at.GetAPIGroup())
	if ns := at.GetNamespace(); ns != "" {
		return fmt.Sprintf("%s in the namespace %q", text, ns)
	}
	return text + " at the cluster scope"
}
