package registry_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"skiff.dev/skiff/internal/registry/registrytest"
)

// FuzzList feeds tokens, revisions and selectors to lists. Whatever they say, the answer is a page or the client's fault.
func FuzzList(f *testing.F) {
	r := registrytest.Start(f, nil, nil)
	r.Must(configMap("a"), configMap("b"), registrytest.Pod("p", func(p *corev1.Pod) { p.Spec.NodeName = "n" }))
	page, err := r.List(ctx, r.Request(registrytest.Admin, "", "configmaps", "", "default", ""), &metainternalversion.ListOptions{Limit: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(page.Continue, "", "", "", int64(1))
	f.Add("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiLi4vIn0", "", "", "", int64(1))
	f.Add("", "0", "metadata.name=a,metadata.namespace!=b", "a in (b,c),!d", int64(0))
	f.Add("", "1", "spec.nodeName=n", "", int64(2))
	f.Add("", "-1", `a\=b=c\,`, "a", int64(-1))
	f.Fuzz(func(t *testing.T, token, revision, field, label string, limit int64) {
		o := &metainternalversion.ListOptions{Continue: token, Limit: limit}
		if len(revision) < 2 { // later ones are waited for
			o.ResourceVersion = revision
		}
		var err error
		if o.FieldSelector, err = fields.ParseSelector(field); err != nil {
			return
		}
		if o.LabelSelector, err = labels.Parse(label); err != nil {
			return
		}
		for _, plural := range []string{"configmaps", "pods"} {
			page, err := r.List(ctx, r.Request(registrytest.Admin, "", plural, "", "default", ""), o)
			switch {
			case err == nil && page == nil:
				t.Fatal("neither a page nor an error")
			case err != nil && !apierrors.IsBadRequest(err) && !apierrors.IsInvalid(err) && !apierrors.IsResourceExpired(err) && !apierrors.IsTimeout(err):
				t.Fatal(err)
			case err == nil && limit > 0 && int64(len(page.Entries)) > limit:
				t.Fatalf("%d entries where %d were asked for", len(page.Entries), limit)
			}
		}
	})
}
