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
	"k8s.io/apimachinery/pkg/api/validation"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"skiff.dev/skiff/internal/apiserver/authz"
)

// Impersonate returns the user that the request's Impersonate-* headers ask to be, and the verb by which that is allowed if it is one that holds for some
// requests only (KEP-5284). Where there are no headers it is the one who asks. It removes the headers, so that nobody further on acts on them again. The error is
// a status: 403 when who asks may not, 400 when a group is named without a user.
func Impersonate(ctx context.Context, r *http.Request, at *authorizer.AttributesRecord, may authorizer.UnconditionalAuthorizer) (u user.Info, constraint string, err error) {
	wanted, err := wantedUser(r.Header)
	if wanted == nil || err != nil {
		return at.User, "", err
	}
	for _, m := range modes {
		if !m.fits(wanted, at.User) {
			continue
		}
		refusal := m.allow(ctx, wanted, at, may)
		if refusal != nil {
			if err == nil {
				err = refusal
			}
			continue
		}
		m.addGroups(wanted)
		for name := range r.Header {
			if strings.HasPrefix(name, "Impersonate-") {
				r.Header.Del(name)
			}
		}
		if m.name != "" {
			constraint = m.verb()
		}
		return wanted, constraint, nil
	}
	return nil, "", err
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

// mode is a way in which impersonation is allowed: all but the last, which is the one of old, for some requests and users only.
type mode struct {
	name string // "" of the last
	fits func(wanted *user.DefaultInfo, u user.Info) bool
}

// modes are tried in this order.
var modes = []mode{
	{"associated-node", func(wanted *user.DefaultInfo, u user.Info) bool {
		_, _, err := serviceaccount.SplitUsername(u.GetName())
		name, ok := nodeName(wanted.Name)
		return ok && onlyName(wanted) && err == nil && slices.Equal(u.GetExtra()[serviceaccount.NodeNameKey], []string{name})
	}},
	{"arbitrary-node", func(wanted *user.DefaultInfo, _ user.Info) bool {
		_, ok := nodeName(wanted.Name)
		return ok && onlyName(wanted)
	}},
	{"serviceaccount", func(wanted *user.DefaultInfo, _ user.Info) bool {
		_, _, err := serviceaccount.SplitUsername(wanted.Name)
		return err == nil && onlyName(wanted)
	}},
	{"user-info", func(wanted *user.DefaultInfo, _ user.Info) bool {
		_, isNode := nodeName(wanted.Name)
		_, _, err := serviceaccount.SplitUsername(wanted.Name)
		return !isNode && err != nil
	}},
	{"", func(*user.DefaultInfo, user.Info) bool { return true }},
}

func onlyName(u *user.DefaultInfo) bool {
	return u.UID == "" && len(u.Groups) == 0 && len(u.Extra) == 0
}

// nodeName is the node whose user that is.
func nodeName(username string) (string, bool) {
	name, ok := strings.CutPrefix(username, "system:node:")
	return name, ok && len(validation.NameIsDNSSubdomain(name, false)) == 0
}

func (m mode) verb() string {
	if m.name == "" {
		return "impersonate"
	}
	return "impersonate:" + m.name
}

// allow asks whether the request may be made in this mode, and whether its user may be, in it, everything that is wanted; nil if so.
func (m mode) allow(ctx context.Context, wanted *user.DefaultInfo, at *authorizer.AttributesRecord, may authorizer.UnconditionalAuthorizer) error {
	if m.name != "" {
		on := *at
		on.Verb = "impersonate-on:" + m.name + ":" + at.Verb
		if err := allowed(ctx, on, may); err != nil {
			return err
		}
	}
	for _, one := range m.impersonations(wanted) {
		one.User, one.Verb, one.ResourceRequest, one.APIVersion = at.User, m.verb(), true, "v1"
		if why := never(&one); why != "" && m.name != "" {
			return authz.Forbidden(one, why)
		}
		if err := allowed(ctx, one, may); err != nil {
			return err
		}
	}
	return nil
}

func allowed(ctx context.Context, at authorizer.AttributesRecord, may authorizer.UnconditionalAuthorizer) error {
	decision, reason, err := may.Authorize(ctx, at)
	switch {
	case decision == authorizer.DecisionAllow:
		return nil
	case err != nil:
		reason = err.Error()
	}
	return authz.Forbidden(at, reason)
}

// never says why nobody may be that in a mode with constraints.
func never(at *authorizer.AttributesRecord) string {
	switch at.Resource {
	case "groups":
		switch at.Name {
		case "":
			return "impersonating the empty string group is not allowed"
		case user.SystemPrivilegedGroup:
			return "impersonating the system:masters group is not allowed"
		}
	case "userextras":
		if errs := utilvalidation.IsDomainPrefixedPath(field.NewPath("extra", "key"), at.Subresource); len(errs) > 0 {
			return "impersonating an invalid key in extra is not allowed: " + errs.ToAggregate().Error()
		}
		if at.Name == "" {
			return "impersonating the empty string value in extra is not allowed"
		}
	}
	return ""
}

// impersonations are what must be allowed for it: the user, the uid, every group, every extra value.
func (m mode) impersonations(u *user.DefaultInfo) []authorizer.AttributesRecord {
	group := authenticationv1.GroupName
	if m.name == "" {
		group = ""
	}
	who := authorizer.AttributesRecord{APIGroup: group, Resource: "users", Name: u.Name}
	if ns, account, err := serviceaccount.SplitUsername(u.Name); err == nil {
		who.Resource, who.Namespace, who.Name = "serviceaccounts", ns, account
	}
	switch node, isNode := nodeName(u.Name); {
	case m.name == "associated-node":
		who.Resource, who.Name = "nodes", "*" // whichever it runs on
	case m.name != "" && isNode:
		who.Resource, who.Name = "nodes", node
	}
	out := []authorizer.AttributesRecord{who}
	if u.UID != "" {
		out = append(out, authorizer.AttributesRecord{APIGroup: authenticationv1.GroupName, Resource: "uids", Name: u.UID})
	}
	for _, g := range u.Groups {
		out = append(out, authorizer.AttributesRecord{APIGroup: group, Resource: "groups", Name: g})
	}
	for _, k := range slices.Sorted(maps.Keys(u.Extra)) {
		for _, v := range u.Extra[k] {
			out = append(out, authorizer.AttributesRecord{APIGroup: authenticationv1.GroupName, Resource: "userextras", Subresource: k, Name: v})
		}
	}
	return out
}

// addGroups gives the wanted user the groups that such a user would have had by signing in.
func (m mode) addGroups(u *user.DefaultInfo) {
	if ns, _, err := serviceaccount.SplitUsername(u.Name); err == nil && len(u.Groups) == 0 {
		u.Groups = serviceaccount.MakeGroupNames(ns)
	}
	if _, isNode := nodeName(u.Name); isNode && m.name != "" {
		u.Groups = []string{user.NodesGroup}
	}
	if u.Name == user.Anonymous {
		if !slices.Contains(u.Groups, user.AllUnauthenticated) {
			u.Groups = append(u.Groups, user.AllUnauthenticated)
		}
		return
	}
	u.Groups = withAuthenticated(u.Groups)
}
