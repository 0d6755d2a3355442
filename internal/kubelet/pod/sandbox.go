package pod

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubetypes "k8s.io/kubelet/pkg/types"

	"skiff.dev/skiff/internal/kubelet/cgroup"
	"skiff.dev/skiff/internal/kubelet/logs"
)

// Settings of the node that go into what the runtime is asked for.
type Settings struct {
	NodeName   string
	LogDir     string
	ClusterDNS string // empty: no cluster DNS
	Domain     string
	ResolvConf string
	NodeMemory int64
	Seccomp    string // folder of the host's seccomp profiles
	AppArmor   bool   // the kernel has it
	OOMFloor   int64
}

// LogDir is where a pod's logs are.
func (s *Settings) LogDirOf(pod *corev1.Pod) string {
	return filepath.Join(s.LogDir, logs.Folder(pod.Namespace, pod.Name, string(pod.UID)))
}

func labels(pod *corev1.Pod) map[string]string {
	return map[string]string{
		kubetypes.KubernetesPodNameLabel:      pod.Name,
		kubetypes.KubernetesPodNamespaceLabel: pod.Namespace,
		kubetypes.KubernetesPodUIDLabel:       string(pod.UID),
	}
}

// sandboxConfig is what the runtime is told of the pod as a whole.
func sandboxConfig(pod *corev1.Pod, attempt uint32, users *runtimeapi.UserNamespace, cgroupParent string, s *Settings) (*runtimeapi.PodSandboxConfig, error) {
	dns, err := dnsConfig(pod, s)
	if err != nil {
		return nil, err
	}
	meta := labels(pod)
	for k, v := range pod.Labels {
		if _, ours := meta[k]; !ours {
			meta[k] = v
		}
	}
	c := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		Hostname:     hostname(pod, s),
		LogDirectory: s.LogDirOf(pod),
		DnsConfig:    dns,
		PortMappings: portMappings(pod),
		Labels:       meta,
		Annotations:  pod.Annotations,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    cgroupParent,
			SecurityContext: sandboxSecurity(pod, users),
			Sysctls:         sysctls(pod),
			Overhead:        &runtimeapi.LinuxContainerResources{},
			Resources:       &runtimeapi.LinuxContainerResources{},
		},
	}
	limits := cgroup.PodLimits(pod)
	c.Linux.Resources = &runtimeapi.LinuxContainerResources{
		CpuShares: int64(limits.CPUShares), CpuQuota: limits.CPUQuota, MemoryLimitInBytes: limits.Memory,
	}
	if limits.CPUQuota != 0 {
		c.Linux.Resources.CpuPeriod = cgroup.Period
	}
	return c, nil
}

// hostname of the pod; that of the node if the pod shares its network.
func hostname(pod *corev1.Pod, s *Settings) string {
	if o := pod.Spec.HostnameOverride; o != nil {
		return *o
	}
	if pod.Spec.HostNetwork {
		return ""
	}
	name := pod.Name
	if pod.Spec.Hostname != "" {
		name = pod.Spec.Hostname
	}
	if fqdn := pod.Spec.SetHostnameAsFQDN; fqdn != nil && *fqdn && pod.Spec.Subdomain != "" {
		return name + "." + pod.Spec.Subdomain + "." + pod.Namespace + ".svc." + s.Domain
	}
	const limit = 63
	if len(name) > limit {
		name = strings.TrimRight(name[:limit], "-.")
	}
	return name
}

func portMappings(pod *corev1.Pod) []*runtimeapi.PortMapping {
	if pod.Spec.HostNetwork {
		return nil
	}
	var out []*runtimeapi.PortMapping
	for i := range pod.Spec.Containers {
		out = append(out, containerPorts(pod.Spec.Containers[i].Ports)...)
	}
	for i := range pod.Spec.InitContainers {
		if isSidecar(&pod.Spec.InitContainers[i]) {
			out = append(out, containerPorts(pod.Spec.InitContainers[i].Ports)...)
		}
	}
	return out
}

func containerPorts(ports []corev1.ContainerPort) []*runtimeapi.PortMapping {
	var out []*runtimeapi.PortMapping
	for _, p := range ports {
		protocol := runtimeapi.Protocol_TCP
		switch p.Protocol {
		case corev1.ProtocolUDP:
			protocol = runtimeapi.Protocol_UDP
		case corev1.ProtocolSCTP:
			protocol = runtimeapi.Protocol_SCTP
		}
		out = append(out, &runtimeapi.PortMapping{Protocol: protocol, ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP})
	}
	return out
}

func sysctls(pod *corev1.Pod) map[string]string {
	if pod.Spec.SecurityContext == nil || len(pod.Spec.SecurityContext.Sysctls) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		out[strings.ReplaceAll(s.Name, "/", ".")] = s.Value
	}
	return out
}

// forbiddenSysctl names the first sysctl that this node doesn't let pods set, empty if there is none. These are the ones that are
// known to stay within the pod's own namespaces.
func forbiddenSysctl(pod *corev1.Pod) string {
	if pod.Spec.SecurityContext == nil {
		return ""
	}
	safe := []string{
		"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
		"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
		"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		if !slices.Contains(safe, strings.ReplaceAll(s.Name, "/", ".")) {
			return s.Name
		}
	}
	return ""
}

func dnsConfig(pod *corev1.Pod, s *Settings) (*runtimeapi.DNSConfig, error) {
	policy := pod.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork || s.ClusterDNS == "" && policy != corev1.DNSNone {
		policy = corev1.DNSDefault
	}
	out := &runtimeapi.DNSConfig{}
	host := func() (*runtimeapi.DNSConfig, error) {
		text, err := readResolvConf(s.ResolvConf)
		if err != nil {
			return nil, err
		}
		return parseResolvConf(text), nil
	}
	switch policy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		h, err := host()
		if err != nil {
			return nil, err
		}
		out.Servers, out.Searches, out.Options = h.Servers, h.Searches, h.Options
	default:
		h, err := host()
		if err != nil {
			return nil, err
		}
		out.Servers = []string{s.ClusterDNS}
		out.Searches = append([]string{pod.Namespace + ".svc." + s.Domain, "svc." + s.Domain, s.Domain}, h.Searches...)
		out.Options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		out.Servers = unique(append(out.Servers, c.Nameservers...))
		out.Searches = unique(append(out.Searches, c.Searches...))
		out.Options = mergeOptions(out.Options, c.Options)
	}
	out.Searches = unique(out.Searches)
	return out, nil
}

// readResolvConf: a stub resolver on loopback is of no use within a pod; systemd-resolved keeps the real list elsewhere.
func readResolvConf(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read resolvers: %w", err)
	}
	if strings.Contains(string(text), "nameserver 127.0.0.53") {
		if real, err := os.ReadFile("/run/systemd/resolve/resolv.conf"); err == nil {
			text = real
		}
	}
	return string(text), nil
}

func parseResolvConf(text string) *runtimeapi.DNSConfig {
	c := &runtimeapi.DNSConfig{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(fields[0], "#") || strings.HasPrefix(fields[0], ";") {
			continue
		}
		switch fields[0] {
		case "nameserver":
			c.Servers = append(c.Servers, fields[1])
		case "search", "domain":
			c.Searches = nil
			for _, s := range fields[1:] {
				if s != "." {
					s = strings.TrimSuffix(s, ".")
				}
				c.Searches = append(c.Searches, s)
			}
		case "options":
			c.Options = append(c.Options, fields[1:]...)
		}
	}
	return c
}

func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// mergeOptions: a pod's option replaces the one of the same name.
func mergeOptions(have []string, want []corev1.PodDNSConfigOption) []string {
	out := slices.Clone(have)
	for _, o := range want {
		out = slices.DeleteFunc(out, func(s string) bool { name, _, _ := strings.Cut(s, ":"); return name == o.Name })
		if o.Value != nil && *o.Value != "" {
			out = append(out, o.Name+":"+*o.Value)
		} else {
			out = append(out, o.Name)
		}
	}
	return out
}

// logPath of a container's n-th incarnation, relative to the pod's log directory.
func logPath(container string, n int32) string {
	return filepath.Join(container, strconv.Itoa(int(n))+".log")
}
