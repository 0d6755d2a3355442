package admission

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"skiff.dev/skiff/internal/registry"
)

// nodeSelectors is what PodNodeSelector's configuration says: the selector of namespaces that name none, and what the pods of a namespace may select.
type nodeSelectors struct {
	standard labels.Set
	allowed  map[string]labels.Set
}

// nodeSelectorFile is that configuration in upstream's format: selectors by namespace, and the one that holds where none is named.
type nodeSelectorFile struct {
	Selectors map[string]string `json:"podNodeSelectorPluginConfig"`
}

const standardNodeSelector = "clusterDefaultNodeSelector"

// podNodeSelector (PodNodeSelector) holds the pods of a namespace to the nodes that its annotation selects.
func podNodeSelector(raw []byte) (made, error) {
	s := &nodeSelectors{allowed: map[string]labels.Set{}}
	if raw != nil {
		file, err := parse[nodeSelectorFile](raw, "")
		if err != nil {
			return made{}, err
		}
		for namespace, text := range file.Selectors {
			set, err := labels.ConvertSelectorToLabelsMap(text)
			if err != nil {
				return made{}, fmt.Errorf("podNodeSelectorPluginConfig.%s: %w", namespace, err)
			}
			s.allowed[namespace] = set
		}
		s.standard = s.allowed[standardNodeSelector]
		delete(s.allowed, standardNodeSelector)
	}
	return made{admit: s.add, validate: s.kept}, nil
}

// of is what a namespace says of its pods' nodes.
func (s *nodeSelectors) of(ctx context.Context, a *registry.Attributes) (labels.Set, error) {
	ns, err := find[*corev1.Namespace](ctx, a, "", "namespaces", a.Namespace)
	if err != nil || ns == nil {
		return nil, err
	}
	text, says := ns.Annotations["scheduler.alpha.kubernetes.io/node-selector"]
	if !says {
		return s.standard, nil
	}
	set, err := labels.ConvertSelectorToLabelsMap(text)
	if err != nil {
		return nil, forbid(a, fmt.Errorf("the namespace's annotation scheduler.alpha.kubernetes.io/node-selector is no selector: %w", err))
	}
	return set, nil
}

var errSelector = errors.New("pod node label selector conflicts with its namespace node label selector")

// add gives a new pod its namespace's selector.
func (s *nodeSelectors) add(ctx context.Context, a *registry.Attributes) error {
	pod := newPod(a, false)
	if pod == nil {
		return nil
	}
	set, err := s.of(ctx, a)
	if err == nil && labels.Conflicts(set, labels.Set(pod.Spec.NodeSelector)) {
		err = forbid(a, errSelector)
	}
	if err != nil || len(set) == 0 {
		return err
	}
	pod.Spec.NodeSelector = labels.Merge(set, labels.Set(pod.Spec.NodeSelector))
	return nil
}

// kept refuses what something after add has undone, and what the configuration does not let the namespace select.
func (s *nodeSelectors) kept(ctx context.Context, a *registry.Attributes) error {
	pod := newPod(a, false)
	if pod == nil {
		return nil
	}
	set, err := s.of(ctx, a)
	if err != nil {
		return err
	}
	if labels.Conflicts(set, labels.Set(pod.Spec.NodeSelector)) {
		return forbid(a, errSelector)
	}
	if allowed, listed := s.allowed[a.Namespace]; listed && !within(pod.Spec.NodeSelector, allowed) {
		return forbid(a, errors.New("pod node label selector labels conflict with its namespace whitelist"))
	}
	return nil
}

// within says whether one set has nothing that the other has not.
func within(set, all labels.Set) bool {
	for k, v := range set {
		if has, ok := all[k]; !ok || has != v {
			return false
		}
	}
	return true
}
