package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"skiff.dev/skiff/internal/registry"
)

// pulled visits the pull policy of each image of a pod whose images the request sets, with its field.
func pulled(a *registry.Attributes, visit func(policy *corev1.PullPolicy, at *field.Path)) {
	pod, ok := a.Object.(*corev1.Pod)
	if !ok || a.Resource.Plural != "pods" || a.Subresource != "" && a.Subresource != "ephemeralcontainers" || a.Operation != create && a.Operation != update {
		return
	}
	known := map[string]bool{}
	if old, ok := a.Old.(*corev1.Pod); ok {
		images(old, func(_ *corev1.PullPolicy, image string, _ *field.Path) { known[image] = true })
	}
	images(pod, func(policy *corev1.PullPolicy, image string, at *field.Path) {
		if !known[image] {
			visit(policy, at)
		}
	})
}

func images(pod *corev1.Pod, visit func(policy *corev1.PullPolicy, image string, at *field.Path)) {
	spec := field.NewPath("spec")
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		visit(&c.ImagePullPolicy, c.Image, spec.Child("initContainers").Index(i).Child("imagePullPolicy"))
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		visit(&c.ImagePullPolicy, c.Image, spec.Child("containers").Index(i).Child("imagePullPolicy"))
	}
	for i := range pod.Spec.EphemeralContainers {
		c := &pod.Spec.EphemeralContainers[i]
		visit(&c.ImagePullPolicy, c.Image, spec.Child("ephemeralContainers").Index(i).Child("imagePullPolicy"))
	}
	for i := range pod.Spec.Volumes {
		if v := pod.Spec.Volumes[i].Image; v != nil {
			visit(&v.PullPolicy, v.Reference, spec.Child("volumes").Index(i).Child("image", "pullPolicy"))
		}
	}
}

// alwaysPull (AlwaysPullImages) makes every pod prove that it may pull its images, for images that are on a node already are nobody's.
func alwaysPull(_ context.Context, a *registry.Attributes) error {
	pulled(a, func(policy *corev1.PullPolicy, _ *field.Path) { *policy = corev1.PullAlways })
	return nil
}

// alwaysPulled (AlwaysPullImages) refuses what something after it has undone.
func alwaysPulled(_ context.Context, a *registry.Attributes) error {
	var errs field.ErrorList
	pulled(a, func(policy *corev1.PullPolicy, at *field.Path) {
		if *policy != corev1.PullAlways {
			errs = append(errs, field.NotSupported(at, *policy, []corev1.PullPolicy{corev1.PullAlways}))
		}
	})
	if len(errs) > 0 {
		return apierrors.NewInvalid(a.Resource.GVK().GroupKind(), nameOf(a), errs)
	}
	return nil
}
