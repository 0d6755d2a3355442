package authn

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/apiserver/authz"
)

// Impersonate returns the user that the request's Impersonate-* headers ask to be, or u itself where there are none, and removes the headers, so that nobody
// further on acts on them again. The error is a status: 403 when u may not, 400 when a group is named without a user.
func Impersonate(ctx context.Context, r *http.Request, u user.Info, may authorizer.UnconditionalAuthorizer) (user.Info, error) {
	wanted, err := wantedUser(r.Header)
	if wanted == nil || err != nil {
		return u, err
	}
	ns, account, notAccount := serviceaccount.SplitUsername(wanted.Name)
	for _, at := range impersonations(wanted, ns, account, notAccount == nil) {
		at.User, at.Verb, at.ResourceRequest, at.APIVersion = u, "impersonate", true, "v1"
		decision, reason, err := may.Authorize(ctx, at)
		if decision != authorizer.DecisionAllow {
			if err != nil {
				reason = err.Error()
			}
			return nil, authz.Forbidden(at, reason)
		}
	}
	addGroups(wanted, ns, notAccount == nil)
	for name := range r.Header {
		if strings.HasPrefix(name, "Impersonate-") {
			r.Header.Del(name)
		}
	}
	return wanted, nil
}

// wantedUser reads the headers; nil without an error says that there are none.
func wantedUser(h http.Header) (*user.DefaultInfo, error) {
	u := &user.DefaultInfo{
		Name:   h.Get(authenticationv1.ImpersonateUserHeader),
		UID:    h.Get(authenticationv1.ImpersonateUIDHeader),
		Groups: slices.Clone(h.Values(authenticationv1.ImpersonateGroupHeader)),
		Extra:  map[string][]string{},
	}
	for name, values := range h {
		// Header names come in canonical case; extra keys are lower case, and what a header name can't hold is escaped.
		if k, ok := strings.CutPrefix(name, authenticationv1.ImpersonateUserExtraHeaderPrefix); ok && k != "" {
			k = strings.ToLower(k)
			if plain, err := url.PathUnescape(k); err == nil {
				k = plain
			}
			u.Extra[k] = append(u.Extra[k], values...)
		}
	}
	if u.Name != "" {
		return u, nil
	}
	if len(u.Groups) > 0 || len(u.Extra) > 0 || u.UID != "" {
		return nil, apierrors.NewBadRequest("groups, extra values or a uid are to be impersonated without a user: set " + authenticationv1.ImpersonateUserHeader + " too")
	}
	return nil, nil
}

// impersonations are what must be allowed for it: the user, every group, every extra value, the uid.
func impersonations(u *user.DefaultInfo, ns, account string, isAccount bool) []authorizer.AttributesRecord {
	const group = authenticationv1.GroupName
	out := []authorizer.AttributesRecord{{Resource: "users", Name: u.Name}}
	if isAccount {
		out[0] = authorizer.AttributesRecord{Resource: "serviceaccounts", Namespace: ns, Name: account}
	}
	for _, g := range u.Groups {
		out = append(out, authorizer.AttributesRecord{Resource: "groups", Name: g})
	}
	for _, k := range slices.Sorted(maps.Keys(u.Extra)) {
		for _, v := range u.Extra[k] {
			out = append(out, authorizer.AttributesRecord{APIGroup: group, Resource: "userextras", Subresource: k, Name: v})
		}
	}
	if u.UID != "" {
		out = append(out, authorizer.AttributesRecord{APIGroup: group, Resource: "uids", Name: u.UID})
	}
	return out
}

// addGroups gives the wanted user the groups that such a user would have had by signing in.
func addGroups(u *user.DefaultInfo, ns string, isAccount bool) {
	if isAccount && len(u.Groups) == 0 {
		u.Groups = serviceaccount.MakeGroupNames(ns)
	}
	if u.Name == user.Anonymous {
		if !slices.Contains(u.Groups, user.AllUnauthenticated) {
			u.Groups = append(u.Groups, user.AllUnauthenticated)
		}
		return
	}
	u.Groups = withAuthenticated(u.Groups)
}
