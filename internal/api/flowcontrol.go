package api

import (
	"fmt"
	"slices"
	"strings"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
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
	list := func(at *field.Path, values []string) {
		if len(values) == 0 {
			errs = append(errs, field.Required(at, at.String()[strings.LastIndex(at.String(), ".")+1:]+" must contain at least one value"))
		} else if len(values) > 1 && slices.Contains(values, "*") {
			errs = append(errs, field.Invalid(at, values, "if '*' is present, must not specify other values"))
		}
	}
	for i := range r.ResourceRules {
		rr, at := &r.ResourceRules[i], at.Child("resourceRules").Index(i)
		list(at.Child("verbs"), rr.Verbs)
		list(at.Child("apiGroups"), rr.APIGroups)
		list(at.Child("resources"), rr.Resources)
		if len(rr.Namespaces) == 0 && !rr.ClusterScope {
			errs = append(errs, field.Required(at.Child("namespaces"), "resource rules that are not cluster scoped must supply at least one namespace"))
		}
	}
	for i := range r.NonResourceRules {
		nr, at := &r.NonResourceRules[i], at.Child("nonResourceRules").Index(i)
		list(at.Child("verbs"), nr.Verbs)
		list(at.Child("nonResourceURLs"), nr.NonResourceURLs)
	}
	return errs
}

func validateFlowSubject(s *flowcontrolv1.Subject, at *field.Path) field.ErrorList {
	required := func(name string, given bool, value string) field.ErrorList {
		if !given {
			return field.ErrorList{field.Required(at.Child(name), fmt.Sprintf("%s is required when subject kind is '%s'", name, s.Kind))}
		}
		if value == "" {
			return field.ErrorList{field.Required(at.Child(name, "name"), "")}
		}
		return nil
	}
	switch s.Kind {
	case flowcontrolv1.SubjectKindUser:
		return required("user", s.User != nil, nameOf(s.User, func(u *flowcontrolv1.UserSubject) string { return u.Name }))
	case flowcontrolv1.SubjectKindGroup:
		return required("group", s.Group != nil, nameOf(s.Group, func(g *flowcontrolv1.GroupSubject) string { return g.Name }))
	case flowcontrolv1.SubjectKindServiceAccount:
		return required("serviceAccount", s.ServiceAccount != nil, nameOf(s.ServiceAccount, func(a *flowcontrolv1.ServiceAccountSubject) string {
			if a.Namespace == "" {
				return ""
			}
			return a.Name
		}))
	}
	return field.ErrorList{field.NotSupported(at.Child("kind"), s.Kind,
		[]flowcontrolv1.SubjectKind{flowcontrolv1.SubjectKindServiceAccount, flowcontrolv1.SubjectKindGroup, flowcontrolv1.SubjectKindUser})}
}

func nameOf[T any](p *T, f func(*T) string) string {
	if p == nil {
		return ""
	}
	return f(p)
}

func validatePriorityLevel(p *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	at, s := field.NewPath("spec"), &p.Spec
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
		if q.Queues > 10_000_000 {
			errs = append(errs, field.Invalid(response.Child("queuing", "queues"), q.Queues, "must not be greater than 10000000"))
		}
	default:
		errs = append(errs, field.NotSupported(response.Child("type"), l.LimitResponse.Type,
			[]flowcontrolv1.LimitResponseType{flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject}))
	}
	return errs
}
