package pod

import (
	"context"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubetypes "k8s.io/kubelet/pkg/types"

	"skiff.dev/skiff/internal/kubelet/logs"
)

// observe reads what the runtime has of the pod. What has ended doesn't change and isn't read twice.
func (a *Actor) observe(ctx context.Context, pod *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	selector := map[string]string{kubetypes.KubernetesPodUIDLabel: string(a.uid)}
	sandboxes, err := a.d.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{LabelSelector: selector}})
	if err != nil {
		return err
	}
	containers, err := a.d.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{LabelSelector: selector}})
	if err != nil {
		return err
	}
	var o Observed
	for _, sb := range sandboxes.Items {
		s, err := a.sandbox(ctx, sb)
		if err != nil {
			return err
		}
		o.Sandboxes = append(o.Sandboxes, s)
	}
	for _, c := range containers.Containers {
		known := a.s.find(c.Id)
		if known.Exited() && c.State == runtimeapi.ContainerState_CONTAINER_EXITED {
			o.Containers = append(o.Containers, a.explained(*known))
			continue
		}
		resp, err := a.d.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.Id})
		if err != nil {
			if isNotFound(err) {
				continue
			}
			return err
		}
		one := fromStatus(resp.Status, c.PodSandboxId)
		if one.Exited() {
			one.Message = lastWords(&one)
		}
		o.Containers = append(o.Containers, a.explained(one))
	}
	o.order()
	a.s.Observed = o
	return nil
}

const oomKilled = "OOMKilled"

// explained is a container whose end the kernel explains better than the runtime, which may have missed that memory ran out.
func (a *Actor) explained(c Container) Container {
	if c.Exited() && c.ExitCode == 128+int32(unix.SIGKILL) && a.d.Kills.Of(c.ID) != nil {
		c.Reason = oomKilled
	}
	return c
}

func (a *Actor) sandbox(ctx context.Context, sb *runtimeapi.PodSandbox) (Sandbox, error) {
	s := Sandbox{
		ID: sb.Id, Attempt: sb.GetMetadata().GetAttempt(), Created: fromNano(sb.CreatedAt),
		Ready: sb.State == runtimeapi.PodSandboxState_SANDBOX_READY,
	}
	if !s.Ready {
		return s, nil
	}
	for _, known := range a.s.Sandboxes {
		if known.ID == s.ID && len(known.IPs) > 0 {
			s.IPs = known.IPs
			return s, nil
		}
	}
	resp, err := a.d.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: s.ID})
	if err != nil {
		if isNotFound(err) {
			s.Ready = false
			return s, nil
		}
		return s, err
	}
	s.Ready = resp.GetStatus().GetState() == runtimeapi.PodSandboxState_SANDBOX_READY
	if network := resp.GetStatus().GetNetwork(); network.GetIp() != "" {
		s.IPs = append(s.IPs, network.Ip)
		for _, more := range network.AdditionalIps {
			s.IPs = append(s.IPs, more.Ip)
		}
	}
	return s, nil
}

const (
	maxMessage      = 4096
	maxLogMessage   = 2048
	maxMessageLines = 80
)

// lastWords is a container's termination message: what it wrote to its file, or the end of its log if it failed and asked for that.
func lastWords(c *Container) string {
	var said []byte
	if c.TermFile != "" {
		if f, err := os.Open(c.TermFile); err == nil {
			said, _ = io.ReadAll(io.LimitReader(f, maxMessage))
			f.Close()
		}
	}
	if len(said) == 0 && c.ExitCode != 0 && c.TermPolicy == corev1.TerminationMessageFallbackToLogsOnError {
		said = logs.Last(c.LogPath, maxMessageLines, maxLogMessage)
	}
	switch {
	case c.Message == "":
		return string(said)
	case len(said) == 0:
		return c.Message
	}
	return c.Message + ": " + string(said)
}
