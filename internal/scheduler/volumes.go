package scheduler

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	storage "k8s.io/component-helpers/storage/volume"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/scheduler/cluster"
	"skiff.dev/skiff/internal/scheduler/filter"
	"skiff.dev/skiff/internal/scheduler/preempt"
	"skiff.dev/skiff/internal/scheduler/queue"
	"skiff.dev/skiff/internal/scheduler/volume"
)

// bindTimeout is how long a pod that has a node waits for its volumes, as upstream.
const bindTimeout = 10 * time.Minute

// binding is a pod whose node is chosen and whose volumes are on their way, or then its devices. No goroutine waits for them: the claims' events do.
type binding struct {
	pod      *cluster.Pod
	object   *corev1.Pod
	node     string
	attempts int
	volumes  []string // promised
	timer    *time.Timer
	until    time.Time // for devices to get ready
}

// demand finds out what a pod's volumes and resource claims ask for; false says that no node can do yet, and the pod was put back. That its claims are still
// to be made from their templates is so of every such pod for a moment: it is told only when it is so for long.
func (l *loop) demand(e *queue.Entry) bool {
	p := e.Pod
	p.Volumes, p.Claims, l.need = nil, nil, nil
	if l.nodes.Count() == 0 {
		return true
	}
	why, helps := l.needs(p)
	if why == "" {
		return true
	}
	if helps == 0 && e.Attempts <= 1 {
		e.Class = nil
		l.queue.Refuse(e, helps, l.now())
		return false
	}
	l.dropLeftOver(p)
	nodes := l.nodes.Count()
	sentence, nominated := fmt.Sprintf("0/%d nodes are available: %s.", nodes, why), p.Status.NominatedNodeName
	if p.Profile.Runs("DefaultPreemption") {
		text := preempt.Eligible(p, l.nodes, -1, true)
		if text == "" {
			text, nominated = verdict(nodes, preempt.Useless(nodes)), ""
		}
		sentence += " preemption: " + text
	}
	e.Class = nil
	l.refuse(e, sentence, helps, nominated, nil)
	return false
}

// dropLeftOver deletes the claim for extended resources that an earlier try of a pod left behind, if one did.
func (l *loop) dropLeftOver(p *cluster.Pod) {
	if claim, object := l.devices.Made(p.Pod), p.Pod; claim != nil {
		l.write(p.UID, func(ctx context.Context) { l.dropExtended(ctx, object, claim) })
	}
}

// needs finds out what a pod's affinity, volumes and resource claims ask of nodes; why is the reason if no node can do yet, whichever, and helps what may change that;
// 0 says that only a change of the pod itself does.
func (l *loop) needs(p *cluster.Pod) (why string, helps cluster.Change) {
	if names, bound := filter.Named(p); bound && len(names) == 0 && p.Profile.Runs("NodeAffinity") {
		return filter.Conflict, cluster.Added
	}
	var err error
	helps = cluster.Stored
	if p.Profile.Runs("VolumeBinding") {
		p.Volumes, why, err = l.volumes.Of(p.Pod)
		if p.Volumes != nil && p.Volumes.Missing != "" && p.Profile.Runs("VolumeZone") {
			why = fmt.Sprintf("persistentvolume %q not found", p.Volumes.Missing)
		}
	}
	if why == "" && err == nil && l.devices.Made(p.Pod) != nil {
		return leftOver, cluster.Devices
	}
	if why == "" && err == nil && p.Profile.Runs("DynamicResources") {
		p.Backed = nil
		if len(p.Extended)+len(p.Ignored) > 0 {
			p.Backed = l.devices.Backed(p.Extended, p.Ignored)
		}
		if len(p.Spec.ResourceClaims)+len(p.Backed) > 0 {
			helps = cluster.Devices
			l.need, why, err = l.devices.Of(p.Pod, p.Backed, l.limits(p))
		}
	}
	if err != nil {
		why = err.Error()
	}
	if errors.Is(err, resourceclaim.ErrClaimNotFound) {
		helps = 0
	}
	return why, helps
}

// settle writes where a pod's unbound claims are to be bound; the pod itself is bound once they are.
func (l *loop) settle(p *cluster.Pod, object *corev1.Pod, node string, attempts int) {
	i, known := l.nodes.Index(node)
	if !known || l.nodes.Node[i] == nil {
		l.unwritten(p)
		l.unassume(p, attempts, true)
		return
	}
	list, refusal := filter.Bind(p.Volumes, l.nodes.Node[i])
	if refusal != nil {
		l.unwritten(p)
		l.unassume(p, attempts, true)
		return
	}
	b := &binding{pod: p, object: object, node: node, attempts: attempts}
	for _, one := range list {
		if one.Volume != nil {
			l.volumes.Promise(one.Volume.Name, one.Claim.Namespace+"/"+one.Claim.Name)
			b.volumes = append(b.volumes, one.Volume.Name)
		}
	}
	l.binding[p.UID] = b
	limit := bindTimeout
	if p.Profile != nil {
		limit = p.Profile.BindTimeout
	}
	b.timer = time.AfterFunc(limit, func() {
		l.mail.post(func() { l.giveUp(b, fmt.Errorf("binding volumes: %w", context.DeadlineExceeded)) })
	})
	l.expect(b)
	l.write(p.UID, func(ctx context.Context) {
		for _, one := range list {
			if err := l.choose(ctx, one, node); err != nil && ctx.Err() == nil {
				l.mail.post(func() { l.giveUp(b, err) })
				return
			}
		}
		l.mail.post(func() { l.settled(b) })
	})
}

// choose binds a claim to a volume, or has one made for it on the node.
func (l *loop) choose(ctx context.Context, one filter.Binding, node string) error {
	if one.Volume != nil {
		bound, dirty, err := storage.GetBindVolumeToClaim(one.Volume, one.Claim)
		if err != nil || !dirty {
			return err
		}
		return l.cfg.Client.Update(ctx, bound)
	}
	if one.Claim.Annotations[storage.AnnSelectedNode] == node {
		return nil
	}
	changed := one.Claim.DeepCopy()
	if changed.Annotations == nil {
		changed.Annotations = map[string]string{}
	}
	changed.Annotations[storage.AnnSelectedNode] = node
	return l.cfg.Client.Update(ctx, changed)
}

// settled binds a pod if all its claims are bound.
func (l *loop) settled(b *binding) {
	if l.binding[b.pod.UID] != b {
		return
	}
	for k := range b.pod.Volumes.Unbound {
		was := b.pod.Volumes.Unbound[k].Claim
		var claim corev1.PersistentVolumeClaim
		err := l.cfg.Client.Get(context.Background(), crclient.ObjectKeyFromObject(was), &claim)
		switch {
		case err != nil || claim.UID != was.UID || claim.DeletionTimestamp != nil:
			l.giveUp(b, fmt.Errorf("persistentvolumeclaim %q is gone", was.Name))
			return
		case volume.Bound(&claim) && claim.Status.Phase == corev1.ClaimBound: // the kubelet wants both
			if err := l.reaches(b.node, claim.Spec.VolumeName); err != nil {
				l.giveUp(b, fmt.Errorf("binding volumes: %w", err))
				return
			}
			continue
		}
		return // its event will come
	}
	l.close(b)
	l.write(b.pod.UID, func(ctx context.Context) { l.bind(ctx, b.pod, b.object, b.node, b.attempts) })
}

// reaches says why the volume that a claim got cannot be reached from the node that its pod was to go to: another pod may have got it elsewhere meanwhile.
func (l *loop) reaches(node, name string) error {
	var pv corev1.PersistentVolume
	i, known := l.nodes.Index(node)
	if !known || l.nodes.Node[i] == nil || l.cfg.Client.Get(context.Background(), crclient.ObjectKey{Name: name}, &pv) != nil {
		return nil // the binding will tell
	}
	if err := storage.CheckNodeAffinity(&pv, l.nodes.Node[i].Labels); err != nil {
		return fmt.Errorf("pv %q node affinity doesn't match node %q: %w", name, node, err)
	}
	return nil
}

// giveUp sends a pod back to the queue because its volumes did not come to be.
func (l *loop) giveUp(b *binding, err error) {
	if l.binding[b.pod.UID] != b {
		return
	}
	l.close(b)
	l.unwritten(b.pod)
	l.unbound(b.pod, b.object, b.attempts, fmt.Sprintf("running PreBind plugin %q: %v", "VolumeBinding", err))
}

func (l *loop) close(b *binding) {
	b.timer.Stop()
	delete(l.binding, b.pod.UID)
	for _, name := range b.volumes {
		l.volumes.Forget(name)
	}
}

// dropBinding is for a pod that went, or got its node otherwise.
func (l *loop) dropBinding(uid types.UID) {
	if b := l.binding[uid]; b != nil {
		l.close(b)
		l.unwritten(b.pod)
	}
	l.dropAwaiting(uid)
}

// claimChanged goes on with the pods that wait for a claim.
func (l *loop) claimChanged(old, current *corev1.PersistentVolumeClaim) {
	l.pending |= cluster.Stored
	one := current
	if one == nil {
		one = old
	}
	for _, b := range l.binding {
		for k := range b.pod.Volumes.Unbound {
			c := b.pod.Volumes.Unbound[k].Claim
			if c.Name != one.Name || c.Namespace != one.Namespace {
				continue
			}
			if handedBack(old, current, b.node) {
				l.giveUp(b, fmt.Errorf("binding volumes: provisioning failed for PVC %q", c.Name))
			} else {
				l.settled(b)
			}
			break
		}
	}
}

// handedBack says that a provisioner could not make a volume on the node, and leaves it to the scheduler to choose another.
func handedBack(old, current *corev1.PersistentVolumeClaim, node string) bool {
	return old != nil && current != nil && !volume.Bound(current) &&
		old.Annotations[storage.AnnSelectedNode] == node && current.Annotations[storage.AnnSelectedNode] != node
}

// storageChanged is for volumes, classes and capacities.
func (l *loop) storageChanged() {
	l.pending |= cluster.Stored
	l.volumes.Changed()
}

func (l *loop) attachmentChanged(old, current *storagev1.VolumeAttachment) {
	if current == nil {
		l.pending |= cluster.Stored
		l.nodes.SetAttachment(old.Name, old.Spec.NodeName, cluster.Attachment{})
		return
	}
	l.nodes.SetAttachment(current.Name, current.Spec.NodeName, l.volumes.Attachment(current))
}

func (l *loop) csiDriverChanged(old, current *storagev1.CSIDriver) {
	l.pending |= cluster.Stored
	l.volumes.DriverChanged(old, current)
}

func (l *loop) csiNodeChanged(old, current *storagev1.CSINode) {
	l.pending |= cluster.Stored
	if current == nil {
		l.nodes.SetAttachLimits(old.Name, nil)
		return
	}
	limits := map[string]int{}
	for _, d := range current.Spec.Drivers {
		limits[d.Name] = math.MaxInt
		if d.Allocatable != nil && d.Allocatable.Count != nil {
			limits[d.Name] = int(*d.Allocatable.Count)
		}
	}
	l.nodes.SetAttachLimits(current.Name, limits)
}
