package dynamic

import (
	admissionv1 "k8s.io/api/admissionregistration/v1"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"

	"skiff.dev/skiff/internal/api/exponent"
)

// Compilation of policies that are stored already: an error is kept, and tells in every request that the policy matches.

// stored lets expressions use all that any version of Kubernetes that they may come from did.
const stored = environment.StoredExpressions

// expressions compiles what both kinds of policy have in common.
type expressions struct {
	*plugincel.CompositedCompiler
	with plugincel.OptionalVariableDeclarations
}

func newExpressions(params bool, variables []admissionv1.Variable) (*expressions, error) {
	c, err := plugincel.NewCompositedCompiler(exponent.Environment())
	if err != nil {
		return nil, err
	}
	e := &expressions{c, plugincel.OptionalVariableDeclarations{HasParams: params, HasAuthorizer: true}}
	for _, v := range variables {
		c.CompileAndStoreVariable(&validatingpolicy.Variable{Name: v.Name, Expression: v.Expression}, e.with, stored)
	}
	return e, nil
}

func (e *expressions) conditions(list []admissionv1.MatchCondition, failure *admissionv1.FailurePolicyType, policy string) matchconditions.Matcher {
	if len(list) == 0 {
		return nil
	}
	accessors := make([]plugincel.ExpressionAccessor, len(list))
	for i := range list {
		accessors[i] = (*matchconditions.MatchCondition)(&list[i])
	}
	return matchconditions.NewMatcher(e.CompileCondition(accessors, e.with, stored), failure, "policy", "validate", policy)
}

func compileValidating(p *validatingpolicy.Policy) validatingpolicy.Validator {
	s := &p.Spec
	e, err := newExpressions(s.ParamKind != nil, s.Variables)
	if err != nil {
		return validatingpolicy.NewValidator(nil, nil, nil, nil, s.FailurePolicy, err)
	}
	checks, messages := make([]plugincel.ExpressionAccessor, len(s.Validations)), make([]plugincel.ExpressionAccessor, len(s.Validations))
	for i := range s.Validations {
		v := &s.Validations[i]
		checks[i] = &validatingpolicy.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason}
		if v.MessageExpression != "" {
			messages[i] = &validatingpolicy.MessageExpressionCondition{MessageExpression: v.MessageExpression}
		}
	}
	annotations := make([]plugincel.ExpressionAccessor, len(s.AuditAnnotations))
	for i, a := range s.AuditAnnotations {
		annotations[i] = &validatingpolicy.AuditAnnotationCondition{Key: a.Key, ValueExpression: a.ValueExpression}
	}
	quiet := e.with
	quiet.HasAuthorizer = false // a message is no place to ask who may do what
	return validatingpolicy.NewValidator(e.CompileCondition(checks, e.with, stored), e.conditions(s.MatchConditions, s.FailurePolicy, p.Name),
		e.CompileCondition(annotations, e.with, stored), e.CompileCondition(messages, quiet, stored), s.FailurePolicy, nil)
}

func compileMutating(p *mutatingpolicy.Policy) mutatingpolicy.PolicyEvaluator {
	s := &p.Spec
	e, err := newExpressions(s.ParamKind != nil, s.Variables)
	if err != nil {
		return mutatingpolicy.PolicyEvaluator{Error: &apiservercel.Error{Type: apiservercel.ErrorTypeInternal, Detail: err.Error()}}
	}
	with := e.with
	with.HasPatchTypes = true
	var patchers []patch.Patcher
	for i := range s.Mutations {
		switch m := &s.Mutations[i]; {
		case m.PatchType == admissionv1.PatchTypeJSONPatch && m.JSONPatch != nil:
			patchers = append(patchers, patch.NewJSONPatcher(
				e.CompileMutatingEvaluator(&patch.JSONPatchCondition{Expression: m.JSONPatch.Expression}, with, stored)))
		case m.PatchType == admissionv1.PatchTypeApplyConfiguration && m.ApplyConfiguration != nil:
			patchers = append(patchers, patch.NewApplyConfigurationPatcher(
				e.CompileMutatingEvaluator(&patch.ApplyConfigurationCondition{Expression: m.ApplyConfiguration.Expression}, with, stored)))
		}
	}
	return mutatingpolicy.PolicyEvaluator{Matcher: e.conditions(s.MatchConditions, s.FailurePolicy, p.Name), Mutators: patchers, CompositedCompiler: e.CompositedCompiler}
}
