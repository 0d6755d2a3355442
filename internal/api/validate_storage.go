package api

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
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
	return append(errs, volumeMode(s.VolumeMode, spec.Child("volumeMode"))...)
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
		left.Resources.Requests = c.Spec.Resources.Requests
		now, before := c.Spec.Resources.Requests[corev1.ResourceStorage], was.Spec.Resources.Requests[corev1.ResourceStorage]
		reached := was.Status.Capacity[corev1.ResourceStorage]
		if now.Cmp(before) < 0 && now.Cmp(reached) <= 0 {
			errs = append(errs, field.Forbidden(spec.Child("resources", "requests", "storage"), "field can not be less than status.capacity"))
		}
	}
	if value(left.StorageClassName) == "" { // a class given to those that named none
		left.StorageClassName = c.Spec.StorageClassName
	}
	left.VolumeAttributesClassName = c.Spec.VolumeAttributesClassName
	if !equal(left, &c.Spec) {
		errs = append(errs, field.Forbidden(spec, "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"))
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
	if left.CSI != nil && s.CSI != nil { // how a volume grows may change
		left.CSI.ControllerExpandSecretRef, left.CSI.NodeExpandSecretRef = s.CSI.ControllerExpandSecretRef, s.CSI.NodeExpandSecretRef
	}
	if !equal(left, &s.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"), "spec.persistentvolumesource is immutable after creation"))
	}
	return append(errs, immutable(s.VolumeMode, was.VolumeMode, field.NewPath("volumeMode"))...)
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

// quotaNames are the quota's names of objects, and of pods' requests and limits.
var quotaNames = []string{
	"pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
	"cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory", "requests.storage", "requests.ephemeral-storage",
	"limits.cpu", "limits.memory", "limits.ephemeral-storage",
}

func validateResourceQuota(o Object) (errs field.ErrorList) {
	errs = scopeErrors(o.(*corev1.ResourceQuota).Spec.Scopes, field.NewPath("spec", "scopes"))
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
	for i := 0; i < 4; i += 2 {
		if slices.Contains(list, quotaScopes[i]) && slices.Contains(list, quotaScopes[i+1]) {
			errs = append(errs, field.Invalid(p, list, "conflicting scopes"))
		}
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
