package profile

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
	config "k8s.io/kube-scheduler/config/v1"
)

// point is an extension point, as a bit.
type point uint

const (
	preEnqueue point = 1 << iota
	queueSort
	preFilter
	filter
	postFilter
	preScore
	score
	reserve
	permit
	preBind
	bind
	postBind
	placementGenerate
	placementScore
	podGroupPostFilter
)

// plugin is one that this scheduler has; all of them are on by default.
type plugin struct {
	name   string
	does   point
	is     point // where switching it off makes it do nothing; it does the rest for this
	weight int64
	fixed  bool // cannot be switched off
}

var plugins = []plugin{
	{name: "SchedulingGates", does: preEnqueue},
	{name: "PrioritySort", does: queueSort, is: queueSort, fixed: true},
	{name: "NodeUnschedulable", does: preFilter | filter, is: filter},
	{name: "NodeName", does: preFilter | filter, is: filter},
	{name: "TaintToleration", does: preFilter | filter | preScore | score, is: filter, weight: Upstream.TaintToleration},
	{name: "NodeAffinity", does: preFilter | filter | preScore | score, is: filter, weight: Upstream.NodeAffinity},
	{name: "NodePorts", does: preFilter | filter, is: filter},
	{name: "NodeResourcesFit", does: preFilter | filter | preScore | score | placementScore, is: filter, weight: Upstream.NodeResourcesFit},
	{name: "VolumeRestrictions", does: preFilter | filter, is: filter},
	{name: "NodeVolumeLimits", does: preFilter | filter, is: filter},
	{name: "VolumeBinding", does: preFilter | filter | reserve | preBind | preScore | score, is: filter, weight: Upstream.VolumeBinding},
	{name: "VolumeZone", does: preFilter | filter, is: filter},
	{name: "PodTopologySpread", does: preFilter | filter | preScore | score, is: filter, weight: Upstream.PodTopologySpread},
	{name: "InterPodAffinity", does: preFilter | filter | preScore | score, is: filter, weight: Upstream.InterPodAffinity},
	{name: "DynamicResources", does: preEnqueue | preFilter | filter | postFilter | podGroupPostFilter | score | reserve | preBind, is: filter, weight: Upstream.DynamicResources},
	{name: "NodeDeclaredFeatures", does: preFilter | filter, is: filter},
	{name: "DefaultPreemption", does: preEnqueue | postFilter | podGroupPostFilter, is: postFilter},
	{name: "NodeResourcesBalancedAllocation", does: preScore | score, weight: Upstream.NodeResourcesBalancedAllocation},
	{name: "ImageLocality", does: score, weight: Upstream.ImageLocality},
	{name: "DefaultBinder", does: bind, is: bind, fixed: true},
}

// removed are plug-ins that upstream had before this version of the configuration.
var removed = map[string]bool{"AzureDiskLimits": true, "CinderLimits": true, "EBSLimits": true, "GCEPDLimits": true}

const wasRemoved = `was invalid in version "kubescheduler.config.k8s.io/v1" (KubeSchedulerConfiguration is version "kubescheduler.config.k8s.io/v1")`

func pluginNamed(name string) *plugin {
	if k := slices.IndexFunc(plugins, func(p plugin) bool { return p.name == name }); k >= 0 {
		return &plugins[k]
	}
	return nil
}

// set is what a file says about one extension point.
type set struct {
	name string
	at   point
	*config.PluginSet
}

func sets(p *config.Plugins) []set {
	return []set{
		{"preEnqueue", preEnqueue, &p.PreEnqueue}, {"queueSort", queueSort, &p.QueueSort}, {"preFilter", preFilter, &p.PreFilter},
		{"filter", filter, &p.Filter}, {"postFilter", postFilter, &p.PostFilter}, {"preScore", preScore, &p.PreScore}, {"score", score, &p.Score},
		{"reserve", reserve, &p.Reserve}, {"permit", permit, &p.Permit}, {"preBind", preBind, &p.PreBind}, {"bind", bind, &p.Bind},
		{"postBind", postBind, &p.PostBind}, {"placementGenerate", placementGenerate, &p.PlacementGenerate},
		{"placementScore", placementScore, &p.PlacementScore}, {"podGroupPostFilter", podGroupPostFilter, &p.PodGroupPostFilter},
	}
}

// enabled is, by plug-in, where it is on, and what its score weighs.
type enabled map[string]struct {
	at     point
	weight int64
}

// resolve follows upstream's rules: multiPoint stands for every point that a plug-in has; what a point itself says of a plug-in goes before that.
// Something that is enabled and disabled in one place is enabled, because disabling is about the defaults.
func resolve(p *config.Plugins, path *field.Path) (enabled, field.ErrorList) {
	if p == nil {
		p = &config.Plugins{}
	}
	var errs field.ErrorList
	multi := map[string]int64{}
	for _, one := range plugins {
		if !disables(&p.MultiPoint, one.name) {
			multi[one.name] = one.weight
		}
	}
	errs = append(errs, takeIn(&p.MultiPoint, path.Child("multiPoint"), ^point(0), multi)...)
	on := enabled{}
	for _, s := range sets(p) {
		here := map[string]int64{}
		for name, weight := range multi {
			if pluginNamed(name).does&s.at != 0 && !disables(s.PluginSet, name) {
				here[name] = weight
			}
		}
		errs = append(errs, takeIn(s.PluginSet, path.Child(s.name), s.at, here)...)
		for name, weight := range here {
			e := on[name]
			e.at |= s.at
			if s.at == score {
				e.weight = max(weight, 1)
			}
			on[name] = e
		}
	}
	for _, one := range plugins {
		if one.fixed && on[one.name].at&one.is == 0 {
			errs = append(errs, field.Required(path, one.name+" cannot be disabled: there is no other plugin for what it does"))
		}
	}
	return on, errs
}

func disables(s *config.PluginSet, name string) bool {
	return slices.ContainsFunc(s.Disabled, func(p config.Plugin) bool { return p.Name == name || p.Name == "*" })
}

// takeIn adds what a set enables.
func takeIn(s *config.PluginSet, path *field.Path, at point, to map[string]int64) (errs field.ErrorList) {
	seen := map[string]bool{}
	for k, e := range s.Enabled {
		path := path.Child("enabled").Index(k)
		one := pluginNamed(e.Name)
		switch {
		case removed[e.Name]:
			errs = append(errs, field.Invalid(path, e.Name, wasRemoved))
			continue
		case one == nil:
			errs = append(errs, field.NotSupported(path.Child("name"), e.Name, names()))
			continue
		case one.does&at == 0:
			errs = append(errs, field.Invalid(path.Child("name"), e.Name, "the plugin has nothing to do at this extension point"))
			continue
		case seen[e.Name]:
			errs = append(errs, field.Duplicate(path.Child("name"), e.Name))
		}
		seen[e.Name] = true
		to[e.Name] = 0
		if e.Weight != nil {
			if *e.Weight < 0 || *e.Weight > mostWeight {
				errs = append(errs, field.Invalid(path.Child("weight"), *e.Weight, "must be between 0 and 5000"))
			}
			to[e.Name] = int64(*e.Weight)
		}
	}
	return errs
}

// mostWeight keeps the scores of load, which are packed beside a clock, within their bits.
const mostWeight = 5000

func names() (list []string) {
	for _, p := range plugins {
		list = append(list, p.name)
	}
	return list
}

// apply switches off what is not on.
func (on enabled) apply(p *Profile) {
	p.off = map[string]bool{}
	for _, one := range plugins {
		if one.is != 0 && on[one.name].at&one.is == 0 {
			p.off[one.name] = true
		}
	}
	weigh := func(name string) int64 {
		if on[name].at&score == 0 {
			return 0
		}
		return on[name].weight
	}
	p.Weights = Weights{
		TaintToleration: weigh("TaintToleration"), NodeAffinity: weigh("NodeAffinity"), PodTopologySpread: weigh("PodTopologySpread"),
		InterPodAffinity: weigh("InterPodAffinity"), NodeResourcesFit: weigh("NodeResourcesFit"),
		NodeResourcesBalancedAllocation: weigh("NodeResourcesBalancedAllocation"), ImageLocality: weigh("ImageLocality"),
		DynamicResources: weigh("DynamicResources"), VolumeBinding: weigh("VolumeBinding"),
	}
}
