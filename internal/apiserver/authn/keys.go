package authn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// keys sign and verify. Verifying keys are found by the id that upstream gives a key: the hash of its public half.
type keys struct {
	signer jose.Signer
	public []jose.JSONWebKey
}

// algorithms that a token may be signed with. Naming them keeps a token from choosing "none", or a public key as a shared secret.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.ES512}

func parseKeys(signing []byte, verify [][]byte) (*keys, error) {
	private, err := parsePrivate(signing)
	if err != nil {
		return nil, fmt.Errorf("read the key that signs service-account tokens: %w; restore it, or remove it to have a new one made (old tokens end then)", err)
	}
	own, err := publicKey(private.Public())
	if err != nil {
		return nil, fmt.Errorf("the key that signs service-account tokens: %w", err)
	}
	k := &keys{public: []jose.JSONWebKey{own}}
	for i, raw := range verify {
		parsed, err := parsePublic(raw)
		if err != nil {
			return nil, fmt.Errorf("read key %d of those that verify service-account tokens: %w", i+1, err)
		}
		for _, p := range parsed {
			if !slices.ContainsFunc(k.public, func(have jose.JSONWebKey) bool { return have.KeyID == p.KeyID }) {
				k.public = append(k.public, p)
			}
		}
	}
	k.signer, err = jose.NewSigner(jose.SigningKey{
		Algorithm: jose.SignatureAlgorithm(own.Algorithm), Key: jose.JSONWebKey{Algorithm: own.Algorithm, Key: private, KeyID: own.KeyID, Use: "sig"},
	}, nil)
	if err != nil {
		return nil, fmt.Errorf("make the signer of service-account tokens: %w", err)
	}
	return k, nil
}

func parsePrivate(raw []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			return nil, errors.New("no private key in PEM form")
		}
		var key any
		var err error
		switch block.Type {
		case "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		if s, ok := key.(crypto.Signer); ok {
			return s, nil
		}
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
}

// parsePublic reads public keys; a certificate or a private key counts for its public half.
func parsePublic(raw []byte) ([]jose.JSONWebKey, error) {
	var out []jose.JSONWebKey
	for {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			break
		}
		var key any
		var err error
		switch block.Type {
		case "PUBLIC KEY":
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			key, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case "CERTIFICATE":
			var c *x509.Certificate
			if c, err = x509.ParseCertificate(block.Bytes); err == nil {
				key = c.PublicKey
			}
		default:
			var s crypto.Signer
			if s, err = parsePrivate(pem.EncodeToMemory(block)); err == nil {
				key = s.Public()
			}
		}
		if err != nil {
			return nil, err
		}
		jwk, err := publicKey(key)
		if err != nil {
			return nil, err
		}
		out = append(out, jwk)
	}
	if len(out) == 0 {
		return nil, errors.New("no public key in PEM form")
	}
	return out, nil
}

func publicKey(key any) (jose.JSONWebKey, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return jose.JSONWebKey{}, err
	}
	sum := sha256.Sum256(der)
	jwk := jose.JSONWebKey{Key: key, KeyID: base64.RawURLEncoding.EncodeToString(sum[:]), Use: "sig"}
	switch k := key.(type) {
	case *rsa.PublicKey:
		jwk.Algorithm = string(jose.RS256)
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			jwk.Algorithm = string(jose.ES256)
		case elliptic.P384():
			jwk.Algorithm = string(jose.ES384)
		case elliptic.P521():
			jwk.Algorithm = string(jose.ES512)
		default:
			return jwk, fmt.Errorf("its curve must be P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
		return jwk, errors.New("it must be RSA or ECDSA: clients of the issuer know no Ed25519")
	default:
		return jwk, fmt.Errorf("it must be RSA or ECDSA, not %T", key)
	}
	return jwk, nil
}

// find are the keys that may have signed a token: the one with its id, or for a token without id all.
func (k *keys) find(id string) []jose.JSONWebKey {
	if id == "" {
		return k.public
	}
	for _, key := range k.public {
		if key.KeyID == id {
			return []jose.JSONWebKey{key}
		}
	}
	return nil
}

// JWKS is the document at /openid/v1/jwks: the public keys.
func (a *Authenticator) JWKS() ([]byte, error) {
	return json.Marshal(jose.JSONWebKeySet{Keys: a.keys.public})
}

// Discovery is the document at /.well-known/openid-configuration; base is the URL that clients reach this server by.
func (a *Authenticator) Discovery(base string) ([]byte, error) {
	algs := []string{}
	for _, k := range a.keys.public {
		if !slices.Contains(algs, k.Algorithm) {
			algs = append(algs, k.Algorithm)
		}
	}
	slices.Sort(algs)
	return json.Marshal(struct {
		Issuer        string   `json:"issuer"`
		JWKSURI       string   `json:"jwks_uri"`
		ResponseTypes []string `json:"response_types_supported"`
		SubjectTypes  []string `json:"subject_types_supported"`
		Algorithms    []string `json:"id_token_signing_alg_values_supported"`
	}{a.cfg.Issuer, base + "/openid/v1/jwks", []string{"id_token"}, []string{"public"}, algs})
}
