// Package podresources serves the kubelet's pod resources API (k8s.io/kubelet/pkg/apis/podresources/v1) at <kubelet root>/pod-resources/kubelet.sock:
// which devices which containers have, for agents on the node that monitor them. It owns its socket and nothing else.
package podresources

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"

	"skiff.dev/skiff/internal/kubelet/device"
	"skiff.dev/skiff/internal/kubelet/dra"
)

// Server of one node.
type Server struct {
	podresources.UnimplementedPodResourcesListerServer
	Root    string               // the kubelet's
	Pods    func() []*corev1.Pod // of this node, with the status as of now
	Devices *device.Manager
	Claims  *dra.Node
	Log     *slog.Logger
}

// Run until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	listener, err := device.Listen(filepath.Join(s.Root, "pod-resources"))
	if errors.Is(err, device.ErrLongPath) {
		s.Log.Warn("pod resources are not served on this node", "err", err)
		<-ctx.Done()
		return nil
	}
	if err != nil {
		return fmt.Errorf("serve pod resources: %w", err)
	}
	server := grpc.NewServer()
	podresources.RegisterPodResourcesListerServer(server, s)
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

// List of pods that have not ended, with their containers.
func (s *Server) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	out := &podresources.ListPodResourcesResponse{}
	for _, pod := range s.Pods() {
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			out.PodResources = append(out.PodResources, s.pod(pod))
		}
	}
	slices.SortFunc(out.PodResources, func(a, b *podresources.PodResources) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// Get one pod.
func (s *Server) Get(_ context.Context, r *podresources.GetPodResourcesRequest) (*podresources.GetPodResourcesResponse, error) {
	for _, pod := range s.Pods() {
		if pod.Namespace == r.PodNamespace && pod.Name == r.PodName {
			return &podresources.GetPodResourcesResponse{PodResources: s.pod(pod)}, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "pod %s in namespace %s not found", r.PodName, r.PodNamespace)
}

// GetAllocatableResources lists what the node can give. CPUs and memory are given to nobody exclusively.
func (s *Server) GetAllocatableResources(context.Context, *podresources.AllocatableResourcesRequest) (*podresources.AllocatableResourcesResponse, error) {
	return &podresources.AllocatableResourcesResponse{Devices: s.Devices.All()}, nil
}

func (s *Server) pod(pod *corev1.Pod) *podresources.PodResources {
	out := &podresources.PodResources{Namespace: pod.Namespace, Name: pod.Name}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			out.Containers = append(out.Containers, s.container(pod, c))
		}
	}
	for i := range pod.Spec.Containers {
		out.Containers = append(out.Containers, s.container(pod, &pod.Spec.Containers[i]))
	}
	return out
}

func (s *Server) container(pod *corev1.Pod, c *corev1.Container) *podresources.ContainerResources {
	out := &podresources.ContainerResources{Name: c.Name, Devices: s.Devices.Held(pod.UID, c.Name)}
	for _, d := range s.Claims.Held(pod, c) {
		i := slices.IndexFunc(out.DynamicResources, func(r *podresources.DynamicResource) bool { return r.ClaimName == d.Claim })
		if i < 0 {
			i = len(out.DynamicResources)
			out.DynamicResources = append(out.DynamicResources, &podresources.DynamicResource{ClaimName: d.Claim, ClaimNamespace: pod.Namespace})
		}
		one := &podresources.ClaimResource{DriverName: d.Driver, PoolName: d.Pool, DeviceName: d.Device}
		for _, name := range d.CDI {
			one.CdiDevices = append(one.CdiDevices, &podresources.CDIDevice{Name: name})
		}
		out.DynamicResources[i].ClaimResources = append(out.DynamicResources[i].ClaimResources, one)
	}
	return out
}
