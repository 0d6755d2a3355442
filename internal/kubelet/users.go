package kubelet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubetypes "k8s.io/kubelet/pkg/types"

	"skiff.dev/skiff/internal/kubelet/userns"
)

// loadUsers finds out whether pods can have users of their own here, canMap being what the kernel says of it, and takes over what they have.
// A node that cannot give them any runs all other pods.
func (k *Kubelet) loadUsers(ctx context.Context, canMap error) error {
	pool, err := userns.ReadPool("/etc")
	if err := cmp.Or(canMap, err); err != nil {
		k.noUsers = err
		k.log.Warn("pods with hostUsers: false will not start on this node", "reason", err)
	} else if pool.Len() < k.cfg.MaxPods {
		k.log.Warn("the ids that /etc/subuid gives to the user kubelet do not suffice for max-pods pods with hostUsers: false", "pods", pool.Len(), "max-pods", k.cfg.MaxPods)
	}
	k.users = userns.New(filepath.Join(k.cfg.Root, "pods"), pool, k.log)
	return k.users.Load(func(uid types.UID) (uint32, bool, error) { return k.usersRunning(ctx, uid) })
}

// usersRunning is the first id of the user namespace that the runtime has made for a pod.
func (k *Kubelet) usersRunning(ctx context.Context, uid types.UID) (first uint32, ok bool, err error) {
	list, err := k.runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{Filter: &runtimeapi.PodSandboxFilter{
		LabelSelector: map[string]string{kubetypes.KubernetesPodUIDLabel: string(uid)}, State: &runtimeapi.PodSandboxStateValue{State: runtimeapi.PodSandboxState_SANDBOX_READY},
	}})
	if err != nil {
		return 0, false, err
	}
	for _, box := range list.Items {
		resp, err := k.runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: box.Id})
		if err != nil {
			return 0, false, err
		}
		if uids := resp.GetStatus().GetLinux().GetNamespaces().GetOptions().GetUsernsOptions().GetUids(); len(uids) == 1 {
			return uids[0].HostId, true, nil
		}
	}
	return 0, false, nil
}

// ownUsers says why a handler of the runtime gives no pod users of its own on this node; nil if it does.
func (k *Kubelet) ownUsers(ctx context.Context, handler string) error {
	if k.noUsers != nil {
		return k.noUsers
	}
	known := k.handlers.Load() // as the node's status has them
	if known == nil {
		resp, err := k.runtime.Status(ctx, &runtimeapi.StatusRequest{})
		if err != nil {
			return err
		}
		known = &resp.RuntimeHandlers
	}
	if slices.ContainsFunc(*known, func(h *runtimeapi.RuntimeHandler) bool {
		return h.Name == handler && h.GetFeatures().GetUserNamespaces()
	}) {
		return nil
	}
	if handler != "" {
		return fmt.Errorf("the RuntimeClass handler %q does not support user namespaces", handler)
	}
	return errors.New("the container runtime does not support user namespaces")
}
