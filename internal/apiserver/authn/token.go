package authn

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/store"
)

// claims of a service-account token, as upstream writes them.
type claims struct {
	jwt.Claims
	Kubernetes binding `json:"kubernetes.io"`
}

// binding says whose token it is and what it lives and dies with.
type binding struct {
	Namespace string           `json:"namespace"`
	Account   ref              `json:"serviceaccount"`
	Pod       *ref             `json:"pod,omitempty"`
	Secret    *ref             `json:"secret,omitempty"`
	Node      *ref             `json:"node,omitempty"`
	WarnAfter *jwt.NumericDate `json:"warnafter,omitempty"`
}

type ref struct {
	Name string    `json:"name"`
	UID  types.UID `json:"uid"`
}

const (
	// leeway is for clocks that differ.
	leeway = time.Minute
	// afterlife is how long a pod's token is good beyond the pod's grace period, so that its last words get through.
	afterlife  = time.Minute
	credential = "JTI="
)

// verified are the claims of a token that this cluster signed and whose time has come and not gone.
func (a *Authenticator) verified(token string) (*claims, error) {
	sum := sha256.Sum256([]byte(token))
	c, known := a.tokens.Get(sum)
	if !known {
		var err error
		if c, err = a.parse(token); err != nil {
			return nil, err
		}
		a.tokens.Add(sum, c)
	}
	now := a.now()
	switch {
	case c.NotBefore != nil && now.Add(leeway).Before(c.NotBefore.Time()):
		return nil, errors.New("service account token is not valid yet")
	case c.Expiry == nil || now.Add(-leeway).After(c.Expiry.Time()):
		return nil, errors.New("service account token has expired")
	case c.IssuedAt != nil && now.Add(leeway).Before(c.IssuedAt.Time()):
		return nil, errors.New("service account token is issued in the future")
	}
	return c, nil
}

func (a *Authenticator) parse(token string) (*claims, error) {
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil || len(parsed.Headers) != 1 {
		return nil, errUnknownToken
	}
	c := &claims{}
	for _, k := range a.keys.find(parsed.Headers[0].KeyID) {
		if err = parsed.Claims(k.Key, c); err == nil {
			break
		}
		c = &claims{}
	}
	ns, name, splitErr := serviceaccount.SplitUsername(c.Subject)
	switch {
	case err != nil, c.Issuer != a.cfg.Issuer, splitErr != nil:
		return nil, errUnknownToken
	case ns != c.Kubernetes.Namespace || name != c.Kubernetes.Account.Name:
		return nil, errors.New("the token's subject is not the service account of its claims")
	}
	return c, nil
}

// lookup reads one core object: memory first, and before absence is believed, memory that is known to be current.
func lookup[T api.Object](ctx context.Context, a *Authenticator, plural, key string) (found T, err error) {
	c := a.cfg.Registry.Store().Collection(a.cfg.Registry.Table().ByResource(schema.GroupResource{Resource: plural}))
	e, err := c.Get(ctx, key, store.Read{})
	if err == nil && e == nil {
		e, err = c.Get(ctx, key, store.Read{Consistent: true})
	}
	if err == nil && e != nil {
		found, _ = e.Object().(T)
	}
	return found, err
}

// invalidated: what the token is bound to is no longer there.
func invalidated(what string) error {
	return fmt.Errorf("service account token has been invalidated: %s", what)
}

// account checks the token against what exists now, and returns its user.
func (a *Authenticator) account(ctx context.Context, c *claims) (user.Info, error) {
	b := &c.Kubernetes
	account, err := lookup[*corev1.ServiceAccount](ctx, a, "serviceaccounts", b.Namespace+"/"+b.Account.Name)
	switch {
	case err != nil:
		return nil, err
	case account == nil || a.ended(account):
		return nil, invalidated("its service account is gone")
	case account.UID != b.Account.UID:
		return nil, fmt.Errorf("service account UID (%s) does not match claim (%s)", account.UID, b.Account.UID)
	}
	info := serviceaccount.ServiceAccountInfo{Namespace: b.Namespace, Name: b.Account.Name, UID: string(b.Account.UID)}
	if c.ID != "" {
		info.CredentialID = credential + c.ID
	}
	if err := a.boundObject(ctx, b, &info); err != nil {
		return nil, err
	}
	u := info.UserInfo().(*user.DefaultInfo)
	u.Groups = withAuthenticated(u.Groups)
	return u, nil
}

// boundObject checks the pod, secret or node, and adds what there is to say of it.
func (a *Authenticator) boundObject(ctx context.Context, b *binding, info *serviceaccount.ServiceAccountInfo) error {
	switch {
	case b.Secret != nil:
		secret, err := lookup[*corev1.Secret](ctx, a, "secrets", b.Namespace+"/"+b.Secret.Name)
		if err != nil {
			return err
		}
		if secret == nil || secret.UID != b.Secret.UID || a.ended(secret) {
			return invalidated("its secret is gone")
		}
	case b.Pod != nil:
		pod, err := lookup[*corev1.Pod](ctx, a, "pods", b.Namespace+"/"+b.Pod.Name)
		if err != nil {
			return err
		}
		if pod == nil || pod.UID != b.Pod.UID || a.ended(pod) {
			return invalidated("its pod is gone")
		}
		info.PodName, info.PodUID = b.Pod.Name, string(b.Pod.UID)
		if b.Node != nil {
			info.NodeName, info.NodeUID = b.Node.Name, string(b.Node.UID)
		}
	case b.Node != nil:
		node, err := lookup[*corev1.Node](ctx, a, "nodes", b.Node.Name)
		if err != nil {
			return err
		}
		if node == nil || node.UID != b.Node.UID || a.ended(node) {
			return invalidated("its node is gone")
		}
		info.NodeName, info.NodeUID = b.Node.Name, string(b.Node.UID)
	}
	return nil
}

// ended: an object's deletion time is the end of its grace period.
func (a *Authenticator) ended(obj api.Object) bool {
	t := obj.GetDeletionTimestamp()
	return t != nil && a.now().After(t.Add(afterlife))
}
