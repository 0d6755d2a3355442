package fairness

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

func limited(name string, shares, lendable int32, queuing *flowcontrolv1.QueuingConfiguration) *flowcontrolv1.PriorityLevelConfiguration {
	response := flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject}
	if queuing != nil {
		response = flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeQueue, Queuing: queuing}
	}
	return &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
		Type:    flowcontrolv1.PriorityLevelEnablementLimited,
		Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{NominalConcurrencyShares: &shares, LendablePercent: &lendable, LimitResponse: response},
	}}
}

// to makes a schema that sends a group to a level, by user.
func to(level string) *flowcontrolv1.FlowSchema {
	return &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: level}, Spec: flowcontrolv1.FlowSchemaSpec{
		PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: level},
		DistinguisherMethod:        &flowcontrolv1.FlowDistinguisherMethod{Type: flowcontrolv1.FlowDistinguisherMethodByUserType},
		Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
			Subjects:         []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindGroup, Group: &flowcontrolv1.GroupSubject{Name: level}}},
			NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}}},
		}},
	}}
}

func request(level, name string) *authorizer.AttributesRecord {
	return &authorizer.AttributesRecord{User: &user.DefaultInfo{Name: name, Groups: []string{level}}, Verb: "get", Path: "/x"}
}

func one() int { return 1 }

func (c *Controller) mustEnter(t *testing.T, level string) *Pass {
	t.Helper()
	p, err := c.Enter(t.Context(), request(level, "u"), one, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func refused(t *testing.T, err error, reason string) {
	t.Helper()
	var r *Refused
	if !errors.As(err, &r) || r.Reason != reason {
		t.Errorf("got %v, want a refusal for %s", err, reason)
	}
}

func TestSeatsAreBorrowedAndGivenBack(t *testing.T) {
	c := New(Config{Seats: 10})
	c.replan([]*flowcontrolv1.FlowSchema{to("a"), to("b")}, []*flowcontrolv1.PriorityLevelConfiguration{limited("a", 50, 0, nil), limited("b", 50, 40, nil)})
	var held []*Pass
	for range 7 { // five of its own, two of b's
		held = append(held, c.mustEnter(t, "a"))
	}
	_, err := c.Enter(t.Context(), request("a", "u"), one, time.Minute)
	refused(t, err, "concurrency-limit")
	for range 5 { // b's own are b's
		held = append(held, c.mustEnter(t, "b"))
	}
	for _, p := range held {
		p.Done()
	}
	for name, l := range c.levels {
		if l.inUse != 0 || l.waiting != 0 {
			t.Errorf("level %s is left with %d seats in use and %d waiting", name, l.inUse, l.waiting)
		}
	}
}

func TestALoudFlowDoesNotStarveAQuietOne(t *testing.T) {
	c := New(Config{Seats: 1})
	c.replan([]*flowcontrolv1.FlowSchema{to("a")}, []*flowcontrolv1.PriorityLevelConfiguration{limited("a", 1, 0, &flowcontrolv1.QueuingConfiguration{Queues: 64, HandSize: 4, QueueLengthLimit: 50})})
	holder := c.mustEnter(t, "a")
	served := make(chan string, 100)
	join := func(name string) {
		c.mu.Lock()
		before := c.levels["a"].waiting
		c.mu.Unlock()
		go func() {
			p, err := c.Enter(context.Background(), request("a", name), one, time.Minute)
			if err == nil {
				served <- name
				p.Done()
			}
		}()
		for waiting := before; waiting == before; time.Sleep(time.Millisecond) {
			c.mu.Lock()
			waiting = c.levels["a"].waiting
			c.mu.Unlock()
		}
	}
	for range 40 {
		join("loud")
	}
	join("quiet")
	holder.Done()
	place := 0
	for i := range 41 {
		if <-served == "quiet" {
			place = i
		}
	}
	if place > 10 { // the loud flow has four queues, so the quiet one is among the first handful
		t.Errorf("the quiet request was number %d of 41", place+1)
	}
}

func TestWaitingEnds(t *testing.T) {
	c := New(Config{Seats: 1})
	c.replan([]*flowcontrolv1.FlowSchema{to("a")}, []*flowcontrolv1.PriorityLevelConfiguration{limited("a", 1, 0, &flowcontrolv1.QueuingConfiguration{Queues: 1, HandSize: 1, QueueLengthLimit: 1})})
	holder := c.mustEnter(t, "a")
	_, err := c.Enter(t.Context(), request("a", "u"), one, time.Millisecond)
	refused(t, err, "time-out")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = c.Enter(gone, request("a", "u"), one, time.Minute)
	refused(t, err, "cancelled")
	holder.Done()
	c.mustEnter(t, "a").Done()
}

func TestMatching(t *testing.T) {
	c := New(Config{})
	c.replan(append(bootstrap.MandatoryFlowSchemas[:2:2], bootstrap.SuggestedFlowSchemas...),
		append(bootstrap.MandatoryPriorityLevelConfigurations[:2:2], bootstrap.SuggestedPriorityLevelConfigurations...))
	resource := func(u *user.DefaultInfo, verb, group, plural, ns string) *authorizer.AttributesRecord {
		u.Groups = append(u.Groups, user.AllAuthenticated)
		return &authorizer.AttributesRecord{User: u, Verb: verb, APIGroup: group, Resource: plural, Namespace: ns, ResourceRequest: true}
	}
	for _, x := range []struct {
		at   *authorizer.AttributesRecord
		want string
	}{
		{resource(&user.DefaultInfo{Name: "root", Groups: []string{"system:masters"}}, "get", "", "pods", "default"), "exempt"},
		{resource(&user.DefaultInfo{Name: "system:node:n", Groups: []string{"system:nodes"}}, "update", "coordination.k8s.io", "leases", "kube-node-lease"), "system-node-high"},
		{resource(&user.DefaultInfo{Name: "system:node:n", Groups: []string{"system:nodes"}}, "get", "", "pods", "default"), "system-nodes"},
		{resource(&user.DefaultInfo{Name: "system:serviceaccount:kube-system:x", Groups: []string{"system:serviceaccounts", "system:serviceaccounts:kube-system"}}, "list", "", "pods", ""), "kube-system-service-accounts"},
		{resource(&user.DefaultInfo{Name: "system:serviceaccount:a:x", Groups: []string{"system:serviceaccounts"}}, "list", "", "pods", ""), "service-accounts"},
		{resource(&user.DefaultInfo{Name: "alice"}, "list", "", "pods", "a"), "global-default"},
		{&authorizer.AttributesRecord{User: &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}, Verb: "get", Path: "/readyz"}, "probes"},
	} {
		if s := c.match(x.at); s == nil || s.name != x.want {
			t.Errorf("%s of %s %s: got %v, want %s", x.at.User.GetName(), x.at.Verb, x.at.Resource, s, x.want)
		}
	}
}

func BenchmarkEnter(b *testing.B) {
	c := New(Config{})
	c.replan(append(bootstrap.MandatoryFlowSchemas[:2:2], bootstrap.SuggestedFlowSchemas...),
		append(bootstrap.MandatoryPriorityLevelConfigurations[:2:2], bootstrap.SuggestedPriorityLevelConfigurations...))
	at := &authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "alice", Groups: []string{user.AllAuthenticated}}, Verb: "get", Resource: "pods", Namespace: "a", ResourceRequest: true}
	b.ReportAllocs()
	for b.Loop() {
		p, err := c.Enter(b.Context(), at, one, time.Second)
		if err != nil {
			b.Fatal(err)
		}
		p.Done()
	}
}

// TestDump: who waits and who has a seat is in the rows, and gone from them afterwards.
func TestDump(t *testing.T) {
	c := New(Config{Seats: 2})
	c.replan([]*flowcontrolv1.FlowSchema{to("a")}, []*flowcontrolv1.PriorityLevelConfiguration{
		limited("a", 1, 0, &flowcontrolv1.QueuingConfiguration{Queues: 1, HandSize: 1, QueueLengthLimit: 2}), limited("idle", 1, 0, nil),
	})
	first := c.mustEnter(t, "a")
	second := make(chan *Pass, 1)
	go func() {
		p, err := c.Enter(context.Background(), request("a", "later"), one, time.Minute)
		if err != nil {
			t.Error(err)
		}
		second <- p
	}()
	dump := func(name string) string {
		m := http.NewServeMux()
		c.Install(m)
		w := httptest.NewRecorder()
		m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/debug/api_priority_and_fairness/"+name, nil))
		return strings.ReplaceAll(w.Body.String(), " ", "")
	}
	contains := func(name, want string) {
		t.Helper()
		var got string
		for patience := time.Now().Add(time.Minute); time.Now().Before(patience); time.Sleep(time.Millisecond) {
			if got = dump(name); regexp.MustCompile("(?m)" + want).MatchString(got) {
				return
			}
		}
		t.Errorf("%s has no line %s:\n%s", name, want, got)
	}
	const then = `20\d\d-\S+Z`
	contains("dump_priority_levels", `^a,1,false,false,1,1,1,0,0,0$`)
	contains("dump_priority_levels", `^idle,0,true,false,0,0,0,0,0,0$`)
	contains("dump_queues", `^a,0,1,0,0,0.00000000ss,1,1,1.00000000ss$`)
	contains("dump_requests", `^a,a,0,0,later,`+then+`,1,0,0s,0001-01-01T00:00:00Z$`)
	contains("dump_requests?includeRequestDetails=1", `^a,a,-1,-1,u,`+then+`,1,0,0s,`+then+`,u,get,/x,,,,,$`)
	first.Done()
	p := <-second
	contains("dump_priority_levels", `^a,0,false,false,0,1,2,0,0,0$`)
	contains("dump_queues", `^a,0,0,1,1,1.00000000ss,0,0,0.00000000ss$`)
	contains("dump_requests", `^a,a,0,-1,later,`)
	p.Done()
	if got := strings.Count(dump("dump_requests"), "\n"); got != 1 {
		t.Errorf("%d lines when nobody asks", got)
	}
}
