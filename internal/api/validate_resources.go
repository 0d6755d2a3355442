package api

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"skiff.dev/skiff/internal/api/exponent"
)

// Amounts of resources: of a container, of a whole pod (KEP-2837), of a node.

// quantity checks one amount of a resource.
func quantity(name corev1.ResourceName, q resource.Quantity, p *field.Path) (errs field.ErrorList) {
	if name == corev1.ResourceCPU || name == corev1.ResourceMemory { // nearly always
		if q.Sign() < 0 {
			errs = append(errs, field.Invalid(p, q.String(), apivalidation.IsNegativeErrorMsg))
		}
		return errs
	}
	errs = append(errs, each(p, string(name), validation.IsQualifiedName(string(name)))...)
	if !strings.Contains(string(name), "/") && !standardResource(name) {
		errs = append(errs, field.Invalid(p, name, "must be a standard resource type or fully qualified"))
	}
	if q.Sign() < 0 {
		errs = append(errs, field.Invalid(p, q.String(), apivalidation.IsNegativeErrorMsg))
	}
	if whole := strings.Contains(string(name), "/") || name == corev1.ResourcePods; whole && q.MilliValue()%1000 != 0 {
		errs = append(errs, field.Invalid(p, q.String(), "must be an integer"))
	}
	return errs
}

func standardResource(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceStorage, corev1.ResourcePods:
		return true
	}
	return containerResource(name) || strings.HasPrefix(string(name), "attachable-volumes-")
}

// containerResource says whether a container may have some of it: CPU, memory, and what no slash says is somebody else's.
func containerResource(name corev1.ResourceName) bool {
	switch name {
	case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
		return true
	}
	return hugePages(name)
}

func hugePages(name corev1.ResourceName) bool {
	return strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix)
}

// overcommits says that less may be requested than is allowed.
func overcommits(name corev1.ResourceName) bool {
	return !hugePages(name) && (!strings.Contains(string(name), "/") || strings.Contains(string(name), "kubernetes.io/"))
}

func containerQuantity(name corev1.ResourceName, q resource.Quantity, p *field.Path) field.ErrorList {
	errs := quantity(name, q, p)
	switch domain, _, qualified := strings.Cut(string(name), "/"); {
	case !qualified && !containerResource(name):
		errs = append(errs, field.Invalid(p, name, "must be a standard resource for containers"))
	case strings.HasPrefix(string(name), resourcev1.ResourceDeviceClassPrefix): // a class of devices by its own name (KEP-5004)
	case qualified && (strings.HasSuffix(domain, "kubernetes.io") || strings.HasPrefix(string(name), "requests.")):
		errs = append(errs, field.Invalid(p, name, "doesn't follow extended resource name standard"))
	case hugePages(name):
		errs = append(errs, hugePageSize(name, q, p)...)
	}
	return errs
}

// hugePageSize: an amount of pages is a whole number of them.
func hugePageSize(name corev1.ResourceName, q resource.Quantity, p *field.Path) field.ErrorList {
	size := strings.TrimPrefix(string(name), corev1.ResourceHugePagesPrefix)
	var page resource.Quantity
	if !exponent.Long(size) {
		page, _ = resource.ParseQuantity(size)
	}
	if page.Value() <= 0 { // as it is for what is no quantity, and for one beyond all numbers
		return field.ErrorList{field.Invalid(p, q.String(), "resource name must be "+corev1.ResourceHugePagesPrefix+" and the size of a page")}
	}
	if q.Value()%page.Value() != 0 {
		return field.ErrorList{field.Invalid(p, q.String(), "must be a multiple of the huge page size "+page.String())}
	}
	return nil
}

// resources checks what a container asks for, and for what of its pod's claims.
func resources(r *corev1.ResourceRequirements, claims []corev1.PodResourceClaim, p *field.Path) (errs field.ErrorList) {
	errs = amounts(r, containerQuantity, p)
	for i, c := range r.Claims {
		at, found := p.Child("claims").Index(i), false
		for j := range claims {
			found = found || claims[j].Name == c.Name
		}
		switch {
		case c.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		case !found:
			errs = append(errs, field.NotFound(at.Child("name"), c.Name))
		}
		for _, before := range r.Claims[:i] {
			if before.Name == c.Name && (before.Request == c.Request || before.Request == "" || c.Request == "") {
				errs = append(errs, field.Duplicate(at, strings.TrimSuffix(c.Name+"/"+c.Request, "/")))
				break
			}
		}
	}
	return errs
}

// amounts checks limits and requests, each alone and against one another.
func amounts(r *corev1.ResourceRequirements, one func(corev1.ResourceName, resource.Quantity, *field.Path) field.ErrorList, p *field.Path) (errs field.ErrorList) {
	paged, based := false, false
	see := func(name corev1.ResourceName) {
		paged = paged || hugePages(name)
		based = based || name == corev1.ResourceCPU || name == corev1.ResourceMemory
	}
	for name, q := range r.Limits {
		see(name)
		errs = append(errs, one(name, q, p.Child("limits").Key(string(name)))...)
	}
	for name, q := range r.Requests {
		see(name)
		errs = append(errs, one(name, q, p.Child("requests").Key(string(name)))...)
		limit, limited := r.Limits[name]
		switch {
		case !overcommits(name) && !limited:
			errs = append(errs, field.Required(p.Child("limits"), "Limit must be set for non overcommitable resources"))
		case !overcommits(name) && q.Cmp(limit) != 0:
			errs = append(errs, field.Invalid(p.Child("requests"), q.String(), "must be equal to "+string(name)+" limit of "+limit.String()))
		case limited && q.Cmp(limit) > 0:
			errs = append(errs, field.Invalid(p.Child("requests"), q.String(), "must be less than or equal to "+string(name)+" limit of "+limit.String()))
		}
	}
	if paged && !based {
		errs = append(errs, field.Forbidden(p, "HugePages require cpu or memory"))
	}
	return errs
}

var podLevelResources = sets.New(corev1.ResourceCPU, corev1.ResourceMemory)

// podResources checks what a pod asks for as a whole: no less than its containers request together, and none of them may use more.
func podResources(s *corev1.PodSpec, p *field.Path) (errs field.ErrorList) {
	r := s.Resources
	if r == nil {
		return nil
	}
	if len(r.Claims) > 0 {
		errs = append(errs, field.Forbidden(p.Child("claims"), "claims may not be set for Resources at pod-level"))
	}
	errs = append(errs, amounts(r, func(name corev1.ResourceName, q resource.Quantity, at *field.Path) field.ErrorList {
		if !podLevelResources.Has(name) && !hugePages(name) {
			return field.ErrorList{field.NotSupported(at, name, sets.List(podLevelResources))}
		}
		return quantity(name, q, at)
	}, p)...)
	for name, q := range r.Requests {
		var sum resource.Quantity
		for i := range s.Containers {
			sum.Add(s.Containers[i].Resources.Requests[name])
		}
		for i := range s.InitContainers {
			if restartable(&s.InitContainers[i]) {
				sum.Add(s.InitContainers[i].Resources.Requests[name])
			}
		}
		if q.Cmp(sum) < 0 {
			errs = append(errs, field.Invalid(p.Child("requests").Key(string(name)), q.String(), "must be greater than or equal to aggregate container requests of "+sum.String()))
		}
	}
	for name, most := range r.Limits {
		for _, in := range [...]struct {
			list []corev1.Container
			name string
		}{{s.InitContainers, "initContainers"}, {s.Containers, "containers"}} {
			for i := range in.list {
				if limit, found := in.list[i].Resources.Limits[name]; found && limit.Cmp(most) > 0 {
					at := field.NewPath(in.name).Index(i).Child("resources", "limits").Key(string(name))
					errs = append(errs, field.Invalid(at, limit.String(), "must be less than or equal to pod limits of "+most.String()))
				}
			}
		}
	}
	return errs
}
