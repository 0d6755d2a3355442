// Package configfile reads the API server's own configuration files in upstream's format: AuthenticationConfiguration, AuthorizationConfiguration,
// folders of admission's manifests; and again when they change. Unknown fields are errors. Its invariant: a file that cannot be used changes nothing, nor does
// a folder with one. Packages authn, authz and admission/dynamic call it, and package host for the EncryptionConfiguration, which package encryption reads.
package configfile

import (
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
)

// Read decodes a file of kind T (one of k8s.io/apiserver's internal types), with its defaults. key is the setting that named the file.
func Read[T any, P interface {
	*T
	runtime.Object
}](key, file string) (P, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return Decode[T, P](key, file, raw)
}

// Decode is Read for what a file was found to hold.
func Decode[T any, P interface {
	*T
	runtime.Object
}](key, file string, raw []byte) (P, error) {
	known := runtime.NewScheme()
	install.Install(known)
	obj, gvk, err := serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDecoder().Decode(raw, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", key, file, err)
	}
	out, ok := obj.(P)
	if !ok {
		return nil, fmt.Errorf("%s: %s holds a %s, want %T", key, file, gvk.Kind, *new(T))
	}
	return out, nil
}
