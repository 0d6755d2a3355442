package addon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/util/retry"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// SecretName is where an add-on's bundle is kept.
func SecretName(name string) string { return "addon-" + name }

// ErrTaken says that an add-on's name belongs to another one.
var ErrTaken = errors.New("the name is taken")

// Install puts a packed bundle into the cluster and makes an Addon of it, or gives the one that is there the new bundle and what spec says. from is the place in
// a server's folder where it lies. ConfigMaps whose values somebody added stay, unless spec names others.
func Install(ctx context.Context, c crclient.Client, name string, packed []byte, spec Spec, from Place) error {
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error { // the controller writes its status meanwhile
		return install(ctx, c, name, packed, spec, from)
	})
}

func install(ctx context.Context, c crclient.Client, name string, packed []byte, spec Spec, from Place) error {
	if errs := validation.IsDNS1123Label(name); len(errs) > 0 {
		return fmt.Errorf("the add-on's name %q: %s", name, errs[0])
	}
	there := Empty()
	err := c.Get(ctx, crclient.ObjectKey{Name: name}, there)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("look for the add-on %s: %w", name, err)
	}
	a := &Addon{}
	if exists := err == nil; exists {
		if a, err = From(there); err != nil {
			return err
		}
		if a.Spec.Source.Secret != SecretName(name) {
			return fmt.Errorf("%w: %s is an add-on that comes with Skiff; give yours another", ErrTaken, name)
		}
		if other := a.Annotations[Origin]; other != from.Server {
			return fmt.Errorf("%w: %s was installed %s", ErrTaken, name, whence(other))
		}
	}
	if err := putSecret(ctx, c, name, packed); err != nil {
		return err
	}
	uid, enabled, valuesFrom := a.UID, a.Spec.Enabled, a.Spec.ValuesFrom // somebody may have disabled it
	a.Name, a.Spec = name, spec
	sum := sha256.Sum256(packed)
	a.Spec.Source = Source{Secret: SecretName(name), Digest: hex.EncodeToString(sum[:])}
	if spec.ValuesFrom == nil {
		a.Spec.ValuesFrom = valuesFrom
	}
	if spec.Enabled == nil {
		on := enabled == nil || *enabled
		a.Spec.Enabled = &on
	}
	if from.Server != "" {
		a.Annotations = map[string]string{Origin: from.Server, Entry: from.Entry}
	}
	u, err := a.Unstructured()
	if err != nil {
		return err
	}
	if uid == "" {
		err = c.Create(ctx, u)
	} else {
		err = c.Update(ctx, u)
	}
	if err != nil {
		return fmt.Errorf("store the add-on %s: %w", name, err)
	}
	return nil
}

func whence(origin string) string {
	if origin == "" {
		return "by hand; remove it first, with 'skiff addon remove'"
	}
	return "from the folder of the server " + origin + "; change it there"
}

func putSecret(ctx context.Context, c crclient.Client, name string, packed []byte) error {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: SecretNamespace, Name: SecretName(name), Labels: map[string]string{Label: name}},
		Type:       SecretType, Data: map[string][]byte{SecretKey: packed},
	}
	err := c.Create(ctx, s)
	if apierrors.IsAlreadyExists(err) {
		err = c.Update(ctx, s)
	}
	if err != nil {
		return fmt.Errorf("store the bundle of %s: %w", name, err)
	}
	return nil
}

// Enable says whether an add-on shall be there.
func Enable(ctx context.Context, c crclient.Client, name string, on bool) error {
	u := Empty()
	u.SetName(name)
	return c.Patch(ctx, u, crclient.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"enabled":%t}}`, on)))
}

// Remove deletes an add-on; its controller removes what it brought. Its bundle goes at once. What comes with Skiff can only be disabled.
func Remove(ctx context.Context, c crclient.Client, name string) error {
	u := Empty()
	if err := c.Get(ctx, crclient.ObjectKey{Name: name}, u); err != nil {
		return err
	}
	a, err := From(u)
	if err != nil {
		return err
	}
	if a.Spec.Source.Secret == "" {
		return fmt.Errorf("%s comes with Skiff: disable it instead, with 'skiff addon disable %s'", name, name)
	}
	if err := c.Delete(ctx, u); err != nil {
		return err
	}
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: SecretNamespace, Name: a.Spec.Source.Secret}}
	return crclient.IgnoreNotFound(c.Delete(ctx, s))
}
