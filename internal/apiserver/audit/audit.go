// Package audit records requests by policy: who asked for what, when, and what became of it. The policy, its levels, stages and rules, the events' format
// and the back ends are upstream's own library; here is how a request passes through them.
//
// Its invariant: with no policy there is no Log, and a request without one costs nothing. Package apiserver calls it.
package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	internal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"
	pluginlog "k8s.io/apiserver/plugin/pkg/audit/log"
	"k8s.io/apiserver/plugin/pkg/audit/truncate"
	"k8s.io/apiserver/plugin/pkg/audit/webhook"
)

// Settings of the audit log. The zero value records nothing.
type Settings struct {
	PolicyFile string // audit.k8s.io/v1 Policy
	// Path of the log, "-" for standard output. It is rotated at MaxSize megabytes; MaxAge days and MaxBackups files are kept, 0 for all.
	Path                        string
	MaxSize, MaxAge, MaxBackups int
	WebhookConfig               string // kubeconfig of a service that takes events
}

// Log takes events. It is safe for concurrent use.
type Log struct {
	rules audit.PolicyRuleEvaluator
	sink  audit.Backend
	file  io.Closer
}

// The webhook's events are sent together: as upstream, 400 at most, and none waits longer than half a minute.
var batches = buffered.BatchConfig{BufferSize: 10000, MaxBatchSize: 400, MaxBatchWait: 30 * time.Second, ThrottleEnable: true, ThrottleQPS: 10, ThrottleBurst: 15, AsyncDelegate: true}

// Events of a batch are cut when they are larger.
var largest = truncate.Config{MaxBatchSize: 10 << 20, MaxEventSize: 100 << 10}

// Open reads the policy and opens the back ends; nil if there is no policy.
func Open(s Settings) (*Log, error) {
	if s.PolicyFile == "" {
		if s.Path != "" || s.WebhookConfig != "" {
			return nil, errors.New("audit-policy-file: is missing; without a policy nothing is recorded")
		}
		return nil, nil
	}
	if s.Path == "" && s.WebhookConfig == "" {
		return nil, errors.New("audit-log-path: is missing, and so is audit-webhook-config-file; one of them takes what the policy records")
	}
	p, err := policy.LoadPolicyFromFile(s.PolicyFile)
	if err != nil {
		return nil, fmt.Errorf("audit-policy-file: %w", err)
	}
	l := &Log{rules: policy.NewPolicyRuleEvaluator(p)}
	var all []audit.Backend
	if s.Path != "" {
		out, err := s.open(l)
		if err != nil {
			return nil, err
		}
		all = append(all, pluginlog.NewBackend(out, pluginlog.FormatJson, auditv1.SchemeGroupVersion))
	}
	if s.WebhookConfig != "" {
		hook, err := webhook.NewBackend(s.WebhookConfig, auditv1.SchemeGroupVersion, webhookutil.DefaultRetryBackoffWithInitialDelay(webhook.DefaultInitialBackoffDelay), nil)
		if err != nil {
			return nil, fmt.Errorf("audit-webhook-config-file: %s: %w", s.WebhookConfig, err)
		}
		all = append(all, buffered.NewBackend(truncate.NewBackend(hook, largest, auditv1.SchemeGroupVersion), batches))
	}
	l.sink = audit.Union(all...)
	return l, nil
}

func (s *Settings) open(l *Log) (io.Writer, error) {
	if s.Path == "-" {
		return os.Stdout, nil
	}
	f, err := os.OpenFile(s.Path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit-log-path: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	out := &lumberjack.Logger{Filename: s.Path, MaxSize: s.MaxSize, MaxAge: s.MaxAge, MaxBackups: s.MaxBackups}
	l.file = out
	return out, nil
}

// Run delivers events until ctx ends, then what is left.
func (l *Log) Run(ctx context.Context) error {
	stop := make(chan struct{})
	if err := l.sink.Run(stop); err != nil {
		close(stop)
		return fmt.Errorf("start the audit log: %w", err)
	}
	<-ctx.Done()
	close(stop)
	l.sink.Shutdown()
	if l.file != nil {
		return l.file.Close()
	}
	return nil
}

// Begin looks what the policy says of a request. Without anything to record it gives the request as it was, and nil.
func (l *Log) Begin(r *http.Request, id types.UID, at authorizer.Attributes, received time.Time) (*http.Request, *Record) {
	rules := l.rules.EvaluatePolicyRule(at)
	if rules.Level == internal.LevelNone {
		return r, nil
	}
	ctx := audit.WithAuditContext(r.Context())
	c := audit.AuditContextFrom(ctx)
	if err := c.Init(rules, l.sink); err != nil {
		return r, nil // the context is new
	}
	audit.WithAuditID(ctx, id)
	audit.LogRequestMetadata(ctx, r, received, at)
	rec := &Record{ctx: ctx, c: c}
	c.ProcessEventStage(ctx, internal.StageRequestReceived)
	return r.WithContext(ctx), rec
}

// Record is one request being recorded.
type Record struct {
	ctx     context.Context
	c       *audit.AuditContext
	started sync.Once
}

// Started says that the answer to a long request has begun.
func (r *Record) Started(code int) {
	if r == nil {
		return
	}
	r.started.Do(func() {
		r.c.SetEventResponseStatusCode(int32(code)) //nolint:gosec // an HTTP status
		r.c.ProcessEventStage(r.ctx, internal.StageResponseStarted)
	})
}

// Done says how the request ended.
func (r *Record) Done(code int) {
	if r == nil {
		return
	}
	if code == 0 {
		r.c.SetEventResponseStatus(&metav1.Status{Code: http.StatusOK, Status: metav1.StatusSuccess, Message: "Connection closed early"})
	} else {
		r.c.SetEventResponseStatusCode(int32(code)) //nolint:gosec // an HTTP status
	}
	r.c.ProcessEventStage(r.ctx, internal.StageResponseComplete)
}

// Panicked says that the request was ended by a mistake of the server's.
func (r *Record) Panicked(why any) {
	if r == nil {
		return
	}
	r.c.SetEventResponseStatus(&metav1.Status{Code: http.StatusInternalServerError, Status: metav1.StatusFailure, Reason: metav1.StatusReasonInternalError,
		Message: fmt.Sprintf("the server panicked: %v", why)})
	r.c.ProcessEventStage(r.ctx, internal.StagePanic)
}
