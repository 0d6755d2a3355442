package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"

	"skiff.dev/skiff/internal/apiserver/service"
	"skiff.dev/skiff/internal/registry"
)

// A server that answers is asked again after a while, one that doesn't sooner, but less and less often.
const (
	lookAgain     = 30 * time.Second
	firstRetry    = 250 * time.Millisecond
	lastRetry     = 10 * time.Second
	probePatience = 5 * time.Second
	largestList   = 8 << 20
)

var (
	self   = &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.SystemPrivilegedGroup}}
	prober = &user.DefaultInfo{Name: "system:kube-aggregator", Groups: []string{user.SystemPrivilegedGroup}}
)

// state is what was found when a remote was last asked.
type state struct {
	known     bool
	condition apiregistrationv1.APIServiceCondition
	resources []apidiscoveryv2.APIResourceDiscovery
}

// watchOver asks a remote, again and again, whether it is there, and tells on its APIService.
func (a *Aggregator) watchOver(ctx context.Context, r *Remote, s *apiregistrationv1.APIService) {
	defer close(r.ended)
	told, retry := helper.GetAPIServiceConditionByType(s, apiregistrationv1.Available), firstRetry
	for ctx.Err() == nil {
		list, err := a.probe(ctx, r)
		if ctx.Err() != nil {
			return
		}
		next := conditionOf(err)
		r.set(next, list)
		if told == nil || told.Status != next.Status || told.Reason != next.Reason || told.Message != next.Message {
			if err := a.tell(ctx, r.name, next); err != nil {
				a.cfg.Log.Warn("cannot note whether an API service is available", "name", r.name, "err", err)
			} else {
				told = &next
			}
		}
		wait := lookAgain
		if err != nil {
			wait, retry = retry, min(2*retry, lastRetry)
		} else {
			retry = firstRetry
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

func (r *Remote) set(c apiregistrationv1.APIServiceCondition, list []apidiscoveryv2.APIResourceDiscovery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.known, r.state.condition = true, c
	if list != nil {
		r.state.resources = list // what is not there now still has the resources that it had
	}
}

// conditionOf says in an APIService's terms what a probe found.
func conditionOf(err error) apiregistrationv1.APIServiceCondition {
	c := apiregistrationv1.APIServiceCondition{
		Type: apiregistrationv1.Available, Status: apiregistrationv1.ConditionTrue, Reason: "Passed", Message: "all checks passed", LastTransitionTime: metav1.Now(),
	}
	var fault *service.Fault
	switch {
	case errors.As(err, &fault):
		c.Status, c.Reason, c.Message = apiregistrationv1.ConditionFalse, fault.Reason, fault.Message
	case err != nil:
		c.Status, c.Reason, c.Message = apiregistrationv1.ConditionFalse, "FailedDiscoveryCheck", err.Error()
	}
	return c
}

// probe asks a remote for what it serves.
func (a *Aggregator) probe(ctx context.Context, r *Remote) ([]apidiscoveryv2.APIResourceDiscovery, error) {
	if _, err := service.Endpoints(ctx, a.cfg.Registry, r.ref); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	raw, err := r.fetch(ctx, "/"+r.Path(), "application/json")
	if err != nil {
		return nil, fmt.Errorf("failing or missing response from %s: %w", r.url("/"+r.Path()), err)
	}
	list := &metav1.APIResourceList{}
	if err := json.Unmarshal(raw, list); err != nil {
		return nil, fmt.Errorf("failing or missing response from %s: it is no list of resources: %w", r.url("/"+r.Path()), err)
	}
	return discovered(list, r.version), nil
}

func (r *Remote) url(path string) string {
	return fmt.Sprintf("https://%s:%d%s", r.ref.ServerName(), r.ref.Port, path)
}

// fetch gets a document of a remote, as this server.
func (r *Remote) fetch(ctx context.Context, path, accept string) ([]byte, error) {
	raw, status, err := r.send(ctx, prober, path, accept)
	if err == nil && status/100 != 2 {
		err = fmt.Errorf("bad status from %s: %d", path, status)
	}
	return raw, err
}

// Get a document of a remote as u. What the remote refuses it for is an API error.
func (r *Remote) Get(ctx context.Context, u user.Info, path string) ([]byte, error) {
	if why := r.unavailable(); why != "" {
		return nil, apierrors.NewServiceUnavailable("the API service " + r.name + " is not available: " + why)
	}
	raw, status, err := r.send(ctx, u, path, "application/json")
	if err != nil {
		return nil, apierrors.NewServiceUnavailable("error trying to reach service: " + err.Error())
	}
	if status/100 == 2 {
		return raw, nil
	}
	var said metav1.Status
	if json.Unmarshal(raw, &said) == nil && said.Kind == "Status" && said.Message != "" {
		return nil, &apierrors.StatusError{ErrStatus: said}
	}
	return nil, apierrors.NewGenericServerResponse(status, http.MethodGet, schema.GroupResource{Group: r.version.Group}, "", strings.TrimSpace(string(raw)), 0, true)
}

func (r *Remote) send(ctx context.Context, u user.Info, path, accept string) (body []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url(path), nil)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Accept", accept)
	speakFor(req.Header, u)
	resp, err := r.transport.RoundTrip(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, largestList))
	return body, resp.StatusCode, err
}

// tell writes a condition into an APIService's status.
func (a *Aggregator) tell(ctx context.Context, name string, c apiregistrationv1.APIServiceCondition) error {
	for {
		q := &registry.Request{Resource: a.row(), Name: name, User: self, UserAgent: "skiff"}
		found, err := a.cfg.Registry.Get(ctx, q, &metav1.GetOptions{})
		if err != nil {
			return ignoreNotFound(err)
		}
		next := found.Object.DeepCopyObject().(*apiregistrationv1.APIService)
		helper.SetAPIServiceCondition(next, c)
		q.Subresource = "status"
		_, err = a.cfg.Registry.Update(ctx, q, next, &metav1.UpdateOptions{})
		if !apierrors.IsConflict(err) {
			return ignoreNotFound(err)
		}
	}
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
