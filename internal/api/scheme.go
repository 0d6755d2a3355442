package api

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
)

var scheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	if err := clientscheme.AddToScheme(s); err != nil {
		panic(err)
	}
	return s
}()

// Codecs serialises everything in Scheme: JSON, YAML and protobuf.
func Codecs() serializer.CodecFactory { return codecs }

var codecs = serializer.NewCodecFactory(scheme)
