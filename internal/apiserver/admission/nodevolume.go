package admission

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"skiff.dev/skiff/internal/api/localvolume"
	"skiff.dev/skiff/internal/registry"
)

// nodeVolume lets a node say of the local volumes that it keeps how it has set them up and that it has finished with them, and change nothing else.
func nodeVolume(a *registry.Attributes, node string) error {
	old, was := a.Old.(*corev1.PersistentVolume)
	pv, ok := a.Object.(*corev1.PersistentVolume)
	if a.Operation != update || !was || !ok || !localvolume.Of(old) || old.Labels[localvolume.NodeLabel] != node {
		return forbid(a, fmt.Errorf("node %q can only update the local volumes that it keeps", node))
	}
	may := pv.DeepCopy()
	may.Annotations = map[string]string{}
	for key, value := range pv.Annotations {
		if !strings.HasPrefix(key, localvolume.SizeAnnotation) {
			may.Annotations[key] = value
		}
	}
	want := old.DeepCopy()
	for key := range want.Annotations {
		if strings.HasPrefix(key, localvolume.SizeAnnotation) {
			delete(want.Annotations, key)
		}
	}
	if !slices.Contains(pv.Finalizers, localvolume.Finalizer) {
		want.Finalizers = slices.DeleteFunc(want.Finalizers, func(f string) bool { return f == localvolume.Finalizer })
	}
	may.ResourceVersion, may.ManagedFields, may.Generation = want.ResourceVersion, want.ManagedFields, want.Generation
	if !equality.Semantic.DeepEqual(may, want) {
		return forbid(a, fmt.Errorf("node %q can only change the annotations %s and %s and the finalizer %s of a volume",
			node, localvolume.SizeAnnotation, localvolume.LimitAnnotation, localvolume.Finalizer))
	}
	return nil
}
