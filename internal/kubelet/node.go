package kubelet

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api/loadbalancer"
	"skiff.dev/skiff/internal/api/localvolume"
	"skiff.dev/skiff/internal/version"
)

const (
	checkEvery  = 10 * time.Second // look whether the status changed
	reportEvery = 5 * time.Minute  // write it although it didn't
	maxImages   = 50

	stopPatience = 2 * time.Second // for a server that may be gone
)

// nodeState is what only runNode touches.
type nodeState struct {
	port   int32
	object *corev1.Node // as the API has it
	sent   time.Time
	wrote  bool
}

// runNode registers the node and keeps its status. Until the node is ready it looks again after moments that grow from 5 ms on; the
// time from an empty folder to a ready node is what users wait for.
func (k *Kubelet) runNode(ctx context.Context) error {
	delay := 5 * time.Millisecond
	isReady := false
	for {
		ready, err := k.syncNode(ctx, isReady)
		wait := checkEvery
		switch {
		case ctx.Err() != nil:
			k.reportStop(ctx)
			return nil
		case err != nil:
			k.log.Warn("cannot report the node's status; trying again", "err", err)
			delay = min(delay*2, time.Second)
			wait = delay
		case !ready:
			delay = min(delay*3/2, 500*time.Millisecond)
			wait = delay
		default:
			if !isReady {
				close(k.ready)
				isReady = true
			}
			delay = 5 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			k.reportStop(ctx)
			return nil
		case <-k.look:
		case <-time.After(wait):
		}
	}
}

// reportStop tells the cluster that this agent stops in order, so that what it alone does is done elsewhere at once.
func (k *Kubelet) reportStop(ctx context.Context) {
	if k.node.object == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopPatience)
	defer cancel()
	next := k.node.object.DeepCopy()
	setCondition(&next.Status, loadbalancer.AgentStopped, corev1.ConditionTrue, "AgentStopped", "the node's agent was stopped; its containers go on without it",
		metav1.NewTime(time.Now().Truncate(time.Second)))
	patch := crclient.StrategicMergeFrom(k.node.object)
	if err := k.cfg.Client.Status().Patch(ctx, next, patch); err != nil {
		k.log.Debug("could not tell the cluster that this agent stops", "err", err)
	}
}

func (k *Kubelet) syncNode(ctx context.Context, withImages bool) (ready bool, err error) {
	facts := k.runtimeFacts(ctx)
	if withImages {
		facts.images = k.listImages(ctx)
	} else if k.node.object != nil {
		facts.images = k.node.object.Status.Images
	}
	k.pods.network(facts.networkReady)
	if k.node.object == nil {
		if err := k.register(ctx, facts); err != nil {
			return false, err
		}
	} else if withImages {
		// Others write to the node too: labels, taints, addresses.
		var now corev1.Node
		if err := k.cfg.Client.Get(ctx, crclient.ObjectKey{Name: k.cfg.NodeName}, &now); err == nil {
			k.node.object = &now
		} else if apierrors.IsNotFound(err) {
			k.log.Warn("the node's object was deleted; registering again")
			k.node.object = nil
			return false, nil
		}
	}
	for attempt := 0; ; attempt++ {
		status := k.nodeStatus(&k.node.object.Status, facts, time.Now())
		due := time.Since(k.node.sent) >= reportEvery
		if k.node.wrote && !due && sameStatus(&status, &k.node.object.Status) {
			return isReady(&k.node.object.Status), nil
		}
		next := k.node.object.DeepCopy()
		next.Status = status
		err := k.cfg.Client.Status().Update(ctx, next)
		if err == nil {
			k.node.object, k.node.sent, k.node.wrote = next, time.Now(), true
			return isReady(&next.Status), nil
		}
		if apierrors.IsNotFound(err) {
			k.node.object = nil
		}
		if !apierrors.IsConflict(err) || attempt == 5 {
			return false, err
		}
		var live corev1.Node
		if err := k.cfg.Client.Live().Get(ctx, crclient.ObjectKey{Name: k.cfg.NodeName}, &live); err != nil {
			return false, err
		}
		k.node.object = &live
	}
}

// register creates the node's object, or takes over the one there is.
func (k *Kubelet) register(ctx context.Context, facts runtimeFacts) error {
	want := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.cfg.NodeName, Labels: k.labels(),
		Annotations: map[string]string{localvolume.FolderAnnotation: k.cfg.VolumeDir}}}
	want.Status = k.nodeStatus(&want.Status, facts, time.Now())
	err := k.cfg.Client.Create(ctx, want)
	if err == nil {
		k.node.object = want
		k.node.wrote, k.node.sent = len(want.Status.Conditions) > 0, time.Now()
		k.log.Info("registered the node")
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("register the node: %w", err)
	}
	var have corev1.Node
	if err := k.cfg.Client.Live().Get(ctx, crclient.ObjectKey{Name: k.cfg.NodeName}, &have); err != nil {
		return err
	}
	next := have.DeepCopy()
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	for key, value := range k.labels() {
		next.Labels[key] = value
	}
	if next.Annotations == nil {
		next.Annotations = map[string]string{}
	}
	next.Annotations[localvolume.FolderAnnotation] = k.cfg.VolumeDir
	if !equality.Semantic.DeepEqual(next.ObjectMeta, have.ObjectMeta) {
		if err := k.cfg.Client.Update(ctx, next); err != nil {
			return err
		}
	}
	k.node.object, k.node.wrote = next, false
	return nil
}

func (k *Kubelet) labels() map[string]string {
	return map[string]string{
		corev1.LabelHostname:      k.cfg.NodeName,
		corev1.LabelArchStable:    runtime.GOARCH,
		corev1.LabelOSStable:      runtime.GOOS,
		"beta.kubernetes.io/arch": runtime.GOARCH,
		"beta.kubernetes.io/os":   runtime.GOOS,
	}
}

// reference to the node, for events about it; kubectl describe finds them by its name for a uid.
func (k *Kubelet) reference() *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: k.cfg.NodeName, UID: types.UID(k.cfg.NodeName)}
}

// changed has the node's status looked at now.
func (k *Kubelet) changed() {
	select {
	case k.look <- struct{}{}:
	default:
	}
}

// runtimeFacts is what the container runtime says of itself.
type runtimeFacts struct {
	runtimeReady, networkReady bool
	problem                    string
	handlers                   []corev1.NodeRuntimeHandler
	images                     []corev1.ContainerImage
	features                   *corev1.NodeFeatures
}

func (k *Kubelet) runtimeFacts(ctx context.Context) (f runtimeFacts) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resp, err := k.runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		f.problem = "container runtime is down: " + err.Error()
		return f
	}
	var problems []string
	seen := map[string]bool{}
	for _, c := range resp.GetStatus().GetConditions() {
		seen[c.Type] = c.Status
		if c.Status {
			continue
		}
		switch c.Type {
		case runtimeapi.RuntimeReady:
			problems = append(problems, fmt.Sprintf("container runtime not ready: RuntimeReady=false reason:%s message:%s", c.Reason, c.Message))
		case runtimeapi.NetworkReady:
			problems = append(problems, fmt.Sprintf("container runtime network not ready: NetworkReady=false reason:%s message:%s", c.Reason, c.Message))
		}
	}
	f.runtimeReady, f.networkReady = seen[runtimeapi.RuntimeReady], seen[runtimeapi.NetworkReady]
	f.problem = strings.Join(problems, ", ")
	if f.problem == "" && !f.runtimeReady {
		f.problem = "container runtime status check may not have completed yet"
	}
	k.handlers.Store(&resp.RuntimeHandlers)
	for _, h := range resp.RuntimeHandlers {
		f.handlers = append(f.handlers, corev1.NodeRuntimeHandler{Name: h.Name, Features: &corev1.NodeRuntimeHandlerFeatures{
			RecursiveReadOnlyMounts: &h.GetFeatures().RecursiveReadOnlyMounts, UserNamespaces: ptr.To(k.noUsers == nil && h.GetFeatures().GetUserNamespaces()),
		}})
	}
	if resp.Features != nil {
		f.features = &corev1.NodeFeatures{SupplementalGroupsPolicy: &resp.Features.SupplementalGroupsPolicy}
	}
	return f
}

func (k *Kubelet) listImages(ctx context.Context) []corev1.ContainerImage {
	resp, err := k.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		k.log.Warn("cannot list images", "err", err)
		return nil
	}
	images := resp.Images
	slices.SortFunc(images, func(a, b *runtimeapi.Image) int {
		return cmp.Or(cmp.Compare(b.Size, a.Size), strings.Compare(a.Id, b.Id))
	})
	var out []corev1.ContainerImage
	for _, i := range images[:min(len(images), maxImages)] {
		names := append(slices.Sorted(slices.Values(i.RepoDigests)), slices.Sorted(slices.Values(i.RepoTags))...)
		out = append(out, corev1.ContainerImage{Names: names[:min(len(names), 5)], SizeBytes: int64(i.Size)})
	}
	return out
}

// nodeStatus is what the node's status should be; what others wrote into the old one stays.
func (k *Kubelet) nodeStatus(old *corev1.NodeStatus, facts runtimeFacts, now time.Time) corev1.NodeStatus {
	out := *old.DeepCopy()
	if out.Capacity == nil {
		out.Capacity, out.Allocatable = corev1.ResourceList{}, corev1.ResourceList{}
	}
	for name, q := range k.machine.capacity(k.cfg.MaxPods) {
		out.Capacity[name] = q
	}
	for name, q := range k.machine.allocatable(k.cfg.MaxPods) {
		out.Allocatable[name] = q
	}
	for name, n := range k.devices.Counts() {
		out.Capacity[name], out.Allocatable[name] = *resource.NewQuantity(n.Capacity, resource.DecimalSI), *resource.NewQuantity(n.Allocatable, resource.DecimalSI)
	}
	out.Addresses = nil
	for _, a := range k.cfg.NodeIPs {
		out.Addresses = append(out.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	out.Addresses = append(out.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: k.cfg.NodeName})
	out.DaemonEndpoints.KubeletEndpoint.Port = k.node.port
	runtimeVersion, _, _ := strings.Cut(strings.TrimPrefix(k.version.RuntimeVersion, "v"), "+")
	out.NodeInfo = corev1.NodeSystemInfo{
		MachineID: k.machine.id, SystemUUID: k.machine.uuid, BootID: k.machine.boot,
		KernelVersion: k.machine.kernel, OSImage: k.machine.osImage,
		ContainerRuntimeVersion: k.version.RuntimeName + "://" + runtimeVersion,
		KubeletVersion:          version.Kubernetes, OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
	}
	out.Images = facts.images
	out.VolumesInUse = k.drivers.InUse()
	out.RuntimeHandlers, out.Features, out.DeclaredFeatures = facts.handlers, facts.features, declared
	out.Conditions = slices.DeleteFunc(out.Conditions, func(c corev1.NodeCondition) bool { return c.Type == loadbalancer.AgentStopped })
	at := metav1.NewTime(now.Truncate(time.Second))
	p := k.short.conditions(now)
	pressed(&out, corev1.NodeMemoryPressure, slices.Contains(p, corev1.NodeMemoryPressure), "KubeletHasInsufficientMemory", "kubelet has insufficient memory available", "KubeletHasSufficientMemory", "kubelet has sufficient memory available", at)
	pressed(&out, corev1.NodeDiskPressure, slices.Contains(p, corev1.NodeDiskPressure), "KubeletHasDiskPressure", "kubelet has disk pressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure", at)
	pressed(&out, corev1.NodePIDPressure, slices.Contains(p, corev1.NodePIDPressure), "KubeletHasInsufficientPID", "kubelet has insufficient PID available", "KubeletHasSufficientPID", "kubelet has sufficient PID available", at)
	if k.shutdown.begun.Load() {
		facts.problem = strings.Trim(facts.problem+", "+shuttingDown, ", ")
	}
	if facts.problem == "" {
		setCondition(&out, corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status", at)
	} else {
		setCondition(&out, corev1.NodeReady, corev1.ConditionFalse, "KubeletNotReady", facts.problem, at)
	}
	return out
}

func pressed(s *corev1.NodeStatus, kind corev1.NodeConditionType, yes bool, badReason, bad, goodReason, good string, at metav1.Time) {
	if yes {
		setCondition(s, kind, corev1.ConditionTrue, badReason, bad, at)
		return
	}
	setCondition(s, kind, corev1.ConditionFalse, goodReason, good, at)
}

func setCondition(s *corev1.NodeStatus, kind corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string, at metav1.Time) {
	c := corev1.NodeCondition{Type: kind, Status: status, Reason: reason, Message: message, LastHeartbeatTime: at, LastTransitionTime: at}
	for i := range s.Conditions {
		if old := &s.Conditions[i]; old.Type == kind {
			if old.Status == status {
				c.LastTransitionTime = old.LastTransitionTime
			}
			*old = c
			return
		}
	}
	s.Conditions = append(s.Conditions, c)
}

// sameStatus ignores when the heart beat last.
func sameStatus(a, b *corev1.NodeStatus) bool {
	x, y := *a, *b
	x.Conditions, y.Conditions = still(a.Conditions), still(b.Conditions)
	return equality.Semantic.DeepEqual(x, y)
}

func still(in []corev1.NodeCondition) []corev1.NodeCondition {
	out := slices.Clone(in)
	for i := range out {
		out[i].LastHeartbeatTime = metav1.Time{}
	}
	return out
}

func isReady(s *corev1.NodeStatus) bool {
	return slices.ContainsFunc(s.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}
