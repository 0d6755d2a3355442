package apiserver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/websocket"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/httpstream/wsstream"

	"skiff.dev/skiff/internal/histogram"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

// A watch that names no timeout ends after between one and two of these, so that not all clients come back at once.
const watchTimeout = 30 * time.Minute

// watchBatch is how many events are written between flushes, if as many are at hand.
const watchBatch = 256

func (s *Server) watch(w http.ResponseWriter, r *http.Request, q *registry.Request, p *passage) {
	o, err := parameters[metainternalversion.ListOptions](r)
	if err != nil {
		writeError(w, r, err)
		return
	}
	f, err := negotiateFor(r, q)
	if err != nil {
		writeError(w, r, err)
		return
	}
	if f.media == mediaYAML {
		f.media = mediaJSON
	}
	timeout := watchTimeout + rand.N(watchTimeout)
	if o.TimeoutSeconds != nil && *o.TimeoutSeconds > 0 {
		timeout = time.Duration(*o.TimeoutSeconds) * time.Second
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	events, err := s.reg.Watch(ctx, q, o)
	expired := apierrors.IsResourceExpired(err) // an event, as if it had happened a moment later
	if err != nil && !expired {
		writeError(w, r, err)
		return
	}
	if events != nil {
		defer events.Stop()
	}
	defer s.metrics.open(r, p.info)()
	sent := s.metrics.events.WithLabelValues(q.Resource.Group, q.Resource.Version, q.Resource.Plural)

	out := &watchWriter{r: r, f: f, q: q, fields: o.FieldSelector, listed: s.metrics.listing(r, p),
		sizes: s.metrics.eventSizes.WithLabelValues(q.Resource.Group, q.Resource.Version, q.Resource.Plural)}
	if wsstream.IsWebSocketRequest(r) {
		s.watchSocket(ctx, cancel, w, r, func(ctx context.Context, send func() error) { s.pass(ctx, events, err, out, sent, send) }, out)
		return
	}
	media := f.media
	if media == mediaProtobuf {
		media += ";stream=watch"
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	stalled := time.AfterFunc(s.cfg.Stall, func() { _ = flush.SetWriteDeadline(time.Now()) }) // which ends the write that waits
	stalled.Stop()
	send := func() error {
		stalled.Reset(s.cfg.Stall)
		defer stalled.Stop()
		if _, err := w.Write(out.buf); err != nil {
			return err
		}
		return flush.Flush()
	}
	s.pass(ctx, events, err, out, sent, send)
}

// pass sends events as they come, until there is an error; it may begin with one.
func (s *Server) pass(ctx context.Context, events *store.Watcher, err error, out *watchWriter, sent prometheus.Counter, send func() error) {
	for {
		if err == nil {
			var n int
			n, err = s.batch(ctx, events, out, send)
			sent.Add(float64(n))
		}
		if err == nil {
			err = s.flushes.wait(ctx)
		}
		switch {
		case err == nil:
			continue
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			out.last(events)
		case ctx.Err() == nil && !errors.Is(err, context.Canceled):
			_ = out.fail(err)
		}
		if len(out.buf) > 0 {
			_ = send()
		}
		return
	}
}

// watchSocket serves a watch over a WebSocket: each event is a message of text. The watch ends when the client goes.
func (s *Server) watchSocket(
	ctx context.Context, cancel func(), w http.ResponseWriter, r *http.Request, pass func(context.Context, func() error), out *watchWriter,
) {
	out.f.media = mediaJSON
	websocket.Server{
		// Who asks has signed in; the origin matters where cookies do.
		Handshake: func(c *websocket.Config, _ *http.Request) error {
			c.Protocol = c.Protocol[:min(1, len(c.Protocol))]
			return nil
		},
		Handler: func(conn *websocket.Conn) {
			defer conn.Close()
			go func() {
				defer cancel()
				wsstream.IgnoreReceives(conn, 0)
			}()
			pass(ctx, func() error {
				for line := range bytes.Lines(out.buf) {
					_ = conn.SetWriteDeadline(time.Now().Add(s.cfg.Stall))
					if err := websocket.Message.Send(conn, string(line)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}.ServeHTTP(w, r)
}

// batch waits for events, sends those that are at hand as one, and says how many. Buffers are borrowed: a watch that is quiet holds none.
func (s *Server) batch(ctx context.Context, events *store.Watcher, out *watchWriter, send func() error) (int, error) {
	some, err := events.Next(ctx, nil, watchBatch)
	if err != nil {
		return 0, err
	}
	defer store.Recycle(some)
	out.owes = true
	if some, err = out.q.SelectShown(ctx, out.fields, some); err != nil {
		return 0, err
	}
	out.buf = borrow()
	defer func() { giveBack(out.buf); out.buf = nil }()
	listed := false
	for i := range some {
		before := len(out.buf)
		if err := out.event(&some[i]); err != nil {
			s.log.Error("cannot encode an event", "resource", out.q.Resource.Plural, "err", err)
			return 0, context.Canceled
		}
		out.sizes.ObserveSize(int64(len(out.buf) - before))
		listed = listed || some[i].InitialEnd
		if len(out.buf) > batchBytes && i < len(some)-1 {
			if err := send(); err != nil {
				return 0, context.Canceled
			}
			out.buf = out.buf[:0]
		}
	}
	if err := send(); err != nil {
		return 0, context.Canceled
	}
	if out.owes = false; listed {
		out.listed()
	}
	return len(some), nil
}

// watchWriter encodes events into buf.
type watchWriter struct {
	r      *http.Request
	f      format
	q      *registry.Request
	fields fields.Selector
	buf    []byte
	headed bool   // a table's columns have been sent
	owes   bool   // events were taken and not sent
	listed func() // is called when everything there was has been sent
	sizes  *histogram.Histogram
}

var eventTypes = map[store.EventType]string{store.Added: "ADDED", store.Modified: "MODIFIED", store.Deleted: "DELETED", store.Bookmark: "BOOKMARK"}

func (w *watchWriter) event(e *store.Event) error {
	kind := eventTypes[e.Type]
	if e.Type == store.Bookmark {
		return w.bookmark(kind, e)
	}
	entry := e.Entry
	if w.q.Resource.Custom != nil || w.q.Served != nil {
		shown, err := w.q.Show(w.r.Context(), []*store.Entry{entry})
		if err != nil {
			return err
		}
		entry = shown[0]
	}
	if w.f.as == "" {
		body, err := encodeEntry(entry, w.f.media)
		if err != nil {
			return err
		}
		w.frame(kind, body)
		return nil
	}
	var shaped runtime.Object
	var err error
	if w.f.as == "Table" {
		shaped, err = table(w.r, w.f, w.q, []*store.Entry{entry}, nil, !w.headed)
		w.headed = true
	} else {
		shaped = metadataOf(entry)
	}
	if err != nil {
		return err
	}
	return w.object(kind, shaped)
}

// bookmark is an empty object with a resourceVersion.
func (w *watchWriter) bookmark(kind string, e *store.Event) error {
	row := spoken(w.q)
	obj := row.New()
	obj.GetObjectKind().SetGroupVersionKind(row.GVK())
	obj.SetResourceVersion(strconv.FormatInt(e.Revision, 10))
	if e.InitialEnd {
		obj.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	switch w.f.as {
	case "Table":
		t, err := table(w.r, w.f, w.q, []*store.Entry{store.NewEntry(row, obj)}, nil, !w.headed)
		if err != nil {
			return err
		}
		w.headed = true
		return w.object(kind, t)
	case "":
		return w.object(kind, obj)
	}
	return w.object(kind, metadataOf(store.NewEntry(row, obj)))
}

// last ends a watch whose time is over with how far it has seen, so that its client goes on from there however quiet it was.
func (w *watchWriter) last(events *store.Watcher) {
	if events == nil || w.owes {
		return
	}
	if e, ok := events.Last(); ok {
		_ = w.bookmark(eventTypes[e.Type], &e)
	}
}

func (w *watchWriter) fail(err error) error { return w.object("ERROR", asStatus(err)) }

func (w *watchWriter) object(kind string, obj runtime.Object) error {
	body, err := encode(obj, w.f.media)
	if err != nil {
		return err
	}
	w.frame(kind, body)
	return nil
}

// frame puts one event behind what buf holds: a line of JSON, or a length and a metav1.WatchEvent in protobuf.
func (w *watchWriter) frame(kind string, body []byte) {
	if w.f.media != mediaProtobuf {
		w.buf = append(w.buf, `{"type":"`...)
		w.buf = append(w.buf, kind...)
		w.buf = append(w.buf, `","object":`...)
		w.buf = append(w.buf, body...)
		w.buf = append(w.buf, "}\n"...)
		return
	}
	raw := field(len(body))
	size := field(len(kind)) + field(raw)
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(size))
	w.buf = appendField(w.buf, 1, []byte(kind))
	w.buf = append(w.buf, 2<<3|2)
	w.buf = binary.AppendUvarint(w.buf, uint64(raw))
	w.buf = appendField(w.buf, 1, body)
}
