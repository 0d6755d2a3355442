package admission

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry/registrytest"
)

func TestOptionalPlugins(t *testing.T) {
	r := with(t, Config{Enable: []string{
		"AlwaysPullImages", "LimitPodHardAntiAffinityTopology", "NamespaceExists", "PodNodeSelector", "PodTolerationRestriction", "ExtendedResourceToleration", "DenyServiceExternalIPs",
	}})
	r.Must(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team", Annotations: map[string]string{
		"scheduler.alpha.kubernetes.io/node-selector":        "pool=team",
		"scheduler.alpha.kubernetes.io/defaultTolerations":   `[{"key":"team","operator":"Exists","effect":"NoSchedule"}]`,
		"scheduler.alpha.kubernetes.io/tolerationsWhitelist": `[{"key":"team","operator":"Exists"},{"operator":"Exists","effect":"NoExecute"},{"key":"example.com/gpu","operator":"Exists"}]`,
	}}}, registrytest.Account("default", func(a *corev1.ServiceAccount) { a.Namespace = "team" }))
	antiAffine := func(key string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{
				{TopologyKey: key, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}},
			}}}
		}
	}
	for _, c := range []struct {
		name   string
		change func(p *corev1.Pod)
		want   string // of the refusal, or "" and check says what is wrong
		check  func(p *corev1.Pod) bool
	}{
		{"images are pulled", func(p *corev1.Pod) { p.Spec.Containers[0].ImagePullPolicy = corev1.PullNever }, "",
			func(p *corev1.Pod) bool { return p.Spec.Containers[0].ImagePullPolicy == corev1.PullAlways }},
		{"anti-affinity by host", antiAffine(corev1.LabelHostname), "", func(*corev1.Pod) bool { return true }},
		{"anti-affinity by zone", antiAffine("zone"), "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed", nil},
		{"a namespace's nodes", func(p *corev1.Pod) { p.Namespace = "team" }, "",
			func(p *corev1.Pod) bool {
				return p.Spec.NodeSelector["pool"] == "team" && tolerates(p, "team")
			}},
		{"other nodes", func(p *corev1.Pod) { p.Namespace, p.Spec.NodeSelector = "team", map[string]string{"pool": "other"} },
			"pod node label selector conflicts with its namespace node label selector", nil},
		{"a toleration that the namespace has not", func(p *corev1.Pod) {
			p.Namespace, p.Spec.Tolerations = "team", []corev1.Toleration{{Key: "other", Operator: corev1.TolerationOpExists}}
		}, "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist", nil},
		{"a device", func(p *corev1.Pod) {
			one := corev1.ResourceList{"example.com/gpu": resource.MustParse("1"), "cpu": resource.MustParse("1")}
			p.Namespace, p.Spec.Containers[0].Resources = "team", corev1.ResourceRequirements{Requests: one, Limits: one}
		}, "", func(p *corev1.Pod) bool { return tolerates(p, "example.com/gpu") && !tolerates(p, "cpu") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := r.Create(registrytest.Admin, registrytest.Pod(strings.ReplaceAll(c.name, " ", "-"), func(p *corev1.Pod) {
				p.Name = strings.ReplaceAll(strings.ReplaceAll(p.Name, "'", ""), "--", "-")
				c.change(p)
			}))
			switch {
			case c.want != "":
				refused(t, err, 403, c.want)
			case err != nil:
				t.Error(err)
			case !c.check(out.(*corev1.Pod)):
				t.Errorf("%+v", out.(*corev1.Pod).Spec)
			}
		})
	}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	outside := svc.DeepCopy()
	outside.Spec.ExternalIPs = []string{"192.0.2.1"}
	_, err := r.Create(registrytest.Admin, outside)
	refused(t, err, 403, "Use of external IPs is denied by admission control")
	made, err := r.Create(registrytest.Admin, svc)
	if err != nil {
		t.Fatal(err)
	}
	outside = made.(*corev1.Service).DeepCopy()
	outside.Spec.ExternalIPs = []string{"192.0.2.1"}
	refused(t, r.Update(registrytest.Admin, outside, ""), 403, "Use of external IPs is denied by admission control")
}

func tolerates(p *corev1.Pod, key string) bool {
	for _, t := range p.Spec.Tolerations {
		if t.Key == key && t.Effect == corev1.TaintEffectNoSchedule {
			return true
		}
	}
	return false
}
