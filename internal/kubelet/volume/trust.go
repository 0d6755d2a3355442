package volume

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// trust is the authorities of one bundle, or of all of a signer's that a selector selects.
func (m *Manager) trust(ctx context.Context, s *corev1.ClusterTrustBundleProjection) ([]byte, error) {
	optional := s.Optional != nil && *s.Optional
	if s.Name != nil {
		bundle, err := m.source.TrustBundle(ctx, *s.Name)
		if apierrors.IsNotFound(err) && optional {
			return []byte{}, nil
		}
		if err != nil {
			return nil, Named("clustertrustbundle", *s.Name, err)
		}
		return anchors(bundle.Spec.TrustBundle), nil
	}
	if s.SignerName == nil {
		return nil, errors.New("a cluster trust bundle is chosen by its name or its signer")
	}
	selector, err := metav1.LabelSelectorAsSelector(s.LabelSelector) // none selects nothing, an empty one everything
	if err != nil {
		return nil, fmt.Errorf("labelSelector: %w", err)
	}
	all, err := m.source.TrustBundles(ctx)
	if err != nil {
		return nil, err
	}
	var texts []string
	for i := range all {
		if all[i].Spec.SignerName == *s.SignerName && selector.Matches(labels.Set(all[i].Labels)) {
			texts = append(texts, all[i].Spec.TrustBundle)
		}
	}
	if len(texts) == 0 && !optional {
		return nil, errors.New("combination of signerName and labelSelector matched zero ClusterTrustBundles")
	}
	return anchors(texts...), nil
}

// anchors are the certificates of bundles, each once. Their order means nothing, so it is one that does not change.
func anchors(bundles ...string) []byte {
	var blocks [][]byte
	for _, text := range bundles {
		for rest := []byte(text); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			blocks = append(blocks, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
		}
	}
	slices.SortFunc(blocks, bytes.Compare)
	return bytes.Join(slices.CompactFunc(blocks, bytes.Equal), nil)
}

// Trust is where bundles come from.
type Trust interface {
	TrustBundle(ctx context.Context, name string) (*certificatesv1.ClusterTrustBundle, error)
	TrustBundles(ctx context.Context) ([]certificatesv1.ClusterTrustBundle, error)
}
