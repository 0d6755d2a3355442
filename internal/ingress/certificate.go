package ingress

import (
	"crypto/tls"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

// pair is a Secret's certificate and key, parsed; kept so that only Secrets that changed are parsed again.
type pair struct {
	uid     types.UID
	version string
	*tls.Certificate
	err error
}

// Certificate is the one for a host, nil if there is none.
func (t *Table) Certificate(hostname string) *tls.Certificate {
	for _, name := range namesFor(hostname) {
		if c := t.certificates[name]; c != nil {
			return c
		}
	}
	return nil
}

// addCertificates gives the hosts of an Ingress their certificates. An entry without hosts is for those of the rules.
func (b *builder) addCertificates(i *networkingv1.Ingress) {
	for n, entry := range i.Spec.TLS {
		if entry.SecretName == "" {
			continue // HTTPS is another's to end
		}
		c, err := b.pair(types.NamespacedName{Namespace: i.Namespace, Name: entry.SecretName})
		if err != nil {
			b.Problems = append(b.Problems, fmt.Sprintf("Ingress %s/%s: spec.tls[%d].secretName: %v", i.Namespace, i.Name, n, err))
			continue
		}
		hosts := entry.Hosts
		if len(hosts) == 0 {
			for _, r := range i.Spec.Rules {
				hosts = append(hosts, r.Host)
			}
		}
		for _, name := range hosts {
			if name = strings.ToLower(name); b.certificates[name] == nil {
				b.certificates[name] = c
			}
		}
	}
}

func (b *builder) pair(of types.NamespacedName) (*tls.Certificate, error) {
	s := b.secrets[of]
	if s == nil {
		return nil, fmt.Errorf("there is no Secret %s of type %s", of, corev1.SecretTypeTLS)
	}
	p, known := b.pairs[of]
	if !known {
		p, known = b.before.pairs[of]
	}
	if !known || p.uid != s.UID || p.version != s.ResourceVersion {
		c, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey])
		p = pair{s.UID, s.ResourceVersion, &c, err}
	}
	b.pairs[of] = p
	if p.err != nil {
		return nil, fmt.Errorf("the Secret %s: %w", of, p.err)
	}
	return p.Certificate, nil
}

func nameOf(s *corev1.Secret) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}
