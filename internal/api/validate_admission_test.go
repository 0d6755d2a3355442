package api_test

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/api"
)

const goodHook = `
webhooks:
- name: a.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  clientConfig: {service: {namespace: ns, name: svc}}
  rules: [{operations: [CREATE], apiGroups: [""], apiVersions: [v1], resources: [pods, pods/*]}]
  matchConditions: [{name: named, expression: "object.metadata.name != ''"}]
`

const goodPolicy = `
metadata: {name: p}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints: {resourceRules: [{operations: ["*"], apiGroups: [apps], apiVersions: ["*"], resources: [deployments]}]}
  variables: [{name: most, expression: "int(params.data.most)"}]
  validations: [{expression: "object.spec.replicas <= variables.most", messageExpression: "'at most ' + string(variables.most)"}]
  auditAnnotations: [{key: replicas, valueExpression: "string(object.spec.replicas)"}]
`

const goodMutation = `
spec:
  matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [""], apiVersions: ["*"], resources: [pods]}]}
  mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: {'a': 'b'}}}"}}]
`

const goodBinding = `
spec:
  policyName: p
  validationActions: [Deny]
  paramRef: {name: c, parameterNotFoundAction: Deny}
`

// Each case changes one thing of an object that is good; none is left of its faults when it is not.
func TestAdmissionObjectsAreChecked(t *testing.T) {
	objects := map[string]string{
		"validatingwebhookconfigurations": goodHook, "mutatingwebhookconfigurations": goodHook, "validatingadmissionpolicies": goodPolicy,
		"mutatingadmissionpolicies": goodMutation, "validatingadmissionpolicybindings": goodBinding,
	}
	for plural, text := range objects {
		if got := faults(t, plural, text); got != "" {
			t.Errorf("%s: %s", plural, got)
		}
	}
	for _, c := range []struct{ plural, old, new, want string }{
		{"validatingwebhookconfigurations", "a.example.com", "short", "webhooks[0].name: Invalid value"},
		{"validatingwebhookconfigurations", "sideEffects: None", "", "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"},
		{"mutatingwebhookconfigurations", "sideEffects: None", "sideEffects: Some", `webhooks[0].sideEffects: Unsupported value: "Some"`},
		{"mutatingwebhookconfigurations", "sideEffects", "timeoutSeconds: 31\n  sideEffects", "the timeout value must be between 1 and 30 seconds"},
		{"mutatingwebhookconfigurations", "[v1]\n", "[v2]\n", "must include at least one of v1, v1beta1"},
		{"mutatingwebhookconfigurations", "[pods, pods/*]", "['*/*', pods]", "if '*/*' is present, must not specify other resources"},
		{"mutatingwebhookconfigurations", "pods/*", "pods/*, pods/log", "if 'pods/*' is present, must not specify pods/log"},
		{"mutatingwebhookconfigurations", "{service: {namespace: ns, name: svc}}", "{url: 'http://a'}", "'https' is the only allowed URL scheme"},
		{"mutatingwebhookconfigurations", "{service: {namespace: ns, name: svc}}", "{}", "exactly one of url or service is required"},
		{"validatingwebhookconfigurations", "object.metadata.name != ''", "object.metadata.name", "webhooks[0].matchConditions[0].expression: Invalid value"},
		{"validatingwebhookconfigurations", "object.metadata.name != ''", "params.x", "undeclared reference to 'params'"},
		{"validatingadmissionpolicies", "paramKind: {apiVersion: v1, kind: ConfigMap}", "failurePolicy: Fail", "undeclared reference to 'params'"},
		{"validatingadmissionpolicies", "<= variables.most", "<= variables.least", "undefined field 'least'"},
		{"validatingadmissionpolicies", "name: most", "name: in", "name is not a valid CEL identifier"},
		{"validatingadmissionpolicies", "'at most ' + string(variables.most)", "1", "must evaluate to string"},
		{"mutatingadmissionpolicies", "Object{", "JSONPatch{", "mutations[0].applyConfiguration.expression"},
		{"validatingadmissionpolicybindings", "[Deny]", "[Deny, Warn]", "must not contain both Deny and Warn"},
		{"validatingadmissionpolicybindings", ", parameterNotFoundAction: Deny", "", "spec.paramRef.parameterNotFoundAction: Required value"},
	} {
		if got := faults(t, c.plural, strings.Replace(objects[c.plural], c.old, c.new, 1)); !strings.Contains(got, c.want) {
			t.Errorf("%s with %s: %q, want %q", c.plural, c.new, got, c.want)
		}
	}
}

func faults(t *testing.T, plural, text string) string {
	t.Helper()
	row := api.NewTable().ByResource(schema.GroupResource{Group: admissionv1.GroupName, Resource: plural})
	obj := row.New()
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatal(err)
	}
	row.Default(obj)
	if errs := row.Validate(obj); len(errs) > 0 {
		return errs.ToAggregate().Error()
	}
	return ""
}
