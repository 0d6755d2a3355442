package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/kubelet/csi"
)

// republishEvery is how often drivers that want it publish a running pod's volumes again.
const republishEvery = time.Minute

func (m *Manager) csiDir(pod *corev1.Pod, name string) string {
	return filepath.Join(m.PodDir(pod.UID), "volumes", "kubernetes.io~csi", name)
}

// csiPersistent mounts the volume behind a claim.
func (m *Manager) csiPersistent(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, pv *corev1.PersistentVolume, p *Pod) (string, error) {
	one := &csi.Volume{
		Pod: pod, Name: pv.Name, Dir: m.csiDir(pod, pv.Name), Source: pv.Spec.CSI, Modes: pv.Spec.AccessModes, Options: pv.Spec.MountOptions,
		Block:    pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == corev1.PersistentVolumeBlock,
		ReadOnly: ReadOnly(v) || pv.Spec.CSI.ReadOnly,
	}
	path, err := m.csi(ctx, v, one, p)
	if err != nil || !m.CSI.Grows(pv.Spec.CSI.Driver) {
		return path, err
	}
	claim, err := m.source.Claim(ctx, pod.Namespace, api.ClaimName(pod, v))
	if err != nil {
		return path, err
	}
	grown, err := m.CSI.Expand(ctx, one, pv, claim)
	if grown && m.Grown != nil {
		m.Grown(pod, claim)
	}
	return path, err
}

// csiInline mounts a volume that is the pod's own.
func (m *Manager) csiInline(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, p *Pod) error {
	path, err := m.csi(ctx, v, &csi.Volume{Pod: pod, Name: v.Name, Dir: m.csiDir(pod, v.Name), Inline: v.CSI, ReadOnly: ReadOnly(v)}, p)
	if err == nil {
		m.remember(pod.UID, v.Name, place{path: path})
	}
	return err
}

func (m *Manager) csi(ctx context.Context, v *corev1.Volume, one *csi.Volume, p *Pod) (string, error) {
	if m.CSI == nil {
		return "", errors.New("CSI volumes are not supported by this node")
	}
	var err error
	if one.Mounted, err = published(filepath.Join(one.Dir, "mount"), one.Block); err != nil {
		return "", err
	}
	result, err := m.CSI.Mount(ctx, one)
	if err != nil {
		return "", err
	}
	p.republish = p.republish || result.Refresh
	if result.Own && !one.Mounted {
		err = m.ownVolume(one.Pod, v, result.Path)
	}
	return result.Path, err
}

func published(target string, block bool) (bool, error) {
	info, err := os.Lstat(target)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil || block {
		return err == nil && info.Mode()&os.ModeDevice != 0, err
	}
	return isMountpoint(target)
}
