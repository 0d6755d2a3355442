package pod

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/kubelet/static"
)

// mirror is what the API shows of a static pod: an object with another uid, whose status is the static pod's. Nobody decides anything by it; if it is
// deleted it is made anew. One that has ended stays so, like any pod, so what begins anew is shown by another.
type mirror struct {
	shown *corev1.Pod // as last seen; nil if there is none, or it is being deleted
}

// NewStatic makes the actor of a static pod.
func NewStatic(d *Deps, pod *corev1.Pod, network bool) *Actor {
	a := New(d, pod, false, network)
	a.mirror = &mirror{}
	return a
}

// Static: the pod comes from a manifest of the host.
func (a *Actor) Static() bool { return a.mirror != nil }

// Mirrored tells the actor of a static pod what the API shows of it now.
func (a *Actor) Mirrored(m *corev1.Pod) {
	if a.mirror != nil {
		a.put(func() { a.show(m) })
	}
}

// Unmirrored tells the actor of a static pod that the API shows that object no more.
func (a *Actor) Unmirrored(uid types.UID) {
	a.put(func() {
		if a.mirror != nil && a.mirror.shown != nil && a.mirror.shown.UID == uid {
			a.mirror.shown = nil
		}
	})
}

// Renew has a static pod begin anew that the node ends, or refused, for one of these reasons, none of which holds any more. Other pods are for whoever
// made them to replace.
func (a *Actor) Renew(reasons ...string) {
	a.put(func() {
		a.results = append(a.results, func(s *State) {
			v := s.Verdict
			if v == nil {
				v = a.refusal
			}
			if a.mirror != nil && v != nil && slices.Contains(reasons, v.Reason) {
				a.gone = true // what is made of its manifest when nothing is left of it is another
			}
		})
	})
}

// Shown is the static pod's mirror; nil if there is none.
func (a *Actor) Shown() *corev1.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mirror == nil {
		return nil
	}
	return a.mirror.shown
}

// show takes in a mirror. The caller holds mu.
func (a *Actor) show(m *corev1.Pod) {
	was := a.mirror.shown
	switch {
	case m == nil || m.DeletionTimestamp != nil || !mirrors(m, a.uid) || outlived(m, a.view.Pod.Status.Phase):
		if m == nil || was != nil && m.UID == was.UID {
			a.mirror.shown = nil
		}
		return
	case was != nil && !newer(m, was):
		return
	}
	a.mirror.shown = m
	next := *a.pod
	next.Status = m.Status
	a.pod = &next
}

// mirrors: the object shows the static pod with that uid.
func mirrors(m *corev1.Pod, uid types.UID) bool {
	return m.Annotations[corev1.MirrorPodAnnotationKey] == string(uid)
}

// outlived: the mirror shows how the static pod ended, and by now it has begun anew. One whose deadline is over has not: that counts from the pod's
// start, of which only the mirror tells after a restart of the node's.
func outlived(m *corev1.Pod, phase corev1.PodPhase) bool {
	return isTerminal(m.Status.Phase) && m.Status.Reason != deadlineExceeded && !isTerminal(phase)
}

// found is the mirror that the API has of the static pod in that phase; or what has its name instead, such as the mirror of a former pod or of a former life of
// this one.
func (a *Actor) found(ctx context.Context, pod *corev1.Pod, phase corev1.PodPhase) (mirror, other *corev1.Pod, err error) {
	var live corev1.Pod
	err = a.d.Client.Live().Get(ctx, crclient.ObjectKeyFromObject(pod), &live)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil, nil
	case err != nil:
		return nil, nil, err
	case live.DeletionTimestamp == nil && mirrors(&live, a.uid) && !outlived(&live, phase):
		return &live, nil, nil
	}
	return nil, &live, nil
}

// showing is the static pod's mirror in that phase, made if there is none; another goes first.
func (a *Actor) showing(ctx context.Context, pod *corev1.Pod, phase corev1.PodPhase) (*corev1.Pod, error) {
	mirror, other, err := a.found(ctx, pod, phase)
	if err != nil || mirror != nil {
		return mirror, err
	}
	if other != nil {
		if _, is := other.Annotations[corev1.MirrorPodAnnotationKey]; !is {
			return nil, apierrors.NewAlreadyExists(corev1.Resource("pods"), pod.Name)
		}
		if err := DeleteMirror(ctx, a.d.Client, other); err != nil {
			return nil, err
		}
	}
	var node corev1.Node
	if err := a.d.Client.Live().Get(ctx, crclient.ObjectKey{Name: a.d.Settings.NodeName}, &node); err != nil {
		return nil, err
	}
	made := static.Mirror(pod, &node)
	return made, a.d.Client.Create(ctx, made)
}

// DeleteMirror deletes a mirror at once: nothing runs because of it.
func DeleteMirror(ctx context.Context, c client.Client, m *corev1.Pod) error {
	zero, uid := int64(0), m.UID
	err := c.Delete(ctx, m.DeepCopy(), &crclient.DeleteOptions{GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
