package profile

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
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
      ignoredResources: [example.com/one, hugepages-2Mi, requests.example.com/one]
      ignoredResourceGroups: [example.org, kubernetes.io]
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
	for name, ignored := range map[corev1.ResourceName]bool{"example.com/one": true, "example.com/two": false, "example.org/any": true, "cpu": false,
		"hugepages-2Mi": false, "kubernetes.io/batch": false, "requests.example.com/one": false} {
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

// A plug-in may be named at the extension points that it has upstream, and nowhere else.
func TestExtensionPoints(t *testing.T) {
	points := map[string]string{
		"SchedulingGates": "preEnqueue", "PrioritySort": "queueSort", "NodeUnschedulable": "preFilter filter", "NodeName": "preFilter filter",
		"TaintToleration": "preFilter filter preScore score", "NodeAffinity": "preFilter filter preScore score", "NodePorts": "preFilter filter",
		"NodeResourcesFit": "preFilter filter preScore score placementScore", "VolumeRestrictions": "preFilter filter", "NodeVolumeLimits": "preFilter filter",
		"VolumeBinding": "preFilter filter preScore score reserve preBind", "VolumeZone": "preFilter filter", "PodTopologySpread": "preFilter filter preScore score",
		"InterPodAffinity": "preFilter filter preScore score", "DynamicResources": "preEnqueue preFilter filter postFilter podGroupPostFilter score reserve preBind",
		"NodeDeclaredFeatures": "preFilter filter", "DefaultPreemption": "preEnqueue postFilter podGroupPostFilter", "NodeResourcesBalancedAllocation": "preScore score",
		"ImageLocality": "score", "DefaultBinder": "bind",
	}
	if len(points) != len(names()) {
		t.Error("there are other plug-ins:", names())
	}
	for name, has := range points {
		for _, at := range strings.Fields("preEnqueue queueSort preFilter filter postFilter preScore score reserve permit preBind bind postBind placementGenerate placementScore podGroupPostFilter") {
			_, err := readText(t, "profiles: [{plugins: {"+at+": {enabled: [{name: "+name+"}]}}}]")
			if want := slices.Contains(strings.Fields(has), at); (err == nil) != want {
				t.Errorf("%s at %s: %v", name, at, err)
			}
		}
	}
}

// Where and how much a plug-in works, by multiPoint and by the point itself, as upstream expands the one into the other.
func TestExpansion(t *testing.T) {
	for text, want := range map[string]string{
		"": "runs, weighs 2",
		"filter: {disabled: [{name: NodeAffinity}]}":                                                                                               "does not run, weighs 2",
		"filter: {disabled: [{name: '*'}]}":                                                                                                        "does not run, weighs 2",
		"filter: {disabled: [{name: '*'}], enabled: [{name: NodeAffinity}]}":                                                                       "runs, weighs 2",
		"score: {disabled: [{name: '*'}]}":                                                                                                         "runs, weighs 0",
		"score: {enabled: [{name: NodeAffinity, weight: 7}]}":                                                                                      "runs, weighs 7",
		"score: {enabled: [{name: NodeAffinity}]}":                                                                                                 "runs, weighs 1",
		"score: {enabled: [{name: NodeAffinity, weight: 0}]}":                                                                                      "runs, weighs 1",
		"score: {disabled: [{name: NodeAffinity}], enabled: [{name: NodeAffinity, weight: 7}]}":                                                    "runs, weighs 7",
		"multiPoint: {disabled: [{name: NodeAffinity}]}":                                                                                           "does not run, weighs 0",
		"multiPoint: {disabled: [{name: NodeAffinity}], enabled: [{name: NodeAffinity, weight: 4}]}":                                               "runs, weighs 4",
		"multiPoint: {disabled: [{name: NodeAffinity}], enabled: [{name: NodeAffinity}]}":                                                          "runs, weighs 1",
		"multiPoint: {enabled: [{name: NodeAffinity, weight: 4}]}":                                                                                 "runs, weighs 4",
		"multiPoint: {enabled: [{name: NodeAffinity, weight: 4}]}, score: {enabled: [{name: NodeAffinity, weight: 5}]}":                            "runs, weighs 5",
		"multiPoint: {enabled: [{name: NodeAffinity, weight: 4}]}, score: {disabled: [{name: NodeAffinity}]}":                                      "runs, weighs 0",
		"multiPoint: {disabled: [{name: NodeAffinity}]}, score: {enabled: [{name: NodeAffinity, weight: 5}]}":                                      "does not run, weighs 5",
		"multiPoint: {disabled: [{name: NodeAffinity}]}, filter: {enabled: [{name: NodeAffinity}]}":                                                "runs, weighs 0",
		"multiPoint: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}, {name: DefaultBinder}]}, filter: {enabled: [{name: NodeAffinity}]}": "runs, weighs 0",
	} {
		s, err := readText(t, "profiles: [{plugins: {"+text+"}}]")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		got, p := "", s.Profiles[DefaultName]
		if got = "does not run"; p.Runs("NodeAffinity") {
			got = "runs"
		}
		if got = fmt.Sprintf("%s, weighs %d", got, p.Scale().NodeAffinity); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
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
		"profiles: [{schedulerName: a}, {schedulerName: a}]":                                                       `profiles[1].schedulerName: Duplicate value: "profiles[0].schedulerName"`,
		"profiles: [{schedulerName: a}, {}]":                                                                       "profiles[1].schedulerName: Required value",
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: Best}}}]}]":            `profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: "Best"`,
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategi: {}}}]}]":                      `unknown field "scoringStrategi"`,
		"profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 101}}]}]":               "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Invalid value: 101",
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 0}]}}]}]":      "profiles[0].pluginConfig[0].args.defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf)",
		"profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesPercentage: 101}}]}]":        "minCandidateNodesPercentage: Invalid value: 101: not in valid range [0, 100]",
		"profiles: [{pluginConfig: [{name: NodeResourcesBalancedAllocation, args: {resources: [{name: ''}]}}]}]":   "args.resources[0].name: Required value",
		"profiles: [{pluginConfig: [{name: VolumeBinding, args: {shape: [{utilization: 5}, {utilization: 5}]}}]}]": "args.shape[1].utilization: Invalid value: 5: values must be sorted in increasing order",
		"profiles: [{pluginConfig: [{name: VolumeBinding, args: {shape: [{utilization: 5, score: 11}]}}]}]":        "args.shape[0].score: Invalid value: 11: not in valid range [0, 10]",
		"podInitialBackoffSeconds: 0\n":                                                             "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0",
		"podInitialBackoffSeconds: 30\n":                                                            "podMaxBackoffSeconds: Invalid value: 10: must be greater than or equal to PodInitialBackoffSeconds",
		"leaderElection: {leaseDuration: 5s}\n":                                                     "must be greater than `RenewDeadline`",
		"extenders: [{urlPrefix: 'ftp://x'}]\n":                                                     "extenders[0].urlPrefix: Invalid value",
		"extenders: [{urlPrefix: 'http://x', prioritizeVerb: p}]\n":                                 "extenders[0].weight: Invalid value: 0: must have a positive weight applied to it",
		"extenders: [{urlPrefix: 'http://x', bindVerb: b}, {urlPrefix: 'http://y', bindVerb: b}]\n": `extenders: Invalid value: "found 2 extenders implementing bind": only one extender can implement bind`,
		"extenders: [{urlPrefix: 'http://x', managedResources: [{name: e.com/a}]}, {urlPrefix: 'http://y', managedResources: [{name: e.com/a}]}]\n": `extenders[1].managedResources[0].name: Invalid value: "e.com/a": duplicate extender managed resource name`,
		"extenders: [{urlPrefix: 'http://x', managedResources: [{name: requests.e.com/a}]}]\n":                                                      "is an invalid extended resource name",
		"extenders: [{urlPrefix: 'http://x', managedResources: [{name: a.kubernetes.io/b}]}]\n":                                                     "is an invalid extended resource name",
		"extenders: [{urlPrefix: 'http://x', managedResources: [{name: 'e.com/?'}]}]\n":                                                             "extenders[0].managedResources[0].name: Invalid value: \"e.com/?\": name part must",
		"extenders: [{urlPrefix: 'http://x', httpTimeout: -1s}]\n":                                                                                  "extenders[0].httpTimeout: Invalid value",
		"extenders: [{urlPrefix: 'http://x', tlsConfig: {insecure: true, caFile: f}}]\n":                                                            "extenders[0].tlsConfig.insecure: Invalid value",
		"parallelism: 0\n":                           "parallelism: Invalid value: 0: should be an integer value greater than zero",
		"clientConnection: {burst: -1}\n":            "clientConnection.burst: Invalid value: -1: must be non-negative",
		"profiles: [{percentageOfNodesToScore: -1}]": "profiles[0].percentageOfNodesToScore: Invalid value: -1: not in valid range [0-100]",
		"profiles: [{schedulerName: ''}]":            "profiles[0].schedulerName: Required value",
		"profiles: [{schedulerName: a}, {schedulerName: b, plugins: {queueSort: {disabled: [{name: '*'}], enabled: [{name: PrioritySort}]}}}]":                                                                                                          "must be the same for all profiles",
		"profiles: [{plugins: {filter: {enabled: [{name: EBSLimits}]}}}]":                                                                                                                                                                               `profiles[0].plugins.filter.enabled[0]: Invalid value: "EBSLimits": was invalid in version "kubescheduler.config.k8s.io/v1" (KubeSchedulerConfiguration is version "kubescheduler.config.k8s.io/v1")`,
		"profiles: [{plugins: {filter: {enabled: [{name: NodePorts}, {name: NodePorts}]}}}]":                                                                                                                                                            `profiles[0].plugins.filter.enabled[1].name: Duplicate value: "NodePorts"`,
		"profiles: [{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: -1}}]}]":                                                                                                                                                     "hardPodAffinityWeight: Invalid value: -1: not in valid range [0, 100]",
		"profiles: [{pluginConfig: [{name: InterPodAffinity, args: {}}, {name: InterPodAffinity, args: {}}]}]":                                                                                                                                          `profiles[0].pluginConfig[1]: Duplicate value: "InterPodAffinity"`,
		"profiles: [{pluginConfig: [{name: Nope, args: {}}]}]":                                                                                                                                                                                          `profiles[0].pluginConfig[0].name: Unsupported value: "Nope"`,
		"profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}}]}]":                                                                                                                 "args.minCandidateNodesAbsolute: Invalid value: 0: cannot be zero at the same time as minCandidateNodesPercentage",
		"profiles: [{pluginConfig: [{name: DefaultPreemption, args: {minCandidateNodesAbsolute: -1}}]}]":                                                                                                                                                "minCandidateNodesAbsolute: Invalid value: -1: not in valid range [0, inf)",
		"profiles: [{pluginConfig: [{name: VolumeBinding, args: {bindTimeoutSeconds: -1}}]}]":                                                                                                                                                           "bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, should not be a negative value",
		"profiles: [{pluginConfig: [{name: VolumeBinding, args: {shape: [{utilization: 101, score: 1}]}}]}]":                                                                                                                                            "args.shape[0].utilization: Invalid value: 101: not in valid range [0, 100]",
		"profiles: [{pluginConfig: [{name: DynamicResources, args: {filterTimeout: -1s}}]}]":                                                                                                                                                            `args.filterTimeout: Invalid value: "-1s": must be zero or positive`,
		"profiles: [{pluginConfig: [{name: DynamicResources, args: {bindingTimeout: 10ms}}]}]":                                                                                                                                                          `args.bindingTimeout: Invalid value: "10ms": must be at least 1 second`,
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {}}}]}]":                                                                                                                                                           `args.scoringStrategy.type: Unsupported value: "": supported values: "LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"`,
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: RequestedToCapacityRatio}}}]}]":                                                                                                                             "args.scoringStrategy.requestedToCapacityRatio: Required value: must be specified when type is RequestedToCapacityRatio",
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {}}}}]}]":                                                                                               "args.scoringStrategy.requestedToCapacityRatio.shape: Required value: at least one point must be specified",
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated, requestedToCapacityRatio: {}}}}]}]":                                                                                                          "args.scoringStrategy.requestedToCapacityRatio: Forbidden: must be nil when type is not RequestedToCapacityRatio",
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 101}]}}}]}]":                                                                                                 "args.scoringStrategy.resources[0].weight: Invalid value: 101: resource weight of cpu not in valid range (0, 100]",
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: MostAllocated, resources: [{name: ''}]}}}]}]":                                                                                                               "args.scoringStrategy.resources[0].name: Required value",
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {ignoredResources: ['/a']}}]}]":                                                                                                                                                      `args.ignoredResources[0]: Invalid value: "/a"`,
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {ignoredResourceGroups: [e.com/a]}}]}]":                                                                                                                                              `args.ignoredResourceGroups[0]: Invalid value: "e.com/a": resource group name can't contain '/'`,
		"profiles: [{pluginConfig: [{name: NodeResourcesFit, args: {ignoredResourceGroups: ['?']}}]}]":                                                                                                                                                  `args.ignoredResourceGroups[0]: Invalid value: "?": name part must`,
		"profiles: [{pluginConfig: [{name: NodeResourcesBalancedAllocation, args: {resources: [{name: cpu}, {name: cpu}]}}]}]":                                                                                                                          `args.resources[1].name: Duplicate value: "cpu"`,
		"profiles: [{pluginConfig: [{name: NodeResourcesBalancedAllocation, args: {resources: [{name: cpu, weight: 2}]}}]}]":                                                                                                                            "args.resources[0].weight: Invalid value: 2: must be 1",
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: Best}}]}]":                                                                                                                                                         `args.defaultingType: Unsupported value: "Best": supported values: "System", "List"`,
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway}]}}]}]":                                                                                     `args.defaultingType: Invalid value: "System": when .defaultConstraints are not empty`,
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: zone}]}}]}]":                                                                                                  "args.defaultConstraints[0].whenUnsatisfiable: Required value: can not be empty",
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: Wait}]}}]}]":                                                                         `args.defaultConstraints[0].whenUnsatisfiable: Unsupported value: "Wait": supported values: "DoNotSchedule", "ScheduleAnyway"`,
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 1, whenUnsatisfiable: ScheduleAnyway}]}}]}]":                                                                                  "args.defaultConstraints[0].topologyKey: Required value: can not be empty",
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: '?', whenUnsatisfiable: ScheduleAnyway}]}}]}]":                                                                `args.defaultConstraints[0].topologyKey: Invalid value: "?"`,
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway, labelSelector: {}}]}}]}]":                                               "args.defaultConstraints[0].labelSelector: Forbidden: constraint must not define a selector, as they deduced for each pod",
		"profiles: [{pluginConfig: [{name: PodTopologySpread, args: {defaultingType: List, defaultConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}, {maxSkew: 2, topologyKey: z, whenUnsatisfiable: ScheduleAnyway}]}}]}]": `args.defaultConstraints[1]: Duplicate value: "{z, ScheduleAnyway}"`,
		"profiles: [{pluginConfig: [{name: NodeAffinity, args: {addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Like}]}]}}}}]}]":                                            `args.addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Unsupported value: "Like"`,
		"profiles: [{pluginConfig: [{name: NodeAffinity, args: {addedAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: a, operator: In}]}}]}}}]}]":                                         "args.addedAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].matchExpressions[0].values",
		"leaderElection: {leaseDuration: -1s}\n":                                  `leaderElection.leaseDuration: Invalid value: "-1s": must be greater than zero`,
		"leaderElection: {renewDeadline: 2s}\n":                                   `leaderElection.renewDeadline: Invalid value: "2s": must be greater than 1.2 times retryPeriod`,
		"leaderElection: {resourceLock: configmaps}\n":                            `leaderElection.resourceLock: Invalid value: "configmaps": resourceLock value must be "leases"`,
		"extenders: [{urlPrefix: 'http://x', managedResources: [{name: cpu}]}]\n": `extenders[0].managedResources[0].name: Invalid value: "cpu": is an invalid extended resource name`,
		"percentageOfNodesToScore: 101\n":                                         "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]",
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
