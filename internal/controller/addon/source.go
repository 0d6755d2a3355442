package addon

import (
	"context"
	"fmt"
	"io/fs"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/addon"
)

// bundle renders what the add-on is made of. Its errors are the user's to put right.
func (r *reconciler) bundle(ctx context.Context, a *addon.Addon) (*addon.Bundle, error) {
	files, err := r.files(ctx, a)
	if err != nil {
		return nil, err
	}
	values, err := r.values(ctx, a)
	if err != nil {
		return nil, err
	}
	return addon.Load(files, addon.Release{Name: a.Name, Namespace: a.Spec.Namespace, Values: values, Kinds: r.served(), Version: r.Version})
}

func (r *reconciler) files(ctx context.Context, a *addon.Addon) (fs.FS, error) {
	if name := a.Spec.Source.Shipped; name != "" {
		s, known := addon.Find(r.Shipped, name)
		if !known || s.Files == nil {
			return nil, fmt.Errorf("source.shipped: this version of Skiff does not bring an add-on %q", name)
		}
		return s.Files, nil
	}
	var secret corev1.Secret
	key := crclient.ObjectKey{Namespace: addon.SecretNamespace, Name: a.Spec.Source.Secret}
	if err := r.Client.Live().Get(ctx, key, &secret); err != nil {
		return nil, fmt.Errorf("source.secret: %w", err)
	}
	packed, found := secret.Data[addon.SecretKey]
	if !found {
		return nil, fmt.Errorf("source.secret: the Secret %s has no key %s", key, addon.SecretKey)
	}
	return addon.Unpack(packed)
}

// values are those of the ConfigMaps in their order, and over them the add-on's own.
func (r *reconciler) values(ctx context.Context, a *addon.Addon) (map[string]any, error) {
	values := map[string]any{}
	for i, from := range a.Spec.ValuesFrom {
		var cm corev1.ConfigMap
		err := r.Client.Live().Get(ctx, crclient.ObjectKey{Namespace: from.Namespace, Name: from.Name}, &cm)
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("spec.valuesFrom[%d]: there is no ConfigMap %s/%s; the add-on goes on when it is there", i, from.Namespace, from.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("spec.valuesFrom[%d]: %w", i, err)
		}
		key := from.Key
		if key == "" {
			key = "values.yaml"
		}
		raw, found := cm.Data[key]
		if !found {
			return nil, fmt.Errorf("spec.valuesFrom[%d]: the ConfigMap %s/%s has no key %s", i, from.Namespace, from.Name, key)
		}
		var more map[string]any
		if err := yaml.Unmarshal([]byte(raw), &more); err != nil {
			return nil, fmt.Errorf("spec.valuesFrom[%d]: %s of the ConfigMap %s/%s: %w", i, key, from.Namespace, from.Name, err)
		}
		addon.Merge(values, more)
	}
	addon.Merge(values, a.Spec.Values)
	return values, nil
}

// served lists the API as charts ask for it.
func (r *reconciler) served() (out []string) {
	for _, row := range r.Kinds.All() {
		gv := row.GVK().GroupVersion().String()
		out = append(out, gv, gv+"/"+row.Kind)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
