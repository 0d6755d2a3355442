package api

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// accessModeErrors checks the modes of a volume or claim; ReadWriteOncePod goes with no other.
func accessModeErrors(modes []corev1.PersistentVolumeAccessMode, p *field.Path) (errs field.ErrorList) {
	if len(modes) == 0 {
		errs = append(errs, field.Required(p, "at least 1 access mode is required"))
	}
	known := []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany, corev1.ReadWriteMany, corev1.ReadWriteOnce, corev1.ReadWriteOncePod}
	for _, m := range modes {
		if !slices.Contains(known, m) {
			errs = append(errs, field.NotSupported(p, m, known))
		}
	}
	if len(modes) > 1 && slices.Contains(modes, corev1.ReadWriteOncePod) {
		errs = append(errs, field.Forbidden(p, "may not use ReadWriteOncePod with other access modes"))
	}
	return errs
}

func volumeMode(m *corev1.PersistentVolumeMode, p *field.Path) field.ErrorList {
	if m == nil {
		return nil
	}
	return oneOf(*m, p, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
}

// size checks an amount of storage: there must be one, and more than none.
func size(l corev1.ResourceList, p *field.Path) field.ErrorList {
	q, found := l[corev1.ResourceStorage]
	switch {
	case !found:
		return field.ErrorList{field.Required(p.Key(string(corev1.ResourceStorage)), "")}
	case q.Sign() <= 0:
		return field.ErrorList{field.Invalid(p.Key(string(corev1.ResourceStorage)), q.String(), "must be greater than zero")}
	}
	return nil
}

func validatePersistentVolumeClaim(o Object) field.ErrorList {
	return claimSpec(&o.(*corev1.PersistentVolumeClaim).Spec, field.NewPath("spec"))
}

// claimSpec checks a claim, or what a pod brings one as.
func claimSpec(s *corev1.PersistentVolumeClaimSpec, spec *field.Path) field.ErrorList {
	errs := accessModeErrors(s.AccessModes, spec.Child("accessModes"))
	if s.Selector != nil {
		errs = append(errs, labelSelector(s.Selector, spec.Child("selector"))...)
	}
	errs = append(errs, size(s.Resources.Requests, spec.Child("resources"))...)
	if class := value(s.StorageClassName); class != "" {
		errs = append(errs, dnsSubdomain(class, spec.Child("storageClassName"))...)
	}
	if class := value(s.VolumeAttributesClassName); class != "" {
		errs = append(errs, dnsSubdomain(class, spec.Child("volumeAttributesClassName"))...)
	}
	errs = append(errs, dataSources(s, spec)...)
	return append(errs, volumeMode(s.VolumeMode, spec.Child("volumeMode"))...)
}

// dataSources: what a volume is filled from, in either of two spellings, which agree; only the newer one reaches into other namespaces.
func dataSources(s *corev1.PersistentVolumeClaimSpec, spec *field.Path) (errs field.ErrorList) {
	old, ref := s.DataSource, s.DataSourceRef
	if old != nil {
		errs = append(errs, dataSource(old.APIGroup, old.Kind, old.Name, spec.Child("dataSource"))...)
	}
	if ref == nil {
		return errs
	}
	errs = append(errs, dataSource(ref.APIGroup, ref.Kind, ref.Name, spec.Child("dataSourceRef"))...)
	elsewhere := value(ref.Namespace)
	if elsewhere != "" {
		errs = append(errs, dnsLabel(elsewhere, spec.Child("dataSourceRef", "namespace"))...)
	}
	switch {
	case old == nil:
	case elsewhere != "":
		errs = append(errs, field.Invalid(spec, spec.Child("dataSource").String(), "may not be specified when dataSourceRef.namespace is specified"))
	case value(old.APIGroup) != value(ref.APIGroup) || old.Kind != ref.Kind || old.Name != ref.Name:
		errs = append(errs, field.Invalid(spec, spec.Child("dataSource").String(), "must match dataSourceRef"))
	}
	return errs
}

func dataSource(group *string, kind, name string, p *field.Path) field.ErrorList {
	errs := append(required(name, p.Child("name")), required(kind, p.Child("kind"))...)
	switch g := value(group); {
	case g != "":
		errs = append(errs, each(p.Child("apiGroup"), g, validation.IsDNS1123Subdomain(g))...)
	case kind != "PersistentVolumeClaim":
		errs = append(errs, field.Invalid(p, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"))
	}
	return errs
}

// validatePersistentVolumeClaimUpdate lets a claim be bound once, and grow once it is.
func validatePersistentVolumeClaimUpdate(o, old Object) field.ErrorList {
	c, was := o.(*corev1.PersistentVolumeClaim), old.(*corev1.PersistentVolumeClaim)
	errs, spec := validatePersistentVolumeClaim(o), field.NewPath("spec")
	left := was.Spec.DeepCopy()
	if left.VolumeName == "" {
		left.VolumeName = c.Spec.VolumeName
	}
	if was.Status.Phase == corev1.ClaimBound {
		left.Resources.Requests = withAmount(left.Resources.Requests, c.Spec.Resources.Requests, corev1.ResourceStorage)
		left.VolumeAttributesClassName = c.Spec.VolumeAttributesClassName
	}
	now, before := c.Spec.Resources.Requests[corev1.ResourceStorage], was.Spec.Resources.Requests[corev1.ResourceStorage]
	if reached := was.Status.Capacity[corev1.ResourceStorage]; now.Cmp(before) < 0 && now.Cmp(reached) <= 0 {
		errs = append(errs, field.Forbidden(spec.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
	}
	if old := was.Annotations[corev1.BetaStorageClassAnnotation]; left.StorageClassName == nil && (old == "" || old == value(c.Spec.StorageClassName)) {
		left.StorageClassName = c.Spec.StorageClassName // given to one that named none, or by the field what the annotation said
	}
	if !equal(left, &c.Spec) {
		errs = append(errs, field.Forbidden(spec, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"+diff.Diff(left, &c.Spec)))
	}
	errs = append(errs, immutable(c.Spec.VolumeMode, was.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	return append(errs, attributesClassUpdate(c, was, spec.Child("volumeAttributesClassName"))...)
}

// attributesClassUpdate: a volume that was given attributes keeps some.
func attributesClassUpdate(c, was *corev1.PersistentVolumeClaim, p *field.Path) field.ErrorList {
	if was.Status.CurrentVolumeAttributesClassName == nil || equal(c.Spec.VolumeAttributesClassName, was.Spec.VolumeAttributesClassName) {
		return nil
	}
	what := "nil"
	switch class := c.Spec.VolumeAttributesClassName; {
	case class != nil && *class != "":
		return nil
	case class != nil:
		what = "empty string"
	}
	return field.ErrorList{field.Forbidden(p, "update to "+what+" is forbidden when status.currentVolumeAttributesClassName is not nil")}
}

// resizeStates are how far the growth of a volume can be.
var resizeStates = []corev1.ClaimResourceStatus{corev1.PersistentVolumeClaimControllerResizeInProgress, corev1.PersistentVolumeClaimControllerResizeInfeasible,
	corev1.PersistentVolumeClaimNodeResizePending, corev1.PersistentVolumeClaimNodeResizeInProgress, corev1.PersistentVolumeClaimNodeResizeInfeasible}

func validatePersistentVolumeClaimStatus(o, _ Object) (errs field.ErrorList) {
	s, p := &o.(*corev1.PersistentVolumeClaim).Status, field.NewPath("status")
	for _, list := range [...]struct {
		name string
		list corev1.ResourceList
	}{{"capacity", s.Capacity}, {"allocatedResources", s.AllocatedResources}} {
		for name, q := range list.list {
			if q.Sign() < 0 {
				errs = append(errs, field.Invalid(p.Child(list.name).Key(string(name)), q.String(), "must be a valid resource quantity"))
			}
		}
	}
	for name, state := range s.AllocatedResourceStatuses {
		if !slices.Contains(resizeStates, state) {
			errs = append(errs, field.NotSupported(p.Child("allocatedResourceStatuses"), name, resizeStates))
		}
	}
	return errs
}

func validatePersistentVolume(o Object) field.ErrorList {
	return persistentVolumeSpec(&o.(*corev1.PersistentVolume).Spec, false, field.NewPath("spec"))
}

// persistentVolumeSpec checks a volume, or what stands for one in a VolumeAttachment: an inline one has neither size, class nor policy.
func persistentVolumeSpec(s *corev1.PersistentVolumeSpec, inline bool, spec *field.Path) field.ErrorList {
	errs := accessModeErrors(s.AccessModes, spec.Child("accessModes"))
	switch {
	case inline:
	case len(s.Capacity) == 0:
		errs = append(errs, field.Required(spec.Child("capacity"), ""))
	default:
		errs = append(errs, size(s.Capacity, spec.Child("capacity"))...)
	}
	switch sources := volumeSources(&s.PersistentVolumeSource); {
	case len(sources) == 0:
		errs = append(errs, field.Required(spec, "must specify a volume type"))
	case len(sources) > 1:
		for _, name := range sources[1:] {
			errs = append(errs, field.Forbidden(spec.Child(name), "may not specify more than 1 volume type"))
		}
	}
	if s.HostPath != nil {
		errs = append(errs, required(s.HostPath.Path, spec.Child("hostPath", "path"))...)
		errs = append(errs, noParent(s.HostPath.Path, spec.Child("hostPath", "path"))...)
	}
	if s.Local != nil {
		errs = append(errs, required(s.Local.Path, spec.Child("local", "path"))...)
		errs = append(errs, noParent(s.Local.Path, spec.Child("local", "path"))...)
		if s.NodeAffinity == nil {
			errs = append(errs, field.Required(spec.Child("nodeAffinity"), "Local volume requires node affinity"))
		}
	}
	if s.CSI != nil {
		errs = append(errs, driverName(s.CSI.Driver, spec.Child("csi", "driver"))...)
		errs = append(errs, required(s.CSI.VolumeHandle, spec.Child("csi", "volumeHandle"))...)
	}
	if s.StorageClassName != "" {
		errs = append(errs, dnsSubdomain(s.StorageClassName, spec.Child("storageClassName"))...)
	}
	if s.NodeAffinity != nil {
		at := spec.Child("nodeAffinity", "required")
		if s.NodeAffinity.Required == nil {
			errs = append(errs, field.Required(at, "must specify required node constraints"))
		} else {
			for i := range s.NodeAffinity.Required.NodeSelectorTerms {
				errs = append(errs, nodeSelectorTerm(&s.NodeAffinity.Required.NodeSelectorTerms[i], at.Child("nodeSelectorTerms").Index(i))...)
			}
		}
	}
	if inline {
		return append(errs, volumeMode(s.VolumeMode, spec.Child("volumeMode"))...)
	}
	errs = append(errs, oneOf(s.PersistentVolumeReclaimPolicy, spec.Child("persistentVolumeReclaimPolicy"),
		corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)...)
	return append(errs, volumeMode(s.VolumeMode, spec.Child("volumeMode"))...)
}

func validatePersistentVolumeUpdate(o, old Object) field.ErrorList {
	s, was := &o.(*corev1.PersistentVolume).Spec, &old.(*corev1.PersistentVolume).Spec
	errs := validatePersistentVolume(o)
	left := was.PersistentVolumeSource.DeepCopy()
	if left.CSI != nil && s.CSI != nil && left.CSI.ControllerExpandSecretRef == nil { // how a volume grows may be said later
		left.CSI.ControllerExpandSecretRef = s.CSI.ControllerExpandSecretRef
	}
	if !equal(left, &s.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"),
			"spec.persistentvolumesource is immutable after creation\n"+diff.Diff(left, &s.PersistentVolumeSource)))
	}
	errs = append(errs, immutable(s.VolumeMode, was.VolumeMode, field.NewPath("volumeMode"))...)
	if was.NodeAffinity != nil {
		errs = append(errs, immutable(newLabels(s.NodeAffinity), newLabels(was.NodeAffinity), field.NewPath("nodeAffinity"))...)
	}
	if was.VolumeAttributesClassName != nil && s.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// renamedLabels are those that nodes were given other names for; a volume may follow.
var renamedLabels = map[string]string{
	corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
	"beta.kubernetes.io/os": corev1.LabelOSStable, "beta.kubernetes.io/arch": corev1.LabelArchStable, corev1.LabelInstanceType: corev1.LabelInstanceTypeStable,
}

// newLabels is where a volume may be, by the names that labels have today.
func newLabels(a *corev1.VolumeNodeAffinity) *corev1.VolumeNodeAffinity {
	if a == nil || a.Required == nil {
		return a
	}
	a = a.DeepCopy()
	for i := range a.Required.NodeSelectorTerms {
		for k := range a.Required.NodeSelectorTerms[i].MatchExpressions {
			key := &a.Required.NodeSelectorTerms[i].MatchExpressions[k].Key
			if now := renamedLabels[*key]; now != "" {
				*key = now
			}
		}
	}
	return a
}

func validateLimitRange(o Object) (errs field.ErrorList) {
	l, seen := o.(*corev1.LimitRange), map[corev1.LimitType]bool{}
	for i := range l.Spec.Limits {
		item, p := &l.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		errs = append(errs, each(p.Child("type"), item.Type, validation.IsQualifiedName(string(item.Type)))...)
		if seen[item.Type] {
			errs = append(errs, field.Duplicate(p.Child("type"), item.Type))
		}
		seen[item.Type] = true
		errs = append(errs, limitItem(item, p)...)
	}
	return errs
}

// limitItem checks that one limit's amounts are in order: min ≤ defaultRequest ≤ default ≤ max.
func limitItem(item *corev1.LimitRangeItem, p *field.Path) (errs field.ErrorList) {
	if item.Type == corev1.LimitTypePod {
		for name, l := range map[string]corev1.ResourceList{"default": item.Default, "defaultRequest": item.DefaultRequest} {
			if len(l) > 0 {
				errs = append(errs, field.Forbidden(p.Child(name), "may not be specified when `type` is 'Pod'"))
			}
		}
	}
	storage := func(l corev1.ResourceList) bool { _, found := l[corev1.ResourceStorage]; return found }
	if item.Type == corev1.LimitTypePersistentVolumeClaim && !storage(item.Min) && !storage(item.Max) {
		errs = append(errs, field.Required(p.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
	}
	errs = append(errs, limitRatios(item, p.Child("maxLimitRequestRatio"))...)
	ladder := []struct {
		name string
		list corev1.ResourceList
	}{{"min", item.Min}, {"defaultRequest", item.DefaultRequest}, {"default", item.Default}, {"max", item.Max}}
	for low := range ladder {
		for name, q := range ladder[low].list {
			at := p.Child(ladder[low].name).Key(string(name))
			if q.Sign() < 0 {
				errs = append(errs, field.Invalid(at, q.String(), apivalidation.IsNegativeErrorMsg))
			}
			for _, high := range ladder[low+1:] {
				if h, found := high.list[name]; found && q.Cmp(h) > 0 {
					errs = append(errs, field.Invalid(at, q.String(), ladder[low].name+" value "+q.String()+" is greater than "+high.name+" value "+h.String()))
				}
			}
		}
	}
	return errs
}

// limitRatios: a limit is at least its request, and no ratio is more than the bounds leave room for.
func limitRatios(item *corev1.LimitRangeItem, p *field.Path) (errs field.ErrorList) {
	for name, ratio := range item.MaxLimitRequestRatio {
		least, bounded := item.Min[name]
		most, above := item.Max[name]
		if ratio.MilliValue() < 1000 {
			errs = append(errs, field.Invalid(p.Key(string(name)), ratio.String(), "ratio "+ratio.String()+" is less than 1"))
		}
		if room := most.AsApproximateFloat64() / least.AsApproximateFloat64(); bounded && above && ratio.AsApproximateFloat64() > room {
			errs = append(errs, field.Invalid(p.Key(string(name)), ratio.String(), fmt.Sprintf("ratio %s is greater than max/min = %f", ratio.String(), room)))
		}
	}
	return errs
}

// quotaNames are the quota's names of objects, and of pods' requests and limits.
var quotaNames = []string{
	"pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
	"cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage", "requests.ephemeral-storage",
	"limits.cpu", "limits.memory", "limits.ephemeral-storage",
}

func validateResourceQuota(o Object) (errs field.ErrorList) {
	errs = scopeErrors(o.(*corev1.ResourceQuota).Spec.Scopes, field.NewPath("spec", "scopes"))
	errs = append(errs, scopeSelector(o.(*corev1.ResourceQuota).Spec.ScopeSelector, field.NewPath("spec", "scopeSelector", "matchExpressions"))...)
	for name, q := range o.(*corev1.ResourceQuota).Spec.Hard {
		p := field.NewPath("spec", "hard").Key(string(name))
		errs = append(errs, each(p, string(name), validation.IsQualifiedName(string(name)))...)
		known := slices.Contains(quotaNames, string(name)) || strings.Contains(string(name), "/") || strings.HasPrefix(string(name), "hugepages-") ||
			strings.HasPrefix(string(name), "requests.hugepages-")
		if !known {
			errs = append(errs, field.Invalid(p, name, "must be a standard resource for quota"))
		}
		errs = append(errs, quotaAmount(string(name), q, p)...)
	}
	return errs
}

// quotaScopes are what a quota may be about; each pair of opposites goes not together.
var quotaScopes = []corev1.ResourceQuotaScope{
	corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeBestEffort, corev1.ResourceQuotaScopeNotBestEffort,
	corev1.ResourceQuotaScopePriorityClass, corev1.ResourceQuotaScopeCrossNamespacePodAffinity, corev1.ResourceQuotaScopeVolumeAttributesClass,
}

func scopeErrors(list []corev1.ResourceQuotaScope, p *field.Path) (errs field.ErrorList) {
	for _, s := range list {
		if !slices.Contains(quotaScopes, s) {
			errs = append(errs, field.Invalid(p, s, "unsupported scope"))
		}
	}
	return append(errs, conflictingScopes(list, p)...)
}

func conflictingScopes(list []corev1.ResourceQuotaScope, p *field.Path) (errs field.ErrorList) {
	for i := 0; i < 4; i += 2 {
		if slices.Contains(list, quotaScopes[i]) && slices.Contains(list, quotaScopes[i+1]) {
			errs = append(errs, field.Invalid(p, list, "conflicting scopes"))
		}
	}
	return errs
}

// onlyThere are the scopes that say all by being there.
var onlyThere = []corev1.ResourceQuotaScope{corev1.ResourceQuotaScopeTerminating, corev1.ResourceQuotaScopeNotTerminating, corev1.ResourceQuotaScopeBestEffort,
	corev1.ResourceQuotaScopeNotBestEffort, corev1.ResourceQuotaScopeCrossNamespacePodAffinity}

func scopeSelector(s *corev1.ScopeSelector, p *field.Path) (errs field.ErrorList) {
	if s == nil {
		return nil
	}
	var names []corev1.ResourceQuotaScope
	for _, r := range s.MatchExpressions {
		names = append(names, r.ScopeName)
		errs = append(errs, ValidateScopeRequirement(r, p)...)
	}
	return append(errs, conflictingScopes(names, field.NewPath("spec", "scopes"))...)
}

// ValidateScopeRequirement checks what objects are selected by of one scope, in a quota or in what the ResourceQuota plug-in is configured to ask for.
func ValidateScopeRequirement(r corev1.ScopedResourceSelectorRequirement, p *field.Path) (errs field.ErrorList) {
	if !slices.Contains(quotaScopes, r.ScopeName) {
		errs = append(errs, field.Invalid(p.Child("scopeName"), r.ScopeName, "unsupported scope"))
	}
	if slices.Contains(onlyThere, r.ScopeName) && r.Operator != corev1.ScopeSelectorOpExists {
		errs = append(errs, field.Invalid(p.Child("operator"), r.Operator, "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, "+
			"ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"))
	}
	switch r.Operator {
	case corev1.ScopeSelectorOpIn, corev1.ScopeSelectorOpNotIn:
		if len(r.Values) == 0 {
			errs = append(errs, field.Required(p.Child("values"), "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"))
		}
	case corev1.ScopeSelectorOpExists, corev1.ScopeSelectorOpDoesNotExist:
		if len(r.Values) > 0 {
			errs = append(errs, field.Invalid(p.Child("values"), r.Values, "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"))
		}
	default:
		errs = append(errs, field.Invalid(p.Child("operator"), r.Operator, "not a valid selector operator"))
	}
	return errs
}

func validateResourceQuotaUpdate(o, old Object) field.ErrorList {
	return append(validateResourceQuota(o), immutable(o.(*corev1.ResourceQuota).Spec.Scopes, old.(*corev1.ResourceQuota).Spec.Scopes, field.NewPath("spec", "scopes"))...)
}

func quotaAmount(name string, q resource.Quantity, p *field.Path) field.ErrorList {
	if q.Sign() < 0 {
		return field.ErrorList{field.Invalid(p, q.String(), apivalidation.IsNegativeErrorMsg)}
	}
	amount := strings.Contains(name, "cpu") || strings.Contains(name, "memory") || strings.Contains(name, "storage")
	if !amount && q.MilliValue()%1000 != 0 {
		return field.ErrorList{field.Invalid(p, q.String(), "must be an integer")}
	}
	return nil
}
