package apiserver_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const flows = "/apis/flowcontrol.apiserver.k8s.io/v1/"

func TestFairness(t *testing.T) {
	f := start(t)
	f.soon(f.admin, "GET "+flows+"flowschemas/catch-all", 200)
	f.soon(f.admin, "GET "+flows+"prioritylevelconfigurations/workload-high", 200)
	t.Run("classification", func(t *testing.T) {
		var exempt flowcontrolv1.FlowSchema
		f.ask("GET "+flows+"flowschemas/exempt", "").ok(200).into(&exempt)
		var got answer
		for patience := time.Now().Add(time.Minute); time.Now().Before(patience); { // until the plan is made of the objects
			if got = f.ask("GET /version", ""); got.header.Get("X-Kubernetes-Pf-Flowschema-Uid") != "" {
				break
			}
		}
		if got.header.Get("X-Kubernetes-Pf-Flowschema-Uid") != string(exempt.UID) || got.header.Get("X-Kubernetes-Pf-Prioritylevel-Uid") == "" {
			t.Errorf("%v, want %s", got.header, exempt.UID)
		}
	})
	t.Run("a level that lets nobody through", func(t *testing.T) {
		f.ask("POST "+flows+"prioritylevelconfigurations", `{"metadata":{"name":"shut"},"spec":{"type":"Limited","limited":{"nominalConcurrencyShares":0,
			"borrowingLimitPercent":0,"limitResponse":{"type":"Reject"}}}}`).ok(201)
		f.ask("POST "+flows+"flowschemas", `{"metadata":{"name":"mallory"},"spec":{"priorityLevelConfiguration":{"name":"shut"},"matchingPrecedence":50,
			"rules":[{"subjects":[{"kind":"User","user":{"name":"mallory"}}],"nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["/version"]}]}]}}`).ok(201)
		mallory := f.client("mallory")
		f.soon(mallory, "GET /version", 429)
		got := f.askAs(mallory, "GET /version", "")
		if st := got.status(); st.Reason != metav1.StatusReasonTooManyRequests || got.header.Get("Retry-After") != "1" {
			t.Errorf("%+v %v", st, got.header)
		}
		f.askAs(f.client("alice"), "GET /version", "").ok(200)
		if m := f.ask("GET /metrics", "").ok(200); !bytes.Contains(m.body, []byte(`apiserver_flowcontrol_rejected_requests_total{flow_schema="mallory",priority_level="shut",reason="concurrency-limit"}`)) {
			t.Error("the refusal is not counted")
		}
		var s flowcontrolv1.FlowSchema
		for patience := time.Now().Add(time.Minute); len(s.Status.Conditions) == 0 && time.Now().Before(patience); { // the status follows
			f.ask("GET "+flows+"flowschemas/mallory", "").ok(200).into(&s)
		}
		if c := s.Status.Conditions; len(c) != 1 || c[0].Status != "False" || c[0].Reason != "Found" {
			t.Errorf("%+v", c)
		}
		f.ask("DELETE "+flows+"prioritylevelconfigurations/shut", "").ok(200)
		f.soon(mallory, "GET /version", 200)
	})
	t.Run("figures", func(t *testing.T) {
		text := string(f.ask("GET /metrics", "").ok(200).body)
		for _, want := range []string{
			`apiserver_flowcontrol_nominal_limit_seats{priority_level="workload-high"} `, `apiserver_flowcontrol_current_limit_seats{priority_level="workload-high"} `,
			`apiserver_flowcontrol_current_executing_requests{flow_schema="exempt",priority_level="exempt"} 1`,
			`apiserver_flowcontrol_current_inqueue_requests{flow_schema="catch-all",priority_level="catch-all"} 0`,
			`apiserver_flowcontrol_request_wait_duration_seconds_count{execute="true",flow_schema="exempt",priority_level="exempt"} `,
			`apiserver_flowcontrol_request_execution_seconds_count{flow_schema="exempt",priority_level="exempt",type="regular"} `,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("/metrics has no %s", want)
			}
		}
	})
	t.Run("mandatory objects", func(t *testing.T) {
		f.ask("DELETE "+flows+"flowschemas/catch-all", "").ok(200)
		f.soon(f.admin, "GET "+flows+"flowschemas/catch-all", 200)
		st := f.ask("PATCH "+flows+"flowschemas/catch-all", `{"spec":{"matchingPrecedence":5}}`, "Content-Type", "application/merge-patch+json").ok(422).status()
		if !strings.Contains(st.Message, "must equal the fixed value") {
			t.Error(st.Message)
		}
	})
	t.Run("validation", func(t *testing.T) {
		for want, body := range map[string]string{
			"spec.matchingPrecedence":               `"spec":{"priorityLevelConfiguration":{"name":"x"},"matchingPrecedence":10001}`,
			"spec.priorityLevelConfiguration":       `"spec":{"matchingPrecedence":5}`,
			"spec.rules[0].subjects":                `"spec":{"priorityLevelConfiguration":{"name":"x"},"rules":[{"subjects":[],"nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["*"]}]}]}`,
			"spec.rules[0].subjects[0].user":        `"spec":{"priorityLevelConfiguration":{"name":"x"},"rules":[{"subjects":[{"kind":"User"}],"nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["*"]}]}]}`,
			"spec.rules[0].resourceRules[0].namesp": `"spec":{"priorityLevelConfiguration":{"name":"x"},"rules":[{"subjects":[{"kind":"User","user":{"name":"*"}}],"resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}]}]}`,
		} {
			if st := f.ask("POST "+flows+"flowschemas", `{"metadata":{"name":"bad"},`+body+`}`).ok(422).status(); !strings.Contains(st.Message, want) {
				t.Errorf("%s lacks %s", st.Message, want)
			}
		}
		st := f.ask("POST "+flows+"prioritylevelconfigurations", `{"metadata":{"name":"bad"},"spec":{"type":"Limited","limited":{"limitResponse":{"type":"Queue","queuing":{"queues":2,"handSize":3}}}}}`).ok(422).status()
		if !strings.Contains(st.Message, "should not be greater than queues (2)") {
			t.Error(st.Message)
		}
	})
}
