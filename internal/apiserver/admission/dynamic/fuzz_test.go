package dynamic

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	plugincel "k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch"
	"k8s.io/apiserver/pkg/admission/plugin/webhook"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/environment"

	"skiff.dev/skiff/internal/api"
)

// hostile are conditions that are wrong, dear, or meant to break something.
var hostile = []string{
	"object.data.size() > 3", "object.data.all(k, object.data[k].startsWith('a'))", "1 / (size(object.data) - size(object.data)) > 0", "oldObject == null",
	"has(object.data) && object.data['a'].matches('(a+)+$')", "object.data.nothing.at == 'all'", "object == object", "dyn(object).metadata.x.y == 1",
	"object.data.map(a, object.data.map(b, object.data.map(c, object.data.map(d, a + b + c + d)))).size() > 0",
	"'a'.replace('', 'aaaaaaaaaaaaaaaaaaaaaaaa', -1).replace('', 'aaaaaaaaaaaaaaaaaaaaaaaa', -1).size() > 0", "'%s %d %f'.format([object, 1, 2.0]) == ''",
	"authorizer.group('').resource('pods').namespace(object.metadata.name).check('get').allowed()", "authorizer.path('/' + object.metadata.name).check('get').allowed()",
	"request.userInfo.username == 'a' && request.options.dryRun", "namespaceObject.metadata.labels['a'] == ''", "params.data.x == ''", "variables.v == variables.v",
	"duration(object.metadata.name) > duration('1s')", "timestamp('9999-12-31T23:59:59Z') + duration('10000h') > timestamp('2000-01-01T00:00:00Z')",
	"quantity(object.metadata.name).isLessThan(quantity('1'))", "quantity('9223372036854775807').add(quantity('9E')).isInteger()",
	"url(object.metadata.name).getHost() == ''", "ip(object.metadata.name).family() == 4", "cidr('::/0').containsIP('1.2.3.4')", "format.dns1123Label().validate('a').hasValue()",
	"semver('1.2.3').isLessThan(semver('1.2.4'))", "[1, 2].exists(", "'\\x00' == object.metadata.name", "9223372036854775807 + 1 > 0", "-9223372036854775808 / -1 > 0",
	"optional.of(object.metadata).hasValue()", "sets.contains([1], [1, 2])", "object.metadata.managedFields.exists(f, true)", "lists.range(1000000000).size() > 0",
	strings.Repeat("(", 1000) + "true" + strings.Repeat(")", 1000), strings.Repeat("!", 1001) + "true", "true" + strings.Repeat(" && true", 2000), "\x00", "\xff", "🤷",
}

// quantities are such that whoever computes with them is busy for hours, unless they are refused.
var quantities = []string{
	"quantity('1e999999999').isGreaterThan(quantity('1'))", "sign(quantity('1e-999999999')) > 0", "quantity('1e' + '999999999').add(1).isInteger()", "isQuantity('0.0000000000000000000000001e999999999')",
	"quantity(object.data.q).compareTo(quantity('1')) == 0", "object.data.all(k, quantity(object.data[k]).add(quantity('1')).isInteger())",
}

// mutations are hostile expressions of changes.
var mutations = []string{
	`[JSONPatch{op: "add", path: "/data/a", value: "b"}]`, `[JSONPatch{op: "move", from: "/metadata", path: "/metadata/labels/x"}]`, `[JSONPatch{op: "remove", path: ""}]`,
	`[JSONPatch{op: "replace", path: "", value: 1}]`, `[JSONPatch{op: "test", path: "/data"}]`, `[JSONPatch{op: "copy", from: "", path: "/data/x"}, JSONPatch{op: "copy", from: "", path: "/data/x"}]`,
	`[JSONPatch{op: "add", path: "/data/-1/~2", value: object}]`, `[JSONPatch{op: "add", path: "/metadata/finalizers/99999999", value: "a"}]`, `[JSONPatch{}]`, `[]`,
	`[JSONPatch{op: "replace", path: "/kind", value: "Secret"}]`, `[JSONPatch{op: "add", path: "/data/" + jsonpatch.escapeKey(object.metadata.name), value: null}]`,
	`[JSONPatch{op: "add", path: "/metadata/name", value: {"a": [1.5, 2u, b'x']}}]`, `object.data.map(k, JSONPatch{op: "remove", path: "/data/" + k})`,
}

// applied are hostile expressions of objects to apply.
var applied = []string{
	`Object{data: Object.data{a: "b"}}`, `Object{metadata: Object.metadata{labels: Object.metadata.labels{a: "b"}}}`, `Object{}`, `Object{spec: Object.spec{x: 1}}`,
	`Object{metadata: Object.metadata{name: "other"}}`, `Object{metadata: Object.metadata{managedFields: []}}`, `Object{data: Object.data{a: object.data.a}}`, `Object{kind: "Secret"}`,
	`Object{metadata: Object.metadata{finalizers: [1]}}`, `Object{data: object.data}`, `object`, `Object{metadata: Object.metadata{creationTimestamp: timestamp('2000-01-01T00:00:00Z')}}`,
}

const sample = `{"metadata":{"name":"a","labels":{"a":"b"}},"data":{"a":"aaaaaaaaaaaaaaaaaaaaaaaaaa!","b":"2"}}`

// longest is how long one object may keep admission busy, whatever the expressions; a budget that holds ends it much sooner.
const longest = 2 * time.Minute

// nobody may do anything.
type nobody struct{}

func (nobody) Authorize(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", nil
}

// subject is an update of a ConfigMap with a text's content.
type subject struct {
	versioned *admission.VersionedAttributes
	objects   objects
	gvr       schema.GroupVersionResource
	namespace *corev1.Namespace
}

func subjectOf(t *testing.T, table *api.Table, text string) subject {
	t.Helper()
	row := table.ByResource(schema.GroupResource{Resource: "configmaps"})
	now := &corev1.ConfigMap{}
	if json.Unmarshal([]byte(text), now) != nil {
		now = &corev1.ConfigMap{}
	}
	now.SetGroupVersionKind(row.GVK())
	s := subject{objects: objects{t.Context(), table, row}, gvr: row.GVR(), namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}}
	at := admission.NewAttributesRecord(now, now.DeepCopy(), row.GVK(), "default", now.Name, row.GVR(), "", admission.Update, &metav1.UpdateOptions{}, false,
		&user.DefaultInfo{Name: "mallory"})
	var err error
	if s.versioned, err = admission.NewVersionedAttributes(at, row.GVK(), s.objects); err != nil {
		t.Fatal(err)
	}
	return s
}

// bounded runs f, which must not take long.
func bounded(t *testing.T, f func()) {
	t.Helper()
	began := time.Now()
	f()
	if took := time.Since(began); took > longest {
		t.Fatalf("it took %s", took)
	}
}

func policyRow(table *api.Table, plural string) *api.Resource {
	return table.ByResource(schema.GroupResource{Group: admissionv1.GroupName, Resource: plural})
}

func anyConfigMap() *admissionv1.MatchResources {
	return &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
		Operations: []admissionv1.OperationType{admissionv1.OperationAll},
		Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"}},
	}}}}
}

// decides gives an object to a validating policy, if that is valid. Each expression has its decision.
func decides(t *testing.T, table *api.Table, condition, variable, message, body string) {
	t.Helper()
	row := policyRow(table, "validatingadmissionpolicies")
	p := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		ParamKind: &admissionv1.ParamKind{APIVersion: "v1", Kind: "ConfigMap"}, MatchConstraints: anyConfigMap(),
		Variables:        []admissionv1.Variable{{Name: "v", Expression: variable}},
		Validations:      []admissionv1.Validation{{Expression: condition, Message: "m", MessageExpression: message}, {Expression: "!(" + condition + ")", Message: "m"}},
		AuditAnnotations: []admissionv1.AuditAnnotation{{Key: "a", ValueExpression: message}},
	}}
	row.Default(p)
	if len(row.Validate(p)) > 0 {
		return
	}
	s := subjectOf(t, table, body)
	bounded(t, func() {
		got := compileValidating(p).Validate(t.Context(), s.gvr, s.versioned, s.versioned.VersionedObject.Object(), s.namespace, celconfig.RuntimeCELCostBudget, nobody{})
		if len(got.Decisions) != len(p.Spec.Validations) && len(got.Decisions) != 1 { // one alone says that the budget was spent
			t.Fatalf("%d decisions: %+v", len(got.Decisions), got.Decisions)
		}
	})
}

// changes gives an object to a mutating policy, if that is valid. What it comes to is another object, or an error.
func changes(t *testing.T, table *api.Table, m admissionv1.Mutation, condition, variable, body string) {
	t.Helper()
	row := policyRow(table, "mutatingadmissionpolicies")
	p := &admissionv1.MutatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: admissionv1.MutatingAdmissionPolicySpec{
		MatchConstraints: anyConfigMap(), ReinvocationPolicy: admissionv1.NeverReinvocationPolicy, Mutations: []admissionv1.Mutation{m},
		Variables: []admissionv1.Variable{{Name: "v", Expression: variable}}, MatchConditions: []admissionv1.MatchCondition{{Name: "c", Expression: condition}},
	}}
	row.Default(p)
	if len(row.Validate(p)) > 0 {
		return
	}
	s := subjectOf(t, table, body)
	bounded(t, func() {
		e := compileMutating(p)
		if e.Error != nil || len(e.Mutators) != 1 {
			t.Fatalf("a valid policy has %d patchers: %v", len(e.Mutators), e.Error)
		}
		ctx := e.CompositedCompiler.CreateContext(t.Context())
		e.Matcher.Match(ctx, s.versioned, nil, nobody{})
		before, was := s.versioned.VersionedObject.Object(), s.versioned.VersionedObject.Object().DeepCopyObject()
		out, err := e.Mutators[0].Patch(ctx, patch.Request{
			MatchedResource: s.gvr, VersionedAttributes: s.versioned, ObjectInterfaces: s.objects, Namespace: s.namespace,
			OptionalVariables: plugincel.OptionalVariableBindings{Authorizer: nobody{}}, TypeConverter: converters{table}.GetTypeConverter(s.versioned.VersionedKind),
		}, celconfig.RuntimeCELCostBudget)
		if err == nil { // as the dispatcher goes on
			if out, err = s.objects.ConvertToVersion(out, s.gvr.GroupVersion()); err == nil {
				s.objects.Default(out)
				_ = s.objects.Convert(out, &corev1.ConfigMap{}, nil)
			}
		}
		if a, b := asJSON(t, before), asJSON(t, was); a != b {
			t.Fatalf("the object itself was changed from %s to %s", b, a)
		}
	})
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// FuzzValidatingPolicy feeds expressions to validating policies, and objects to those that are taken.
func FuzzValidatingPolicy(f *testing.F) {
	for _, e := range hostile {
		f.Add(e, "object.metadata", "'no: ' + object.metadata.name", sample)
		f.Add("variables.v", e, "string(size(object.data))", sample)
	}
	for _, e := range quantities {
		f.Add(e, "1", "'no'", `{"data":{"q":"1e999999999"}}`)
	}
	f.Add("object.data.x == ''", "variables.v", "object.metadata.name * 3", "{}")
	table := api.NewTable()
	f.Fuzz(func(t *testing.T, condition, variable, message, body string) {
		decides(t, table, condition, variable, message, body)
	})
}

// FuzzMutatingPolicy feeds expressions to mutating policies, and objects to those that are taken.
func FuzzMutatingPolicy(f *testing.F) {
	for _, e := range mutations {
		f.Add(false, e, "true", "1", sample)
	}
	for _, e := range applied {
		f.Add(true, e, "true", "1", sample)
	}
	for _, e := range hostile {
		f.Add(false, mutations[0], e, e, sample)
	}
	for _, e := range quantities {
		f.Add(false, mutations[0], e, e, `{"data":{"q":"1e999999999"}}`)
	}
	table := api.NewTable()
	f.Fuzz(func(t *testing.T, apply bool, expression, condition, variable, body string) {
		m := admissionv1.Mutation{PatchType: admissionv1.PatchTypeJSONPatch, JSONPatch: &admissionv1.JSONPatch{Expression: expression}}
		if apply {
			m = admissionv1.Mutation{PatchType: admissionv1.PatchTypeApplyConfiguration, ApplyConfiguration: &admissionv1.ApplyConfiguration{Expression: expression}}
		}
		changes(t, table, m, condition, variable, body)
	})
}

// FuzzMatchConditions feeds expressions to the match conditions of webhooks of both kinds, and objects to those that are taken.
func FuzzMatchConditions(f *testing.F) {
	for _, e := range hostile {
		f.Add(e, sample)
		f.Add(e, "{}")
	}
	table := api.NewTable()
	compiler := plugincel.NewConditionCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	f.Fuzz(func(t *testing.T, expression, body string) {
		for _, h := range webhooksWith(t, table, expression) {
			s := subjectOf(t, table, body)
			bounded(t, func() {
				got := h.GetCompiledMatcher(compiler).Match(t.Context(), s.versioned, nil, nobody{})
				if got.Error != nil && got.Matches {
					t.Fatalf("a condition that failed matches: %v", got.Error)
				}
			})
		}
	})
}

// webhooksWith are a webhook of each kind with a condition; none if it isn't valid.
func webhooksWith(t *testing.T, table *api.Table, expression string) []webhook.WebhookAccessor {
	t.Helper()
	none, url := admissionv1.SideEffectClassNone, "https://hook.example/"
	conditions, call := []admissionv1.MatchCondition{{Name: "c", Expression: expression}}, admissionv1.WebhookClientConfig{URL: &url}
	validating := &admissionv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Webhooks: []admissionv1.ValidatingWebhook{{
		Name: "hook.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: &none, ClientConfig: call, MatchConditions: conditions,
	}}}
	mutating := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Webhooks: []admissionv1.MutatingWebhook{{
		Name: "hook.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: &none, ClientConfig: call, MatchConditions: conditions,
	}}}
	v, m := policyRow(table, "validatingwebhookconfigurations"), policyRow(table, "mutatingwebhookconfigurations")
	v.Default(validating)
	m.Default(mutating)
	ok, same := len(v.Validate(validating)) == 0, len(m.Validate(mutating)) == 0
	if ok != same {
		t.Fatalf("%q is valid for one kind of webhooks only", expression)
	}
	if !ok {
		return nil
	}
	return []webhook.WebhookAccessor{
		webhook.NewValidatingWebhookAccessor("v", "v", &validating.Webhooks[0]), webhook.NewMutatingWebhookAccessor("m", "m", &mutating.Webhooks[0]),
	}
}

// An expression that costs too much of an object is stopped, and says so, wherever it stands.
func TestDearExpressionsAreStopped(t *testing.T) {
	const dear = "object.data.all(a, object.data.all(b, object.data.all(c, object.data.all(d, a + b + c + d != ''))))"
	big := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "big"}, Data: map[string]string{}}
	for i := range 1000 {
		big.Data[fmt.Sprintf("key-%d", i)] = "x"
	}
	table := api.NewTable()
	row := policyRow(table, "validatingadmissionpolicies")
	policy := func(conditions ...admissionv1.MatchCondition) *admissionv1.ValidatingAdmissionPolicy {
		p := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: anyConfigMap(), MatchConditions: conditions, Variables: []admissionv1.Variable{{Name: "v", Expression: dear}},
			Validations: []admissionv1.Validation{{Expression: dear}, {Expression: "variables.v"}},
		}}
		row.Default(p)
		if errs := row.Validate(p); len(errs) > 0 {
			t.Fatal(errs.ToAggregate())
		}
		return p
	}
	s := subjectOf(t, table, asJSON(t, big))
	for name, p := range map[string]*admissionv1.ValidatingAdmissionPolicy{"a validation": policy(), "a condition": policy(admissionv1.MatchCondition{Name: "c", Expression: dear})} {
		bounded(t, func() {
			got := compileValidating(p).Validate(t.Context(), s.gvr, s.versioned, nil, s.namespace, celconfig.RuntimeCELCostBudget, nobody{})
			for _, d := range got.Decisions {
				if !strings.Contains(d.Message, "cost") {
					t.Errorf("%s: %+v", name, d)
				}
			}
			if len(got.Decisions) == 0 {
				t.Errorf("%s: nothing was decided", name)
			}
		})
	}
	for _, h := range webhooksWith(t, table, dear) {
		got := h.GetCompiledMatcher(plugincel.NewConditionCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))).Match(t.Context(), s.versioned, nil, nobody{})
		if got.Error == nil || !strings.Contains(got.Error.Error(), "cost") {
			t.Errorf("a webhook's condition: %+v", got)
		}
	}
}
