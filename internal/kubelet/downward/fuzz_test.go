package downward_test

import (
	"math/big"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/kubelet/downward"
)

// learning is a pod whose variable, or whose volume's file, is taken from itself.
func learning(limits corev1.ResourceList, variable *corev1.EnvVarSource, file *corev1.DownwardAPIVolumeFile) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "u", Labels: map[string]string{"a": "b", "example.com/x": "1"}, Annotations: map[string]string{"n": "say \"hi\"\n\x00"}},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: "i", Image: "web", TerminationMessagePolicy: corev1.TerminationMessageReadFile, Resources: corev1.ResourceRequirements{Limits: limits}}},
			Containers:     []corev1.Container{{Name: "c", Image: "web", Resources: corev1.ResourceRequirements{Limits: limits}}},
		},
		Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}, HostIPs: []corev1.HostIP{{IP: "192.0.2.1"}}},
	}
	if variable != nil {
		p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "V", ValueFrom: variable}}
	}
	if file != nil {
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{*file}}}}}
	}
	return p
}

// FuzzField feeds paths to the rules of pods. One that they take can be read; any other is an error, if it is read at all.
func FuzzField(f *testing.F) {
	for _, path := range []string{
		"metadata.name", "metadata.namespace", "metadata.uid", "metadata.labels", "metadata.annotations", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs",
		"status.podIP", "status.podIPs", "metadata.labels['a']", "metadata.labels['example.com/x']", "metadata.annotations['N']", "metadata.labels['']", "metadata.labels['a'']", "metadata.labels['",
		"['a']", "']", "['", "metadata.labels['a']['b']", "metadata.name['a']", "spec.host", "status.phase", "metadata.labels[\"a\"]", "metadata", "", ".", "\x00", "metadata.labels['\xff']",
		"metadata.annotations['" + strings.Repeat("a", 64) + "']", "metadata.annotations['a/b/c']",
	} {
		f.Add(path)
	}
	row := api.NewTable().ByResource(schema.GroupResource{Resource: "pods"})
	f.Fuzz(func(t *testing.T, path string) {
		ref := &corev1.ObjectFieldSelector{FieldPath: path}
		for kind, p := range map[string]*corev1.Pod{
			"variable": learning(nil, &corev1.EnvVarSource{FieldRef: ref.DeepCopy()}, nil),
			"file":     learning(nil, nil, &corev1.DownwardAPIVolumeFile{Path: "f", FieldRef: ref.DeepCopy()}),
		} {
			row.Default(p)
			if _, err := downward.Field(p, path); err != nil && len(row.Validate(p)) == 0 {
				t.Errorf("a %s may be taken from %q, which is then: %v", kind, path, err)
			}
		}
	})
}

// FuzzResource feeds resources, amounts and divisors to the rules of pods. What they take is divided exactly, and rounded up.
func FuzzResource(f *testing.F) {
	for _, name := range []string{"limits.cpu", "requests.cpu", "limits.memory", "requests.memory", "limits.ephemeral-storage", "limits.hugepages-2Mi", "requests.hugepages-1Gi", "limits.hugepages-"} {
		for _, amount := range []string{"1", "1500m", "1", "0", "3Gi", "8E", "9223372036854775807", "1n", "8Ei"} {
			f.Add("c", name, amount, "1")
			f.Add("i", name, amount, "1Ei")
			f.Add("", name, amount, "0")
		}
	}
	for _, name := range []string{"", ".", "limits", "limits.", "limits.gpu", "cpu", "limits.cpu.x", "\x00", "requests.hugepages-\xff"} {
		f.Add("c", name, "1", "1")
	}
	f.Add("missing", "limits.cpu", "1", "1m")
	f.Add("c", "limits.cpu", "1", "-1")
	f.Add("c", "limits.memory", "-5", "1Ki")
	row := api.NewTable().ByResource(schema.GroupResource{Resource: "pods"})
	f.Fuzz(func(t *testing.T, container, name, amount, divisor string) {
		if strings.ContainsAny(amount+divisor, "eE") && len(amount)+len(divisor) > 5 {
			t.Skip("the API server refuses long exponents before they are read")
		}
		q, err := resource.ParseQuantity(amount)
		if err != nil {
			return
		}
		d, err := resource.ParseQuantity(divisor)
		if err != nil {
			return
		}
		_, of, _ := strings.Cut(name, ".")
		limits := corev1.ResourceList{corev1.ResourceName(of): q}
		if strings.HasPrefix(of, corev1.ResourceHugePagesPrefix) {
			limits["memory"] = resource.MustParse("1Gi") // huge pages are not had alone
		}
		ref := &corev1.ResourceFieldSelector{ContainerName: container, Resource: name, Divisor: d}
		for kind, p := range map[string]*corev1.Pod{
			"variable": learning(limits, &corev1.EnvVarSource{ResourceFieldRef: ref.DeepCopy()}, nil),
			"file":     learning(limits, nil, &corev1.DownwardAPIVolumeFile{Path: "f", ResourceFieldRef: ref.DeepCopy()}),
		} {
			row.Default(p)
			if len(row.Validate(p)) > 0 {
				continue
			}
			if container == "" {
				container = "c"
			}
			got, err := downward.Resource(p, container, ref, nil)
			switch known := container == "c" || container == "i"; {
			case !known && err == nil:
				t.Errorf("a %s is taken from the container %q, which isn't there", kind, container)
			case known && err != nil:
				t.Errorf("a %s may be taken from %q, which is then: %v", kind, name, err)
			case known && got != divided(q, d, of == "cpu"):
				t.Errorf("%s of %s / %s is %s, want %s", name, amount, divisor, got, divided(q, d, of == "cpu"))
			}
		}
	})
}

// divided is a quantity over a divisor, rounded up, in numbers that cannot overflow.
func divided(q, d resource.Quantity, milli bool) string {
	value, by := q.Value(), d.Value()
	if milli {
		value, by = q.MilliValue(), d.MilliValue()
		if d.IsZero() {
			by = 1000
		}
	}
	by = max(by, 1)
	n, rest := new(big.Int).QuoRem(big.NewInt(value), big.NewInt(by), new(big.Int))
	if rest.Sign() > 0 {
		n.Add(n, big.NewInt(1))
	}
	return n.String()
}
