package pod

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"skiff.dev/skiff/internal/kubelet/probe"
)

// hook runs a lifecycle handler to its end.
func (a *Actor) hook(ctx context.Context, pod *corev1.Pod, c *corev1.Container, id string, h *corev1.LifecycleHandler) error {
	switch {
	case h.Exec != nil:
		resp, err := a.d.Runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: h.Exec.Command})
		if err != nil {
			return err
		}
		if resp.ExitCode != 0 {
			return fmt.Errorf("command '%v' exited with %d: %s", h.Exec.Command, resp.ExitCode, clip(append(resp.Stdout, resp.Stderr...)))
		}
		return nil
	case h.HTTPGet != nil:
		_, err := probe.Call(ctx, h.HTTPGet, c, podIP(pod))
		return err
	case h.TCPSocket != nil:
		return fmt.Errorf("tcpSocket is no lifecycle handler")
	case h.Sleep != nil:
		select {
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		case <-a.Exit(id):
		}
	}
	return nil
}

func clip(text []byte) string {
	const limit = 1024
	if len(text) > limit {
		text = text[:limit]
	}
	return string(text)
}

func podIP(pod *corev1.Pod) string {
	if pod.Status.PodIP != "" {
		return pod.Status.PodIP
	}
	return pod.Status.HostIP
}
