package registry

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry/fieldmanager"
)

// by is the request with its options and the field manager that they name.
func (q *Request) by(manager string, options runtime.Object) *Request {
	out := *q
	out.manager, out.options = manager, options
	return &out
}

func invalidOptions(kind string, errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: kind}, "", errs)
}

// write is the request as the field manager sees it. Kubelets on other nodes are parts of Skiff like those in this process.
func (q *Request) write() fieldmanager.Write {
	w := fieldmanager.Write{Resource: q.Resource, Served: q.Served, Subresource: q.Subresource, Manager: q.manager}
	switch {
	case q.manager != "":
	case q.UserAgent == "" || q.User != nil && slices.Contains(q.User.GetGroups(), user.NodesGroup):
		w.Manager, w.Inside = partName(q.User), true
	default:
		w.Manager = agentName(q.UserAgent)
	}
	return w
}

// partName is what upstream's part with that identity calls itself.
func partName(u user.Info) string {
	if u == nil {
		return "kube-apiserver"
	}
	switch name := u.GetName(); {
	case name == user.APIServerUser:
		return "kube-apiserver"
	case strings.HasPrefix(name, "system:node:"):
		return "kubelet"
	default:
		return strings.TrimPrefix(name, "system:")
	}
}

// agentName is a User-Agent's first product: up to a slash, printable, and no longer than a field manager may be.
func agentName(agent string) string {
	product, _, _ := strings.Cut(agent, "/")
	var out strings.Builder
	for _, r := range product {
		if !unicode.IsPrint(r) {
			continue
		}
		if out.Len()+utf8.RuneLen(r) > metavalidation.FieldManagerMaxLength {
			break
		}
		out.WriteRune(r)
	}
	return out.String()
}

// manage sets obj's managedFields for a write, unless an apply or a scale has done so. Tracking that fails must not fail the write.
func (r *Registry) manage(q *Request, old, obj api.Object) {
	if q.managed {
		return
	}
	if err := r.managers.Update(q.write(), old, obj); err != nil {
		r.cfg.Log.Error("field ownership is lost", "kind", q.Resource.Kind, "namespace", obj.GetNamespace(), "name", obj.GetName(), "err", err)
	}
}

// settled is the request whose object has its managedFields already.
func (q *Request) settled() *Request {
	out := *q
	out.managed = true
	return &out
}
