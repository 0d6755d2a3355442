// Package join is how a machine becomes a member of a cluster: the token that lets it in, the check that it talks to the right cluster, and the
// certificates that the cluster gives it, which are kept in its data dir and renewed while it runs.
//
// Its invariant: no secret goes to a server whose authority was not checked against the token's pin or against the authority that the machine
// already trusts. Packages host and cli call it.
package join

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Token lets a machine join: skiff1PIN::ID.SECRET, where PIN is the SHA-256 of the cluster's authority (its certificate's DER) in hex. The part
// behind the colons is a bootstrap token as every Kubernetes cluster has them.
type Token struct {
	Pin        string
	ID, Secret string
}

const tokenPrefix = "skiff1"

var (
	tokenForm  = regexp.MustCompile(`^skiff1([0-9a-f]{64})::([a-z0-9]{6})\.([a-z0-9]{16})$`)
	secretForm = regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`)
	idForm     = regexp.MustCompile(`^[a-z0-9]{6}$`)
)

// ParseToken reads what 'skiff token create' has printed. Its errors never repeat the token.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	parts := tokenForm.FindStringSubmatch(text)
	switch {
	case parts != nil:
		return Token{parts[1], parts[2], parts[3]}, nil
	case secretForm.MatchString(text):
		return Token{}, errors.New("token: it does not say which cluster it belongs to, so the server cannot be checked; give one that 'skiff token create' has printed")
	}
	return Token{}, errors.New("token: it is not of the form skiff1HASH::ID.SECRET; give one that 'skiff token create' on a server has printed, whole")
}

// ReadToken takes the token from a file if one is named.
func ReadToken(text, file string) (Token, error) {
	if file != "" {
		raw, err := os.ReadFile(file)
		if err != nil {
			return Token{}, fmt.Errorf("token-file: %w", err)
		}
		text = string(raw)
	}
	return ParseToken(text)
}

// NewToken makes a token for the cluster of an authority.
func NewToken(ca *x509.Certificate) Token {
	return Token{Pin: Pin(ca), ID: letters(6), Secret: letters(16)}
}

func letters(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	out := make([]byte, n)
	for i := range out {
		k, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			panic(err) // the system's random source failed: nothing can go on
		}
		out[i] = alphabet[k.Int64()]
	}
	return string(out)
}

// Pin of an authority.
func Pin(ca *x509.Certificate) string {
	sum := sha256.Sum256(ca.Raw)
	return hex.EncodeToString(sum[:])
}

func (t Token) String() string { return tokenPrefix + t.Pin + "::" + t.Bearer() }

// Bearer is what goes to the server.
func (t Token) Bearer() string { return t.ID + "." + t.Secret }

// The Secrets that hold tokens.
const (
	SecretType      = corev1.SecretType("bootstrap.kubernetes.io/token")
	SecretNamespace = metav1.NamespaceSystem
	secretPrefix    = "bootstrap-token-"
)

// SecretName of the token with an ID, or of a whole token.
func SecretName(token string) (string, error) {
	if _, behind, found := strings.Cut(token, "::"); found {
		token = behind
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(token, secretPrefix), ".")
	if !idForm.MatchString(id) {
		return "", fmt.Errorf("%q is no token's ID; 'skiff token list' shows them", id)
	}
	return secretPrefix + id, nil
}

// Secretly is the Secret that makes the cluster take the token, until a time (zero: for good).
func (t Token) Secretly(description string, until time.Time) *corev1.Secret {
	data := map[string][]byte{
		"token-id": []byte(t.ID), "token-secret": []byte(t.Secret), "usage-bootstrap-authentication": []byte("true"),
		"auth-extra-groups": []byte("system:bootstrappers:skiff:node"),
	}
	if description != "" {
		data["description"] = []byte(description)
	}
	if !until.IsZero() {
		data["expiration"] = []byte(until.UTC().Format(time.RFC3339))
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: SecretNamespace, Name: secretPrefix + t.ID}, Type: SecretType, Data: data}
}

// Listed is what may be shown of a token.
type Listed struct {
	ID, Description string
	Usages          []string
	Until           time.Time // zero: it does not expire
}

// List reads a token's Secret.
func List(s *corev1.Secret) Listed {
	l := Listed{ID: string(bytes.Clone(s.Data["token-id"])), Description: string(s.Data["description"])}
	l.Until, _ = time.Parse(time.RFC3339, string(s.Data["expiration"]))
	for _, usage := range []string{"authentication", "signing"} {
		if string(s.Data["usage-bootstrap-"+usage]) == "true" {
			l.Usages = append(l.Usages, usage)
		}
	}
	return l
}
