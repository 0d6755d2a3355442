package kubelet

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/kubelet/cgroup"
	"skiff.dev/skiff/internal/kubelet/device"
	"skiff.dev/skiff/internal/kubelet/dra"
	"skiff.dev/skiff/internal/kubelet/oom"
	"skiff.dev/skiff/internal/kubelet/pod"
)

// pods are the actors of this node, and what they are woken by.
type pods struct {
	k    *Kubelet
	deps *pod.Deps

	mu         sync.Mutex
	ctx        context.Context // of run; nil before and after
	actors     map[types.UID]*pod.Actor
	refs       map[reference]map[types.UID]bool // which pods are made of which objects
	hasNetwork bool
	known      bool                      // all pods of the API have been seen once
	first      map[types.UID]*corev1.Pod // until then: those nobody has taken up yet
	statics    map[types.UID]*corev1.Pod // that the host's manifests ask for
	running    sync.WaitGroup
	kills      oom.Kills
	certified  bool  // certificates are followed
	burst      int64 // milli-CPU that burstable pods request, as last set
}

// reference is an object that a pod is made of.
type reference struct{ kind, namespace, name string }

// trustKind stands for all bundles at once: a pod may want those of a signer, whichever they are.
const trustKind = "ClusterTrustBundle"

func newPods(k *Kubelet, deps *pod.Deps) *pods {
	p := &pods{k: k, deps: deps, actors: map[types.UID]*pod.Actor{}, refs: map[reference]map[types.UID]bool{},
		first: map[types.UID]*corev1.Pod{}}
	deps.Ended, deps.Kills = p.ended, &p.kills
	return p
}

// run feeds the actors from the API until ctx ends.
func (p *pods) run(ctx context.Context) error {
	p.mu.Lock()
	p.ctx = ctx
	p.mu.Unlock()
	if err := p.runStatics(ctx); err != nil {
		return err
	}
	c := p.k.cfg.Client.Cache()
	informer, err := c.GetInformer(ctx, &corev1.Pod{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { p.see(o) },
		UpdateFunc: func(_, o any) { p.see(o) },
		DeleteFunc: p.removed,
	})
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	defer func() { _ = informer.RemoveEventHandler(registration) }()
	for kind, object := range map[string]crclient.Object{
		"ConfigMap": &corev1.ConfigMap{}, "Secret": &corev1.Secret{}, "PersistentVolumeClaim": &corev1.PersistentVolumeClaim{},
		trustKind: &certificatesv1.ClusterTrustBundle{},
	} {
		stop, err := p.watchSource(ctx, kind, object)
		if err != nil {
			return err
		}
		defer stop()
	}
	if !toolscache.WaitForCacheSync(ctx.Done(), registration.HasSynced) {
		return nil
	}
	p.mu.Lock()
	p.known = true
	p.beginFirst()
	p.mu.Unlock()
	if err := p.orphans(ctx); err != nil && ctx.Err() == nil {
		p.k.log.Warn("cannot look for what pods left behind; trying again later", "err", err)
	}
	<-ctx.Done()
	return nil
}

// watchSource refreshes the pods that are made of an object when it changes.
func (p *pods) watchSource(ctx context.Context, kind string, object crclient.Object) (stop func(), err error) {
	informer, err := p.k.cfg.Client.Cache().GetInformer(ctx, object, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, fmt.Errorf("watch %ss: %w", kind, err)
	}
	changed := func(o any) {
		if last, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
			o = last.Obj
		}
		object, ok := o.(crclient.Object)
		if !ok {
			return
		}
		if kind == trustKind {
			p.refresh(reference{kind: trustKind})
			return
		}
		p.refresh(reference{kind, object.GetNamespace(), object.GetName()})
	}
	registration, err := informer.AddEventHandler(toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(o any, initial bool) {
			if !initial {
				changed(o)
			}
		},
		UpdateFunc: func(_, o any) { changed(o) },
		DeleteFunc: changed,
	})
	if err != nil {
		return nil, fmt.Errorf("watch %ss: %w", kind, err)
	}
	return func() { _ = informer.RemoveEventHandler(registration) }, nil
}

// followCertificates wakes pods when signers have decided about their requests. It begins with the first pod that wants a certificate.
func (p *pods) followCertificates(ctx context.Context) {
	informer, err := p.k.cfg.Client.Cache().GetInformer(ctx, &certificatesv1.PodCertificateRequest{}, cache.BlockUntilSynced(false))
	if err == nil {
		var registration toolscache.ResourceEventHandlerRegistration
		registration, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{UpdateFunc: func(_, o any) {
			r, ok := o.(*certificatesv1.PodCertificateRequest)
			if !ok {
				return
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			if a := p.actors[r.Spec.PodUID]; a != nil {
				a.Refresh()
			}
		}})
		if err == nil {
			<-ctx.Done()
			_ = informer.RemoveEventHandler(registration)
			return
		}
	}
	if ctx.Err() == nil {
		p.k.log.Warn("cannot follow the requests for pods' certificates", "err", err)
	}
}

func wantsCertificate(one *corev1.Pod) bool {
	for _, v := range one.Spec.Volumes {
		if v.Projected != nil && slices.ContainsFunc(v.Projected.Sources, func(s corev1.VolumeProjection) bool { return s.PodCertificate != nil }) {
			return true
		}
	}
	return false
}

func (p *pods) refresh(r reference) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for uid := range p.refs[r] {
		if a := p.actors[uid]; a != nil {
			a.Refresh()
		}
	}
}

// devices wakes pods whose devices' health changed; for nil, those that may wait for a driver.
func (p *pods) devices(changed []types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, uid := range changed {
		if a := p.actors[uid]; a != nil {
			a.Observe()
		}
	}
	for _, a := range p.actors {
		if changed == nil && (dra.Wants(a.View().Pod) || device.Asks(a.View().Pod)) {
			a.Retry()
		}
	}
}

// see takes in a pod as the API has it now.
func (p *pods) see(o any) {
	one, ok := o.(*corev1.Pod)
	if !ok || one.Spec.NodeName != p.k.cfg.NodeName {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if isMirror(one) {
		p.mirrored(one)
		return
	}
	if a := p.actors[one.UID]; a != nil {
		a.Update(one)
		return
	}
	if !p.known && fresh(one) {
		p.first[one.UID] = one
		return
	}
	delete(p.first, one.UID)
	p.begin(one, false)
}

func (p *pods) removed(o any) {
	if last, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
		o = last.Obj
	}
	one, ok := o.(*corev1.Pod)
	if !ok || one.Spec.NodeName != p.k.cfg.NodeName {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if isMirror(one) {
		if a := p.staticNamed(one.Namespace, one.Name); a != nil {
			a.Unmirrored(one.UID)
		}
	}
	delete(p.first, one.UID)
	if a := p.actors[one.UID]; a != nil {
		a.Removed(one)
	}
}

// begin starts a pod's actor. The caller holds mu.
func (p *pods) begin(one *corev1.Pod, gone bool) {
	if p.ctx == nil || p.ctx.Err() != nil {
		return
	}
	var a *pod.Actor
	if p.statics[one.UID] != nil {
		a = pod.NewStatic(p.deps, one, p.hasNetwork)
	} else {
		a = pod.New(p.deps, one, gone, p.hasNetwork)
	}
	if !gone {
		a.Refuse(p.admit(one))
	}
	p.actors[one.UID] = a
	for _, r := range references(one) {
		if p.refs[r] == nil {
			p.refs[r] = map[types.UID]bool{}
		}
		p.refs[r][one.UID] = true
	}
	ctx := p.ctx
	p.running.Go(func() { a.Run(ctx) })
	if !p.certified && wantsCertificate(one) {
		p.certified = true
		p.running.Go(func() { p.followCertificates(ctx) })
	}
	p.weigh()
}

// ended forgets an actor whose pod is gone for good.
func (p *pods) ended(a *pod.Actor) {
	p.k.probes.Forget(a.UID())
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.actors, a.UID())
	for r, uids := range p.refs {
		if delete(uids, a.UID()); len(uids) == 0 {
			delete(p.refs, r)
		}
	}
	if a.Static() {
		p.staticEnded(a)
	}
	p.weigh()
}

// weigh gives the cgroup of burstable pods the CPU weight of their requests. The caller holds mu.
func (p *pods) weigh() {
	var milli int64
	for _, a := range p.actors {
		if one := a.View().Pod; cgroup.Class(one) == corev1.PodQOSBurstable && !terminal(one) {
			milli += cgroup.RequestedCPU(one)
		}
	}
	if milli == p.burst {
		return
	}
	if err := p.deps.Cgroups.SetBurstable(milli); err != nil {
		p.k.log.Warn("cannot set the CPU weight of burstable pods", "err", err)
		return
	}
	p.burst = milli
}

func terminal(one *corev1.Pod) bool {
	return one.Status.Phase == corev1.PodSucceeded || one.Status.Phase == corev1.PodFailed
}

// network tells the actors whether sandboxes can have a network.
func (p *pods) network(ready bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hasNetwork == ready {
		return
	}
	p.hasNetwork = ready
	for _, a := range p.actors {
		a.Network(ready)
	}
}

func (p *pods) wait() { p.running.Wait() }

// references lists the objects whose changes matter to a pod.
func references(one *corev1.Pod) []reference {
	var out []reference
	add := func(kind, name string) {
		if name != "" {
			out = append(out, reference{kind, one.Namespace, name})
		}
	}
	for _, v := range one.Spec.Volumes {
		if v.ConfigMap != nil {
			add("ConfigMap", v.ConfigMap.Name)
		}
		if v.Secret != nil {
			add("Secret", v.Secret.SecretName)
		}
		add("PersistentVolumeClaim", api.ClaimName(one, &v))
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				add("ConfigMap", s.ConfigMap.Name)
			}
			if s.Secret != nil {
				add("Secret", s.Secret.Name)
			}
			if s.ClusterTrustBundle != nil {
				out = append(out, reference{kind: trustKind})
			}
		}
	}
	for _, list := range [][]corev1.Container{one.Spec.InitContainers, one.Spec.Containers} {
		for i := range list {
			for _, f := range list[i].EnvFrom {
				if f.ConfigMapRef != nil {
					add("ConfigMap", f.ConfigMapRef.Name)
				}
				if f.SecretRef != nil {
					add("Secret", f.SecretRef.Name)
				}
			}
			for _, e := range list[i].Env {
				if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
					add("ConfigMap", e.ValueFrom.ConfigMapKeyRef.Name)
				}
				if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
					add("Secret", e.ValueFrom.SecretKeyRef.Name)
				}
			}
		}
	}
	return out
}

// List of all pods, for the HTTP API.
func (p *pods) List() []pod.View {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]pod.View, 0, len(p.actors))
	for _, a := range p.actors {
		out = append(out, a.View())
	}
	return out
}

// actor of a pod; nil if there is none.
func (p *pods) actor(uid types.UID) *pod.Actor {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.actors[uid]
}

// holding are the actors of pods that take up room.
func (p *pods) holding() []*pod.Actor {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*pod.Actor
	for _, a := range p.actors {
		if a.Holds() != nil {
			out = append(out, a)
		}
	}
	return out
}

// images that pods are made of, by the names that they give them.
func (p *pods) images() (out []string) {
	for _, a := range p.holding() {
		spec := &a.View().Pod.Spec
		for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
			for i := range list {
				out = append(out, list[i].Image)
			}
		}
		for i := range spec.Volumes {
			if v := spec.Volumes[i].Image; v != nil {
				out = append(out, v.Reference)
			}
		}
	}
	return out
}

// Find a pod by name; a uid, if given, must be the pod's.
func (p *pods) Find(namespace, name string, uid types.UID) *pod.Actor {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found *pod.Actor
	for _, a := range p.actors {
		v := a.View().Pod
		if v.Namespace != namespace || v.Name != name || (uid != "" && v.UID != uid) {
			continue
		}
		// Of two with one name, the one made later is meant.
		if found == nil || found.View().Pod.CreationTimestamp.Before(&v.CreationTimestamp) {
			found = a
		}
	}
	return found
}

const relistEvery = time.Minute

// labels of all pods, by uid.
func (p *pods) labels() map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, v := range p.List() {
		out[string(v.Pod.UID)] = v.Pod.Labels
	}
	return out
}

// LiveLogs of running containers, for rotation.
func (p *pods) LiveLogs() map[string]string {
	out := map[string]string{}
	for _, v := range p.List() {
		for i := range v.Containers {
			if c := &v.Containers[i]; c.Running() && c.LogPath != "" {
				out[c.ID] = c.LogPath
			}
		}
	}
	return out
}
