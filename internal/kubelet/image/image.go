// Package image sees to it that a container's image is there: pull policy, credentials, back-off.
//
// It owns which pulls run. Its invariant: at most one pull of an image with the same credentials runs at a time, everybody who wants
// it waits for that one, and never more than a few pulls run together. The kubelet's pod actors call it.
package image

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Reasons a container waits for its image.
const (
	ErrPull        = "ErrImagePull"
	ErrBackOff     = "ImagePullBackOff"
	ErrNeverPull   = "ErrImageNeverPull"
	ErrInvalidName = "InvalidImageName"
	ErrInspect     = "ImageInspectError"
)

// Error is why an image isn't there: a reason for the container's status and a message.
type Error struct {
	Reason, Message string
	Retry           time.Time // when it's worth trying again
}

func (e *Error) Error() string { return e.Message }

// Image that is present.
type Image struct {
	Ref  string // what to create containers of
	ID   string
	User struct {
		UID  *int64
		Name string
	}
}

// Event tells the pod's events what happens.
type Event func(kind, reason, message string)

const (
	parallelPulls = 5
	firstBackoff  = 10 * time.Second
	longBackoff   = 5 * time.Minute
)

type Puller struct {
	service runtimeapi.ImageServiceClient
	now     func() time.Time
	slots   chan struct{}

	mu      sync.Mutex
	pulls   map[string]*pull
	backoff map[string]backoff
}

type pull struct {
	done    chan struct{}
	waiters int
	cancel  context.CancelFunc
	ref     string
	err     error
	took    time.Duration
}

type backoff struct {
	delay time.Duration
	since time.Time
	err   string
}

func New(service runtimeapi.ImageServiceClient) *Puller {
	return &Puller{
		service: service, now: time.Now, slots: make(chan struct{}, parallelPulls),
		pulls: map[string]*pull{}, backoff: map[string]backoff{},
	}
}

// Request is for one container's image.
type Request struct {
	Image    string
	Policy   corev1.PullPolicy
	PodUID   string // back-off counts for a pod and image
	Sandbox  *runtimeapi.PodSandboxConfig
	Handler  string
	Secrets  func() ([]corev1.Secret, error) // imagePullSecrets, asked only when pulling
	Event    Event
	Describe string
}

// Ensure returns the image, pulling it if the policy says so. Its error is an *Error unless ctx ended.
func (p *Puller) Ensure(ctx context.Context, r Request) (*Image, error) {
	name, err := normalize(r.Image)
	if err != nil {
		msg := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", r.Image, r.Image, err)
		r.Event(corev1.EventTypeWarning, "InspectFailed", msg)
		return nil, &Error{Reason: ErrInvalidName, Message: msg}
	}
	spec := &runtimeapi.ImageSpec{Image: name, UserSpecifiedImage: r.Image, RuntimeHandler: r.Handler}
	present, err := p.status(ctx, spec)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		msg := fmt.Sprintf("Failed to inspect image %q: %v", r.Image, err)
		r.Event(corev1.EventTypeWarning, "InspectFailed", msg)
		return nil, &Error{Reason: ErrInspect, Message: msg, Retry: p.now().Add(firstBackoff)}
	}
	if present != nil && r.Policy != corev1.PullAlways {
		r.Event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", r.Image))
		return present, nil
	}
	if r.Policy == corev1.PullNever {
		msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.Image)
		r.Event(corev1.EventTypeWarning, ErrNeverPull, msg)
		return nil, &Error{Reason: ErrNeverPull, Message: msg, Retry: p.now().Add(firstBackoff)}
	}
	return p.pull(ctx, r, spec)
}

func (p *Puller) pull(ctx context.Context, r Request, spec *runtimeapi.ImageSpec) (*Image, error) {
	key := r.PodUID + "/" + r.Image
	if wait := p.waiting(key); wait != nil {
		r.Event(corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", r.Image))
		msg := fmt.Sprintf("Back-off pulling image %q: %s: %s", r.Image, ErrPull, wait.err)
		return nil, &Error{Reason: ErrBackOff, Message: msg, Retry: wait.since.Add(wait.delay)}
	}
	r.Event(corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", r.Image))
	var secrets []corev1.Secret
	if r.Secrets != nil {
		var err error
		if secrets, err = r.Secrets(); err != nil {
			return nil, p.failed(key, r, err)
		}
	}
	begin := p.now()
	var lastErr error
	for _, auth := range credentials(spec.Image, secrets) {
		done, err := p.share(ctx, spec, auth, r.Sandbox)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			lastErr = err
			continue
		}
		p.forget(key)
		image, err := p.status(ctx, spec)
		if err == nil && image == nil {
			err = errors.New("the runtime does not know the image it has just pulled")
		}
		if err != nil {
			return nil, p.failed(key, r, err)
		}
		r.Event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting)",
			r.Image, done.took.Truncate(time.Millisecond), p.now().Sub(begin).Truncate(time.Millisecond)))
		return image, nil
	}
	return nil, p.failed(key, r, lastErr)
}

// share joins a running pull of the same image with the same credentials, or starts one. The pull goes on as long as anybody waits.
func (p *Puller) share(ctx context.Context, spec *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (*pull, error) {
	key := spec.Image + "\x00" + spec.RuntimeHandler + "\x00" + auth.GetServerAddress() + "\x00" + auth.GetUsername() + "\x00" + auth.GetPassword() + auth.GetIdentityToken() + auth.GetRegistryToken()
	p.mu.Lock()
	one := p.pulls[key]
	if one == nil {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		one = &pull{done: make(chan struct{}), cancel: cancel}
		p.pulls[key] = one
		go p.run(own, key, one, &runtimeapi.PullImageRequest{Image: spec, Auth: auth, SandboxConfig: sandbox})
	}
	one.waiters++
	p.mu.Unlock()
	select {
	case <-one.done:
	case <-ctx.Done():
	}
	p.mu.Lock()
	one.waiters--
	if one.waiters == 0 {
		one.cancel()
		if p.pulls[key] == one {
			delete(p.pulls, key)
		}
	}
	p.mu.Unlock()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return one, one.err
}

func (p *Puller) run(ctx context.Context, key string, one *pull, req *runtimeapi.PullImageRequest) {
	defer func() {
		p.mu.Lock()
		if p.pulls[key] == one {
			delete(p.pulls, key)
		}
		p.mu.Unlock()
		close(one.done)
	}()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		one.err = ctx.Err()
		return
	}
	begin := p.now()
	resp, err := p.service.PullImage(ctx, req)
	one.ref, one.err, one.took = resp.GetImageRef(), err, p.now().Sub(begin)
}

func (p *Puller) status(ctx context.Context, spec *runtimeapi.ImageSpec) (*Image, error) {
	resp, err := p.service.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err != nil || resp.GetImage() == nil {
		return nil, err
	}
	image := &Image{Ref: resp.Image.Id, ID: resp.Image.Id}
	if uid := resp.Image.GetUid(); uid != nil {
		image.User.UID = &uid.Value
	}
	image.User.Name = resp.Image.GetUsername()
	return image, nil
}

func (p *Puller) waiting(key string) *backoff {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, ok := p.backoff[key]
	if !ok || !p.now().Before(b.since.Add(b.delay)) {
		return nil
	}
	return &b
}

func (p *Puller) forget(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.backoff, key)
}

// Forget drops what is remembered of a pod that is gone.
func (p *Puller) Forget(podUID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key := range p.backoff {
		if len(key) > len(podUID) && key[:len(podUID)] == podUID && key[len(podUID)] == '/' {
			delete(p.backoff, key)
		}
	}
}

func (p *Puller) failed(key string, r Request, cause error) error {
	text := fmt.Sprintf("failed to pull image %q: %s", r.Image, plain(cause))
	r.Event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", r.Image, plain(cause)))
	r.Event(corev1.EventTypeWarning, "Failed", "Error: "+ErrPull)
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.backoff[key]
	if b.delay == 0 {
		b.delay = firstBackoff
	} else {
		b.delay = min(2*b.delay, longBackoff)
	}
	b.since, b.err = p.now(), text
	p.backoff[key] = b
	// The next attempt comes soon, so that the status says the pull is backing off.
	return &Error{Reason: ErrPull, Message: text, Retry: p.now().Add(time.Second)}
}

// normalize adds the default tag to a name that has neither tag nor digest.
func normalize(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", err
	}
	return reference.TagNameOnly(named).String(), nil
}
