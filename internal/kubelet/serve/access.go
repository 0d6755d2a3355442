package serve

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// How long the API server's answers hold, as in upstream's kubelet.
const (
	identityLife = 2 * time.Minute
	allowedLife  = 5 * time.Minute
	deniedLife   = 30 * time.Second
	unknownLife  = 10 * time.Second
	mostAnswers  = 1000
)

// access asks the API server who a caller is, by a TokenReview, and what it may do with this node, by SubjectAccessReviews, so that who scrapes nodes'
// figures does so by its ServiceAccount's token and RBAC. The API server itself and administrators, known by their certificates, are let in unasked: they are who
// looks at a node when the API server does not answer.
type access struct {
	node  string
	api   crclient.Writer
	now   func() time.Time
	mu    sync.Mutex
	users map[[sha256.Size]byte]answer[*authenticationv1.UserInfo] // by token; nil: nobody's
	may   map[string]answer[bool]                                  // by user, verb and subresource
}

// answer of the API server, and until when it holds.
type answer[V any] struct {
	value V
	until time.Time
}

func newAccess(node string, api crclient.Writer) *access {
	return &access{
		node: node, api: api, now: time.Now,
		users: map[[sha256.Size]byte]answer[*authenticationv1.UserInfo]{}, may: map[string]answer[bool]{},
	}
}

// check returns nil if the request may be answered.
func (a *access) check(r *http.Request) *refusal {
	who := certified(r)
	if who != nil && (slices.Contains(who.Groups, "system:masters") || who.Username == "kube-apiserver-kubelet-client") {
		return nil
	}
	if who == nil {
		var err error
		if who, err = a.bearer(r); err != nil || who == nil {
			return &refusal{http.StatusUnauthorized, "Unauthorized"}
		}
	}
	verb, subresources := asks(r)
	for _, sub := range subresources {
		allowed, err := a.allowed(r.Context(), who, verb, sub)
		if err != nil {
			return &refusal{http.StatusInternalServerError, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=nodes, subresource(s)=%v): %v", who.Username, verb, subresources, err)}
		}
		if allowed {
			return nil
		}
	}
	return &refusal{http.StatusForbidden, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=%v)", who.Username, verb, subresources)}
}

// certified is the owner of the request's client certificate; nil if it has none.
func certified(r *http.Request) *authenticationv1.UserInfo {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	subject := r.TLS.VerifiedChains[0][0].Subject
	return &authenticationv1.UserInfo{Username: subject.CommonName, Groups: subject.Organization}
}

// bearer is the owner of the request's token; nil if it has none, or it is nobody's.
func (a *access) bearer(r *http.Request) (*authenticationv1.UserInfo, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || token == "" || a.api == nil {
		return nil, nil
	}
	key := sha256.Sum256([]byte(token))
	if known, ok := remembered(a, a.users, key); ok {
		return known, nil
	}
	review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
	if err := a.api.Create(r.Context(), review); err != nil {
		return nil, err
	}
	if !review.Status.Authenticated {
		remember(a, a.users, key, nil, unknownLife)
		return nil, nil
	}
	who := &review.Status.User
	remember(a, a.users, key, who, identityLife)
	return who, nil
}

func (a *access) allowed(ctx context.Context, who *authenticationv1.UserInfo, verb, sub string) (bool, error) {
	if a.api == nil {
		return false, nil
	}
	key := fmt.Sprintf("%q %s %s", who, verb, sub)
	if yes, ok := remembered(a, a.may, key); ok {
		return yes, nil
	}
	groups := who.Groups
	if !slices.Contains(groups, "system:authenticated") {
		groups = append(slices.Clone(groups), "system:authenticated")
	}
	extra := map[string]authorizationv1.ExtraValue{}
	for k, v := range who.Extra {
		extra[k] = authorizationv1.ExtraValue(v)
	}
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: who.Username, UID: who.UID, Groups: groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Version: "v1", Resource: "nodes", Subresource: sub, Name: a.node},
	}}
	if err := a.api.Create(ctx, review); err != nil {
		return false, err
	}
	life := deniedLife
	if review.Status.Allowed {
		life = allowedLife
	}
	remember(a, a.may, key, review.Status.Allowed, life)
	return review.Status.Allowed, nil
}

func remembered[K comparable, V any](a *access, from map[K]answer[V], key K) (value V, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := from[key]
	if !ok || a.now().After(known.until) {
		return value, false
	}
	return known.value, true
}

// remember keeps an answer. Past a number that no cluster's scrapers reach, all are forgotten rather than memory be given to whoever tries tokens.
func remember[K comparable, V any](a *access, in map[K]answer[V], key K, value V, life time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(in) >= mostAnswers {
		clear(in)
	}
	in[key] = answer[V]{value, a.now().Add(life)}
}

// asks says which verb on which subresources of the node a request needs, one of them, as upstream's kubelet maps them. What runs something in a container
// needs create whichever method its stream is opened with: a GET that becomes a WebSocket reads nothing.
func asks(r *http.Request) (verb string, subresources []string) {
	verbs := map[string]string{http.MethodPost: "create", http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}
	verb = verbs[r.Method]
	switch first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); first {
	case "stats", "metrics":
		return verb, []string{first}
	case "logs":
		if r.URL.Path == "/logs/search" { // what the pods of all namespaces wrote, which is no log of the host
			return verb, []string{"proxy"}
		}
		return verb, []string{"log"}
	case "healthz", "pods":
		return verb, []string{first, "proxy"}
	case "runningpods":
		return verb, []string{"pods", "proxy"}
	case "exec", "attach", "portForward":
		return "create", []string{"proxy"}
	}
	return verb, []string{"proxy"}
}
