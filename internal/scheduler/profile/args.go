package profile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	config "k8s.io/kube-scheduler/config/v1"
)

// take sets what the arguments of one plug-in say.
func (p *Profile) take(args runtime.Object, path *field.Path) field.ErrorList {
	switch a := args.(type) {
	case *config.NodeResourcesFitArgs:
		return p.takeFit(a, path)
	case *config.NodeResourcesBalancedAllocationArgs:
		return p.takeBalanced(a, path)
	case *config.PodTopologySpreadArgs:
		return p.takeSpread(a, path)
	case *config.NodeAffinityArgs:
		return p.takeAffinity(a, path.Child("addedAffinity"))
	case *config.InterPodAffinityArgs:
		p.OwnLikes = a.IgnorePreferredTermsOfExistingPods
		if a.HardPodAffinityWeight != nil {
			p.HardWeight = int64(*a.HardPodAffinityWeight)
			return within(path.Child("hardPodAffinityWeight"), p.HardWeight, 0, 100)
		}
	case *config.DefaultPreemptionArgs:
		return p.takePreemption(a, path)
	case *config.DynamicResourcesArgs:
		return p.takeDevices(a, path)
	case *config.VolumeBindingArgs:
		return p.takeVolumes(a, path)
	}
	return nil
}

func (p *Profile) takeVolumes(a *config.VolumeBindingArgs, path *field.Path) (errs field.ErrorList) {
	if a.BindTimeoutSeconds != nil {
		p.BindTimeout = time.Duration(*a.BindTimeoutSeconds) * time.Second
		if *a.BindTimeoutSeconds < 0 {
			errs = append(errs, field.Invalid(path.Child("bindTimeoutSeconds"), *a.BindTimeoutSeconds, "invalid BindTimeoutSeconds, should not be a negative value"))
		}
	}
	if len(a.Shape) == 0 || slices.Equal(a.Shape, []config.UtilizationShapePoint{{Utilization: 0, Score: 10}, {Utilization: 100, Score: 0}}) {
		return errs
	}
	p.Storage = tenfold(a.Shape)
	return append(errs, checkShape(a.Shape, path.Child("shape"))...)
}

// tenfold is a shape with scores from 0 to 100: in files they end at ten.
func tenfold(shape []config.UtilizationShapePoint) (out []config.UtilizationShapePoint) {
	for _, point := range shape {
		point.Score *= 10
		out = append(out, point)
	}
	return out
}

func (p *Profile) takeDevices(a *config.DynamicResourcesArgs, path *field.Path) (errs field.ErrorList) {
	if t := a.FilterTimeout; t != nil {
		p.Devices.Search = t.Duration
		if t.Duration < 0 {
			errs = append(errs, field.Invalid(path.Child("filterTimeout"), t.Duration.String(), "must be zero or positive"))
		}
	}
	if t := a.BindingTimeout; t != nil {
		p.Devices.Ready = t.Duration
		if t.Duration < time.Second {
			errs = append(errs, field.Invalid(path.Child("bindingTimeout"), t.Duration.String(), "must be at least 1 second"))
		}
	}
	return errs
}

func within(path *field.Path, v, low, high int64) field.ErrorList {
	if v < low || v > high {
		return field.ErrorList{field.Invalid(path, v, fmt.Sprintf("not in valid range [%d, %d]", low, high))}
	}
	return nil
}

func domain(name corev1.ResourceName) string {
	before, _, found := strings.Cut(string(name), "/")
	if !found {
		return ""
	}
	return before
}

func (p *Profile) takeFit(a *config.NodeResourcesFitArgs, path *field.Path) (errs field.ErrorList) {
	for k, name := range a.IgnoredResources {
		path := path.Child("ignoredResources").Index(k)
		errs = append(errs, metavalidation.ValidateLabelName(name, path)...)
		p.ignore(corev1.ResourceName(name))
	}
	for k, group := range a.IgnoredResourceGroups {
		path := path.Child("ignoredResourceGroups").Index(k)
		if strings.Contains(group, "/") {
			errs = append(errs, field.Invalid(path, group, "resource group name can't contain '/'"))
		}
		errs = append(errs, metavalidation.ValidateLabelName(group, path)...)
		if p.ignoredDomains == nil {
			p.ignoredDomains = map[string]bool{}
		}
		p.ignoredDomains[group] = true
	}
	if s := a.ScoringStrategy; s != nil {
		errs = append(errs, p.takeStrategy(s, path.Child("scoringStrategy"))...)
	}
	return errs
}

func (p *Profile) ignore(name corev1.ResourceName) {
	if p.ignored == nil {
		p.ignored = map[corev1.ResourceName]bool{}
	}
	p.ignored[name] = true
}

func (p *Profile) takeStrategy(s *config.ScoringStrategy, path *field.Path) (errs field.ErrorList) {
	out := &Strategy{Type: s.Type, Resources: slices.Clone(s.Resources)}
	if len(out.Resources) == 0 {
		out.Resources = []config.ResourceSpec{{Name: "cpu"}, {Name: "memory"}}
	}
	for k := range out.Resources {
		r := &out.Resources[k]
		if r.Weight == 0 {
			r.Weight = 1
		}
		path := path.Child("resources").Index(k)
		if r.Name == "" {
			errs = append(errs, field.Required(path.Child("name"), ""))
		}
		if r.Weight < 1 || r.Weight > 100 {
			errs = append(errs, field.Invalid(path.Child("weight"), r.Weight, fmt.Sprintf("resource weight of %s not in valid range (0, 100]", r.Name)))
		}
	}
	ratio := path.Child("requestedToCapacityRatio")
	if s.RequestedToCapacityRatio != nil && s.Type != config.RequestedToCapacityRatio {
		errs = append(errs, field.Forbidden(ratio, "must be nil when type is not RequestedToCapacityRatio"))
	}
	switch out.Type {
	case config.LeastAllocated, config.MostAllocated:
	case config.RequestedToCapacityRatio:
		if s.RequestedToCapacityRatio == nil {
			errs = append(errs, field.Required(ratio, "must be specified when type is RequestedToCapacityRatio"))
			break
		}
		errs = append(errs, checkShape(s.RequestedToCapacityRatio.Shape, ratio.Child("shape"))...)
		out.Shape = tenfold(s.RequestedToCapacityRatio.Shape)
	default:
		errs = append(errs, field.NotSupported(path.Child("type"), out.Type,
			[]config.ScoringStrategyType{config.LeastAllocated, config.MostAllocated, config.RequestedToCapacityRatio}))
	}
	p.Fit = out
	if out.Type == config.LeastAllocated && slices.Equal(out.Resources, []config.ResourceSpec{{Name: "cpu", Weight: 1}, {Name: "memory", Weight: 1}}) {
		p.Fit = nil
	}
	return errs
}

func checkShape(shape []config.UtilizationShapePoint, path *field.Path) (errs field.ErrorList) {
	if len(shape) == 0 {
		return field.ErrorList{field.Required(path, "at least one point must be specified")}
	}
	for k := 1; k < len(shape); k++ {
		if shape[k].Utilization <= shape[k-1].Utilization {
			errs = append(errs, field.Invalid(path.Index(k).Child("utilization"), shape[k].Utilization, "values must be sorted in increasing order"))
			break
		}
	}
	for k, point := range shape {
		path := path.Index(k)
		errs = append(errs, within(path.Child("utilization"), int64(point.Utilization), 0, 100)...)
		errs = append(errs, within(path.Child("score"), int64(point.Score), 0, 10)...)
	}
	return errs
}

func (p *Profile) takeBalanced(a *config.NodeResourcesBalancedAllocationArgs, path *field.Path) (errs field.ErrorList) {
	for k, r := range a.Resources {
		path := path.Child("resources").Index(k)
		if r.Name == "" {
			errs = append(errs, field.Required(path.Child("name"), ""))
		}
		if slices.Contains(p.Balanced, r.Name) {
			errs = append(errs, field.Duplicate(path.Child("name"), r.Name))
		}
		if r.Weight != 0 && r.Weight != 1 {
			errs = append(errs, field.Invalid(path.Child("weight"), r.Weight, "must be 1"))
		}
		p.Balanced = append(p.Balanced, r.Name)
	}
	if slices.Equal(p.Balanced, []string{"cpu", "memory"}) {
		p.Balanced = nil
	}
	return errs
}

func (p *Profile) takeSpread(a *config.PodTopologySpreadArgs, path *field.Path) (errs field.ErrorList) {
	switch kind := cmp.Or(a.DefaultingType, config.SystemDefaulting); kind {
	case config.SystemDefaulting:
		if len(a.DefaultConstraints) > 0 {
			errs = append(errs, field.Invalid(path.Child("defaultingType"), kind, "when .defaultConstraints are not empty"))
		}
	case config.ListDefaulting:
		p.System = false
	default:
		return field.ErrorList{field.NotSupported(path.Child("defaultingType"), a.DefaultingType,
			[]config.PodTopologySpreadConstraintsDefaulting{config.SystemDefaulting, config.ListDefaulting})}
	}
	p.Constraints = a.DefaultConstraints
	for k := range a.DefaultConstraints {
		c, path := &a.DefaultConstraints[k], path.Child("defaultConstraints").Index(k)
		if c.MaxSkew <= 0 {
			errs = append(errs, field.Invalid(path.Child("maxSkew"), c.MaxSkew, "not in valid range (0, inf)"))
		}
		if c.TopologyKey == "" {
			errs = append(errs, field.Required(path.Child("topologyKey"), "can not be empty"))
		} else {
			errs = append(errs, metavalidation.ValidateLabelName(c.TopologyKey, path.Child("topologyKey"))...)
		}
		if c.WhenUnsatisfiable == "" {
			errs = append(errs, field.Required(path.Child("whenUnsatisfiable"), "can not be empty"))
		} else if c.WhenUnsatisfiable != corev1.DoNotSchedule && c.WhenUnsatisfiable != corev1.ScheduleAnyway {
			errs = append(errs, field.NotSupported(path.Child("whenUnsatisfiable"), c.WhenUnsatisfiable,
				[]corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}))
		}
		if c.LabelSelector != nil {
			errs = append(errs, field.Forbidden(path.Child("labelSelector"), "constraint must not define a selector, as they deduced for each pod"))
		}
		for _, before := range a.DefaultConstraints[:k] {
			if before.TopologyKey == c.TopologyKey && before.WhenUnsatisfiable == c.WhenUnsatisfiable {
				errs = append(errs, field.Duplicate(path, fmt.Sprintf("{%s, %s}", c.TopologyKey, c.WhenUnsatisfiable)))
				break
			}
		}
	}
	return errs
}

func (p *Profile) takeAffinity(a *config.NodeAffinityArgs, path *field.Path) (errs field.ErrorList) {
	if a.AddedAffinity == nil {
		return nil
	}
	var err error
	if required := a.AddedAffinity.RequiredDuringSchedulingIgnoredDuringExecution; required != nil {
		p.Enforced, err = nodeaffinity.NewNodeSelector(required, field.WithPath(path.Child("requiredDuringSchedulingIgnoredDuringExecution")))
		errs = append(errs, fieldErrors(err, path)...)
	}
	if preferred := a.AddedAffinity.PreferredDuringSchedulingIgnoredDuringExecution; len(preferred) > 0 {
		p.Preferred, err = nodeaffinity.NewPreferredSchedulingTerms(preferred, field.WithPath(path.Child("preferredDuringSchedulingIgnoredDuringExecution")))
		errs = append(errs, fieldErrors(err, path)...)
	}
	return errs
}

// fieldErrors takes apart what a library found wrong, which knows the fields.
func fieldErrors(err error, path *field.Path) (errs field.ErrorList) {
	list := []error{err}
	if all, several := err.(utilerrors.Aggregate); several {
		list = utilerrors.Flatten(all).Errors()
	}
	for _, err := range list {
		if one, ok := err.(*field.Error); ok {
			errs = append(errs, one)
		} else if err != nil {
			errs = append(errs, field.Invalid(path, "", err.Error()))
		}
	}
	return errs
}

func (p *Profile) takePreemption(a *config.DefaultPreemptionArgs, path *field.Path) (errs field.ErrorList) {
	if a.MinCandidateNodesPercentage != nil {
		p.TryShare = int(*a.MinCandidateNodesPercentage)
		errs = append(errs, within(path.Child("minCandidateNodesPercentage"), int64(p.TryShare), 0, 100)...)
	}
	if a.MinCandidateNodesAbsolute != nil {
		if p.TryLeast = int(*a.MinCandidateNodesAbsolute); p.TryLeast < 0 {
			errs = append(errs, field.Invalid(path.Child("minCandidateNodesAbsolute"), p.TryLeast, "not in valid range [0, inf)"))
		}
	}
	if p.TryShare == 0 && p.TryLeast == 0 {
		errs = append(errs, field.Invalid(path.Child("minCandidateNodesPercentage"), 0, "cannot be zero at the same time as minCandidateNodesAbsolute"),
			field.Invalid(path.Child("minCandidateNodesAbsolute"), 0, "cannot be zero at the same time as minCandidateNodesPercentage"))
	}
	return errs
}
