// Package pod brings one pod to life and to its end.
//
// An Actor is one goroutine for one pod. It gathers facts (State: what the runtime says, what probes found, what it tried) and asks Next,
// which is pure, what to do; the actor does just that and reports what came of it in the pod's status. Whatever takes time runs beside
// the actor, at most one thing under each key, so that a pod that pulls an image can still be deleted.
//
// Invariant: everything that decides about a container can be read back from the runtime (labels, annotations, states), so that a
// kubelet that starts again takes over without touching it. Package kubelet creates the actors and feeds them.
package pod

import (
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubetypes "k8s.io/kubelet/pkg/types"
)

// Annotations of containers, named as everybody who inspects containers knows them.
const (
	hashAnnotation       = "io.kubernetes.container.hash"
	restartsAnnotation   = "io.kubernetes.container.restartCount"
	termPathAnnotation   = "io.kubernetes.container.terminationMessagePath"
	termPolicyAnnotation = "io.kubernetes.container.terminationMessagePolicy"
	graceAnnotation      = "io.kubernetes.pod.terminationGracePeriod"
)

// Sandbox is one incarnation of the pod's sandbox.
type Sandbox struct {
	ID      string
	Attempt uint32
	Ready   bool
	Created time.Time
	IPs     []string
}

// Container is one incarnation of a container.
type Container struct {
	ID, Name, SandboxID        string
	State                      runtimeapi.ContainerState
	Restarts                   int32
	Hash                       string
	Created, Started, Finished time.Time
	ExitCode                   int32
	Reason, Message            string
	Image, ImageRef            string
	LogPath                    string
	Grace                      int64  // what the pod allowed when the container was made
	TermFile                   string // termination message on this host
	TermPolicy                 corev1.TerminationMessagePolicy
	User                       *runtimeapi.LinuxContainerUser
	Size                       *Size // nil: the runtime doesn't say
}

func (c *Container) Running() bool {
	return c != nil && c.State == runtimeapi.ContainerState_CONTAINER_RUNNING
}

func (c *Container) Exited() bool {
	return c != nil && (c.State == runtimeapi.ContainerState_CONTAINER_EXITED || c.State == runtimeapi.ContainerState_CONTAINER_UNKNOWN)
}

// Observed is what the runtime has of a pod, the newest of each first.
type Observed struct {
	Sandboxes  []Sandbox
	Containers []Container
}

func (o *Observed) sandbox() *Sandbox {
	if len(o.Sandboxes) == 0 {
		return nil
	}
	return &o.Sandboxes[0]
}

// newest incarnation of a container, and the one before it.
func (o *Observed) newest(name string) (last, before *Container) {
	for i := range o.Containers {
		c := &o.Containers[i]
		if c.Name != name {
			continue
		}
		if last != nil {
			return last, c
		}
		last = c
	}
	return last, nil
}

func (o *Observed) find(id string) *Container {
	for i := range o.Containers {
		if o.Containers[i].ID == id {
			return &o.Containers[i]
		}
	}
	return nil
}

func (o *Observed) order() {
	slices.SortStableFunc(o.Sandboxes, func(a, b Sandbox) int { return b.Created.Compare(a.Created) })
	slices.SortStableFunc(o.Containers, func(a, b Container) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return int(b.Restarts - a.Restarts)
	})
}

func fromStatus(s *runtimeapi.ContainerStatus, sandbox string) Container {
	c := Container{
		ID: s.Id, Name: kubetypes.GetContainerName(s.Labels), SandboxID: sandbox,
		State: s.State, Hash: s.Annotations[hashAnnotation],
		Created: fromNano(s.CreatedAt), Started: fromNano(s.StartedAt), Finished: fromNano(s.FinishedAt),
		ExitCode: s.ExitCode, Reason: s.Reason, Message: s.Message,
		Image: s.GetImage().GetImage(), ImageRef: s.ImageRef, LogPath: s.LogPath,
		TermPolicy: corev1.TerminationMessagePolicy(s.Annotations[termPolicyAnnotation]),
		User:       s.GetUser().GetLinux(),
		Size:       sizeFrom(s.GetResources().GetLinux()),
	}
	if c.Name == "" {
		c.Name = s.GetMetadata().GetName()
	}
	if n, err := strconv.ParseInt(s.Annotations[restartsAnnotation], 10, 32); err == nil {
		c.Restarts = int32(n)
	} else {
		c.Restarts = int32(s.GetMetadata().GetAttempt())
	}
	if n, err := strconv.ParseInt(s.Annotations[graceAnnotation], 10, 64); err == nil {
		c.Grace = n
	}
	if path := s.Annotations[termPathAnnotation]; path != "" {
		for _, m := range s.Mounts {
			if m.ContainerPath == path {
				c.TermFile = m.HostPath
			}
		}
	}
	return c
}

func fromNano(n int64) time.Time {
	if n <= 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}
