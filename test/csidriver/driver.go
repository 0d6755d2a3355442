// Package csidriver is a CSI driver for tests: volumes are directories, staged and published by bind mounts. It does all that a driver on a node
// must, keeps CSI's rules (calls are idempotent, unknown paths are no error) and remembers what it was asked for.
package csidriver

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// Driver serves at one socket and registers at another.
type Driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedNodeServer
	Name   string
	Node   string
	Volume string // the folder of all volumes
	Limit  int64  // volumes a node may have, 0 for any number

	mu    sync.Mutex
	calls []string
	seen  map[string]map[string]string // the last volume context, by call
	sizes map[string]int64
	most  int64 // bytes a volume may have, 0 for any number
}

// Serve until the returned function is called. dir is where the driver's own socket goes, registry the kubelet's folder.
func (d *Driver) Serve(dir, registry string) (stop func(), err error) {
	d.seen, d.sizes = map[string]map[string]string{}, map[string]int64{}
	endpoint := filepath.Join(dir, "csi.sock")
	var servers []*grpc.Server
	stop = func() {
		for _, s := range servers {
			s.Stop() // which takes the socket away
		}
	}
	for path, register := range map[string]func(*grpc.Server){
		endpoint: func(s *grpc.Server) { csi.RegisterIdentityServer(s, d); csi.RegisterNodeServer(s, d) },
	} {
		s, err := listen(path, register)
		if err != nil {
			return stop, err
		}
		servers = append(servers, s)
	}
	s, err := listen(filepath.Join(registry, d.Name+"-reg.sock"), func(s *grpc.Server) {
		registration.RegisterRegistrationServer(s, &registrar{name: d.Name, endpoint: endpoint})
	})
	if err != nil {
		stop()
		return stop, err
	}
	servers = append(servers, s)
	return stop, nil
}

func listen(path string, register func(*grpc.Server)) (*grpc.Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	s := grpc.NewServer()
	register(s)
	go func() { _ = s.Serve(l) }() // ends with Stop
	return s, nil
}

type registrar struct {
	registration.UnimplementedRegistrationServer
	name, endpoint string
}

func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: r.name, Endpoint: r.endpoint, SupportedVersions: []string{"1.0.0"}}, nil
}

func (r *registrar) NotifyRegistrationStatus(context.Context, *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	return &registration.RegistrationStatusResponse{}, nil
}

// Calls so far: "NodeStageVolume <volume>" and so on.
func (d *Driver) Calls() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string(nil), d.calls...)
}

// Context is the volume context of the last publication of a volume.
func (d *Driver) Context(volume string) map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen[volume]
}

// Size that a volume was last expanded to on the node.
func (d *Driver) Size(volume string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sizes[volume]
}

// Limited says how many bytes a volume may have from now on, 0 for any number.
func (d *Driver) Limited(most int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.most = most
}

func (d *Driver) called(name, volume string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, name+" "+volume)
}

func (d *Driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.Name, VendorVersion: "1"}, nil
}

func (d *Driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.Node, MaxVolumesPerNode: d.Limit,
		AccessibleTopology: &csi.Topology{Segments: map[string]string{"topology." + d.Name + "/node": d.Node}}}, nil
}

func (d *Driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	out := &csi.NodeGetCapabilitiesResponse{}
	for _, c := range []csi.NodeServiceCapability_RPC_Type{csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, csi.NodeServiceCapability_RPC_EXPAND_VOLUME} {
		out.Capabilities = append(out.Capabilities, &csi.NodeServiceCapability{Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: c}}})
	}
	return out, nil
}

func (d *Driver) NodeStageVolume(_ context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	d.called("NodeStageVolume", r.VolumeId)
	if err := bind(filepath.Join(d.Volume, r.VolumeId), r.StagingTargetPath, false); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

func (d *Driver) NodeUnstageVolume(_ context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	d.called("NodeUnstageVolume", r.VolumeId)
	if err := unbind(r.StagingTargetPath); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (d *Driver) NodePublishVolume(_ context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	d.called("NodePublishVolume", r.VolumeId)
	d.mu.Lock()
	d.seen[r.VolumeId] = r.VolumeContext
	d.mu.Unlock()
	from := r.StagingTargetPath
	if from == "" { // ephemeral: it begins here
		from = filepath.Join(d.Volume, r.VolumeId)
	}
	if err := bind(from, r.TargetPath, r.Readonly); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func (d *Driver) NodeUnpublishVolume(_ context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	d.called("NodeUnpublishVolume", r.VolumeId)
	if err := unbind(r.TargetPath); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if err := os.Remove(r.TargetPath); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (d *Driver) NodeExpandVolume(_ context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	d.called("NodeExpandVolume", r.VolumeId)
	d.mu.Lock()
	defer d.mu.Unlock()
	if size := r.CapacityRange.GetRequiredBytes(); d.most > 0 && size > d.most {
		return nil, status.Errorf(codes.OutOfRange, "a volume has %d bytes at most", d.most)
	}
	d.sizes[r.VolumeId] = r.CapacityRange.GetRequiredBytes()
	return &csi.NodeExpandVolumeResponse{CapacityBytes: r.CapacityRange.GetRequiredBytes()}, nil
}

// bind shows from at to, once.
func bind(from, to string, readOnly bool) error {
	for _, dir := range []string{from, to} {
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return err
		}
	}
	var a, b unix.Stat_t
	if err := errors.Join(unix.Stat(from, &a), unix.Stat(to, &b)); err != nil || a.Dev == b.Dev && a.Ino == b.Ino {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil || !readOnly {
		return err
	}
	return unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

func unbind(dir string) error {
	if err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}
