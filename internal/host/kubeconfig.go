package host

import (
	"errors"
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"skiff.dev/skiff/internal/pki"
)

const adminLife = 365 * 24 * time.Hour

// writeKubeconfig gives the administrator a kubeconfig for server. One that is still good for a third of its life, and for this
// authority and server, is left as it is: somebody may have added to it.
func writeKubeconfig(file, server, cluster string, ca *pki.Authority, now time.Time) error {
	if old, err := clientcmd.LoadFromFile(file); err == nil && stillGood(old, server, cluster, ca, now) {
		return nil
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read %s: %w; move it away and start again", file, err)
	}
	leaf, err := ca.Issue(pki.Leaf{CommonName: "kubernetes-admin", Organizations: []string{"system:masters"}, Life: adminLife}, now)
	if err != nil {
		return err
	}
	cert, key, err := pki.EncodePair(leaf)
	if err != nil {
		return err
	}
	raw, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{cluster: {Server: server, CertificateAuthorityData: ca.PEM}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{cluster + "-admin": {ClientCertificateData: cert, ClientKeyData: key}},
		Contexts:       map[string]*clientcmdapi.Context{cluster: {Cluster: cluster, AuthInfo: cluster + "-admin"}},
		CurrentContext: cluster,
	})
	if err != nil {
		return err
	}
	return pki.WriteFile(file, raw, 0o600)
}

func stillGood(k *clientcmdapi.Config, server, cluster string, ca *pki.Authority, now time.Time) bool {
	c, u := k.Clusters[cluster], k.AuthInfos[cluster+"-admin"]
	if c == nil || u == nil || c.Server != server || string(c.CertificateAuthorityData) != string(ca.PEM) {
		return false
	}
	until, err := pki.NotAfter(u.ClientCertificateData)
	return err == nil && until.Sub(now) > adminLife/3
}
