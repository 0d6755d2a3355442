package apiserver_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"

	"skiff.dev/skiff/internal/client"
	"skiff.dev/skiff/internal/controller/harness"
	"skiff.dev/skiff/internal/controller/policystatus"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// A policy's status says, once a generation, which expressions cannot work with the kinds that are matched: built in, custom, and parameters.
func TestPoliciesAreTypeChecked(t *testing.T) {
	s := seaOf(t)
	s.define(boats)
	log := slog.New(slog.DiscardHandler)
	c := client.Local(s.Registry.Registry, registrytest.Admin, log)
	run, cancel := context.WithCancel(context.Background())
	ran, worked := make(chan error, 1), make(chan error, 1)
	go func() { ran <- c.Run(run) }()
	loop := policystatus.New(c, func(p *admissionv1.ValidatingAdmissionPolicy) ([]admissionv1.ExpressionWarning, error) {
		return s.server.CheckTypes(p), nil
	})
	loop.Name = "policies"
	go func() { worked <- harness.Run(run, loop, c, harness.NewMetrics(nil), log, func() {}) }()
	t.Cleanup(func() { cancel(); <-worked; <-ran })

	at := registration + "validatingadmissionpolicies"
	status := func(name string, generation int64) (out admissionv1.ValidatingAdmissionPolicyStatus) {
		s.eventually(name+" to be checked", func() bool {
			var p admissionv1.ValidatingAdmissionPolicy
			s.ask("GET "+at+"/"+name, "").ok(200).into(&p)
			out = p.Status
			return out.ObservedGeneration == generation
		})
		if out.TypeChecking == nil {
			t.Fatalf("%s: %+v", name, out)
		}
		return out
	}
	says := func(got admissionv1.ExpressionWarning, field string, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if got.FieldRef != field || !strings.Contains(got.Warning, text) {
				t.Errorf("%+v: want %s: %s", got, field, text)
			}
		}
	}
	policy := func(name, group, version, resource, spec string) answer {
		return s.put(at, `{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: `+name+`}, spec: {matchConstraints: {
  resourceRules: [{operations: [CREATE], apiGroups: ["`+group+`"], apiVersions: [`+version+`], resources: [`+resource+`]}]}, `+spec+`}}`)
	}
	policy("good", "apps", "v1", "deployments", `variables: [{name: count, expression: "object.spec.replicas"}], validations: [
  {expression: "variables.count < 5 && object.spec.template.spec.containers.all(c, c.image != '' && (!has(c.resources.limits) || 'cpu' in c.resources.limits))"},
  {expression: "object.spec.strategy.rollingUpdate.maxUnavailable == 1 || object.metadata.labels.app == 'a'"}]`).ok(201)
	if got := status("good", 1).TypeChecking.ExpressionWarnings; len(got) != 0 {
		t.Errorf("nothing is wrong: %v", got)
	}
	policy("bad", "apps", "v1", "deployments, statefulsets", `validations: [{expression: "object.spec.replicas > 'many'"},
  {expression: "object.spec.strategy.type == 'Recreate'", messageExpression: "'replicas: ' + object.spec.replicas"}]`).ok(201)
	got := status("bad", 1).TypeChecking.ExpressionWarnings
	if len(got) != 3 {
		t.Fatalf("%+v", got)
	}
	says(got[0], "spec.validations[0].expression", "apps/v1, Kind=Deployment: ", "apps/v1, Kind=StatefulSet: ", "found no matching overload for '_>_' applied to '(int, string)'")
	says(got[1], "spec.validations[1].expression", "apps/v1, Kind=StatefulSet: ", "undefined field 'strategy'")
	says(got[2], "spec.validations[1].messageExpression", "found no matching overload for '_+_' applied to '(string, int)'")
	s.ask("PATCH "+at+"/bad", `{"spec":{"validations":[{"expression":"object.spec.replicas > 1"}]}}`, "Content-Type", "application/merge-patch+json").ok(200)
	if got := status("bad", 2).TypeChecking.ExpressionWarnings; len(got) != 0 {
		t.Errorf("mended: %v", got)
	}
	policy("boats", "sea.example.com", "v1", "boats", `paramKind: {apiVersion: v1, kind: ConfigMap}, validations: [
  {expression: "object.spec.kind == params.data.kind"}, {expression: "object.spec.sails > 1"}, {expression: "params.spec == ''"}]`).ok(201)
	got = status("boats", 1).TypeChecking.ExpressionWarnings
	if len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	says(got[0], "spec.validations[1].expression", "sea.example.com/v1, Kind=Boat: ", "undefined field 'sails'")
	says(got[1], "spec.validations[2].expression", "undefined field 'spec'")
	policy("all", "*", `"*"`, `"*"`, `validations: [{expression: "object.spec.sails > 1"}]`).ok(201)
	if got := status("all", 1).TypeChecking.ExpressionWarnings; len(got) != 0 {
		t.Errorf("of everything nothing can be said: %v", got)
	}
}
