package api

import (
	"fmt"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/util/shufflesharding"
)

// Which requests wait for which others. Package apiserver/fairness follows these.
func flowControlRows() []*Resource {
	const g, v = flowcontrolv1.GroupName, "v1"
	return []*Resource{
		of[flowcontrolv1.FlowSchema, flowcontrolv1.FlowSchemaList](Resource{
			Group: g, Version: v, Kind: "FlowSchema", Plural: "flowschemas", Key: "flowschemas", Status: true, StatusAlone: true, Generation: true,
			Default: func(o Object) {
				if s := &o.(*flowcontrolv1.FlowSchema).Spec; s.MatchingPrecedence == 0 {
					s.MatchingPrecedence = 1000
				}
			},
			PrepareCreate: func(o Object) { o.(*flowcontrolv1.FlowSchema).Status = flowcontrolv1.FlowSchemaStatus{} },
			Validate:      func(o Object) field.ErrorList { return validateFlowSchema(o.(*flowcontrolv1.FlowSchema)) },
			ValidateUpdate: func(o, _ Object) field.ErrorList {
				return validateFlowSchema(o.(*flowcontrolv1.FlowSchema))
			},
			Columns: columnsThenWide([]Column{
				text("PriorityLevel", func(f *flowcontrolv1.FlowSchema) string { return f.Spec.PriorityLevelConfiguration.Name }),
				count("MatchingPrecedence", func(f *flowcontrolv1.FlowSchema) int32 { return f.Spec.MatchingPrecedence }),
				text("DistinguisherMethod", func(f *flowcontrolv1.FlowSchema) string {
					if d := f.Spec.DistinguisherMethod; d != nil {
						return string(d.Type)
					}
					return "<none>"
				}),
			}, text("MissingPL", missingLevel)),
		}),
		of[flowcontrolv1.PriorityLevelConfiguration, flowcontrolv1.PriorityLevelConfigurationList](Resource{
			Group: g, Version: v, Kind: "PriorityLevelConfiguration", Plural: "prioritylevelconfigurations", Key: "prioritylevelconfigurations", Status: true, StatusAlone: true, Generation: true,
			Default: defaultPriorityLevel,
			PrepareCreate: func(o Object) {
				o.(*flowcontrolv1.PriorityLevelConfiguration).Status = flowcontrolv1.PriorityLevelConfigurationStatus{}
			},
			Validate: func(o Object) field.ErrorList {
				return validatePriorityLevel(o.(*flowcontrolv1.PriorityLevelConfiguration))
			},
			ValidateUpdate: func(o, _ Object) field.ErrorList {
				return validatePriorityLevel(o.(*flowcontrolv1.PriorityLevelConfiguration))
			},
			Columns: columns(
				text("Type", func(p *flowcontrolv1.PriorityLevelConfiguration) string { return string(p.Spec.Type) }),
				text("NominalConcurrencyShares", func(p *flowcontrolv1.PriorityLevelConfiguration) string {
					switch {
					case p.Spec.Limited != nil && p.Spec.Limited.NominalConcurrencyShares != nil:
						return fmt.Sprint(*p.Spec.Limited.NominalConcurrencyShares)
					case p.Spec.Exempt != nil && p.Spec.Exempt.NominalConcurrencyShares != nil:
						return fmt.Sprint(*p.Spec.Exempt.NominalConcurrencyShares)
					}
					return "<none>"
				}),
				text("Queues", func(p *flowcontrolv1.PriorityLevelConfiguration) string {
					return queuing(p, func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.Queues })
				}),
				text("HandSize", func(p *flowcontrolv1.PriorityLevelConfiguration) string {
					return queuing(p, func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.HandSize })
				}),
				text("QueueLengthLimit", func(p *flowcontrolv1.PriorityLevelConfiguration) string {
					return queuing(p, func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.QueueLengthLimit })
				})),
		}),
	}
}

func missingLevel(f *flowcontrolv1.FlowSchema) string {
	for _, c := range f.Status.Conditions {
		if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
			return string(c.Status)
		}
	}
	return "?"
}

func queuing(p *flowcontrolv1.PriorityLevelConfiguration, f func(*flowcontrolv1.QueuingConfiguration) int32) string {
	if l := p.Spec.Limited; l != nil && l.LimitResponse.Queuing != nil {
		return fmt.Sprint(f(l.LimitResponse.Queuing))
	}
	return "<none>"
}

func orDefault(p **int32, v int32) {
	if *p == nil {
		*p = &v
	}
}

func defaultPriorityLevel(o Object) {
	s := &o.(*flowcontrolv1.PriorityLevelConfiguration).Spec
	switch {
	case s.Type == flowcontrolv1.PriorityLevelEnablementExempt:
		if s.Exempt == nil {
			s.Exempt = &flowcontrolv1.ExemptPriorityLevelConfiguration{}
		}
		orDefault(&s.Exempt.NominalConcurrencyShares, 0)
		orDefault(&s.Exempt.LendablePercent, 0)
	case s.Limited != nil:
		orDefault(&s.Limited.NominalConcurrencyShares, 30)
		orDefault(&s.Limited.LendablePercent, 0)
		if q := s.Limited.LimitResponse.Queuing; q != nil {
			for field, v := range map[*int32]int32{&q.Queues: 64, &q.HandSize: 8, &q.QueueLengthLimit: 50} {
				if *field == 0 {
					*field = v
				}
			}
		}
	}
}

func validateFlowSchema(f *flowcontrolv1.FlowSchema) field.ErrorList {
	var errs field.ErrorList
	at, s := field.NewPath("spec"), &f.Spec
	for _, m := range bootstrap.MandatoryFlowSchemas {
		if m.Name == f.Name && !apiequality.Semantic.DeepEqual(m.Spec, f.Spec) {
			errs = append(errs, field.Invalid(at, f.Name, fmt.Sprintf("spec of '%s' must equal the fixed value", f.Name)))
		}
	}
	if s.MatchingPrecedence <= 0 {
		errs = append(errs, field.Invalid(at.Child("matchingPrecedence"), s.MatchingPrecedence, "must be a positive value"))
	}
	if s.MatchingPrecedence > 10000 {
		errs = append(errs, field.Invalid(at.Child("matchingPrecedence"), s.MatchingPrecedence, "must not be greater than 10000"))
	}
	if s.MatchingPrecedence == 1 && f.Name != flowcontrolv1.FlowSchemaNameExempt {
		errs = append(errs, field.Invalid(at.Child("matchingPrecedence"), s.MatchingPrecedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	if d := s.DistinguisherMethod; d != nil && d.Type != flowcontrolv1.FlowDistinguisherMethodByUserType && d.Type != flowcontrolv1.FlowDistinguisherMethodByNamespaceType {
		errs = append(errs, field.NotSupported(at.Child("distinguisherMethod", "type"), d.Type,
			[]flowcontrolv1.FlowDistinguisherMethodType{flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType}))
	}
	if name := at.Child("priorityLevelConfiguration", "name"); s.PriorityLevelConfiguration.Name == "" {
		errs = append(errs, field.Required(name, "must reference a priority level"))
	} else {
		errs = append(errs, dnsSubdomain(s.PriorityLevelConfiguration.Name, name)...)
	}
	for i := range s.Rules {
		errs = append(errs, validateFlowRule(&s.Rules[i], at.Child("rules").Index(i))...)
	}
	return errs
}

func validateFlowRule(r *flowcontrolv1.PolicyRulesWithSubjects, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(at.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		errs = append(errs, validateFlowSubject(&r.Subjects[i], at.Child("subjects").Index(i))...)
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(at, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i := range r.ResourceRules {
		errs = append(errs, validateFlowResources(&r.ResourceRules[i], at.Child("resourceRules").Index(i))...)
	}
	for i := range r.NonResourceRules {
		nr, at := &r.NonResourceRules[i], at.Child("nonResourceRules").Index(i)
		errs = append(errs, flowVerbs(nr.Verbs, at.Child("verbs"))...)
		urls := at.Child("nonResourceURLs")
		errs = append(errs, flowList(nr.NonResourceURLs, "nonResourceURLs must contain at least one value", "non-resource URLs", urls)...)
		for i, url := range nr.NonResourceURLs {
			if why := badURL(url); why != "" && !slices.Contains(nr.NonResourceURLs, "*") {
				errs = append(errs, field.Invalid(urls.Index(i), url, why))
			}
		}
	}
	return errs
}

func validateFlowResources(r *flowcontrolv1.ResourcePolicyRule, at *field.Path) field.ErrorList {
	errs := flowVerbs(r.Verbs, at.Child("verbs"))
	errs = append(errs, flowList(r.APIGroups, "resource rules must supply at least one api group", "api groups", at.Child("apiGroups"))...)
	errs = append(errs, flowList(r.Resources, "resource rules must supply at least one resource", "resources", at.Child("resources"))...)
	names := at.Child("namespaces")
	if len(r.Namespaces) == 0 && !r.ClusterScope {
		return append(errs, field.Required(names, "resource rules that are not cluster scoped must supply at least one namespace"))
	}
	if slices.Contains(r.Namespaces, "*") {
		return append(errs, onlyStar(r.Namespaces, names, "namespaces")...)
	}
	for i, n := range r.Namespaces {
		for _, why := range labelName(n, false) {
			errs = append(errs, field.Invalid(names.Index(i), n, "each member of this list must be '*' or a DNS-1123 label; "+why))
		}
	}
	return errs
}

// flowList is of names of which there must be some, or everything.
func flowList(list []string, none, what string, at *field.Path) field.ErrorList {
	if len(list) == 0 {
		return field.ErrorList{field.Required(at, none)}
	}
	return onlyStar(list, at, what)
}

var flowVerbList = []string{"create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"}

func flowVerbs(list []string, at *field.Path) field.ErrorList {
	errs := flowList(list, "verbs must contain at least one value", "verbs", at)
	known := func(v string) bool { return !slices.Contains(flowVerbList, v) }
	if len(errs) == 0 && !slices.Contains(list, "*") && slices.ContainsFunc(list, known) {
		errs = append(errs, field.NotSupported(at, list, flowVerbList))
	}
	return errs
}

// badURL says what is wrong with a path, which may end in a star.
func badURL(path string) string {
	switch stars := strings.Count(path, "*"); {
	case path == "":
		return "must not be empty"
	case path == "/":
		return ""
	case !strings.HasPrefix(path, "/"):
		return "must start with slash"
	case strings.Contains(path, " "):
		return "must not contain white-space"
	case strings.Contains(path, "//"):
		return "must not contain double slash"
	case stars > 1 || stars == 1 && !strings.HasSuffix(path, "/*"):
		return "wildcard can only do suffix matching"
	}
	return ""
}

// validateFlowSubject: a subject of one kind says nothing of the others.
func validateFlowSubject(s *flowcontrolv1.Subject, at *field.Path) (errs field.ErrorList) {
	kinds := []flowcontrolv1.SubjectKind{flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindUser}
	if !slices.Contains(kinds, s.Kind) {
		return field.ErrorList{field.NotSupported(at.Child("kind"), s.Kind, kinds)}
	}
	for _, part := range [...]struct {
		kind  flowcontrolv1.SubjectKind
		name  string
		given bool
	}{{flowcontrolv1.SubjectKindUser, "user", s.User != nil}, {flowcontrolv1.SubjectKindGroup, "group", s.Group != nil},
		{flowcontrolv1.SubjectKindServiceAccount, "serviceAccount", s.ServiceAccount != nil}} {
		switch at := at.Child(part.name); {
		case part.given && part.kind != s.Kind:
			errs = append(errs, field.Forbidden(at, fmt.Sprintf("%s is forbidden when subject kind is not '%s'", part.name, part.kind)))
		case !part.given && part.kind == s.Kind:
			errs = append(errs, field.Required(at, fmt.Sprintf("%s is required when subject kind is '%s'", part.name, part.kind)))
		}
	}
	switch {
	case s.Kind == flowcontrolv1.SubjectKindUser && s.User != nil:
		errs = append(errs, required(s.User.Name, at.Child("user", "name"))...)
	case s.Kind == flowcontrolv1.SubjectKindGroup && s.Group != nil:
		errs = append(errs, required(s.Group.Name, at.Child("group", "name"))...)
	case s.Kind == flowcontrolv1.SubjectKindServiceAccount && s.ServiceAccount != nil:
		errs = append(errs, flowAccount(s.ServiceAccount, at.Child("serviceAccount"))...)
	}
	return errs
}

func flowAccount(a *flowcontrolv1.ServiceAccountSubject, at *field.Path) field.ErrorList {
	errs := required(a.Name, at.Child("name"))
	if a.Name != "" && a.Name != "*" {
		errs = append(errs, dnsSubdomain(a.Name, at.Child("name"))...)
	}
	if a.Namespace == "" {
		return append(errs, field.Required(at.Child("namespace"), "must specify namespace for service account"))
	}
	return append(errs, dnsLabel(a.Namespace, at.Child("namespace"))...)
}

func validatePriorityLevel(p *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	at, s := field.NewPath("spec"), &p.Spec
	if (p.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt) != (s.Type == flowcontrolv1.PriorityLevelEnablementExempt) {
		return field.ErrorList{field.Invalid(at.Child("type"), s.Type, "type must be 'Exempt' if and only if name is 'exempt'")}
	}
	for _, m := range bootstrap.MandatoryPriorityLevelConfigurations {
		if m.Name != p.Name {
			continue
		}
		fixed := m.DeepCopy()
		if s.Exempt != nil && fixed.Spec.Exempt != nil { // the exempt level's shares are the administrator's to set
			fixed.Spec.Exempt = s.Exempt
		}
		if !apiequality.Semantic.DeepEqual(fixed.Spec, *s) {
			return field.ErrorList{field.Invalid(at, p.Name, fmt.Sprintf("spec of '%s' must equal the fixed value", p.Name))}
		}
	}
	switch s.Type {
	case flowcontrolv1.PriorityLevelEnablementExempt:
		if s.Limited != nil {
			return field.ErrorList{field.Forbidden(at.Child("limited"), "must be nil if the type is not Limited")}
		}
		if s.Exempt == nil {
			return nil
		}
		return append(notNegative(at.Child("exempt", "nominalConcurrencyShares"), s.Exempt.NominalConcurrencyShares), percent(at.Child("exempt", "lendablePercent"), s.Exempt.LendablePercent)...)
	case flowcontrolv1.PriorityLevelEnablementLimited:
		if s.Exempt != nil {
			return field.ErrorList{field.Forbidden(at.Child("exempt"), "must be nil if the type is Limited")}
		}
		if s.Limited == nil {
			return field.ErrorList{field.Required(at.Child("limited"), "must not be empty when type is Limited")}
		}
		return validateLimited(s.Limited, at.Child("limited"))
	}
	return field.ErrorList{field.NotSupported(at.Child("type"), s.Type,
		[]flowcontrolv1.PriorityLevelEnablement{flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited})}
}

func notNegative(at *field.Path, v *int32) field.ErrorList {
	if v != nil && *v < 0 {
		return field.ErrorList{field.Invalid(at, *v, "must be a non-negative integer")}
	}
	return nil
}

func percent(at *field.Path, v *int32) field.ErrorList {
	if v != nil && (*v < 0 || *v > 100) {
		return field.ErrorList{field.Invalid(at, *v, "must be between 0 and 100, inclusive")}
	}
	return nil
}

func validateLimited(l *flowcontrolv1.LimitedPriorityLevelConfiguration, at *field.Path) field.ErrorList {
	errs := notNegative(at.Child("nominalConcurrencyShares"), l.NominalConcurrencyShares)
	errs = append(errs, percent(at.Child("lendablePercent"), l.LendablePercent)...)
	errs = append(errs, notNegative(at.Child("borrowingLimitPercent"), l.BorrowingLimitPercent)...)
	response, q := at.Child("limitResponse"), l.LimitResponse.Queuing
	switch l.LimitResponse.Type {
	case flowcontrolv1.LimitResponseTypeReject:
		if q != nil {
			errs = append(errs, field.Forbidden(response.Child("queuing"), "must be nil if limited.limitResponse.type is not Limited"))
		}
	case flowcontrolv1.LimitResponseTypeQueue:
		if q == nil {
			return append(errs, field.Required(response.Child("queuing"), "must not be empty if limited.limitResponse.type is Limited"))
		}
		for name, v := range map[string]int32{"queues": q.Queues, "handSize": q.HandSize, "queueLengthLimit": q.QueueLengthLimit} {
			if v <= 0 {
				errs = append(errs, field.Invalid(response.Child("queuing", name), v, "must be positive"))
			}
		}
		if q.HandSize > q.Queues {
			errs = append(errs, field.Invalid(response.Child("queuing", "handSize"), q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
		}
		if bits := shufflesharding.RequiredEntropyBits(int(q.Queues), int(q.HandSize)); q.Queues > 0 && q.HandSize > 0 && q.HandSize <= q.Queues && bits > shufflesharding.MaxHashBits {
			errs = append(errs, field.Invalid(response.Child("queuing", "handSize"), q.HandSize, fmt.Sprintf(
				"required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, shufflesharding.MaxHashBits)))
		}
		if q.Queues > 10_000_000 {
			errs = append(errs, field.Invalid(response.Child("queuing", "queues"), q.Queues, "must not be greater than 10000000"))
		}
	default:
		errs = append(errs, field.NotSupported(response.Child("type"), l.LimitResponse.Type,
			[]flowcontrolv1.LimitResponseType{flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject}))
	}
	return errs
}
