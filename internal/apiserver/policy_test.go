package apiserver_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// validating and mutating create a policy and its binding; spec and bound are more of each in YAML's flow style.
func (f *fixture) validating(name, resource, spec, bound string) {
	f.Helper()
	f.policy("Validating", name, resource, spec, bound)
}

func (f *fixture) mutating(name, resource, spec, bound string) {
	f.Helper()
	f.policy("Mutating", name, resource, spec, bound)
}

func (f *fixture) policy(kind, name, resource, spec, bound string) {
	f.Helper()
	group, plural, _ := strings.Cut(resource, "/")
	plurals := registration + strings.ToLower(kind) + "admissionpolic"
	f.put(plurals+"ies", fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: %sAdmissionPolicy
metadata: {name: %s}
spec: {matchConstraints: {resourceRules: [{operations: [CREATE, UPDATE], apiGroups: ["%s"], apiVersions: ["*"], resources: [%s]}]}, %s}
`, kind, name, group, plural, spec)).ok(http.StatusCreated)
	f.put(plurals+"ybindings", fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: %sAdmissionPolicyBinding
metadata: {name: %s}
spec: {policyName: %s %s}
`, kind, name, name, bound)).ok(http.StatusCreated)
}

func TestPoliciesDeny(t *testing.T) {
	f := start(t)
	f.validating("small", "/configmaps", `variables: [{name: entries, expression: "size(object.data)"}],
  validations: [{expression: "variables.entries < 2", messageExpression: "'it has ' + string(variables.entries) + ' entries'", reason: Forbidden}]`, ", validationActions: [Deny]")
	f.ask("POST "+configMaps, configMapText("one", "a", "b")).ok(http.StatusCreated)
	f.ask("POST "+configMaps, configMapText("two", "a", "b", "c", "d")).
		mustSay(http.StatusForbidden, `ValidatingAdmissionPolicy 'small' with binding 'small' denied request: it has 2 entries`)
	f.ask("PUT "+configMaps+"/one", configMapText("one", "a", "b", "c", "d")).ok(http.StatusForbidden)

	// A new generation is compiled anew; without a binding nothing is denied.
	f.ask("PATCH "+registration+"validatingadmissionpolicies/small", `[{"op":"replace","path":"/spec/validations/0/expression","value":"variables.entries < 3"}]`,
		"Content-Type", "application/json-patch+json").ok(http.StatusOK)
	f.ask("POST "+configMaps, configMapText("two", "a", "b", "c", "d")).ok(http.StatusCreated)
	f.ask("POST "+configMaps, configMapText("three", "a", "b", "c", "d", "e", "f")).ok(http.StatusForbidden)
	f.ask("DELETE "+registration+"validatingadmissionpolicybindings/small", "").ok(http.StatusOK)
	f.ask("POST "+configMaps, configMapText("three", "a", "b", "c", "d", "e", "f")).ok(http.StatusCreated)
}

func TestPoliciesWarnAskAndMatch(t *testing.T) {
	f := start(t)
	f.validating("a", "/configmaps", `validations: [{expression: "!has(object.data.secret)", message: "no secrets here"}]`, ", validationActions: [Warn]")
	f.validating("b", "/configmaps", `matchConditions: [{name: marked, expression: "has(object.data.marked)"}],
  validations: [{expression: "authorizer.group('').resource('nodes').check('delete').allowed()", message: "only who may delete nodes"}]`, ", validationActions: [Deny]")
	f.validating("c", "/configmaps", `validations: [{expression: "false", message: "never here"}]`,
		`, validationActions: [Deny], matchResources: {namespaceSelector: {matchLabels: {never: here}}}`)
	made := f.ask("POST "+configMaps, configMapText("one", "secret", "x", "marked", "x")).ok(http.StatusCreated)
	if got := made.header.Get("Warning"); !strings.Contains(got, "no secrets here") {
		t.Errorf("warned of %q", got)
	}
	f.put("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: e},
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: ed}]}`).ok(http.StatusCreated)
	ed := f.client("ed")
	sea := &sea{fixture: f}
	sea.eventually("ed to be allowed", func() bool {
		return f.askAs(ed, "POST "+configMaps, configMapText("two", "a", "b")).code == http.StatusCreated
	})
	f.askAs(ed, "POST "+configMaps, configMapText("three", "marked", "x")).mustSay(http.StatusUnprocessableEntity, "only who may delete nodes")
	f.put("/api/v1/namespaces", `{apiVersion: v1, kind: Namespace, metadata: {name: other, labels: {never: here}}}`).ok(http.StatusCreated)
	f.ask("POST /api/v1/namespaces/other/configmaps", configMapText("one", "a", "b")).mustSay(http.StatusUnprocessableEntity, "never here")
}

func TestPoliciesTakeParameters(t *testing.T) {
	f := start(t)
	f.validating("limited", "apps/deployments", `paramKind: {apiVersion: v1, kind: ConfigMap},
  validations: [{expression: "object.spec.replicas <= int(params.data.most)", messageExpression: "'at most ' + params.data.most"}]`,
		`, validationActions: [Deny], paramRef: {name: limit, namespace: default, parameterNotFoundAction: Deny}`)
	deployment := func(name string, replicas int) answer {
		return f.put("/apis/apps/v1/namespaces/default/deployments", fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: %s}, spec: {replicas: %d,
  selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}`, name, replicas))
	}
	deployment("d", 1).mustSay(http.StatusUnprocessableEntity, "no params found for policy binding with `Deny` parameterNotFoundAction")
	f.ask("POST "+configMaps, configMapText("limit", "most", "2")).ok(http.StatusCreated)
	deployment("d", 3).mustSay(http.StatusUnprocessableEntity, "at most 2")
	f.ask("PUT "+configMaps+"/limit", configMapText("limit", "most", "3")).ok(http.StatusOK)
	deployment("d", 3).ok(http.StatusCreated)
}

// Who names a policy's parameters must be allowed to read them: the policy reads for them.
func TestPoliciesReadForTheirWriters(t *testing.T) {
	f := start(t)
	rule := func(group, resources, verbs string) string {
		return `{apiGroups: ["` + group + `"], resources: [` + resources + `], verbs: [` + verbs + `]}`
	}
	const all = "validatingadmissionpolicies, validatingadmissionpolicybindings, mutatingadmissionpolicies, mutatingadmissionpolicybindings"
	role := func(name string, rules ...string) {
		f.put("/apis/rbac.authorization.k8s.io/v1/clusterroles", `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: `+name+`},
  rules: [`+strings.Join(rules, ", ")+`]}`).ok(http.StatusCreated)
		f.put("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: `+name+`},
  roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: `+name+`}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: `+name+`}]}`).ok(http.StatusCreated)
	}
	role("ed", rule("admissionregistration.k8s.io", all, `"*"`), rule("", "configmaps", "get, list"))
	ed := f.client("ed")
	sea := &sea{fixture: f}
	sea.eventually("ed to be allowed", func() bool { return f.askAs(ed, "GET /api/v1/configmaps", "").code == http.StatusOK })
	write := func(kind, name, spec string) answer {
		plural := strings.Replace(strings.ToLower(kind)+"s", "policys", "policies", 1)
		body, err := yaml.YAMLToJSON([]byte(`{apiVersion: admissionregistration.k8s.io/v1, kind: ` + kind + `, metadata: {name: ` + name + `}, spec: {` + spec + `}}`))
		if err != nil {
			t.Fatal(err)
		}
		return f.askAs(ed, "POST "+registration+plural, string(body))
	}
	const match = `matchConstraints: {resourceRules: [{operations: [CREATE], apiGroups: [apps], apiVersions: [v1], resources: [deployments]}]}, `
	const checks, changes = `validations: [{expression: "params != null"}], `, `reinvocationPolicy: Never, mutations: [{patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'remove', path: '/a'}]"}}], `
	for kind, does := range map[string]string{"ValidatingAdmissionPolicy": checks, "MutatingAdmissionPolicy": changes} {
		write(kind, "secrets", match+does+`paramKind: {apiVersion: v1, kind: Secret}`).mustSay(http.StatusUnprocessableEntity,
			`spec.paramKind: Forbidden: user `, `must have \"get\" permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)`)
		write(kind, "maps", match+does+`paramKind: {apiVersion: v1, kind: ConfigMap}`).ok(http.StatusCreated)
		f.put(registration+strings.ToLower(kind[:len(kind)-1])+"ies", `{apiVersion: admissionregistration.k8s.io/v1, kind: `+kind+`, metadata: {name: admins}, spec: {`+
			match+does+`paramKind: {apiVersion: v1, kind: Secret}}}`).ok(http.StatusCreated)
		bound := `paramRef: {name: a, namespace: default, parameterNotFoundAction: Deny}`
		if kind == "ValidatingAdmissionPolicy" {
			bound += `, validationActions: [Deny]`
		}
		write(kind+"Binding", "a", `policyName: maps, `+bound).ok(http.StatusCreated)
		write(kind+"Binding", "b", `policyName: admins, `+bound).mustSay(http.StatusUnprocessableEntity,
			`spec.paramRef: Forbidden: user `, `does not have \"get\" permission on the object referenced by paramRef`)
		write(kind+"Binding", "c", `policyName: none, `+bound).mustSay(http.StatusUnprocessableEntity,
			`spec.paramRef: Forbidden: unable to get policy none to determine minimum required permissions and user `)
	}
}

func TestPoliciesMutate(t *testing.T) {
	f := start(t)
	f.mutating("a", "apps/deployments", `variables: [{name: who, expression: "request.userInfo.username"}], mutations: [
  {patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{metadata: Object.metadata{annotations: {'made-by': variables.who}}, spec: Object.spec{replicas: object.spec.replicas + 1}}"}},
  {patchType: JSONPatch, jsonPatch: {expression: "[JSONPatch{op: 'add', path: '/metadata/labels', value: {'replicas': string(object.spec.replicas)}}]"}}]`, "")
	got := f.put("/apis/apps/v1/namespaces/default/deployments", `{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: 1,
  selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}`).ok(http.StatusCreated)
	var d struct {
		Metadata struct{ Annotations, Labels map[string]string }
		Spec     struct{ Replicas int }
	}
	got.into(&d)
	if d.Metadata.Annotations["made-by"] != "admin" || d.Spec.Replicas != 2 || d.Metadata.Labels["replicas"] != "2" {
		t.Errorf("made %+v", d)
	}
	f.mutating("b", "/configmaps", `reinvocationPolicy: IfNeeded, mutations: [{patchType: ApplyConfiguration,
  applyConfiguration: {expression: "Object{data: has(object.data.late) ? {'saw': 'late'} : {}}"}}]`, "")
	f.mutating("c", "/configmaps", `mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{data: {'late': 'yes'}}"}}]`, "")
	if data := dataOf(f.ask("POST "+configMaps, configMapText("one", "a", "b"))); data["saw"] != "late" || data["late"] != "yes" {
		t.Errorf("made %v", data)
	}
}

func TestPoliciesAndCustomResources(t *testing.T) {
	s := seaOf(t)
	s.define(boats)
	s.mutating("a", "sea.example.com/boats", `mutations: [{patchType: ApplyConfiguration, applyConfiguration: {expression: "Object{spec: Object.spec{oars: 1}}"}}]`, "")
	s.validating("b", "sea.example.com/boats", `validations: [{expression: "object.spec.kind != 'canoe'", message: "no canoes"}]`, ", validationActions: [Deny]")
	const at = "/apis/sea.example.com/v1/namespaces/default/boats"
	s.put(at, `{apiVersion: sea.example.com/v1, kind: Boat, metadata: {name: one}, spec: {kind: skiff}}`).mustSay(http.StatusCreated, `"oars":1`)
	s.put(at, `{apiVersion: sea.example.com/v1, kind: Boat, metadata: {name: two}, spec: {kind: canoe}}`).mustSay(http.StatusUnprocessableEntity, "no canoes")
}
