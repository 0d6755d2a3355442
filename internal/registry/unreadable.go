package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/store"
)

// Objects whose stored values can't be read: lists leave them out and say so, reads fail, and they are deleted only by who says that it must be (KEP-3926).

// unsafe says that deletion is to remove what can't be read, and nothing else.
func unsafe(o *metav1.DeleteOptions) bool {
	return o.IgnoreStoreReadErrorWithClusterBreakingPotential != nil && *o.IgnoreStoreReadErrorWithClusterBreakingPotential
}

// deleteUnreadable removes a value that nobody can look at: not its finalizers, and no admission.
func (r *Registry) deleteUnreadable(ctx context.Context, q *Request, dryRun bool) (*Result, error) {
	c, err := r.collection(q)
	if err != nil {
		return nil, err
	}
	if err := c.DeleteUnreadable(ctx, q.key(), dryRun); err != nil {
		return nil, err
	}
	return &Result{Deleted: true}, nil
}

func unreadable(q *Request, why error) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonStoreReadError,
		Details: &metav1.StatusDetails{Group: q.groupResource().Group, Kind: q.groupResource().Resource, Name: q.Name},
		Message: fmt.Sprintf("%s %q is stored and cannot be read: %v; restore it from a snapshot, or delete it with ignoreStoreReadErrorWithClusterBreakingPotential",
			q.groupResource(), q.Name, why),
	}}
}

// mostNamed is how many objects that can't be read a list names.
const mostNamed = 10

// warnUnreadable tells who lists what is left out.
func (q *Request) warnUnreadable(c *store.Collection) {
	if q.Warn == nil {
		return
	}
	if keys := c.UnreadableIn(q.Namespace); len(keys) > 0 {
		more := ""
		if n := len(keys) - mostNamed; n > 0 {
			keys, more = keys[:mostNamed], fmt.Sprintf(" and %d more", n)
		}
		q.Warn(fmt.Sprintf("left out, because what is stored of them cannot be read: %s%s", strings.Join(keys, ", "), more))
	}
}
