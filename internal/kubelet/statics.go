package kubelet

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"skiff.dev/skiff/internal/kubelet/pod"
	"skiff.dev/skiff/internal/kubelet/static"
)

// runStatics takes up the pods of the host's manifests, before anything is known of the API, and follows the manifests until ctx ends.
func (p *pods) runStatics(ctx context.Context) error {
	if p.k.cfg.StaticPods == "" {
		return nil
	}
	folder, err := static.Open(p.k.cfg.StaticPods, p.k.cfg.NodeName)
	if err != nil {
		return err
	}
	told := ""
	read := func() {
		now, err := folder.Read()
		if err == nil {
			told = ""
		} else if told != err.Error() { // not again for a change elsewhere in the folder
			told = err.Error()
			p.k.log.Error("a manifest of a static pod is of no use; the pod that it held before stays", "err", err)
		}
		if now != nil {
			p.setStatics(now)
		}
	}
	read()
	p.running.Go(func() {
		if err := folder.Watch(ctx, read); err != nil && ctx.Err() == nil {
			p.k.log.Error("changes of static pods are not seen", "err", err)
		}
	})
	return nil
}

// setStatics ends static pods whose manifests are gone or changed, and begins new ones.
func (p *pods) setStatics(now map[types.UID]*corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.statics = now
	for uid, a := range p.actors {
		if a.Static() && now[uid] == nil {
			a.Removed(nil)
		}
	}
	p.beginStatics()
}

// beginStatics begins the static pods that are not there. One of the same name as another waits until that has ended. The caller holds mu.
func (p *pods) beginStatics() {
	for uid, one := range p.statics {
		if p.actors[uid] == nil && p.staticNamed(one.Namespace, one.Name) == nil {
			p.begin(one, false)
		}
	}
}

// renewStatics has static pods begin anew that the node ended, or refused, for one of these reasons.
func (p *pods) renewStatics(reasons ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.actors {
		a.Renew(reasons...)
	}
}

// staticNamed is the actor of a static pod; nil if there is none. The caller holds mu.
func (p *pods) staticNamed(namespace, name string) *pod.Actor {
	for _, a := range p.actors {
		if one := a.View().Pod; a.Static() && one.Name == name && one.Namespace == namespace {
			return a
		}
	}
	return nil
}

// staticEnded: the next pod of that name may begin; without one, nothing is shown of it any more. The caller holds mu.
func (p *pods) staticEnded(a *pod.Actor) {
	p.beginStatics()
	one := a.View().Pod
	if m := a.Shown(); m != nil && p.staticNamed(one.Namespace, one.Name) == nil {
		p.deleteMirror(m)
	}
}

func isMirror(one *corev1.Pod) bool {
	_, is := one.Annotations[corev1.MirrorPodAnnotationKey]
	return is
}

// mirrored takes in what the API shows of a static pod; of one that is not there it shows nothing. The caller holds mu.
func (p *pods) mirrored(m *corev1.Pod) {
	if a := p.staticNamed(m.Namespace, m.Name); a != nil {
		a.Mirrored(m)
		return
	}
	p.deleteMirror(m)
}

// deleteMirror does so beside, until it is done. The caller holds mu.
func (p *pods) deleteMirror(m *corev1.Pod) {
	ctx := p.ctx
	if ctx == nil || ctx.Err() != nil {
		return
	}
	p.running.Go(func() {
		for wait := time.Second; ; wait = min(2*wait, time.Minute) {
			err := pod.DeleteMirror(ctx, p.k.cfg.Client, m)
			if err == nil || ctx.Err() != nil {
				return
			}
			p.k.log.Warn("cannot delete what the API shows of a static pod that is gone; trying again", "namespace", m.Namespace, "name", m.Name, "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
	})
}
