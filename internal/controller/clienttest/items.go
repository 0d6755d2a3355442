package clienttest

import (
	"iter"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

func items(list crclient.ObjectList) iter.Seq[crclient.Object] {
	return func(yield func(crclient.Object) bool) {
		_ = meta.EachListItem(list, func(o runtime.Object) error {
			if !yield(o.(crclient.Object)) {
				return errStop
			}
			return nil
		})
	}
}

type stop struct{}

func (stop) Error() string { return "stop" }

var errStop = stop{}
