package dashboard

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// credential is what a session acts with: a token, or the chain of a client certificate whose key its owner has shown. The key is not kept.
type credential struct {
	token string
	chain []*x509.Certificate
}

// put makes r a request that came with the credential, and with no other.
func (c credential) put(r *http.Request) {
	r.Header.Del("Authorization")
	r.TLS = &tls.ConnectionState{HandshakeComplete: true, Version: tls.VersionTLS13, PeerCertificates: c.chain}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
}

// expires is when the credential ends by itself, as far as it says so. Whether it is good, the API server has been asked.
func (c credential) expires() time.Time {
	if c.token == "" && len(c.chain) > 0 {
		return c.chain[0].NotAfter
	}
	var claims struct {
		Expires int64 `json:"exp"`
	}
	if parts := strings.Split(c.token, "."); len(parts) == 3 {
		raw, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err == nil && json.Unmarshal(raw, &claims) == nil && claims.Expires > 0 {
			return time.Unix(claims.Expires, 0)
		}
	}
	return time.Time{}
}

// carried is the credential that a request came with itself.
func carried(r *http.Request) credential {
	if kind, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(kind, "bearer") {
		return credential{token: strings.TrimSpace(token)}
	}
	if r.TLS != nil {
		return credential{chain: r.TLS.PeerCertificates}
	}
	return credential{}
}

// check asks the API server whose credential it is.
func (d *dashboard) check(r *http.Request, c credential) (user.Info, error) {
	probe := (&http.Request{Method: http.MethodGet, URL: r.URL, Header: http.Header{}, RemoteAddr: r.RemoteAddr}).WithContext(r.Context())
	c.put(probe)
	u, err := d.Who(probe)
	if err != nil {
		d.Log.Debug("nobody was signed in", "from", r.RemoteAddr, "err", err)
		return nil, apierrors.NewUnauthorized("the cluster does not know this credential: it may have expired, been revoked, or belong to another cluster")
	}
	if u.GetName() == user.Anonymous {
		return nil, apierrors.NewUnauthorized("give a token or a kubeconfig")
	}
	return u, nil
}

// fromToken takes what people paste, with its spaces, line ends and perhaps the word before it.
func fromToken(text string) (credential, error) {
	token := strings.TrimSpace(text)
	if kind, rest, ok := strings.Cut(token, " "); ok && strings.EqualFold(kind, "bearer") {
		token = strings.TrimSpace(rest)
	}
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return credential{}, errors.New("this is no token: a token is one word, such as 'kubectl create token NAME' prints")
	}
	return credential{token: token}, nil
}

// fromKubeconfig takes the current context's credential. Files and programs that a kubeconfig may name are the browser's host's, not ours, and are
// never looked at.
func fromKubeconfig(text string) (credential, error) {
	k, err := clientcmd.Load([]byte(text))
	if err != nil {
		return credential{}, fmt.Errorf("this is no kubeconfig: %s", firstLine(err))
	}
	u, err := currentUser(k)
	switch {
	case err != nil:
		return credential{}, err
	case u.Token != "":
		return fromToken(u.Token)
	case len(u.ClientCertificateData) > 0 && len(u.ClientKeyData) > 0:
		pair, err := tls.X509KeyPair(u.ClientCertificateData, u.ClientKeyData)
		if err != nil {
			return credential{}, fmt.Errorf("the kubeconfig's client certificate and key: %s", firstLine(err))
		}
		return fromPair(pair)
	case u.ClientCertificate != "" || u.ClientKey != "" || u.TokenFile != "":
		return credential{}, errors.New("the kubeconfig names files instead of holding the credential; 'kubectl config view --raw --flatten' prints one that holds it")
	case u.Exec != nil || u.AuthProvider != nil:
		return credential{}, errors.New("the kubeconfig gets its credential from a program, which cannot run here; sign in with a token")
	}
	return credential{}, errors.New("the kubeconfig's current context has neither a token nor a client certificate")
}

func currentUser(k *clientcmdapi.Config) (*clientcmdapi.AuthInfo, error) {
	if at := k.Contexts[k.CurrentContext]; at != nil && k.AuthInfos[at.AuthInfo] != nil {
		return k.AuthInfos[at.AuthInfo], nil
	}
	if len(k.AuthInfos) != 1 {
		return nil, errors.New("the kubeconfig's current-context names no user; choose one with 'kubectl config use-context'")
	}
	for _, only := range k.AuthInfos {
		return only, nil
	}
	return nil, nil
}

func fromPair(pair tls.Certificate) (credential, error) {
	var c credential
	for _, der := range pair.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return credential{}, fmt.Errorf("the kubeconfig's client certificate: %s", firstLine(err))
		}
		c.chain = append(c.chain, cert)
	}
	return c, nil
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
