package client

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/api"
)

// events writes what the recorders of one client record. Recording never blocks its caller; client-go's broadcaster counts what repeats.
type events struct {
	client crclient.Writer
	log    *slog.Logger

	mu          sync.Mutex
	broadcaster record.EventBroadcaster // nil until somebody records, and after stop
	stopped     bool
}

func newEvents(w crclient.Writer, log *slog.Logger) *events { return &events{client: w, log: log} }

func (e *events) recorder(component string) record.EventRecorder {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broadcaster == nil {
		e.broadcaster = record.NewBroadcaster()
		if !e.stopped {
			e.broadcaster.StartRecordingToSink(sink{e.client})
		}
	}
	return e.broadcaster.NewRecorder(api.Scheme(), corev1.EventSource{Component: component})
}

func (e *events) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = true
	if e.broadcaster != nil {
		e.broadcaster.Shutdown()
	}
}

// sink is the API as client-go's broadcaster sees it.
type sink struct{ client crclient.Writer }

func (s sink) Create(ev *corev1.Event) (*corev1.Event, error) {
	return ev, s.client.Create(context.Background(), ev)
}

func (s sink) Update(ev *corev1.Event) (*corev1.Event, error) {
	return ev, s.client.Update(context.Background(), ev)
}

func (s sink) Patch(old *corev1.Event, data []byte) (*corev1.Event, error) {
	if !json.Valid(data) {
		return nil, errors.New("an event's patch is not JSON")
	}
	out := &corev1.Event{}
	out.Namespace, out.Name = old.Namespace, old.Name
	return out, s.client.Patch(context.Background(), out, crclient.RawPatch(types.StrategicMergePatchType, data))
}
