package pod

import (
	"fmt"
	"hash/fnv"
	"path"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubetypes "k8s.io/kubelet/pkg/types"

	"skiff.dev/skiff/internal/kubelet/cgroup"
	"skiff.dev/skiff/internal/kubelet/device"
	"skiff.dev/skiff/internal/kubelet/image"
	"skiff.dev/skiff/internal/kubelet/volume"
)

// containerHash changes when a running container has to be replaced: only its image can change in place.
func containerHash(c *corev1.Container) string {
	h := fnv.New32a()
	h.Write([]byte(c.Name + "\x00" + c.Image))
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

// making is everything a container's configuration is made of.
type making struct {
	pod      *corev1.Pod // with the addresses of its present sandbox in its status
	c        *corev1.Container
	image    *image.Image
	restarts int32
	env      []*runtimeapi.KeyValue
	values   map[string]string
	mounts   []*runtimeapi.Mount
	devices  []*runtimeapi.Device
	cdi      []string                  // names of devices by the Container Device Interface
	target   string                    // ephemeral containers: whose processes to see
	notes    map[string]string         // further annotations
	users    *runtimeapi.UserNamespace // of the pod's own; nil: the host's
	settings *Settings
}

// give adds what comes with the container's devices; the pod's own variables go before theirs.
func (m *making) give(g *device.Given) {
	m.env = append(g.Env, m.env...)
	m.mounts, m.devices, m.cdi = append(m.mounts, g.Mounts...), append(m.devices, g.Devices...), append(m.cdi, g.CDI...)
	m.notes = g.Annotations
}

func (m *making) config() (*runtimeapi.ContainerConfig, error) {
	security, err := containerSecurity(m.pod, m.c, m.image, m.users, m.settings.Seccomp)
	if err != nil {
		return nil, err
	}
	if m.target != "" {
		security.NamespaceOptions.Pid = runtimeapi.NamespaceMode_TARGET
		security.NamespaceOptions.TargetId = m.target
	}
	meta := labels(m.pod)
	meta[kubetypes.KubernetesContainerNameLabel] = m.c.Name
	notes := map[string]string{
		hashAnnotation:       containerHash(m.c),
		restartsAnnotation:   strconv.Itoa(int(m.restarts)),
		termPathAnnotation:   m.c.TerminationMessagePath,
		termPolicyAnnotation: string(m.c.TerminationMessagePolicy),
		graceAnnotation:      strconv.FormatInt(Grace(m.pod), 10),
	}
	for key, value := range m.notes {
		if _, ours := notes[key]; !ours {
			notes[key] = value
		}
	}
	out := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: m.c.Name, Attempt: uint32(m.restarts)},
		Image:       &runtimeapi.ImageSpec{Image: m.image.Ref, UserSpecifiedImage: m.c.Image},
		Command:     m.expand(m.c.Command),
		Args:        m.expand(m.c.Args),
		WorkingDir:  m.c.WorkingDir,
		Envs:        m.env,
		Mounts:      m.mounts,
		Devices:     m.devices,
		Labels:      meta,
		Annotations: notes,
		LogPath:     logPath(m.c.Name, m.restarts),
		Stdin:       m.c.Stdin,
		StdinOnce:   m.c.StdinOnce,
		Tty:         m.c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       containerResources(m.pod, m.c, m.settings),
			SecurityContext: security,
		},
	}
	for _, name := range m.cdi {
		out.CDIDevices = append(out.CDIDevices, &runtimeapi.CDIDevice{Name: name})
	}
	for _, mount := range out.Mounts {
		mount.UidMappings, mount.GidMappings = m.users.GetUids(), m.users.GetGids()
	}
	if m.c.Lifecycle != nil && m.c.Lifecycle.StopSignal != nil {
		if n, ok := runtimeapi.Signal_value["SIGNAL_"+string(*m.c.Lifecycle.StopSignal)]; ok {
			out.StopSignal = runtimeapi.Signal(n)
		}
	}
	return out, nil
}

func (m *making) expand(in []string) []string {
	out := make([]string, len(in))
	for i := range in {
		out[i] = Expand(in[i], m.values)
	}
	return out
}

func containerResources(pod *corev1.Pod, c *corev1.Container, s *Settings) *runtimeapi.LinuxContainerResources {
	size := sizeOf(pod, c)
	out := &runtimeapi.LinuxContainerResources{
		CpuShares:          size.Shares,
		CpuQuota:           size.Quota,
		MemoryLimitInBytes: size.Memory,
		OomScoreAdj:        max(cgroup.OOMScore(pod, c, s.NodeMemory), s.OOMFloor),
	}
	if out.CpuQuota != 0 {
		out.CpuPeriod = cgroup.Period
	}
	for name, q := range c.Resources.Limits {
		if size, ok := strings.CutPrefix(string(name), corev1.ResourceHugePagesPrefix); ok {
			out.HugepageLimits = append(out.HugepageLimits, &runtimeapi.HugepageLimit{
				PageSize: strings.TrimSuffix(size, "i") + "B", Limit: uint64(q.Value()),
			})
		}
	}
	return out
}

// mountSource finds volumes on this host.
type mountSource interface {
	Path(pod *corev1.Pod, v *corev1.Volume) string
	SubPath(pod *corev1.Pod, v *corev1.Volume, container string, index int, sub string) (string, error)
	Share(path string, mode corev1.MountPropagationMode) error
}

// mounts are a container's volume mounts.
func mounts(pod *corev1.Pod, c *corev1.Container, values map[string]string, volumes mountSource, images func(ref *corev1.ImageVolumeSource) (*runtimeapi.ImageSpec, error)) ([]*runtimeapi.Mount, error) {
	var out []*runtimeapi.Mount
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		v := volumeNamed(pod, m.Name)
		if v == nil {
			return nil, fmt.Errorf("volume %q of container %q is not among the pod's volumes", m.Name, c.Name)
		}
		mount := &runtimeapi.Mount{ContainerPath: m.MountPath, Readonly: m.ReadOnly || isContent(v) || volume.ReadOnly(v)}
		if !path.IsAbs(mount.ContainerPath) {
			mount.ContainerPath = "/" + mount.ContainerPath
		}
		if m.MountPropagation != nil {
			switch *m.MountPropagation {
			case corev1.MountPropagationHostToContainer:
				mount.Propagation = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
			case corev1.MountPropagationBidirectional:
				mount.Propagation = runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
			}
		}
		if mode := m.RecursiveReadOnly; mode != nil && *mode == corev1.RecursiveReadOnlyEnabled {
			mount.RecursiveReadOnly = true
		}
		sub, err := subPath(m, values)
		if err != nil {
			return nil, err
		}
		switch {
		case v.Image != nil:
			if mount.Image, err = images(v.Image); err != nil {
				return nil, err
			}
			mount.ImageSubPath = sub
		case sub != "":
			if mount.HostPath, err = volumes.SubPath(pod, v, c.Name, i, sub); err != nil {
				return nil, err
			}
		default:
			mount.HostPath = volumes.Path(pod, v)
		}
		if m.MountPropagation != nil && mount.HostPath != "" {
			if err := volumes.Share(mount.HostPath, *m.MountPropagation); err != nil {
				return nil, err
			}
		}
		out = append(out, mount)
	}
	return out, nil
}

// devices are a container's raw block volumes.
func devices(pod *corev1.Pod, c *corev1.Container, volumes mountSource) ([]*runtimeapi.Device, error) {
	var out []*runtimeapi.Device
	for i := range c.VolumeDevices {
		d := &c.VolumeDevices[i]
		v := volumeNamed(pod, d.Name)
		if v == nil {
			return nil, fmt.Errorf("volume %q of container %q is not among the pod's volumes", d.Name, c.Name)
		}
		permissions := "mrw"
		if volume.ReadOnly(v) {
			permissions = "r"
		}
		out = append(out, &runtimeapi.Device{ContainerPath: d.DevicePath, HostPath: volumes.Path(pod, v), Permissions: permissions})
	}
	return out, nil
}

// isContent: what such a volume shows is somebody else's to change, whatever its mounts say.
func isContent(v *corev1.Volume) bool {
	return v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil || v.Image != nil
}

// subPath of a mount. An expression may not turn into an absolute path or one that climbs.
func subPath(m *corev1.VolumeMount, values map[string]string) (string, error) {
	if m.SubPathExpr == "" {
		return m.SubPath, nil
	}
	for rest := m.SubPathExpr; ; {
		_, after, ok := strings.Cut(rest, "$(")
		if !ok {
			break
		}
		name, tail, closed := strings.Cut(after, ")")
		if !closed {
			break
		}
		if _, known := values[name]; !known {
			return "", fmt.Errorf("missing value for %q", name)
		}
		rest = tail
	}
	sub := Expand(m.SubPathExpr, values)
	if path.IsAbs(sub) {
		return "", fmt.Errorf("error SubPath `%s` must not be an absolute path", sub)
	}
	if strings.Contains("/"+sub+"/", "/../") {
		return "", fmt.Errorf("unable to provision SubPath `%s`: must not contain '..'", sub)
	}
	return sub, nil
}

func volumeNamed(pod *corev1.Pod, name string) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return &pod.Spec.Volumes[i]
		}
	}
	return nil
}

// spec finds a container in a pod; target is what an ephemeral container looks at.
func spec(pod *corev1.Pod, name string) (c *corev1.Container, target string) {
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == name {
			return &pod.Spec.Containers[i], ""
		}
	}
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i], ""
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if e := &pod.Spec.EphemeralContainers[i]; e.Name == name {
			c := corev1.Container(e.EphemeralContainerCommon)
			return &c, e.TargetContainerName
		}
	}
	return nil, ""
}

// hostsFile is a pod's /etc/hosts.
func hostsFile(pod *corev1.Pod, s *Settings, host string) string {
	var b strings.Builder
	if pod.Spec.HostNetwork {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.WriteString(host)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		name := hostname(pod, s)
		if pod.Spec.Subdomain != "" && pod.Spec.HostnameOverride == nil && !strings.Contains(name, ".") {
			name = name + "." + pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + s.Domain + "\t" + name
		}
		for _, ip := range pod.Status.PodIPs {
			b.WriteString(ip.IP + "\t" + name + "\n")
		}
	}
	if len(pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range pod.Spec.HostAliases {
			b.WriteString(a.IP + "\t" + strings.Join(a.Hostnames, "\t") + "\n")
		}
	}
	return b.String()
}

// Spec of a container of a pod, of whatever kind; nil if there is none of that name.
func Spec(pod *corev1.Pod, name string) *corev1.Container {
	c, _ := spec(pod, name)
	return c
}
