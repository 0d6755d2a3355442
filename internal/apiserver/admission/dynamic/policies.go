package dynamic

import (
	"context"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/admission/plugin/policy/generic"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/registry/fieldmanager"
)

// policies of one kind: P with their bindings B, compiled to E.
type policies[P, B api.Object, E any] struct {
	reg      *registry.Registry
	compile  func(P) E
	params   func(P) *admissionv1.ParamKind
	bound    func(B) string
	compiled map[string]compiledPolicy[E]
}

// compiledPolicy is a policy's expressions, of one generation.
type compiledPolicy[E any] struct {
	uid        types.UID
	generation int64
	evaluator  E
}

func newMutatingPolicies(reg *registry.Registry) *policies[*mutatingpolicy.Policy, *mutatingpolicy.PolicyBinding, mutatingpolicy.PolicyEvaluator] {
	return &policies[*mutatingpolicy.Policy, *mutatingpolicy.PolicyBinding, mutatingpolicy.PolicyEvaluator]{
		reg: reg, compile: compileMutating, compiled: map[string]compiledPolicy[mutatingpolicy.PolicyEvaluator]{},
		params: func(p *mutatingpolicy.Policy) *admissionv1.ParamKind { return p.Spec.ParamKind },
		bound:  func(b *mutatingpolicy.PolicyBinding) string { return b.Spec.PolicyName },
	}
}

func newValidatingPolicies(reg *registry.Registry) *policies[*validatingpolicy.Policy, *validatingpolicy.PolicyBinding, validatingpolicy.Validator] {
	return &policies[*validatingpolicy.Policy, *validatingpolicy.PolicyBinding, validatingpolicy.Validator]{
		reg: reg, compile: compileValidating, compiled: map[string]compiledPolicy[validatingpolicy.Validator]{},
		params: func(p *validatingpolicy.Policy) *admissionv1.ParamKind { return p.Spec.ParamKind },
		bound:  func(b *validatingpolicy.PolicyBinding) string { return b.Spec.PolicyName },
	}
}

// hooks joins policies to their bindings; one that is bound nowhere does nothing and is not compiled.
func (p *policies[P, B, E]) hooks(all, bindings []any) (out []generic.PolicyHook[P, B, E]) {
	byPolicy := map[string][]B{}
	for _, b := range bindings {
		name := p.bound(b.(B))
		byPolicy[name] = append(byPolicy[name], b.(B))
	}
	used := map[string]compiledPolicy[E]{}
	for _, o := range all {
		policy := o.(P)
		bound := byPolicy[policy.GetName()]
		if len(bound) == 0 {
			continue
		}
		c, ok := p.compiled[policy.GetName()]
		if !ok || c.uid != policy.GetUID() || c.generation != policy.GetGeneration() {
			c = compiledPolicy[E]{policy.GetUID(), policy.GetGeneration(), p.compile(policy)}
		}
		used[policy.GetName()] = c
		h := generic.PolicyHook[P, B, E]{Policy: policy, Bindings: bound, Evaluator: c.evaluator}
		if kind := p.params(policy); kind != nil {
			h.ParamInformer, h.ParamScope, h.ConfigurationError = paramsOf(p.reg, kind)
		}
		out = append(out, h)
	}
	p.compiled = used
	return out
}

// paramsOf finds where the parameters of a policy are.
func paramsOf(reg *registry.Registry, kind *admissionv1.ParamKind) (informers.GenericInformer, meta.RESTScope, error) {
	gv, err := schema.ParseGroupVersion(kind.APIVersion)
	if err != nil {
		return nil, nil, fmt.Errorf("failed to parse apiVersion of paramKind %v: %w", kind, err)
	}
	unknown := fmt.Errorf("failed to find resource referenced by paramKind: '%v'", gv.WithKind(kind.Kind))
	row := reg.Table().ByKind(schema.GroupKind{Group: gv.Group, Kind: kind.Kind})
	if row == nil || row.Key == "" {
		return nil, nil, unknown
	}
	own, served := row.Serving(gv.Group, gv.Version)
	if own == nil {
		return nil, nil, unknown
	}
	scope := meta.RESTScopeRoot
	if own.Namespaced {
		scope = meta.RESTScopeNamespace
	}
	return params{memory{reg: reg, row: own, served: served}}, scope, nil
}

// params reads parameters where upstream would start an informer.
type params struct{ memory memory }

func (params) Informer() cache.SharedIndexInformer { return synced{} }
func (p params) Lister() cache.GenericLister {
	return cache.NewGenericLister(p.memory, p.memory.row.GroupResource())
}

// converters gives mutating policies the schemas of the table's kinds.
type converters struct{ table *api.Table }

// GetTypeConverter implements patch.TypeConverterManager.
func (c converters) GetTypeConverter(kind schema.GroupVersionKind) managedfields.TypeConverter {
	row := c.table.ByKind(kind.GroupKind())
	if row == nil {
		return nil
	}
	if own, _ := row.Serving(kind.Group, kind.Version); own != nil {
		return fieldmanager.Types(own)
	}
	return nil
}

// Run implements patch.TypeConverterManager: the table is always current.
func (converters) Run(context.Context) {}
