package pod

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/kubelet/userns"
)

// errUsers: the pod is to have users of its own, and cannot have them on this node. It must not run without.
var errUsers = errors.New("can't set `spec.hostUsers: false`")

// UserNamespaced counts sandboxes of pods with users of their own, by upstream's names.
type UserNamespaced struct{ tried, failed prometheus.Counter }

// NewUserNamespaced starts at nothing.
func NewUserNamespaced() *UserNamespaced {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &UserNamespaced{
		tried:  counter("kubelet_started_user_namespaced_pods_total", "Cumulative number of starts of pods with user namespaces, well or not."),
		failed: counter("kubelet_started_user_namespaced_pods_errors_total", "Cumulative number of starts of pods with user namespaces that failed."),
	}
}

// Collectors of the counts.
func (n *UserNamespaced) Collectors() []prometheus.Collector {
	return []prometheus.Collector{n.tried, n.failed}
}

func (n *UserNamespaced) count(err error) {
	n.tried.Inc()
	if err != nil {
		n.failed.Inc()
	}
}

// allowUsers refuses a pod whose own users the node cannot give it.
func (a *Actor) allowUsers(ctx context.Context, pod *corev1.Pod, handler string) error {
	if err := a.d.OwnUsers(ctx, handler); err != nil {
		return fmt.Errorf("%w: %w", errUsers, err)
	}
	if err := unmapped(pod); err != nil {
		return fmt.Errorf("%w: %w", errUsers, err)
	}
	return nil
}

// users of the pod's own; nil if it has the host's.
func (a *Actor) users(pod *corev1.Pod) (*runtimeapi.UserNamespace, error) {
	if !api.OwnUsers(&pod.Spec) {
		return nil, nil
	}
	users, err := a.d.Users.Of(a.uid)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUsers, err)
	}
	return users, nil
}

// cleanFolder removes what the pod has on disk. Only then can others have its range: it is written down there.
func (a *Actor) cleanFolder(ctx context.Context) error {
	if err := a.d.Volumes.Unmount(ctx, a.uid); err != nil {
		return err
	}
	a.d.Users.Release(a.uid)
	return nil
}

// unmapped names the ids in a pod's spec that are none in a user namespace, which has 65,536.
func unmapped(pod *corev1.Pod) error {
	check := func(at *field.Path, id *int64) error {
		if id != nil && *id >= userns.Length {
			return fmt.Errorf("%s: %d is not among the ids of the pod, which are those below %d", at, *id, userns.Length)
		}
		return nil
	}
	spec := field.NewPath("spec")
	var errs []error
	if p, at := pod.Spec.SecurityContext, spec.Child("securityContext"); p != nil {
		errs = append(errs, check(at.Child("runAsUser"), p.RunAsUser), check(at.Child("runAsGroup"), p.RunAsGroup), check(at.Child("fsGroup"), p.FSGroup))
		for i := range p.SupplementalGroups {
			errs = append(errs, check(at.Child("supplementalGroups").Index(i), &p.SupplementalGroups[i]))
		}
	}
	for _, all := range []struct {
		name string
		list []corev1.Container
	}{{"initContainers", pod.Spec.InitContainers}, {"containers", pod.Spec.Containers}} {
		for i := range all.list {
			if c, at := all.list[i].SecurityContext, spec.Child(all.name).Index(i).Child("securityContext"); c != nil {
				errs = append(errs, check(at.Child("runAsUser"), c.RunAsUser), check(at.Child("runAsGroup"), c.RunAsGroup))
			}
		}
	}
	return errors.Join(errs...)
}
