package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// removeExternal asks somebody else's runtime to remove the pods of this cluster, which are those below its cgroup; then the cgroup.
func removeExternal(ctx context.Context, cfg Config, progress func(string)) error {
	conn, err := dialCRI(cfg.CRIEndpoint)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := askVersion(ctx, conn, cfg.CRIEndpoint); err != nil {
		return err
	}
	cri := runtimeapi.NewRuntimeServiceClient(conn)
	list, err := cri.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return fmt.Errorf("list the pods: %w", said(err))
	}
	var errs []error
	removed := 0
	for _, pod := range list.Items {
		st, err := cri.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod.Id, Verbose: true})
		if err != nil {
			continue // it went meanwhile, or is so broken that nobody can say whose it is
		}
		if !belongs(st.Info["info"], cfg.CgroupRoot) {
			continue
		}
		if _, err := cri.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
			errs = append(errs, fmt.Errorf("stop pod %s: %w", pod.GetMetadata().GetName(), said(err)))
		}
		if _, err := cri.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
			errs = append(errs, fmt.Errorf("remove pod %s: %w", pod.GetMetadata().GetName(), said(err)))
			continue
		}
		removed++
	}
	if removed > 0 {
		progress(fmt.Sprintf("removed %d pods from %s", removed, cfg.CRIEndpoint))
	}
	for _, dir := range cgroupDirs("/sys/fs/cgroup", cfg.CgroupRoot) {
		errs = append(errs, removeCgroup(ctx, dir))
	}
	return errors.Join(errs...)
}

// belongs reads the sandbox's configuration, which runtimes give in their verbose status, for the cgroup it was put into.
func belongs(info, cgroupRoot string) bool {
	var verbose struct {
		Config struct {
			Linux struct {
				CgroupParent string `json:"cgroup_parent"`
			} `json:"linux"`
		} `json:"config"`
	}
	if json.Unmarshal([]byte(info), &verbose) != nil {
		return false
	}
	root := filepath.Clean("/" + cgroupRoot)
	return root != "/" && strings.HasPrefix(filepath.Clean("/"+verbose.Config.Linux.CgroupParent)+"/", root+"/")
}
