package authn

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
)

// The headers in which a front proxy, this server's own aggregation among them, says who is asking.
const (
	RemoteUser        = "X-Remote-User"
	RemoteUID         = "X-Remote-Uid"
	RemoteGroup       = "X-Remote-Group"
	RemoteExtraPrefix = "X-Remote-Extra-"
)

// FrontProxyName is the only name of a certificate that may speak for others by header.
const FrontProxyName = "front-proxy-client"

// PublishedTrust is the data of the ConfigMap extension-apiserver-authentication: what API servers behind this one need to believe it.
func PublishedTrust(clientCA, frontProxyCA []byte) map[string]string {
	list := func(s string) string {
		b, _ := json.Marshal([]string{s}) // strings always can be
		return string(b)
	}
	return map[string]string{
		"client-ca-file":                     string(clientCA),
		"requestheader-client-ca-file":       string(frontProxyCA),
		"requestheader-allowed-names":        list(FrontProxyName),
		"requestheader-username-headers":     list(RemoteUser),
		"requestheader-uid-headers":          list(RemoteUID),
		"requestheader-group-headers":        list(RemoteGroup),
		"requestheader-extra-headers-prefix": list(RemoteExtraPrefix),
	}
}

// frontProxy authenticates by header those whom a certificate of the front proxy's authority speaks for.
func frontProxy(authority *x509.CertPool) authenticator.Request {
	verify := func() (x509.VerifyOptions, bool) {
		o := x509request.DefaultVerifyOptions()
		o.Roots = authority
		return o, true
	}
	static := func(s string) headerrequest.StringSliceProvider { return headerrequest.StaticStringSlice{s} }
	return headerrequest.NewDynamicVerifyOptionsSecure(verify, static(FrontProxyName), static(RemoteUser), static(RemoteUID), static(RemoteGroup),
		static(RemoteExtraPrefix))
}

// spokenFor is the user that a front proxy names, if the request comes from one.
func (a *Authenticator) spokenFor(r *http.Request) user.Info {
	if a.proxy == nil || len(r.Header[RemoteUser]) == 0 {
		return nil
	}
	resp, ok, err := a.proxy.AuthenticateRequest(r)
	if err != nil || !ok {
		return nil // whoever isn't a front proxy may send such headers; they say nothing
	}
	return signedIn(resp.User)
}

// foreign asks the others whose a token is.
func (a *Authenticator) foreign(ctx context.Context, token string, audiences []string) (user.Info, []string, error) {
	if a.cfg.External == nil {
		return nil, nil, errUnknownToken
	}
	ctx = authenticator.WithAudiences(ctx, audiences)
	var errs []error
	for _, t := range a.cfg.External.known() {
		resp, ok, err := t.AuthenticateToken(ctx, token)
		switch {
		case err != nil:
			errs = append(errs, err)
		case ok:
			return signedIn(resp.User), resp.Audiences, nil
		}
	}
	return nil, nil, errors.Join(append(errs, errUnknownToken)...)
}

// signedIn adds the group of all who have signed in.
func signedIn(u user.Info) user.Info {
	return &user.DefaultInfo{Name: u.GetName(), UID: u.GetUID(), Groups: withAuthenticated(u.GetGroups()), Extra: u.GetExtra()}
}
