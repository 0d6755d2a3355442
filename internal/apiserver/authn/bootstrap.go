package authn

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/user"
)

// A bootstrap token is ID.SECRET, kept in the Secret bootstrap-token-ID. It says of its user no more than that somebody who may let machines
// join has given it away.
var (
	bootstrapToken = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})$`)
	bootstrapGroup = regexp.MustCompile(`^system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]$`)
)

const (
	bootstrappers       = "system:bootstrappers"
	bootstrapUserPrefix = "system:bootstrap:"
	bootstrapSecretType = corev1.SecretType("bootstrap.kubernetes.io/token")
)

var errBootstrapToken = errors.New("the bootstrap token is unknown, was deleted, or has expired")

// bootstrapUser is the user of a bootstrap token; is says whether the token is one at all. The secret is read every time, so that a token that
// was deleted is worth nothing from then on.
func (a *Authenticator) bootstrapUser(ctx context.Context, token string) (u user.Info, is bool, err error) {
	parts := bootstrapToken.FindStringSubmatch(token)
	if parts == nil {
		return nil, false, nil
	}
	id, key := parts[1], parts[2]
	secret, err := lookup[*corev1.Secret](ctx, a, "secrets", "kube-system/bootstrap-token-"+id)
	if err != nil {
		return nil, true, err
	}
	if secret == nil || secret.DeletionTimestamp != nil || secret.Type != bootstrapSecretType || string(secret.Data["token-id"]) != id {
		return nil, true, errBootstrapToken
	}
	if subtle.ConstantTimeCompare(secret.Data["token-secret"], []byte(key)) != 1 {
		return nil, true, errBootstrapToken
	}
	if text, limited := secret.Data["expiration"]; limited {
		until, err := time.Parse(time.RFC3339, string(text))
		if err != nil || !a.now().Before(until) {
			return nil, true, errBootstrapToken
		}
	}
	if string(secret.Data["usage-bootstrap-authentication"]) != "true" {
		return nil, true, errBootstrapToken
	}
	groups := []string{bootstrappers}
	for g := range strings.SplitSeq(string(secret.Data["auth-extra-groups"]), ",") {
		if g == "" {
			continue
		}
		if !bootstrapGroup.MatchString(g) {
			return nil, true, fmt.Errorf("secret %s: the group %q is not one of system:bootstrappers", secret.Name, g)
		}
		groups = append(groups, g)
	}
	return &user.DefaultInfo{Name: bootstrapUserPrefix + id, Groups: withAuthenticated(groups)}, true, nil
}
