package join

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api/cidr"
)

// Settings are the cluster's that each of its machines goes by. The server publishes them in the ConfigMap kube-public/skiff-cluster.
type Settings struct {
	// PodCIDR and ServiceCIDR are one range, or one of each family with a comma between them.
	PodCIDR, ServiceCIDR, Domain, NodePorts string
}

// Where the settings are published.
const (
	settingsNamespace = metav1.NamespacePublic
	settingsName      = "skiff-cluster"
)

// ConfigMap holds the settings.
func (s Settings) ConfigMap() *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: settingsNamespace, Name: settingsName},
		Data: map[string]string{
			"pod-cidr": s.PodCIDR, "service-cidr": s.ServiceCIDR, "cluster-domain": s.Domain, "service-node-port-range": s.NodePorts,
		},
	}
}

// FetchSettings asks the cluster.
func FetchSettings(ctx context.Context, r crclient.Reader) (s Settings, err error) {
	var m corev1.ConfigMap
	if err := r.Get(ctx, crclient.ObjectKey{Namespace: settingsNamespace, Name: settingsName}, &m); err != nil {
		return s, fmt.Errorf("read the cluster's settings (ConfigMap %s/%s): %w", settingsNamespace, settingsName, err)
	}
	s = Settings{PodCIDR: m.Data["pod-cidr"], ServiceCIDR: m.Data["service-cidr"], Domain: m.Data["cluster-domain"], NodePorts: m.Data["service-node-port-range"]}
	for _, ranges := range []string{s.PodCIDR, s.ServiceCIDR} {
		if _, err := cidr.ParseList(ranges); err != nil {
			return s, fmt.Errorf("the cluster's settings (ConfigMap %s/%s) are damaged: %w; restart the server, which writes them", settingsNamespace, settingsName, err)
		}
	}
	return s, nil
}
