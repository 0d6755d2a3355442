package csi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// Volume is one volume of one pod.
type Volume struct {
	Pod      *corev1.Pod
	Name     string // the PersistentVolume's, or the pod's own for an inline volume
	Dir      string // pods/<uid>/volumes/kubernetes.io~csi/<name>
	Source   *corev1.CSIPersistentVolumeSource
	Inline   *corev1.CSIVolumeSource // instead of Source
	Modes    []corev1.PersistentVolumeAccessMode
	Options  []string
	Block    bool
	ReadOnly bool
	Mounted  bool // already; it may be published again if the driver wants that
}

// data is what is needed to take a volume back, under upstream's names.
type data struct {
	Handle string `json:"volumeHandle"`
	Driver string `json:"driverName"`
	Node   string `json:"nodeName"`
	Mode   string `json:"volumeLifecycleMode"`
	Spec   string `json:"specVolID"`
	Target string `json:"targetPath"`
	Staged string `json:"stagingPath,omitempty"`
}

const dataFile = "vol_data.json"

// Result is where a volume is published, and whether the kubelet is to give it to the pod's group.
type Result struct {
	Path    string
	Own     bool
	Refresh bool // publish again now and then
}

// Mount has a volume staged and published.
func (n *Node) Mount(ctx context.Context, v *Volume) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	name, handle := n.identify(v)
	d, err := n.driver(name)
	if err != nil {
		return Result{}, err
	}
	object, err := n.object(ctx, name)
	if err != nil {
		return Result{}, err
	}
	again := object != nil && object.Spec.RequiresRepublish != nil && *object.Spec.RequiresRepublish
	info := data{Handle: handle, Driver: name, Node: n.name, Mode: "Persistent", Spec: v.Name, Target: filepath.Join(v.Dir, "mount")}
	if v.Inline != nil {
		info.Mode = "Ephemeral"
	}
	if !modeAllowed(object, info.Mode) {
		return Result{}, fmt.Errorf("volume mode %q not supported by driver %s (no CSIDriver object allows it)", info.Mode, name)
	}
	out := Result{Path: info.Target, Refresh: again}
	if v.Mounted && !again {
		return out, nil
	}
	defer n.alone(name + "/" + handle)()
	published, err := n.attached(ctx, v, object)
	if err != nil {
		return out, err
	}
	capability, grouped, own := capabilityOf(v, d, object)
	out.Own = own && !grouped
	if v.Inline == nil && d.can[csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME] {
		info.Staged = n.staging(name, handle)
	}
	if err := write(v.Dir, &info); err != nil {
		return out, err
	}
	n.remember(v.Dir, &info)
	if info.Staged != "" {
		if err := n.stageVolume(ctx, d, v, &info, capability, published); err != nil {
			return out, err
		}
	}
	return out, n.publish(ctx, d, v, &info, capability, published, object)
}

func (n *Node) identify(v *Volume) (driver, handle string) {
	if v.Inline != nil {
		return v.Inline.Driver, "csi-" + hash(n.name, v.Pod.Namespace, string(v.Pod.UID), v.Name)
	}
	return v.Source.Driver, v.Source.VolumeHandle
}

// object is the driver's CSIDriver, nil if it has none.
func (n *Node) object(ctx context.Context, name string) (*storagev1.CSIDriver, error) {
	var d storagev1.CSIDriver
	err := n.client.Get(ctx, crclient.ObjectKey{Name: name}, &d)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return &d, err
}

// modeAllowed: without a CSIDriver that says otherwise, volumes are persistent.
func modeAllowed(object *storagev1.CSIDriver, mode string) bool {
	if object == nil {
		return mode == string(storagev1.VolumeLifecyclePersistent)
	}
	return slices.Contains(object.Spec.VolumeLifecycleModes, storagev1.VolumeLifecycleMode(mode))
}

// attached is what attaching a volume to the node has told, for drivers that attach.
func (n *Node) attached(ctx context.Context, v *Volume, object *storagev1.CSIDriver) (map[string]string, error) {
	if v.Inline != nil || object != nil && object.Spec.AttachRequired != nil && !*object.Spec.AttachRequired {
		return nil, nil
	}
	name := AttachmentName(v.Source.VolumeHandle, v.Source.Driver, n.name)
	var a storagev1.VolumeAttachment
	switch err := n.client.Live().Get(ctx, crclient.ObjectKey{Name: name}, &a); {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("volume %s is not attached to this node yet", v.Name)
	case err != nil:
		return nil, fmt.Errorf("read the attachment of volume %s: %w", v.Name, err)
	case a.Status.AttachError != nil:
		return nil, errors.New(a.Status.AttachError.Message)
	case !a.Status.Attached || a.DeletionTimestamp != nil:
		return nil, fmt.Errorf("volume attachment is being deleted or not attached yet: %s", name)
	}
	return a.Status.AttachmentMetadata, nil
}

// capabilityOf is how the volume is to be used. grouped says that the driver gives it to the pod's group itself, own that the kubelet may have to.
func capabilityOf(v *Volume, d *driver, object *storagev1.CSIDriver) (c *csi.VolumeCapability, grouped, own bool) {
	c = &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: accessMode(v.Modes, d)}}
	if v.Block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		return c, false, false
	}
	mount := &csi.VolumeCapability_MountVolume{MountFlags: v.Options}
	if v.Source != nil {
		mount.FsType = v.Source.FSType
	} else if v.Inline.FSType != nil {
		mount.FsType = *v.Inline.FSType
	}
	c.AccessType = &csi.VolumeCapability_Mount{Mount: mount}
	policy := storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy
	if object != nil && object.Spec.FSGroupPolicy != nil {
		policy = *object.Spec.FSGroupPolicy
	}
	once := len(v.Modes) == 0 || slices.Contains(v.Modes, corev1.ReadWriteOnce) || slices.Contains(v.Modes, corev1.ReadWriteOncePod)
	own = policy == storagev1.FileFSGroupPolicy || policy == storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy && once && mount.FsType != ""
	if s := v.Pod.Spec.SecurityContext; s != nil && s.FSGroup != nil && d.can[csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP] {
		mount.VolumeMountGroup = strconv.FormatInt(*s.FSGroup, 10)
		return c, true, false
	}
	return c, false, own
}

// accessMode is the widest of a volume's modes, in CSI's terms.
func accessMode(modes []corev1.PersistentVolumeAccessMode, d *driver) csi.VolumeCapability_AccessMode_Mode {
	single := d.can[csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER]
	switch {
	case slices.Contains(modes, corev1.ReadWriteMany):
		return csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	case slices.Contains(modes, corev1.ReadOnlyMany) && len(modes) == 1:
		return csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case slices.Contains(modes, corev1.ReadWriteOncePod) && single:
		return csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	case single:
		return csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	}
	return csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
}

func (n *Node) stageVolume(ctx context.Context, d *driver, v *Volume, info *data, c *csi.VolumeCapability, published map[string]string) error {
	if err := os.MkdirAll(info.Staged, 0o750); err != nil {
		return err
	}
	secrets, err := n.secret(ctx, v.Source.NodeStageSecretRef)
	if err != nil {
		return err
	}
	_, err = d.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: info.Handle, PublishContext: published, StagingTargetPath: info.Staged, VolumeCapability: c,
		Secrets: secrets, VolumeContext: v.Source.VolumeAttributes,
	})
	if err != nil {
		return fmt.Errorf("NodeStageVolume: %w", err)
	}
	return nil
}

func (n *Node) publish(ctx context.Context, d *driver, v *Volume, info *data, c *csi.VolumeCapability, published map[string]string, object *storagev1.CSIDriver) error {
	request := &csi.NodePublishVolumeRequest{
		VolumeId: info.Handle, PublishContext: published, StagingTargetPath: info.Staged, TargetPath: info.Target,
		VolumeCapability: c, Readonly: v.ReadOnly, VolumeContext: map[string]string{},
	}
	given, ref := map[string]string(nil), (*corev1.SecretReference)(nil)
	if v.Source != nil {
		given, ref = v.Source.VolumeAttributes, v.Source.NodePublishSecretRef
	} else {
		given = v.Inline.VolumeAttributes
		if v.Inline.NodePublishSecretRef != nil {
			ref = &corev1.SecretReference{Namespace: v.Pod.Namespace, Name: v.Inline.NodePublishSecretRef.Name}
		}
	}
	for key, value := range given {
		request.VolumeContext[key] = value
	}
	var err error
	if request.Secrets, err = n.secret(ctx, ref); err != nil {
		return err
	}
	if err := n.tell(ctx, v, request, object); err != nil {
		return err
	}
	if _, err := d.node.NodePublishVolume(ctx, request); err != nil {
		return fmt.Errorf("NodePublishVolume: %w", err)
	}
	return nil
}

// tell adds what the driver wants to know of the pod, and tokens of its account.
func (n *Node) tell(ctx context.Context, v *Volume, request *csi.NodePublishVolumeRequest, object *storagev1.CSIDriver) error {
	if object == nil {
		return nil
	}
	const prefix = "csi.storage.k8s.io/"
	if object.Spec.PodInfoOnMount != nil && *object.Spec.PodInfoOnMount {
		for key, value := range map[string]string{
			"pod.name": v.Pod.Name, "pod.namespace": v.Pod.Namespace, "pod.uid": string(v.Pod.UID),
			"serviceAccount.name": v.Pod.Spec.ServiceAccountName, "ephemeral": strconv.FormatBool(v.Inline != nil),
		} {
			request.VolumeContext[prefix+key] = value
		}
	}
	if len(object.Spec.TokenRequests) == 0 {
		return nil
	}
	tokens := map[string]map[string]string{}
	for _, r := range object.Spec.TokenRequests {
		seconds := int64(3600)
		if r.ExpirationSeconds != nil {
			seconds = *r.ExpirationSeconds
		}
		text, expires, err := n.token(ctx, v.Pod, r.Audience, seconds)
		if err != nil {
			return fmt.Errorf("get a token for the driver: %w", err)
		}
		tokens[r.Audience] = map[string]string{"token": text, "expirationTimestamp": expires.UTC().Format("2006-01-02T15:04:05Z")}
	}
	raw, err := json.Marshal(tokens)
	if err != nil {
		return err
	}
	if in := object.Spec.ServiceAccountTokenInSecrets; in != nil && *in {
		if request.Secrets == nil {
			request.Secrets = map[string]string{}
		}
		request.Secrets[prefix+"serviceAccount.tokens"] = string(raw)
	} else {
		request.VolumeContext[prefix+"serviceAccount.tokens"] = string(raw)
	}
	return nil
}

func (n *Node) secret(ctx context.Context, ref *corev1.SecretReference) (map[string]string, error) {
	if ref == nil || ref.Name == "" {
		return nil, nil
	}
	var s corev1.Secret
	if err := n.client.Live().Get(ctx, crclient.ObjectKey{Namespace: ref.Namespace, Name: ref.Name}, &s); err != nil {
		return nil, fmt.Errorf("read the driver's secret %s/%s: %w", ref.Namespace, ref.Name, err)
	}
	out := make(map[string]string, len(s.Data))
	for key, value := range s.Data {
		out[key] = string(value)
	}
	return out, nil
}

// write puts down how to take a volume back, whole or not at all.
func write(dir string, info *data) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	raw, err := json.Marshal(info)
	if err != nil {
		return err
	}
	temp := filepath.Join(dir, dataFile+".new")
	if err := os.WriteFile(temp, raw, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, dataFile))
}
