package definition

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	celgo "github.com/google/cel-go/cel"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
)

// Budgets of estimated cost (KEP-2876): of one rule, and of all rules of a schema.
const (
	ruleBudget   = 10_000_000
	schemaBudget = 100_000_000
)

var reasons = []string{"FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"}

// checkRules looks at the rules as text.
func checkRules(s *props, at *field.Path) (errs field.ErrorList) {
	breaks := func(text string) bool { return strings.ContainsAny(text, "\n\r") }
	blank := func(text string) bool { return text != "" && strings.TrimSpace(text) == "" }
	for i, r := range s.XValidations {
		at := at.Child("x-kubernetes-validations").Index(i)
		message := strings.TrimSpace(r.Message)
		switch rule := strings.TrimSpace(r.Rule); {
		case rule == "":
			errs = append(errs, field.Required(at.Child("rule"), "rule is not specified"))
		case blank(r.Message):
			errs = append(errs, field.Invalid(at.Child("message"), r.Message, "must be non-empty if specified"))
		case breaks(message):
			errs = append(errs, field.Invalid(at.Child("message"), r.Message, "must not contain line breaks"))
		case breaks(rule) && message == "":
			errs = append(errs, field.Required(at.Child("message"), "message must be specified if rule contains line breaks"))
		}
		if blank(r.MessageExpression) {
			errs = append(errs, field.Required(at.Child("messageExpression"), "messageExpression must be non-empty if specified"))
		}
		if r.Reason != nil && !slices.Contains(reasons, string(*r.Reason)) {
			errs = append(errs, field.NotSupported(at.Child("reason"), string(*r.Reason), reasons))
		}
		if r.FieldPath == "" {
			continue
		}
		if blank(r.FieldPath) {
			errs = append(errs, field.Invalid(at.Child("fieldPath"), r.FieldPath, "must be non-empty if specified"))
		}
		if breaks(r.FieldPath) {
			errs = append(errs, field.Invalid(at.Child("fieldPath"), r.FieldPath, "must not contain line breaks"))
		}
		if structural, err := structuralschema.NewStructural(s); err == nil {
			if _, _, err := cel.ValidFieldPath(r.FieldPath, structural); err != nil {
				errs = append(errs, field.Invalid(at.Child("fieldPath"), r.FieldPath, "must be a valid path"))
			}
		}
	}
	return errs
}

// scope is a place where rules may stand: how often it can occur in an object, and the types that a rule sees there.
type scope struct {
	schema *props
	above  *scope
	root   bool
	ruled  bool // there are rules here or above
	reach  func(*typed) *typed
	times  uint64 // 0: without bound
	types  *typed
	err    error
}

type typed struct {
	schema *structuralschema.Structural
	decl   *apiservercel.DeclType
}

func rootScope(s *props) *scope {
	return &scope{schema: s, root: true, ruled: len(s.XValidations) > 0, times: 1}
}

func (c *scope) below(s *props, reach func(*typed) *typed) *scope {
	if c == nil || s == nil {
		return nil
	}
	out := &scope{schema: s, above: c, ruled: c.ruled || len(s.XValidations) > 0, reach: reach}
	if most, bounded := occurrences(c.schema); bounded && c.times != 0 {
		out.times = max(product(c.times, most), 1)
	}
	return out
}

func (c *scope) property(s *props, name string) *scope {
	return c.below(s, func(t *typed) *typed {
		inner, known := t.schema.Properties[name]
		escaped, ok := apiservercel.Escape(name)
		if !known || !ok || t.decl.Fields[escaped] == nil {
			return nil
		}
		return &typed{&inner, t.decl.Fields[escaped].Type}
	})
}

func (c *scope) items(s *props) *scope {
	return c.below(s, func(t *typed) *typed {
		if t.schema.Items == nil {
			return nil
		}
		return &typed{t.schema.Items, t.decl.ElemType}
	})
}

func (c *scope) values(s *props) *scope {
	return c.below(s, func(t *typed) *typed {
		if a := t.schema.AdditionalProperties; a != nil && a.Structural != nil {
			return &typed{a.Structural, t.decl.ElemType}
		}
		return nil
	})
}

// occurrences is how many values a schema holds of what is directly below it.
func occurrences(s *props) (most uint64, bounded bool) {
	limit := func(n *int64) (uint64, bool) {
		if n == nil {
			return 0, false
		}
		return uint64(max(*n, 0)), true
	}
	switch {
	case s.Type == "array":
		return limit(s.MaxItems)
	case s.Type == "object" && s.AdditionalProperties != nil:
		return limit(s.MaxProperties)
	}
	return 1, true
}

// typesHere takes the types from above where rules stand there too; to make them anew is dear.
func (c *scope) typesHere() (*typed, error) {
	if c == nil || !c.ruled {
		return nil, nil
	}
	if c.types != nil || c.err != nil {
		return c.types, c.err
	}
	if above, err := c.above.typesHere(); err != nil {
		c.err = err
		return nil, err
	} else if above != nil {
		if c.types = c.reach(above); c.types != nil {
			return c.types, nil
		}
	}
	structural, err := structuralschema.NewStructural(c.schema)
	if err != nil {
		c.err = err
		return nil, err
	}
	decl := model.SchemaDeclType(structural, c.root || c.schema.XEmbeddedResource)
	if decl == nil {
		c.err = fmt.Errorf("unable to convert structural schema to CEL declarations")
		return nil, c.err
	}
	c.types = &typed{structural, decl}
	return c.types, nil
}

func product(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	if high != 0 {
		return math.MaxUint64
	}
	return low
}

// costs of all rules of a schema.
type costs struct {
	total uint64
	most  []cost
}

type cost struct {
	at *field.Path
	n  uint64
}

func (c *costs) add(at *field.Path, n uint64) {
	if c.total > math.MaxUint64-n {
		c.total = math.MaxUint64
	} else {
		c.total += n
	}
	if n < schemaBudget/100 {
		return
	}
	c.most = append(c.most, cost{at, n})
	slices.SortStableFunc(c.most, func(a, b cost) int {
		switch {
		case a.n > b.n:
			return -1
		case a.n < b.n:
			return 1
		}
		return 0
	})
	c.most = c.most[:min(len(c.most), 4)]
}

func (c *costs) check(at *field.Path) (errs field.ErrorList) {
	if c.total <= schemaBudget {
		return nil
	}
	for _, m := range c.most {
		errs = append(errs, field.Forbidden(m.at, "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"))
	}
	return append(errs, field.Forbidden(at, tooDear("x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema", c.total, schemaBudget)))
}

func tooDear(what string, n, budget uint64) string {
	times := float64(n) / float64(budget)
	by := fmt.Sprintf("%.1fx", times)
	switch {
	case times > 100:
		by = "more than 100x"
	case times < 1.5:
		by = fmt.Sprintf("%fx", times)
	}
	return fmt.Sprintf("%s exceeds budget by factor of %s (try simplifying the rule, or adding maxItems, maxProperties, and maxLength "+
		"where arrays, maps, and strings are declared)", what, by)
}

// environments gives expressions that are stored already all that stored expressions may use, and new ones what every server of the cluster knows.
type environments struct{ may *leniency }

func (e environments) RuleEnv(set *environment.EnvSet, text string) *celgo.Env {
	if e.may.rules.Has(text) {
		return set.StoredExpressionsEnv()
	}
	return set.NewExpressionsEnv()
}

func (e environments) MessageExpressionEnv(set *environment.EnvSet, text string) *celgo.Env {
	if e.may.messages.Has(text) {
		return set.StoredExpressionsEnv()
	}
	return set.NewExpressionsEnv()
}

// compile compiles the rules of one place and weighs them.
func (w *walk) compile(n node) (errs field.ErrorList) {
	at := n.at.Child("x-kubernetes-validations")
	t, err := n.rules.typesHere()
	if err != nil {
		return field.ErrorList{field.InternalError(at,
			fmt.Errorf("internal error: failed to construct type information for x-kubernetes-validations rules: %s", err))}
	}
	base := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion())
	results, err := cel.Compile(t.schema, t.decl, celconfig.PerCallLimit, base, environments{&w.may})
	if err != nil {
		return field.ErrorList{field.InternalError(at, err)}
	}
	for i, r := range results {
		errs = append(errs, w.weigh(n, r, at.Index(i))...)
		rule := n.schema.XValidations[i]
		switch {
		case r.Error == nil:
		case r.Error.Type == apiservercel.ErrorTypeRequired:
			errs = append(errs, field.Required(at.Index(i).Child("rule"), r.Error.Detail))
		default:
			errs = append(errs, field.Invalid(at.Index(i).Child("rule"), rule, r.Error.Detail))
		}
		if r.MessageExpressionError != nil {
			errs = append(errs, field.Invalid(at.Index(i).Child("messageExpression"), rule, r.MessageExpressionError.Detail))
		}
		switch {
		case r.UsesOldSelf && n.uncorrelated != nil:
			errs = append(errs, field.Invalid(at.Index(i).Child("rule"), rule.Rule,
				fmt.Sprintf("oldSelf cannot be used on the uncorrelatable portion of the schema within %v", n.uncorrelated)))
		case !r.UsesOldSelf && rule.OptionalOldSelf != nil:
			errs = append(errs, field.Invalid(at.Index(i).Child("optionalOldSelf"), *rule.OptionalOldSelf, "may not be set if oldSelf is not used in rule"))
		}
	}
	return errs
}

// weigh adds the estimated cost of a rule and its message to the schema's.
func (w *walk) weigh(n node, r cel.CompilationResult, at *field.Path) (errs field.ErrorList) {
	times := n.rules.times
	if times == 0 {
		times = r.MaxCardinality
	}
	ruleCost := product(r.MaxCost, times)
	if !w.unchanged && ruleCost > ruleBudget {
		errs = append(errs, field.Forbidden(at.Child("rule"), tooDear("estimated rule cost", ruleCost, ruleBudget)))
	}
	w.costs.add(at.Child("rule"), ruleCost)
	if r.MessageExpressionError != nil || r.MessageExpression == nil {
		return errs
	}
	if !w.unchanged && r.MessageExpressionMaxCost > ruleBudget {
		errs = append(errs, field.Forbidden(at.Child("messageExpression"), tooDear("estimated messageExpression cost", r.MessageExpressionMaxCost, ruleBudget)))
	}
	w.costs.add(at.Child("messageExpression"), r.MessageExpressionMaxCost)
	return errs
}
