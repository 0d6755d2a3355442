package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/storage/ephemeral"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/localvolume"
)

// Local makes the directories of the node's own volumes.
type Local interface {
	// Prepare returns where a volume's directory is on this host.
	Prepare(ctx context.Context, pv *corev1.PersistentVolume) (string, error)
}

// place is where a volume that is more than a directory of the pod's own was found to be.
type place struct {
	path  string
	block bool
	claim string // the name of the claim behind it, "" if there is none
}

// claimed mounts the volume behind a claim.
func (m *Manager) claimed(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, state *Pod) error {
	name := api.ClaimName(pod, v)
	pv, err := m.volumeOf(ctx, pod, v, name)
	if err != nil {
		return fmt.Errorf("error processing PVC %s/%s: %w", pod.Namespace, name, err)
	}
	p := place{claim: name, block: pv.Spec.VolumeMode != nil && *pv.Spec.VolumeMode == corev1.PersistentVolumeBlock}
	if err := rightUse(pod, v.Name, p.block); err != nil {
		return err
	}
	switch s := &pv.Spec; {
	case s.HostPath != nil:
		p.path, err = s.HostPath.Path, checkHostPath(s.HostPath)
	case s.Local != nil:
		p.path, err = m.local(ctx, pod, v, pv, p.block)
	case s.CSI != nil:
		p.path, err = m.csiPersistent(ctx, pod, v, pv, state)
	default:
		err = errors.New("volumes of this type are not supported by this node")
	}
	if err != nil {
		return err
	}
	m.remember(pod.UID, v.Name, p)
	return nil
}

// volumeOf follows a claim to its volume, in both directions.
func (m *Manager) volumeOf(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, name string) (*corev1.PersistentVolume, error) {
	claim, err := m.source.Claim(ctx, pod.Namespace, name)
	if err != nil {
		return nil, fmt.Errorf("failed to fetch PVC from API server: %w", Named("persistentvolumeclaim", name, err))
	}
	if v.Ephemeral != nil {
		if err := ephemeral.VolumeIsForPod(pod, claim); err != nil {
			return nil, err
		}
	}
	_, before := m.placeOf(pod.UID, v.Name)
	switch {
	case claim.DeletionTimestamp != nil && !before && !m.mountedBefore(pod.UID):
		return nil, errors.New("PVC is being deleted")
	case claim.Status.Phase != corev1.ClaimBound || claim.Spec.VolumeName == "":
		return nil, fmt.Errorf("PVC has non-bound phase (%q) or empty pvc.Spec.VolumeName (%q)", claim.Status.Phase, claim.Spec.VolumeName)
	}
	pv, err := m.source.Volume(ctx, claim.Spec.VolumeName)
	if err != nil {
		return nil, fmt.Errorf("failed to fetch PV %s from API server: %w", claim.Spec.VolumeName, err)
	}
	if pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim.UID {
		return nil, fmt.Errorf("PVC and PV mismatch: PV %s is bound to another claim", pv.Name)
	}
	return pv, nil
}

// mountedBefore: an earlier run of the kubelet has given the pod volumes; a claim that is being deleted waits for this pod.
func (m *Manager) mountedBefore(uid types.UID) bool {
	entries, err := os.ReadDir(filepath.Join(m.PodDir(uid), "volumes"))
	return err == nil && len(entries) > 0
}

// rightUse: a filesystem is mounted, a block device is not.
func rightUse(pod *corev1.Pod, volume string, block bool) error {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			for _, use := range list[i].VolumeMounts {
				if use.Name == volume && block {
					return fmt.Errorf("volume %s has volumeMode Block, but is specified in volumeMounts", volume)
				}
			}
			for _, use := range list[i].VolumeDevices {
				if use.Name == volume && !block {
					return fmt.Errorf("volume %s has volumeMode Filesystem, but is specified in volumeDevices", volume)
				}
			}
		}
	}
	return nil
}

// local binds a directory of this host into the pod's own, so that the pod's end is its end. A block device is used where it is.
func (m *Manager) local(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, pv *corev1.PersistentVolume, block bool) (string, error) {
	from := pv.Spec.Local.Path
	if localvolume.Of(pv) {
		var err error
		if from, err = m.Locals.Prepare(ctx, pv); err != nil {
			return "", err
		}
	}
	info, err := os.Stat(from)
	if err != nil {
		return "", fmt.Errorf("path %q does not exist", from)
	}
	if block {
		if info.Mode()&os.ModeDevice == 0 {
			return "", fmt.Errorf("%s is not a block device", from)
		}
		return from, nil
	}
	target := filepath.Join(m.PodDir(pod.UID), "volumes", "kubernetes.io~local-volume", pv.Name)
	if err := os.MkdirAll(target, 0o750); err != nil {
		return "", err
	}
	if mounted, err := isMountpoint(target); err != nil || mounted {
		return target, err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s is not a directory", from)
	}
	if err := unix.Mount(from, target, "", unix.MS_BIND, ""); err != nil {
		return "", fmt.Errorf("bind %s: %w", from, err)
	}
	return target, m.ownVolume(pod, v, target)
}

// ownVolume gives a volume that may be written to the pod's group, all of it unless the pod says that its top tells enough.
func (m *Manager) ownVolume(pod *corev1.Pod, v *corev1.Volume, dir string) error {
	group := fsGroup(pod)
	if group == nil || ReadOnly(v) {
		return nil
	}
	policy := pod.Spec.SecurityContext.FSGroupChangePolicy
	if policy != nil && *policy == corev1.FSGroupChangeOnRootMismatch {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return err
		}
		if int64(st.Gid) == *group && st.Mode&unix.S_ISGID != 0 && st.Mode&0o060 == 0o060 {
			return nil
		}
	}
	return own(dir, *group)
}

// ReadOnly says that a volume's source lets nobody write, whatever its mounts say.
func ReadOnly(v *corev1.Volume) bool {
	return v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ReadOnly || v.CSI != nil && v.CSI.ReadOnly != nil && *v.CSI.ReadOnly
}

func placeKey(uid types.UID, volume string) string { return string(uid) + "/" + volume }

func (m *Manager) remember(uid types.UID, volume string, p place) {
	m.places.Store(placeKey(uid, volume), p)
}

func (m *Manager) placeOf(uid types.UID, volume string) (place, bool) {
	p, ok := m.places.Load(placeKey(uid, volume))
	if !ok {
		return place{}, false
	}
	return p.(place), true
}
