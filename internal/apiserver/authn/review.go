package authn

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/registry"
)

// Virtuals are what this package answers, by the names registry.Handle takes.
func (a *Authenticator) Virtuals() map[string]registry.Virtual {
	return map[string]registry.Virtual{
		"serviceaccounts/token":                            a.Token,
		authenticationv1.GroupName + "/tokenreviews":       a.TokenReview,
		authenticationv1.GroupName + "/selfsubjectreviews": a.SelfSubjectReview,
	}
}

// TokenReview says whose a token is. A wrong token is an answer, not an error.
func (a *Authenticator) TokenReview(ctx context.Context, _ *registry.Request, obj runtime.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authenticationv1.TokenReview)
	if !ok {
		return nil, apierrors.NewBadRequest("not a TokenReview")
	}
	if in.Spec.Token == "" {
		return nil, apierrors.NewBadRequest("token is required for TokenReview in authentication")
	}
	out := in.DeepCopy()
	audiences := out.Spec.Audiences
	if len(audiences) == 0 {
		audiences = a.cfg.Audiences
	}
	u, matching, err := a.token(ctx, out.Spec.Token, audiences)
	if err != nil {
		out.Status = authenticationv1.TokenReviewStatus{Error: err.Error()}
		return out, nil
	}
	out.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: infoOf(u), Audiences: matching}
	return out, nil
}

// SelfSubjectReview says who is asking.
func (a *Authenticator) SelfSubjectReview(_ context.Context, req *registry.Request, obj runtime.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authenticationv1.SelfSubjectReview)
	if !ok {
		return nil, apierrors.NewBadRequest("not a SelfSubjectReview")
	}
	if req.User == nil {
		return nil, apierrors.NewBadRequest("no user present on request")
	}
	out := in.DeepCopy()
	out.Status.UserInfo = infoOf(req.User)
	return out, nil
}

func infoOf(u user.Info) authenticationv1.UserInfo {
	out := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if out.Extra == nil {
			out.Extra = map[string]authenticationv1.ExtraValue{}
		}
		out.Extra[k] = v
	}
	return out
}
