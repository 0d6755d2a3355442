package admission

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/registrytest"
)

func TestNamesOfPlugins(t *testing.T) {
	for _, c := range []struct {
		enable, disable []string
		want            string
	}{
		{[]string{"AlwaysPullImages", "NodeRestriction"}, []string{"PodSecurity"}, ""},
		{[]string{"AlwaysPulImages"}, nil, `enable-admission-plugins: there is no plug-in "AlwaysPulImages"; there are NamespaceLifecycle, NamespaceExists, `},
		{nil, []string{"podsecurity"}, `disable-admission-plugins: there is no plug-in "podsecurity"`},
		{[]string{"AlwaysDeny"}, nil, "AlwaysDeny is not part of Skiff; there are "},
		{[]string{"PodSecurity"}, []string{"PodSecurity"}, "PodSecurity is disabled too"},
	} {
		err := check(c.enable, c.disable)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("+%v -%v: %v, want %q", c.enable, c.disable, err, c.want)
		}
	}
}

// with starts a registry with more or fewer plug-ins than the default's.
func with(t *testing.T, cfg Config) *registrytest.Registry {
	t.Helper()
	admit, validate, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r := registrytest.Start(t, admit, validate)
	r.Must(registrytest.Account("default"))
	return r
}

func TestPluginsAreChosenAndRunInOrder(t *testing.T) {
	var ran []string
	note := func(name string) registry.Validate {
		return func(_ context.Context, a *registry.Attributes) error {
			if is(a, "", "configmaps") {
				ran = append(ran, name)
			}
			return nil
		}
	}
	figures := prometheus.NewRegistry()
	r := with(t, Config{
		Enable: []string{"OwnerReferencesPermissionEnforcement"}, Disable: []string{"ServiceAccount", "NamespaceLifecycle", "ValidatingAdmissionPolicy"}, Metrics: figures,
		Validate: map[string]registry.Validate{
			"ValidatingAdmissionWebhook": note("webhook"), "OwnerReferencesPermissionEnforcement": note("owners"), "ValidatingAdmissionPolicy": note("policy"),
		},
		AlwaysValidate: []registry.Validate{note("always")},
	})
	r.Must(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "nowhere", Name: "a"}}) // without NamespaceLifecycle nobody looks
	if !slices.Equal(ran, []string{"always", "owners", "webhook"}) {
		t.Errorf("ran %v", ran)
	}
	pod := registrytest.Pod("a", func(p *corev1.Pod) { p.Spec.PriorityClassName = "none" })
	_, err := r.Create(registrytest.Admin, pod)
	refused(t, err, 403, "no PriorityClass with name none was found")

	families, err := figures.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]uint64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
			}
			counted[f.GetName()+" "+strings.Join(labels, " ")] = m.Histogram.GetSampleCount()
		}
	}
	const controller, step = "apiserver_admission_controller_admission_duration_seconds ", "apiserver_admission_step_admission_duration_seconds "
	for _, series := range []string{ // labels in the order of their names: name, operation, rejected, type
		controller + "Priority CREATE true admit", controller + "LimitRanger CREATE false validate", controller + "OwnerReferencesPermissionEnforcement CREATE false validate",
		step + "CREATE true admit", step + "CREATE false validate",
	} {
		if counted[series] == 0 {
			t.Errorf("%s: nothing was counted", series)
		}
	}
	if _, ok := counted[controller+"ServiceAccount CREATE false admit"]; ok {
		t.Error("a plug-in that is disabled is counted")
	}
}
