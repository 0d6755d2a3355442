package profile

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"

func readText(t *testing.T, text string) (*Settings, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "scheduler.yaml")
	if err := os.WriteFile(file, []byte(head+text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Read("scheduler-config", file)
}

// Whatever says nothing new is no profile at all, so that it costs nothing.
func TestDefaultsAreNoProfile(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "share": "percentageOfNodesToScore: 30\nparallelism: 4\nclientConnection: {qps: 10}\n",
		"same weights":  "profiles: [{plugins: {multiPoint: {enabled: [{name: NodeAffinity, weight: 2}]}}}]",
		"same strategy": "profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: LeastAllocated, resources: [{name: cpu, weight: 1}, {name: memory}]}}}]}]",
		"same shape":    "profiles: [{pluginConfig: [{name: VolumeBinding, args: {shape: [{utilization: 0, score: 10}, {utilization: 100, score: 0}]}}]}]",
	} {
		s, err := readText(t, text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(s.Profiles, map[string]*Profile{DefaultName: nil}) {
			t.Errorf("%s: %+v", name, s.Profiles[DefaultName])
		}
	}
}

func TestProfiles(t *testing.T) {
	s, err := readText(t, `
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
leaderElection: {leaderElect: true, resourceName: mine, leaseDuration: 30s}
profiles:
- schedulerName: default-scheduler
- schedulerName: packer
  plugins:
    multiPoint:
      disabled: [{name: PodTopologySpread}, {name: NotOfThisScheduler}]
    postFilter:
      disabled: [{name: '*'}]
    score:
      disabled: [{name: ImageLocality}]
      enabled: [{name: NodeResourcesFit, weight: 7}, {name: PodTopologySpread}]
  pluginConfig:
  - name: NodeResourcesFit
    args:
      ignoredResources: [example.com/one]
      ignoredResourceGroups: [example.org]
      scoringStrategy:
        type: RequestedToCapacityRatio
        requestedToCapacityRatio: {shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]}
  - name: VolumeBinding
    args: {bindTimeoutSeconds: 5, shape: [{utilization: 0, score: 0}, {utilization: 70, score: 9}]}
- schedulerName: bare
  plugins:
    multiPoint:
      disabled: [{name: '*'}]
      enabled: [{name: PrioritySort}, {name: DefaultBinder}, {name: NodeResourcesFit}]
`)
	if err != nil {
		t.Fatal(err)
	}
	if s.InitialBackoff != 2*time.Second || s.MaxBackoff != 20*time.Second {
		t.Error("back-off", s.InitialBackoff, s.MaxBackoff)
	}
	if e := s.Election; !e.Elect || e.Name != "mine" || e.Namespace != "kube-system" || e.LeaseDuration != 30*time.Second || e.RetryPeriod != 2*time.Second {
		t.Errorf("election %+v", e)
	}
	if p, has := s.Profiles[DefaultName]; p != nil || !has {
		t.Error("the default profile is not the default")
	}
	p := s.Profiles["packer"]
	if w := (Weights{TaintToleration: 3, NodeAffinity: 2, PodTopologySpread: 1, InterPodAffinity: 2, NodeResourcesFit: 7, NodeResourcesBalancedAllocation: 1, DynamicResources: 2, VolumeBinding: 1}); p.Weights != w {
		t.Errorf("weights %+v", p.Weights)
	}
	for plugin, runs := range map[string]bool{"PodTopologySpread": false, "DefaultPreemption": false, "NodeResourcesFit": true, "DefaultBinder": true} {
		if p.Runs(plugin) != runs {
			t.Errorf("%s runs: %t", plugin, !runs)
		}
	}
	for name, ignored := range map[corev1.ResourceName]bool{"example.com/one": true, "example.com/two": false, "example.org/any": true, "cpu": false} {
		if p.Ignores(name) != ignored {
			t.Errorf("%s is ignored: %t", name, !ignored)
		}
	}
	if len(p.Storage) != 2 || p.Storage[1].Score != 90 || p.Storage[1].Utilization != 70 {
		t.Errorf("shape %v", p.Storage)
	}
	if p.Fit == nil || p.Fit.Shape[1].Score != 100 || p.BindTimeout != 5*time.Second {
		t.Errorf("arguments %+v %v", p.Fit, p.BindTimeout)
	}
	bare := s.Profiles["bare"]
	if (bare.Weights != Weights{NodeResourcesFit: 1}) || bare.Runs("TaintToleration") || !bare.Runs("NodeResourcesFit") {
		t.Errorf("bare %+v", bare)
	}
	if p.Number == bare.Number || p.Number == 0 {
		t.Error("profiles are numbered", p.Number, bare.Number)
	}
}

// What is wrong is told with its place, in one line.
func TestWrongFiles(t *testing.T) {
	for text, want := range map[string]string{
		"profils: []\n": `unknown field "profils"`,
		"profiles: [{plugins: {filter: {enabled: [{name: Nope}]}}}]":                                               `profiles[0].plugins.filter.enabled[0].name: Unsupported value: "Nope"`,
		"profiles: [{plugins: {score: {enabled: [{name: NodePorts}]}}}]":                                           `profiles[0].plugins.score.enabled[0].name: Invalid value: "NodePorts": the plugin has nothing to do at this extension point`,
		"profiles: [{plugins: {score: {enabled: [{name: NodeAffinity, weight: 5001}]}}}]":                          "profiles[0].plugins.score.enabled[0].weight: Invalid value: 5001",
		"profiles: [{plugins: {multiPoint: {disabled: [{name: '*'}]}}}]":                                           "profiles[0].plugins: Required value: PrioritySort cannot be disabled",
		"profiles: [{schedulerName: a}, {schedulerName: a}]":                                                       `profiles[1].schedulerName: Duplicate value: "a"`,
		"profiles: [{schedulerName: a}, {}]":                                                                       "profiles[1].schedulerName: Required value",
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Best}}}]}]":            `profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: "Best"`,
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategi: {}}}]}]":                      `unknown field "scoringStrategi"`,
		"profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]":               "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101",
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 0}]}}]}]":      "profiles[0].pluginConfig[0].args.defaultConstraints[0].maxSkew: Invalid value: 0",
		"profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesPercentage: 101}}]}]":        "minCandidateNodesPercentage: Invalid value: 101",
		"profiles: [{pluginConfig: [{name: NodeResourcesBalancedAllocation, args: {resources: [{name: ''}]}}]}]":   "args.resources[0].name: Required value",
		"profiles: [{pluginConfig: [{name: VolumeBinding, args: {shape: [{utilization: 5}, {utilization: 5}]}}]}]": "args.shape[1].utilization: Invalid value: 5: utilization values must be sorted in increasing order",
		"profiles: [{pluginConfig: [{name: VolumeBinding, args: {shape: [{utilization: 5, score: 11}]}}]}]":        "args.shape[0].score: Invalid value: 11",
		"podInitialBackoffSeconds: 0\n":                                                             "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0",
		"podInitialBackoffSeconds: 30\n":                                                            "podMaxBackoffSeconds: Invalid value: 10",
		"leaderElection: {leaseDuration: 5s}\n":                                                     "leaderElection.leaseDuration: Invalid value",
		"extenders: [{urlPrefix: 'ftp://x'}]\n":                                                     "extenders[0].urlPrefix: Invalid value",
		"extenders: [{urlPrefix: 'http://x', prioritizeVerb: p}]\n":                                 "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
		"extenders: [{urlPrefix: 'http://x', bindVerb: b}, {urlPrefix: 'http://y', bindVerb: b}]\n": "extenders[1].bindVerb: Invalid value",
		"extenders: [{urlPrefix: 'http://x', managedResources: [{name: cpu}]}]\n":                   "extenders[0].managedResources[0].name: Invalid value",
		"percentageOfNodesToScore: 101\n":                                                           "percentageOfNodesToScore: Invalid value: 101",
	} {
		_, err := readText(t, text)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "scheduler-config: /") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// A resource that an extender sees to is not asked of nodes, by any profile.
func TestResourcesOfExtenders(t *testing.T) {
	s, err := readText(t, "extenders: [{urlPrefix: 'http://x', managedResources: [{name: example.com/a, ignoredByScheduler: true}, {name: example.com/b}]}]\n")
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Profiles[DefaultName]; p == nil || !p.Ignores("example.com/a") || p.Ignores("example.com/b") {
		t.Errorf("profile %+v", p)
	}
}
