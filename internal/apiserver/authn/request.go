package authn

import (
	"context"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"

	"skiff.dev/skiff/internal/registry"
)

const (
	defaultSeconds = 3600
	minSeconds     = 600
	maxSeconds     = 1 << 32
	// Pods ask for an hour and seven seconds. Such tokens are good for a year, because programs exist that read theirs only once; from warnAfter on their
	// use is remarked upon.
	podSeconds     = 3607
	extendedLife   = 365 * 24 * time.Hour
	requestKind    = "TokenRequest"
	differentUID   = "the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated"
	otherAccount   = "cannot bind token for serviceaccount %q to pod running with different serviceaccount name."
	unboundableObj = "cannot bind token to object of type %s"
)

// Token is the registry.Virtual for serviceaccounts/token: it issues a token for the account the request names.
func (a *Authenticator) Token(ctx context.Context, req *registry.Request, obj runtime.Object, _ bool) (runtime.Object, error) {
	in, ok := obj.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest("not a TokenRequest")
	}
	account, err := lookup[*corev1.ServiceAccount](ctx, a, "serviceaccounts", req.Namespace+"/"+req.Name)
	switch {
	case err != nil:
		return nil, err
	case account == nil:
		return nil, apierrors.NewNotFound(corev1.Resource("serviceaccounts"), req.Name)
	case in.Name != "" && in.Name != req.Name:
		return nil, apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", in.Name, req.Name))
	case in.Namespace != "" && in.Namespace != req.Namespace:
		return nil, apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	out := in.DeepCopy()
	out.Name, out.Namespace, out.CreationTimestamp = req.Name, req.Namespace, metav1.NewTime(a.now())
	if err := completeRequest(out, a.cfg.Audiences); err != nil {
		return nil, err
	}
	b := binding{Namespace: req.Namespace, Account: ref{account.Name, account.UID}}
	if out.Spec.BoundObjectRef != nil {
		if err := a.bind(ctx, out, &b); err != nil {
			return nil, err
		}
	}
	c := a.claimsFor(out, b)
	out.Status.Token, err = jwt.Signed(a.keys.signer).Claims(c).Serialize()
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("sign a token for service account %s/%s: %w", req.Namespace, req.Name, err))
	}
	out.Status.ExpirationTimestamp = metav1.NewTime(out.CreationTimestamp.Add(time.Duration(*out.Spec.ExpirationSeconds) * time.Second))
	return out, nil
}

// completeRequest fills the defaults and checks the life that is asked for.
func completeRequest(tr *authenticationv1.TokenRequest, audiences []string) error {
	if tr.Spec.ExpirationSeconds == nil {
		seconds := int64(defaultSeconds)
		tr.Spec.ExpirationSeconds = &seconds
	}
	if len(tr.Spec.Audiences) == 0 {
		tr.Spec.Audiences = audiences
	}
	path, seconds := field.NewPath("spec", "expirationSeconds"), *tr.Spec.ExpirationSeconds
	var errs field.ErrorList
	if seconds < minSeconds {
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration less than 10 minutes"))
	}
	if seconds > maxSeconds {
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(authenticationv1.SchemeGroupVersion.WithKind(requestKind).GroupKind(), "", errs)
}

// bind ties the token to the object that the request names, and returns the reference with the object's uid.
func (a *Authenticator) bind(ctx context.Context, tr *authenticationv1.TokenRequest, b *binding) error {
	want := tr.Spec.BoundObjectRef
	gvk := schema.FromAPIVersionAndKind(want.APIVersion, want.Kind)
	inNamespace := tr.Namespace + "/" + want.Name
	var uid types.UID
	switch {
	case gvk == corev1.SchemeGroupVersion.WithKind("Pod"):
		pod, err := lookup[*corev1.Pod](ctx, a, "pods", inNamespace)
		if err != nil {
			return err
		}
		if pod == nil {
			return apierrors.NewNotFound(corev1.Resource("pods"), want.Name)
		}
		if pod.Spec.ServiceAccountName != tr.Name {
			return apierrors.NewBadRequest(fmt.Sprintf(otherAccount, tr.Name))
		}
		uid, b.Pod = pod.UID, &ref{pod.Name, pod.UID}
		if b.Node, err = a.nodeRef(ctx, pod.Spec.NodeName); err != nil {
			return err
		}
	case gvk == corev1.SchemeGroupVersion.WithKind("Node"):
		node, err := lookup[*corev1.Node](ctx, a, "nodes", want.Name)
		if err != nil {
			return err
		}
		if node == nil {
			return apierrors.NewNotFound(corev1.Resource("nodes"), want.Name)
		}
		uid, b.Node = node.UID, &ref{node.Name, node.UID}
	case gvk == corev1.SchemeGroupVersion.WithKind("Secret"):
		secret, err := lookup[*corev1.Secret](ctx, a, "secrets", inNamespace)
		if err != nil {
			return err
		}
		if secret == nil {
			return apierrors.NewNotFound(corev1.Resource("secrets"), want.Name)
		}
		uid, b.Secret = secret.UID, &ref{secret.Name, secret.UID}
	default:
		return apierrors.NewBadRequest(fmt.Sprintf(unboundableObj, gvk))
	}
	if want.UID != "" && want.UID != uid {
		return apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, want.Name, fmt.Errorf(differentUID, want.UID))
	}
	want.UID = uid
	return nil
}

// nodeRef says on which node a pod's token will be used; a node that has gone has no uid.
func (a *Authenticator) nodeRef(ctx context.Context, name string) (*ref, error) {
	if name == "" {
		return nil, nil
	}
	node, err := lookup[*corev1.Node](ctx, a, "nodes", name)
	if err != nil {
		return nil, err
	}
	out := &ref{Name: name}
	if node != nil {
		out.UID = node.UID
	}
	return out, nil
}

func (a *Authenticator) claimsFor(tr *authenticationv1.TokenRequest, b binding) *claims {
	now, seconds := a.now(), *tr.Spec.ExpirationSeconds
	end := now.Add(time.Duration(seconds) * time.Second)
	if seconds == podSeconds && b.Pod != nil && len(intersect(tr.Spec.Audiences, a.cfg.Audiences)) == len(tr.Spec.Audiences) {
		b.WarnAfter = jwt.NewNumericDate(end)
		end = now.Add(extendedLife)
	}
	return &claims{
		Claims: jwt.Claims{
			Issuer: a.cfg.Issuer, Subject: serviceaccount.MakeUsername(b.Namespace, b.Account.Name), Audience: tr.Spec.Audiences,
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(end), ID: string(uuid.NewUUID()),
		},
		Kubernetes: b,
	}
}
