package scheduler

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
	"skiff.dev/skiff/internal/scheduler/profile"
)

// settingsOf reads what follows a KubeSchedulerConfiguration's head.
func settingsOf(t *testing.T, text string) *profile.Settings {
	t.Helper()
	file := filepath.Join(t.TempDir(), "scheduler.yaml")
	if err := os.WriteFile(file, []byte("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := profile.Read("scheduler-config", file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func beginWith(t *testing.T, settings *profile.Settings, objects ...crclient.Object) (*Scheduler, *clienttest.Client) {
	t.Helper()
	c := clienttest.New(t, objects...)
	return run(t, Config{Settings: settings, Client: c, Log: slog.New(slog.DiscardHandler)}), c
}

// One scheduler, three profiles: one spreads, one packs, one neither preempts nor asks for a resource that nobody has.
func TestSeveralProfiles(t *testing.T) {
	ctx := context.Background()
	s, c := beginWith(t, settingsOf(t, `
profiles:
- schedulerName: default-scheduler
- schedulerName: packer
  pluginConfig:
  - name: NodeResourcesFit
    args: {scoringStrategy: {type: MostAllocated}}
  plugins: {score: {disabled: [{name: NodeResourcesBalancedAllocation}]}}
- schedulerName: mild
  plugins: {postFilter: {disabled: [{name: DefaultPreemption}]}}
  pluginConfig:
  - name: NodeResourcesFit
    args: {ignoredResources: [example.com/gadget]}
`), node("a", "2"), node("b", "2"))
	with := func(name, profile, cpu string) *corev1.Pod {
		p := pod(name, cpu)
		p.Spec.SchedulerName = profile
		return p
	}
	on := func(name string) string { return get(t, c, name).Spec.NodeName }
	for i := range 4 {
		name := fmt.Sprintf("packed-%d", i)
		if err := c.Create(ctx, with(name, "packer", "100m")); err != nil {
			t.Fatal(err)
		}
		clienttest.Eventually(t, name+" placed", func() bool { return on(name) != "" })
		if on(name) != on("packed-0") {
			t.Errorf("%s on %s, and the first on %s", name, on(name), on("packed-0"))
		}
	}
	if err := c.Create(ctx, with("spread", "default-scheduler", "100m")); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the other pod placed", func() bool { return on("spread") != "" })
	if on("spread") == on("packed-0") {
		t.Error("the default profile packs")
	}
	gadget := with("gadget", "mild", "100m")
	gadget.Spec.Containers[0].Resources.Requests["example.com/gadget"] = resource.MustParse("1")
	important := with("important", "mild", "2")
	important.Spec.Priority = new(int32(1000))
	for _, p := range []*corev1.Pod{gadget, important} {
		if err := c.Create(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	clienttest.Eventually(t, "a pod with an ignored resource placed", func() bool { return on("gadget") != "" })
	clienttest.Eventually(t, "the verdict", func() bool { return why(get(t, c, "important")) != "" })
	if got := why(get(t, c, "important")); got != "Unschedulable: 0/2 nodes are available: 2 Insufficient cpu." {
		t.Error(got)
	}
	told, err := s.Explain(ctx, "default", "important")
	if err != nil || told.Preemption == nil || !strings.Contains(told.Preemption.Why, "mild preempts nobody") {
		t.Errorf("explanation %+v, %v", told, err)
	}
}
