package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/kubelet/cgroup"
	"skiff.dev/skiff/internal/kubelet/device"
	"skiff.dev/skiff/internal/kubelet/dra"
	"skiff.dev/skiff/internal/kubelet/logs"
)

func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// plain is an error's text without gRPC's wrapping.
func plain(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// act carries out one action.
func (a *Actor) act(ctx context.Context, pod *corev1.Pod, action Action) {
	key := action.Key()
	switch action.Verb {
	case Kill:
		a.kill(ctx, pod, action)
		return
	case PreStop:
		a.preStop(ctx, pod, action)
		return
	case Start:
		a.start(ctx, pod, action)
		return
	case Actuate:
		a.sizeAction(ctx, pod, action)
		return
	}
	a.launch(ctx, key, func(ctx context.Context) func(*State) {
		err := a.perform(ctx, pod, action)
		return func(s *State) {
			a.dirty = true
			if err == nil {
				delete(s.Retry, key)
				delete(a.delays, key)
				a.done(s, action)
				return
			}
			if ctx.Err() == nil {
				a.failed(pod, s, action, err)
			}
		}
	})
}

func (a *Actor) perform(ctx context.Context, pod *corev1.Pod, action Action) error {
	rt := a.d.Runtime
	switch action.Verb {
	case Prepare:
		return a.prepare(ctx, pod)
	case CreateSandbox:
		return a.createSandbox(ctx, pod, action.Attempt)
	case StopSandbox:
		_, err := rt.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: action.ID})
		return err
	case RemoveSandbox:
		_, err := rt.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: action.ID})
		return err
	case RemoveContainer:
		return a.removeContainer(ctx, action.ID)
	case CleanUp:
		return errors.Join(a.d.Claims.Unprepare(ctx, a.uid), a.d.Devices.Free(a.uid), a.cleanFolder(ctx), a.d.Cgroups.Remove(a.uid))
	case Delete:
		zero, uid := int64(0), a.uid
		err := a.d.Client.Delete(ctx, pod.DeepCopy(), &crclient.DeleteOptions{
			GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &uid},
		})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return nil
		}
		return err
	}
	return fmt.Errorf("no such action: %s", action.Verb)
}

func (a *Actor) done(s *State, action Action) {
	switch action.Verb {
	case Prepare:
		s.Prepared = true
	case CreateSandbox:
		s.Refused = ""
	case RemoveContainer:
		if !action.Ended.IsZero() {
			s.Backoff[action.Container] = s.Backoff[action.Container].Next(action.Ended, time.Now())
		}
	case CleanUp:
		s.Cleaned = true
	case Delete:
		// Word of it comes from the API; should that be lost, try again.
		s.Retry[action.Key()] = time.Now().Add(10 * time.Second)
	}
}

// failed says what went wrong and has it tried again, less and less often.
func (a *Actor) failed(pod *corev1.Pod, s *State, action Action, err error) {
	key := action.Key()
	first, limit := time.Second, 2*time.Minute
	switch action.Verb {
	case Prepare:
		first = 500 * time.Millisecond
		if a.withoutDevices(pod, s, err) {
			break
		}
		if isDevices(err) {
			a.event(pod, "", corev1.EventTypeWarning, "FailedPrepareDynamicResources", "Failed to prepare dynamic resources: "+err.Error())
			break
		}
		for _, one := range unjoin(err) {
			a.event(pod, "", corev1.EventTypeWarning, "FailedMount", one.Error())
		}
	case CreateSandbox:
		limit = 20 * time.Second
		s.Refused = ""
		if errors.Is(err, errUsers) {
			s.Refused = plain(err)
		}
		a.event(pod, "", corev1.EventTypeWarning, "FailedCreatePodSandBox", "Failed to create pod sandbox: "+plain(err))
	case StopSandbox:
		a.event(pod, "", corev1.EventTypeWarning, "FailedKillPod", "error killing pod: "+plain(err))
	case CleanUp:
		if isDevices(err) {
			limit = 10 * time.Second // others wait for them
			a.event(pod, "", corev1.EventTypeWarning, "FailedSync", "Error syncing pod, skipping: "+err.Error())
		}
	}
	a.log.Warn("cannot "+string(action.Verb)+"; trying again", "id", action.ID, "err", err)
	a.delays[key] = min(max(first, 2*a.delays[key]), limit)
	s.Retry[key] = time.Now().Add(a.delays[key])
}

// withoutDevices: the pod lacks devices of plug-ins. It waits for them, or is refused if that doesn't help.
func (a *Actor) withoutDevices(pod *corev1.Pod, s *State, err error) bool {
	var e *device.Error
	if !errors.As(err, &e) {
		return false
	}
	var short *device.Short
	if errors.As(err, &short) && short.Final {
		s.Verdict = &Verdict{"UnexpectedAdmissionError", "Pod was rejected: " + short.Error()}
		a.event(pod, "", corev1.EventTypeWarning, s.Verdict.Reason, short.Error())
		return true
	}
	a.event(pod, "", corev1.EventTypeWarning, "FailedAllocateDevices", e.Error())
	return true
}

func unjoin(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}

func isDevices(err error) bool {
	var e *dra.Error
	return errors.As(err, &e)
}

func (a *Actor) prepare(ctx context.Context, pod *corev1.Pod) error {
	if err := a.d.Cgroups.Create(a.uid, cgroup.Class(pod), cgroup.PodLimits(pod)); err != nil {
		return err
	}
	for _, dir := range []string{a.d.Volumes.PodDir(a.uid), a.d.Settings.LogDirOf(pod)} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := logs.Sign(a.d.Settings.LogDirOf(pod), pod); err != nil {
		return err
	}
	if device.Asks(pod) {
		if err := a.d.Devices.Allocate(ctx, pod); err != nil {
			return err
		}
	}
	if err := a.mount(ctx, pod); err != nil || !dra.Wants(pod) {
		return err
	}
	return a.d.Claims.Prepare(ctx, pod)
}

func (a *Actor) mount(ctx context.Context, pod *corev1.Pod) error {
	renew, err := a.d.Volumes.Mount(ctx, withAddresses(pod, nil, a.d.Node()), &a.volumes, time.Now())
	a.put(func() { a.results = append(a.results, func(*State) { a.renew = renew }) })
	return err
}

// again brings volumes up to date. The former content stays where the new cannot be had.
func (a *Actor) again(ctx context.Context, pod *corev1.Pod) {
	const key = "prepare"
	a.renew = time.Time{}
	delete(a.s.Retry, key)
	for name, w := range a.s.Waiting {
		if w.Reason == errConfig {
			w.Retry = time.Time{}
			a.s.Waiting[name] = w
		}
	}
	if !a.s.Prepared || a.s.Cleaned || !a.s.StopSince.IsZero() {
		return
	}
	if a.s.Busy[key] {
		a.put(func() { a.refresh = true })
		return
	}
	a.launch(ctx, key, func(ctx context.Context) func(*State) {
		err := a.mount(ctx, pod)
		return func(*State) {
			if err != nil && ctx.Err() == nil {
				for _, one := range unjoin(err) {
					a.event(pod, "", corev1.EventTypeWarning, "FailedMount", one.Error())
				}
				if a.renew.IsZero() {
					a.renew = time.Now().Add(time.Minute)
				}
			}
		}
	})
}

func (a *Actor) createSandbox(ctx context.Context, pod *corev1.Pod, attempt uint32) (err error) {
	if api.OwnUsers(&pod.Spec) {
		defer func() { a.d.Started.count(err) }()
	}
	if attempt > 0 {
		a.event(pod, "", corev1.EventTypeNormal, "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
	}
	handler, err := a.handler(ctx, pod)
	if err != nil {
		return err
	}
	if api.OwnUsers(&pod.Spec) {
		if err := a.allowUsers(ctx, pod, handler); err != nil {
			return err
		}
	}
	users, err := a.users(pod)
	if err != nil {
		return err
	}
	config, err := sandboxConfig(pod, attempt, users, a.d.Cgroups.Path(a.uid, cgroup.Class(pod)), a.d.Settings)
	if err != nil {
		return err
	}
	_, err = a.d.Runtime.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler})
	return err
}

func (a *Actor) handler(ctx context.Context, pod *corev1.Pod) (string, error) {
	name := pod.Spec.RuntimeClassName
	if name == nil || *name == "" {
		return "", nil
	}
	var class nodev1.RuntimeClass
	if err := a.d.Client.Get(ctx, crclient.ObjectKey{Name: *name}, &class); err != nil {
		return "", fmt.Errorf("get RuntimeClass %q: %w", *name, err)
	}
	return class.Handler, nil
}

func (a *Actor) removeContainer(ctx context.Context, id string) error {
	resp, err := a.d.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := a.d.Runtime.RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: id}); err != nil {
		return err
	}
	log := resp.GetStatus().GetLogPath()
	rotated, _ := filepath.Glob(log + ".*")
	for _, path := range append(rotated, log) {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// forget removes the last traces of a pod, but for its logs, which outlive it for a while.
func (a *Actor) forget(pod *corev1.Pod) {
	a.d.Images.Forget(string(a.uid))
	if err := a.d.Logs.Take(pod); err != nil {
		a.log.Warn("cannot put the pod's logs aside", "err", err)
	}
}

// write puts the status into the API. If the object has moved on, what the kubelet decides is laid over what others decided since.
func (a *Actor) write(ctx context.Context, pod *corev1.Pod, want corev1.PodStatus) (*corev1.Pod, error) {
	uid := a.uid
	if a.mirror != nil {
		shown, err := a.showing(ctx, pod, want.Phase)
		if err != nil {
			return nil, err
		}
		pod, uid = shown, shown.UID
	}
	for attempt := 0; ; attempt++ {
		next := *pod
		next.Status = *want.DeepCopy()
		err := a.d.Client.Status().Update(ctx, &next)
		switch {
		case err == nil:
			return &next, nil
		case apierrors.IsNotFound(err):
			return nil, nil // word of it is on its way
		case !apierrors.IsConflict(err) || attempt == 3:
			return nil, err
		}
		var live corev1.Pod
		if err := a.d.Client.Live().Get(ctx, crclient.ObjectKeyFromObject(pod), &live); err != nil {
			if apierrors.IsNotFound(err) {
				return nil, nil
			}
			return nil, err
		}
		if live.UID != uid {
			return nil, nil
		}
		merged := merge(&live, want)
		if equality.Semantic.DeepEqual(merged, live.Status) {
			return &live, nil
		}
		pod, want = &live, merged
	}
}

// ownConditions are the kubelet's; others belong to whoever wrote them.
var ownConditions = map[corev1.PodConditionType]bool{
	corev1.PodReadyToStartContainers: true, corev1.AllContainersRestarting: true, corev1.PodInitialized: true, corev1.ContainersReady: true, corev1.PodReady: true,
	corev1.PodResizePending: true, corev1.PodResizeInProgress: true,
}

func merge(live *corev1.Pod, want corev1.PodStatus) corev1.PodStatus {
	out := *want.DeepCopy()
	out.Conditions = nil
	for _, c := range live.Status.Conditions {
		if !ownConditions[c.Type] {
			out.Conditions = append(out.Conditions, c)
		}
	}
	observed := int64(0)
	for i := range want.Conditions {
		if want.Conditions[i].Type == corev1.PodScheduled {
			observed = want.Conditions[i].ObservedGeneration
		}
	}
	for i := range out.Conditions {
		if c := &out.Conditions[i]; c.Type == corev1.PodScheduled { // the scheduler's, of which only the generation is the kubelet's to say
			c.ObservedGeneration = max(c.ObservedGeneration, observed)
		}
	}
	seen := func(kind corev1.PodConditionType) bool {
		for _, c := range out.Conditions {
			if c.Type == kind {
				return true
			}
		}
		return false
	}
	for _, c := range want.Conditions {
		if ownConditions[c.Type] || (c.Type == corev1.PodScheduled || c.Type == corev1.DisruptionTarget) && !seen(c.Type) {
			out.Conditions = append(out.Conditions, c)
		}
	}
	out.NominatedNodeName = live.Status.NominatedNodeName
	out.ResourceClaimStatuses, out.ExtendedResourceClaimStatus = live.Status.ResourceClaimStatuses, live.Status.ExtendedResourceClaimStatus
	return out
}

// withAddresses is the pod with the addresses it has now, which the API may not know yet.
func withAddresses(pod *corev1.Pod, sb *Sandbox, node NodeFacts) *corev1.Pod {
	out := *pod
	out.Status.HostIP, out.Status.HostIPs = "", nil
	for _, ip := range node.IPs {
		out.Status.HostIPs = append(out.Status.HostIPs, corev1.HostIP{IP: ip})
		if out.Status.HostIP == "" {
			out.Status.HostIP = ip
		}
	}
	if sb != nil {
		setIPs(&out.Status, pod, &State{Observed: Observed{Sandboxes: []Sandbox{*sb}}}, node)
	}
	return &out
}
