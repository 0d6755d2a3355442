package api

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"skiff.dev/skiff/internal/api/exponent"
)

// The CEL of webhooks and policies, as far as an object is refused for it. Nothing is set up before the first expression comes.

// compiler knows no variables but those that every expression has.
var compiler = sync.OnceValue(func() plugincel.Compiler {
	return plugincel.NewCompiler(exponent.Environment())
})

// storedExpressions are those that an object had before: they may use what later versions of Kubernetes gave up.
type storedExpressions map[string]bool

func (s storedExpressions) addConditions(list []admissionv1.MatchCondition) {
	for i := range list {
		s[list[i].Expression] = true
	}
}

// compiled checks expressions of one object.
type compiled struct {
	with   plugincel.Compiler // nil: compiler
	params bool
	stored storedExpressions
}

func (c compiled) check(e plugincel.ExpressionAccessor, o plugincel.OptionalVariableDeclarations, p *field.Path) field.ErrorList {
	mode := environment.NewExpressions
	if c.stored[e.GetExpression()] {
		mode = environment.StoredExpressions
	}
	with := c.with
	if with == nil {
		with = compiler()
	}
	o.HasParams = c.params
	result := with.CompileCELExpression(e, o, mode)
	if result.Error == nil {
		return nil
	}
	if result.Error.Type == apiservercel.ErrorTypeRequired {
		return field.ErrorList{field.Required(p, result.Error.Detail)}
	}
	return field.ErrorList{field.Invalid(p, e.GetExpression(), result.Error.Detail)}
}

// authorizing lets an expression ask what its user may do.
var authorizing = plugincel.OptionalVariableDeclarations{HasAuthorizer: true}

const mostConditions = 64

func validateConditionsOf(list []admissionv1.MatchCondition, p *field.Path, c compiled) (errs field.ErrorList) {
	if len(list) > mostConditions {
		errs = append(errs, field.TooMany(p, len(list), mostConditions))
	}
	for i := range list {
		m, at := &list[i], p.Index(i)
		if strings.TrimSpace(m.Expression) == "" {
			errs = append(errs, field.Required(at.Child("expression"), ""))
		} else {
			errs = append(errs, c.check((*matchconditions.MatchCondition)(m), authorizing, at.Child("expression"))...)
		}
		switch {
		case m.Name == "":
			errs = append(errs, field.Required(at.Child("name"), ""))
		default:
			errs = append(errs, each(at.Child("name"), m.Name, validation.IsQualifiedName(m.Name))...)
		}
		if slices.ContainsFunc(list[:i], func(o admissionv1.MatchCondition) bool { return o.Name == m.Name }) && m.Name != "" {
			errs = append(errs, field.Duplicate(at.Child("name"), m.Name))
		}
	}
	return errs
}

var identifier = regexp.MustCompile("^[_a-zA-Z][_a-zA-Z0-9]*$")

// celReserved are words that no variable can be called.
var celReserved = []string{"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop",
	"package", "namespace", "return", "var", "void", "while"}

// validateVariables declares the variables one after another: each sees those before it.
func validateVariables(list []admissionv1.Variable, p *field.Path, with *plugincel.CompositedCompiler, c compiled) (errs field.ErrorList) {
	for i := range list {
		v, at := &list[i], p.Index(i)
		switch {
		case v.Name == "":
			errs = append(errs, field.Required(at.Child("name"), "name is not specified"))
		case !identifier.MatchString(v.Name) || slices.Contains(celReserved, v.Name):
			errs = append(errs, field.Invalid(at.Child("name"), v.Name, "name is not a valid CEL identifier"))
		}
		if strings.TrimSpace(v.Expression) == "" {
			errs = append(errs, field.Required(at.Child("expression"), "expression is not specified"))
			continue
		}
		mode := environment.NewExpressions
		if c.stored[v.Expression] {
			mode = environment.StoredExpressions
		}
		result := with.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression},
			plugincel.OptionalVariableDeclarations{HasParams: c.params, HasAuthorizer: true}, mode)
		if result.Error != nil {
			errs = append(errs, field.Invalid(at.Child("expression"), v.Expression, result.Error.Detail))
		}
	}
	return errs
}

// newComposited is a compiler that variables can be declared to.
func newComposited(p *field.Path) (*plugincel.CompositedCompiler, field.ErrorList) {
	c, err := plugincel.NewCompositedCompiler(exponent.Environment())
	if err != nil {
		return nil, field.ErrorList{field.InternalError(p, fmt.Errorf("set up CEL: %w", err))}
	}
	return c, nil
}

func validateMutation(m *admissionv1.Mutation, p *field.Path, c compiled) field.ErrorList {
	with := plugincel.OptionalVariableDeclarations{HasAuthorizer: true, HasPatchTypes: true}
	var errs field.ErrorList
	expression := func(given bool, kind admissionv1.PatchType, name, text string, e plugincel.ExpressionAccessor) {
		switch at := p.Child(name); {
		case m.PatchType == kind && !given:
			errs = append(errs, field.Required(at, "must be specified when patchType is "+string(kind)))
		case m.PatchType != kind && given:
			errs = append(errs, field.Invalid(at, text, "must not be specified when patchType is not "+string(kind)))
		case given && strings.TrimSpace(text) == "":
			errs = append(errs, field.Required(at.Child("expression"), "expression is not specified"))
		case given:
			errs = append(errs, c.check(e, with, at.Child("expression"))...)
		}
	}
	if m.PatchType == "" {
		return field.ErrorList{field.Required(p.Child("patchType"), "")}
	}
	if errs := oneOf(m.PatchType, p.Child("patchType"), admissionv1.PatchTypeApplyConfiguration, admissionv1.PatchTypeJSONPatch); len(errs) > 0 {
		return errs
	}
	apply, list := value(m.ApplyConfiguration).Expression, value(m.JSONPatch).Expression
	expression(m.ApplyConfiguration != nil, admissionv1.PatchTypeApplyConfiguration, "applyConfiguration", apply, &patch.ApplyConfigurationCondition{Expression: apply})
	expression(m.JSONPatch != nil, admissionv1.PatchTypeJSONPatch, "jsonPatch", list, &patch.JSONPatchCondition{Expression: list})
	return errs
}

// textExpression is one that makes a text, for the user to read.
type textExpression struct{ text string }

func (e textExpression) GetExpression() string    { return e.text }
func (e textExpression) ReturnTypes() []*cel.Type { return []*cel.Type{cel.StringType} }
