// Package profile is how the scheduler is configured: upstream's KubeSchedulerConfiguration v1, read once, checked, and turned into what filters and
// scores ask while they work.
//
// A pod that is scheduled by the rules upstream has by default has no profile at all (nil), so that whoever configures nothing pays nothing.
// A profile never changes.
package profile

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	config "k8s.io/kube-scheduler/config/v1"
)

// Settings are a configuration file's. The zero value is not usable; start from Default.
type Settings struct {
	Profiles       map[string]*Profile // by scheduler name; nil is upstream's default
	Extenders      []config.Extender
	Election       Election
	InitialBackoff time.Duration
	MaxBackoff     time.Duration
}

// Election says how one of several schedulers is chosen to work.
type Election struct {
	Elect                                     bool
	Namespace, Name                           string // of the Lease
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration
}

// DefaultName is the scheduler that pods ask for when they ask for none.
const DefaultName = corev1.DefaultSchedulerName

// Default are the settings without a file.
func Default() *Settings {
	return &Settings{
		Profiles: map[string]*Profile{DefaultName: nil},
		Election: Election{
			Namespace: config.SchedulerDefaultLockObjectNamespace, Name: config.SchedulerDefaultLockObjectName,
			LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
		},
		InitialBackoff: time.Second, MaxBackoff: 10 * time.Second,
	}
}

// Profile is one set of rules.
type Profile struct {
	Number int // from 1; tells the classes of different profiles apart
	Weights
	Fit         *Strategy // nil: LeastAllocated, CPU and memory alike
	Balanced    []string  // resources; nil: CPU and memory
	Enforced    *nodeaffinity.NodeSelector
	Preferred   *nodeaffinity.PreferredSchedulingTerms
	Constraints []corev1.TopologySpreadConstraint // for pods without any; nil and System: upstream's
	System      bool
	HardWeight  int64 // of a required affinity of pods that are there, as a preference
	OwnLikes    bool  // pods without preferences of their own about other pods have none: those that are there don't make any
	TryShare    int   // of the nodes, in percent, that preemption tries out at least
	TryLeast    int
	BindTimeout time.Duration                  // of volumes
	Storage     []config.UtilizationShapePoint // as Strategy's, of VolumeBinding's score; nil: the less is asked of what there is, the better
	Devices     DeviceTimes

	off            map[string]bool // filters, and whatever is one thing, by plug-in
	ignored        map[corev1.ResourceName]bool
	ignoredDomains map[string]bool
}

// Weights of the scores; 0 for those that are off.
type Weights struct {
	TaintToleration, NodeAffinity, PodTopologySpread, InterPodAffinity, NodeResourcesFit, NodeResourcesBalancedAllocation, ImageLocality, DynamicResources, VolumeBinding int64
}

// Upstream are upstream's weights.
var Upstream = Weights{
	TaintToleration: 3, NodeAffinity: 2, PodTopologySpread: 2, InterPodAffinity: 2,
	NodeResourcesFit: 1, NodeResourcesBalancedAllocation: 1, ImageLocality: 1, DynamicResources: 2, VolumeBinding: 1,
}

// DeviceTimes are how long devices are looked for on one node (0: as long as it takes), and waited for to get ready.
type DeviceTimes struct{ Search, Ready time.Duration }

var upstreamDevices = DeviceTimes{Search: config.DynamicResourcesFilterTimeoutDefault, Ready: config.DynamicResourcesBindingTimeoutDefault}

// DeviceTimes are a profile's; upstream's for none.
func (p *Profile) DeviceTimes() DeviceTimes {
	if p == nil {
		return upstreamDevices
	}
	return p.Devices
}

// Scale are a profile's weights; upstream's for none.
func (p *Profile) Scale() *Weights {
	if p == nil {
		return &Upstream
	}
	return &p.Weights
}

// Runs says that a plug-in filters, preempts, or does the one thing it is for.
func (p *Profile) Runs(plugin string) bool { return p == nil || !p.off[plugin] }

// Strategy is how NodeResourcesFit scores.
type Strategy struct {
	Type      config.ScoringStrategyType
	Resources []config.ResourceSpec
	Shape     []config.UtilizationShapePoint // scores from 0 to 100, by utilization
}

// Ignores says that nodes are not asked for a resource, because somebody else sees to it. That is so of extended resources only.
func (p *Profile) Ignores(name corev1.ResourceName) bool {
	return p != nil && (p.ignored[name] || p.ignoredDomains[domain(name)]) && extended(name)
}

// extended says that a resource is none of Kubernetes' own, such as a kind of huge pages, and no quota's.
func extended(name corev1.ResourceName) bool {
	return domain(name) != "" && !strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix) && !strings.HasPrefix(string(name), corev1.DefaultResourceRequestsPrefix)
}
