package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/kubelet/cgroup"
	"skiff.dev/skiff/internal/kubelet/image"
	"skiff.dev/skiff/internal/kubelet/volume"
)

// Reasons of containers that could not be started.
const (
	errConfig    = "CreateContainerConfigError"
	errCreate    = "CreateContainerError"
	errRun       = "RunContainerError"
	errPostStart = "PostStartHookError"
)

const (
	startRetry = 10 * time.Second
	startTime  = 2 * time.Minute // that the runtime may take
)

// startError is a failed start: what the container's status will say.
type startError struct {
	reason  string
	message string
	retry   time.Time
	event   string // what its event says, if not the message
	quiet   bool   // its event has been told
}

func (e *startError) Error() string { return e.reason + ": " + e.message }

// start makes and starts a container, with everything up to the end of its postStart hook.
func (a *Actor) start(ctx context.Context, pod *corev1.Pod, action Action) {
	name := action.Container
	c, target := spec(pod, name)
	sb := a.s.sandbox()
	if c == nil || sb == nil || a.s.Busy[action.Key()] {
		return
	}
	if last, _ := a.s.newest(name); last.Exited() {
		a.s.Backoff[name] = a.s.Backoff[name].Next(last.Finished, time.Now())
	}
	box := *sb
	targetID := ""
	if target != "" {
		if t, _ := a.s.newest(target); t.Running() {
			targetID = t.ID
		}
	}
	pod = withAddresses(pod, sb, a.d.Node())
	a.launch(ctx, action.Key(), func(ctx context.Context) func(*State) {
		err := a.startContainer(ctx, pod, c, box, action.Restarts, targetID)
		return func(s *State) {
			a.dirty = true
			s.Hooked = ""
			if err == nil || ctx.Err() != nil {
				delete(s.Waiting, name)
				return
			}
			var e *startError
			if !errors.As(err, &e) {
				e = &startError{reason: errCreate, message: plain(err)}
			}
			if e.retry.IsZero() {
				e.retry = time.Now().Add(startRetry)
			}
			if e.event == "" {
				e.event = e.message
			}
			if !e.quiet {
				a.event(pod, name, corev1.EventTypeWarning, "Failed", "Error: "+e.event)
			}
			s.Waiting[name] = Waiting{e.reason, e.message, e.retry}
		}
	})
}

func (a *Actor) startContainer(ctx context.Context, pod *corev1.Pod, c *corev1.Container, sb Sandbox, restarts int32, target string) error {
	config, box, err := a.configure(ctx, pod, c, sb, restarts, target)
	if err != nil {
		return err
	}
	// The log's directory is the kubelet's to make.
	if err := os.MkdirAll(filepath.Join(box.LogDirectory, c.Name), 0o755); err != nil {
		return err
	}
	created, err := a.d.Runtime.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{PodSandboxId: sb.ID, Config: config, SandboxConfig: box})
	if err != nil {
		return &startError{reason: errCreate, message: plain(err)}
	}
	id := created.ContainerId
	a.event(pod, c.Name, corev1.EventTypeNormal, "Created", "Container created")
	if c.Lifecycle != nil && c.Lifecycle.PostStart != nil {
		a.put(func() { a.results = append(a.results, func(s *State) { s.Hooked = id }) })
	}
	// A pod that is deleted now is stopped once its container runs: a start broken off in the middle would leave a container that failed.
	starting, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTime)
	defer cancel()
	if _, err := a.d.Runtime.StartContainer(starting, &runtimeapi.StartContainerRequest{ContainerId: id}); err != nil {
		// The runtime keeps what it could not start, as ended; when to try again is up to the back-off.
		return &startError{reason: errRun, message: plain(err), retry: time.Now()}
	}
	a.event(pod, c.Name, corev1.EventTypeNormal, "Started", "Container started")
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return nil
	}
	if err := a.hook(ctx, pod, c, id, c.Lifecycle.PostStart); err != nil && ctx.Err() == nil {
		a.event(pod, c.Name, corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: "+err.Error())
		a.event(pod, c.Name, corev1.EventTypeNormal, "Killing", "FailedPostStartHook")
		_, stopErr := a.d.Runtime.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: Grace(pod)})
		return errors.Join(&startError{reason: errPostStart, message: err.Error(), retry: time.Now(), quiet: true}, stopErr)
	}
	return nil
}

// configure gathers what a container is made of: image, environment, mounts.
func (a *Actor) configure(ctx context.Context, pod *corev1.Pod, c *corev1.Container, sb Sandbox, restarts int32, target string) (*runtimeapi.ContainerConfig, *runtimeapi.PodSandboxConfig, error) {
	users, err := a.users(pod)
	if err != nil {
		return nil, nil, err
	}
	box, err := sandboxConfig(pod, sb.Attempt, users, a.d.Cgroups.Path(a.uid, cgroup.Class(pod)), a.d.Settings)
	if err != nil {
		return nil, nil, err
	}
	img, err := a.image(ctx, pod, c.Name, c.Image, c.ImagePullPolicy, box)
	if err != nil {
		return nil, nil, err
	}
	m := &making{pod: pod, c: c, image: img, restarts: restarts, target: target, users: users, settings: a.d.Settings}
	bad := func(err error) error { return &startError{reason: errConfig, message: err.Error()} }
	src, err := a.envSources(ctx, pod)
	if err != nil {
		return nil, nil, bad(err)
	}
	if m.env, m.values, err = env(pod, c, src); err != nil {
		return nil, nil, bad(err)
	}
	m.mounts, err = mounts(pod, c, m.values, a.d.Volumes, func(ref *corev1.ImageVolumeSource) (*runtimeapi.ImageSpec, error) {
		img, err := a.image(ctx, pod, c.Name, ref.Reference, ref.PullPolicy, box)
		if err != nil {
			return nil, err
		}
		return &runtimeapi.ImageSpec{Image: img.Ref, UserSpecifiedImage: ref.Reference}, nil
	})
	if err != nil {
		var pulling *startError
		if errors.As(err, &pulling) {
			return nil, nil, err
		}
		return nil, nil, bad(fmt.Errorf("failed to prepare volume mounts: %w", err))
	}
	if m.devices, err = devices(pod, c, a.d.Volumes); err != nil {
		return nil, nil, bad(err)
	}
	if m.cdi, err = a.d.Claims.CDI(pod, c); err != nil {
		return nil, nil, bad(err)
	}
	given, err := a.d.Devices.Start(ctx, pod.UID, c.Name)
	if err != nil {
		return nil, nil, bad(err)
	}
	m.give(given)
	own, err := a.ownFiles(pod, c, restarts)
	if err != nil {
		return nil, nil, err
	}
	m.mounts = append(m.mounts, own...)
	config, err := m.config()
	if err != nil {
		return nil, nil, bad(err)
	}
	return config, box, nil
}

func (a *Actor) image(ctx context.Context, pod *corev1.Pod, container, name string, policy corev1.PullPolicy, box *runtimeapi.PodSandboxConfig) (*image.Image, error) {
	img, err := a.d.Images.Ensure(ctx, image.Request{
		Image: name, Policy: policy, PodUID: string(a.uid), Sandbox: box,
		Secrets: func() ([]corev1.Secret, error) { return a.pullSecrets(ctx, pod), nil },
		Event:   func(kind, reason, message string) { a.event(pod, container, kind, reason, message) },
	})
	var e *image.Error
	if errors.As(err, &e) {
		return nil, &startError{reason: e.Reason, message: e.Message, event: e.Reason, retry: e.Retry, quiet: e.Reason == image.ErrPull}
	}
	return img, err
}

// pullSecrets that exist; a missing one may not be needed.
func (a *Actor) pullSecrets(ctx context.Context, pod *corev1.Pod) []corev1.Secret {
	var out []corev1.Secret
	for _, ref := range pod.Spec.ImagePullSecrets {
		var s corev1.Secret
		if err := a.d.Client.Get(ctx, crclient.ObjectKey{Namespace: pod.Namespace, Name: ref.Name}, &s); err != nil {
			a.event(pod, "", corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf(
				"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", ref.Name))
			continue
		}
		out = append(out, s)
	}
	return out
}

func (a *Actor) envSources(ctx context.Context, pod *corev1.Pod) (envSources, error) {
	src := envSources{
		folder:      func(v *corev1.Volume) string { return a.d.Volumes.Path(pod, v) },
		allocatable: a.d.Allocatable(),
		configMap: func(name string) (*corev1.ConfigMap, error) {
			var cm corev1.ConfigMap
			return &cm, volume.Named("configmap", name, a.d.Client.Get(ctx, crclient.ObjectKey{Namespace: pod.Namespace, Name: name}, &cm))
		},
		secret: func(name string) (*corev1.Secret, error) {
			var s corev1.Secret
			return &s, volume.Named("secret", name, a.d.Client.Get(ctx, crclient.ObjectKey{Namespace: pod.Namespace, Name: name}, &s))
		},
	}
	// The API server's address is told to every pod, the namespace's services unless the pod doesn't want them.
	master, err := a.d.Services(ctx, corev1.NamespaceDefault)
	if err != nil {
		return src, err
	}
	for i := range master {
		if master[i].Name == "kubernetes" {
			src.services = append(src.services, master[i])
		}
	}
	if pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks {
		own, err := a.d.Services(ctx, pod.Namespace)
		if err != nil {
			return src, err
		}
		src.services = append(src.services, own...)
	}
	return src, nil
}

// ownFiles are the mounts the kubelet adds: /etc/hosts and the termination message's file.
func (a *Actor) ownFiles(pod *corev1.Pod, c *corev1.Container, restarts int32) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	dir := a.d.Volumes.PodDir(a.uid)
	has := func(path string) bool {
		for i := range c.VolumeMounts {
			if filepath.Clean(c.VolumeMounts[i].MountPath) == path {
				return true
			}
		}
		return false
	}
	if !has("/etc/hosts") {
		host := ""
		if pod.Spec.HostNetwork {
			text, err := os.ReadFile("/etc/hosts")
			if err != nil && !os.IsNotExist(err) {
				return nil, err
			}
			host = string(text)
		}
		path := filepath.Join(dir, "etc-hosts")
		if err := writeFile(path, []byte(hostsFile(pod, a.d.Settings, host)), 0o644); err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: path})
	}
	if c.TerminationMessagePath != "" && !has(c.TerminationMessagePath) {
		path := filepath.Join(dir, "containers", c.Name, strconv.Itoa(int(restarts)))
		// Whoever the container runs as must be able to write it.
		if err := writeFile(path, nil, 0o666); err != nil {
			return nil, err
		}
		out = append(out, &runtimeapi.Mount{ContainerPath: c.TerminationMessagePath, HostPath: path})
	}
	return out, nil
}

// writeFile writes in place: the file may be mounted in a container already.
func writeFile(path string, data []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}
