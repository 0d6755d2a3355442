package api

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What the writer of a pod, or of what makes pods, is warned of: it is accepted, and does not do what its author hopes.

// oldNodeLabels were given other names long ago.
var oldNodeLabels = map[string]string{
	"beta.kubernetes.io/arch":                  `deprecated since v1.14; use "kubernetes.io/arch" instead`,
	"beta.kubernetes.io/os":                    `deprecated since v1.14; use "kubernetes.io/os" instead`,
	"failure-domain.beta.kubernetes.io/region": `deprecated since v1.17; use "topology.kubernetes.io/region" instead`,
	"failure-domain.beta.kubernetes.io/zone":   `deprecated since v1.17; use "topology.kubernetes.io/zone" instead`,
	"beta.kubernetes.io/instance-type":         `deprecated since v1.17; use "node.kubernetes.io/instance-type" instead`,
}

// oldAnnotations by what they begin with; one that ends in a slash goes before a container's name.
var oldAnnotations = []struct{ prefix, text string }{
	{"scheduler.alpha.kubernetes.io/critical-pod", `non-functional in v1.16+; use the "priorityClassName" field instead`},
	{"seccomp.security.alpha.kubernetes.io/pod", `non-functional in v1.27+; use the "seccompProfile" field instead`},
	{"container.seccomp.security.alpha.kubernetes.io/", `non-functional in v1.27+; use the "seccompProfile" field instead`},
	{"container.apparmor.security.beta.kubernetes.io/", `deprecated since v1.30; use the "appArmorProfile" field instead`},
}

// warnPod looks at a new pod, or at one whose spec changed: a node's reports on it cost nothing.
func warnPod(obj, old Object) (out []string) {
	p := obj.(*corev1.Pod)
	if old != nil && old.GetGeneration() == p.Generation {
		return nil
	}
	if old == nil && p.Spec.Hostname == "" && !plainLabel(p.Name) {
		if why := validation.IsDNS1123Label(p.Name); len(why) > 0 {
			out = append(out, fmt.Sprintf("metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: %v", why))
		}
	}
	return append(out, podWarnings(&p.ObjectMeta, &p.Spec, nil)...)
}

// warnTemplate makes a Warn of where a kind has its template; one that did not change is not spoken of again.
func warnTemplate(template func(Object) *corev1.PodTemplateSpec, path ...string) func(obj, old Object) []string {
	at := field.NewPath(path[0], path[1:]...)
	return func(obj, old Object) []string {
		t := template(obj)
		if t == nil || old != nil && old.GetGeneration() == obj.GetGeneration() {
			return nil
		}
		return podWarnings(&t.ObjectMeta, &t.Spec, at)
	}
}

// below is a path under one that may be the object itself.
func below(p *field.Path, name string, more ...string) *field.Path {
	if p == nil {
		return field.NewPath(name, more...)
	}
	return p.Child(name, more...)
}

func podWarnings(m *metav1.ObjectMeta, s *corev1.PodSpec, p *field.Path) (out []string) {
	for key := range m.Annotations {
		for _, a := range oldAnnotations {
			if key == a.prefix || strings.HasSuffix(a.prefix, "/") && strings.HasPrefix(key, a.prefix) {
				out = append(out, fmt.Sprintf("%s: %s", below(p, "metadata", "annotations").Key(key), a.text))
			}
		}
	}
	slices.Sort(out)
	out = append(out, placementWarnings(s, p)...)
	for i := range s.Volumes {
		if name, text := oldVolume(&s.Volumes[i].VolumeSource); name != "" {
			out = append(out, fmt.Sprintf("%s: %s", below(p, "spec", "volumes").Index(i).Child(name), text))
		}
	}
	for i, secret := range s.ImagePullSecrets {
		at := func() *field.Path { return below(p, "spec", "imagePullSecrets").Index(i).Child("name") }
		switch {
		case secret.Name == "":
			out = append(out, fmt.Sprintf("%s: invalid empty name %q", at(), ""))
		case slices.Contains(s.ImagePullSecrets[:i], secret):
			out = append(out, fmt.Sprintf("%s: duplicate name %q", at(), secret.Name))
		}
	}
	for i, h := range s.HostAliases {
		if slices.ContainsFunc(s.HostAliases[:i], func(b corev1.HostAlias) bool { return b.IP == h.IP }) {
			out = append(out, fmt.Sprintf("%s: duplicate ip %q", below(p, "spec", "hostAliases").Index(i).Child("ip"), h.IP))
		}
	}
	if n := s.TerminationGracePeriodSeconds; n != nil && *n < 0 {
		out = append(out, fmt.Sprintf("%s: must be >= 0; negative values are invalid and will be treated as 1", below(p, "spec", "terminationGracePeriodSeconds")))
	}
	for _, list := range [...]struct {
		name       string
		containers []corev1.Container
	}{{"initContainers", s.InitContainers}, {"containers", s.Containers}} {
		for i := range list.containers {
			out = append(out, containerWarnings(&list.containers[i], func() *field.Path { return below(p, "spec", list.name).Index(i) })...)
		}
	}
	return out
}

// placementWarnings find old node labels wherever nodes are chosen.
func placementWarnings(s *corev1.PodSpec, p *field.Path) (out []string) {
	for key := range s.NodeSelector {
		if text := oldNodeLabels[key]; text != "" {
			out = append(out, fmt.Sprintf("%s: %s", below(p, "spec", "nodeSelector").Key(key), text))
		}
	}
	slices.Sort(out)
	for i := range s.TopologySpreadConstraints {
		key := s.TopologySpreadConstraints[i].TopologyKey
		if text := oldNodeLabels[key]; text != "" {
			out = append(out, fmt.Sprintf("%s: %s is %s", below(p, "spec", "topologySpreadConstraints").Index(i).Child("topologyKey"), key, text))
		}
	}
	if s.Affinity == nil || s.Affinity.NodeAffinity == nil {
		return out
	}
	at := below(p, "spec", "affinity", "nodeAffinity")
	for i, t := range requiredTerms(s.Affinity) {
		out = append(out, termWarnings(&t, at.Child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").Index(i))...)
	}
	for i := range s.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution {
		t := &s.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution[i]
		out = append(out, termWarnings(&t.Preference, at.Child("preferredDuringSchedulingIgnoredDuringExecution").Index(i).Child("preference"))...)
	}
	return out
}

func termWarnings(t *corev1.NodeSelectorTerm, p *field.Path) (out []string) {
	for i, e := range t.MatchExpressions {
		if text := oldNodeLabels[e.Key]; text != "" {
			out = append(out, fmt.Sprintf("%s: %s is %s", p.Child("matchExpressions").Index(i).Child("key"), e.Key, text))
		}
	}
	return out
}

// oldVolume names a source that is on its way out, or gone.
func oldVolume(v *corev1.VolumeSource) (name, text string) {
	switch {
	case v.GitRepo != nil:
		return "gitRepo", "deprecated in v1.11"
	case v.PhotonPersistentDisk != nil:
		return "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"
	case v.ScaleIO != nil:
		return "scaleIO", "deprecated in v1.16, non-functional in v1.22+"
	case v.Flocker != nil:
		return "flocker", "deprecated in v1.22, non-functional in v1.25+"
	case v.StorageOS != nil:
		return "storageOS", "deprecated in v1.22, non-functional in v1.25+"
	case v.Quobyte != nil:
		return "quobyte", "deprecated in v1.22, non-functional in v1.25+"
	case v.Glusterfs != nil:
		return "glusterfs", "deprecated in v1.25, non-functional in v1.26+"
	case v.CephFS != nil:
		return "cephfs", "deprecated in v1.28, non-functional in v1.31+"
	case v.RBD != nil:
		return "rbd", "deprecated in v1.28, non-functional in v1.31+"
	}
	return "", ""
}

func containerWarnings(c *corev1.Container, at func() *field.Path) (out []string) {
	for i := range c.Env {
		if slices.ContainsFunc(c.Env[:i], func(b corev1.EnvVar) bool { return b.Name == c.Env[i].Name }) {
			out = append(out, fmt.Sprintf("%s: hides previous definition of %q, which may be dropped when using apply", at().Child("env").Index(i), c.Env[i].Name))
		}
	}
	for i := range c.Ports {
		now := &c.Ports[i]
		j := slices.IndexFunc(c.Ports[:i], func(b corev1.ContainerPort) bool {
			return b.ContainerPort == now.ContainerPort && b.Protocol == now.Protocol && b.HostIP == now.HostIP && b.HostPort == now.HostPort
		})
		if j >= 0 {
			ports := at().Child("ports")
			out = append(out, fmt.Sprintf("%s: duplicate port definition with %s", ports.Index(i), ports.Index(j)))
		}
	}
	for _, list := range [...]struct {
		name    string
		amounts corev1.ResourceList
	}{{"requests", c.Resources.Requests}, {"limits", c.Resources.Limits}} {
		for _, name := range [...]corev1.ResourceName{corev1.ResourceMemory, corev1.ResourceEphemeralStorage} {
			if q, found := list.amounts[name]; found && fractional(q) {
				out = append(out, fractionWarning(at().Child("resources", list.name).Key(string(name)), q))
			}
		}
	}
	return out
}

// fractional amounts of bytes come of writing m, a thousandth, for M.
func fractional(q resource.Quantity) bool { return q.MilliValue()%1000 != 0 }

func fractionWarning(p *field.Path, q resource.Quantity) string {
	return fmt.Sprintf("%s: fractional byte value %q is invalid, must be an integer", p, q.String())
}
