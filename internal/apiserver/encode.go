package apiserver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/api/objectjson"
	"skiff.dev/skiff/internal/apiserver/audit"
	"skiff.dev/skiff/internal/registry"
	"skiff.dev/skiff/internal/store"
)

const (
	mediaJSON     = runtime.ContentTypeJSON
	mediaYAML     = runtime.ContentTypeYAML
	mediaProtobuf = runtime.ContentTypeProtobuf
)

// format is what a client wants to read: an encoding, and perhaps another shape of the objects.
type format struct {
	media  string
	as     string // "", "Table", "PartialObjectMetadata", "PartialObjectMetadataList"
	table  string // version of meta.k8s.io
	pretty bool
}

// negotiate reads the Accept header. Shapes are for reads and writes of objects; where they make no sense they are passed over.
func negotiate(r *http.Request, shapes bool) (format, error) {
	return negotiated(r, shapes, func(format) bool { return false })
}

// negotiated leaves out what is refused.
func negotiated(r *http.Request, shapes bool, refuse func(format) bool) (format, error) {
	pretty := wantsPretty(r)
	accept := strings.Join(r.Header.Values("Accept"), ",")
	if accept == "" {
		return format{media: mediaJSON, pretty: pretty}, nil
	}
	for _, clause := range clauses(accept) {
		f := format{pretty: pretty, as: clause.params["as"], table: clause.params["v"]}
		switch clause.media {
		case "*/*", "application/*", mediaJSON:
			f.media = mediaJSON
		case mediaYAML, "text/yaml", "text/x-yaml":
			f.media = mediaYAML
		case mediaProtobuf:
			f.media = mediaProtobuf
		default:
			continue
		}
		if refuse(f) {
			continue
		}
		switch f.as {
		case "":
			return f, nil
		case "Table", "PartialObjectMetadata", "PartialObjectMetadataList":
			known := clause.params["g"] == metav1.GroupName && (f.table == "v1" || f.table == "v1beta1")
			if shapes && known && (f.as != "Table" || f.media != mediaProtobuf) {
				return f, nil
			}
		}
	}
	return format{}, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: " + strings.Join([]string{mediaJSON, mediaYAML, mediaProtobuf}, ", "),
	}}
}

type clause struct {
	media  string
	params map[string]string
	q      float64
}

// clauses of an Accept header, the most wanted first.
func clauses(accept string) []clause {
	var out []clause
	for _, part := range strings.Split(accept, ",") {
		fields := strings.Split(part, ";")
		c := clause{media: strings.ToLower(strings.TrimSpace(fields[0])), params: map[string]string{}, q: 1}
		for _, f := range fields[1:] {
			k, v, _ := strings.Cut(strings.TrimSpace(f), "=")
			if v = strings.Trim(v, `"`); k == "q" {
				if q, err := strconv.ParseFloat(v, 64); err == nil {
					c.q = q
				}
				continue
			}
			c.params[k] = v
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b clause) int {
		switch {
		case a.q > b.q:
			return -1
		case a.q < b.q:
			return 1
		}
		return 0
	})
	return out
}

// wantsPretty: people's clients get indented JSON, as upstream gives them.
func wantsPretty(r *http.Request) bool {
	switch r.URL.Query().Get("pretty") {
	case "true", "1":
		return true
	case "":
		ua := r.UserAgent()
		return strings.HasPrefix(ua, "curl") || strings.HasPrefix(ua, "Wget") || strings.HasPrefix(ua, "Mozilla/5.0")
	}
	return false
}

var protobufSerializer = protobuf.NewSerializer(api.Scheme(), api.Scheme())

// stamped sets an object's kind, which Go objects that were never stored may lack.
func stamped(obj runtime.Object) runtime.Object {
	if k := obj.GetObjectKind(); k.GroupVersionKind().Empty() {
		if kinds, _, err := api.Scheme().ObjectKinds(obj); err == nil {
			k.SetGroupVersionKind(kinds[0])
		}
	}
	return obj
}

// encode an object that has no shared encoding.
func encode(obj runtime.Object, media string) ([]byte, error) {
	stamped(obj)
	if media == mediaProtobuf {
		var b bytes.Buffer
		if err := protobufSerializer.Encode(obj, &b); err != nil {
			return nil, err
		}
		return b.Bytes(), nil
	}
	b, err := objectjson.Marshal(obj)
	if err == nil && media == mediaYAML {
		return toYAML(b)
	}
	return b, err
}

// encodeEntry is the shared encoding where there is one.
func encodeEntry(e *store.Entry, media string) ([]byte, error) {
	switch media {
	case mediaProtobuf:
		return e.Bytes(store.Protobuf)
	case mediaYAML:
		b, err := e.Bytes(store.JSON)
		if err != nil {
			return nil, err
		}
		return toYAML(b)
	}
	return e.Bytes(store.JSON)
}

// writeResult answers with one object, in the shape that is wanted.
func (s *Server) writeResult(w http.ResponseWriter, r *http.Request, code int, q *registry.Request, out *registry.Result) {
	f, err := negotiateFor(r, q)
	if err != nil {
		writeError(w, r, err)
		return
	}
	audit.Response(r.Context(), out.Object)
	var body []byte
	switch {
	case f.as != "" && out.Entry != nil:
		var shaped runtime.Object
		if shaped, err = shape(r, f, q, []*store.Entry{out.Entry}, nil); err == nil {
			body, err = encode(shaped, f.media)
		}
	case f.as == "Table":
		body, err = encodeUnstored(r, f, q, out.Object)
	case out.Entry != nil:
		body, err = encodeEntry(out.Entry, f.media)
	default:
		body, err = encode(out.Object.DeepCopyObject(), f.media)
	}
	if err != nil {
		writeError(w, r, apierrors.NewInternalError(err))
		return
	}
	writeBody(w, code, f, body)
}

// encodeUnstored shows as a table what is not stored, if it has columns: a Scale has some, a Status none.
func encodeUnstored(r *http.Request, f format, q *registry.Request, obj runtime.Object) ([]byte, error) {
	scale, ok := obj.(*autoscalingv1.Scale)
	if !ok {
		return encode(obj, f.media)
	}
	t, err := table(r, f, q, []*store.Entry{store.NewEntry(q.Resource, scale)}, nil, true)
	if err != nil {
		return nil, err
	}
	return encode(t, f.media)
}

// writeObject answers with an object of no resource.
func writeObject(w http.ResponseWriter, r *http.Request, code int, obj runtime.Object) {
	f, err := negotiate(r, false)
	if err != nil {
		f = format{media: mediaJSON}
	}
	body, err := encode(obj, f.media)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeBody(w, code, f, body)
}

func writeBody(w http.ResponseWriter, code int, f format, body []byte) {
	if f.media == mediaJSON && f.pretty {
		var b bytes.Buffer
		if json.Indent(&b, body, "", "  ") == nil {
			body = b.Bytes()
		}
	}
	w.Header().Set("Content-Type", f.media)
	length := len(body)
	newline := f.media == mediaJSON
	if newline {
		length++
	}
	w.Header().Set("Content-Length", strconv.Itoa(length))
	w.WriteHeader(code)
	_, _ = w.Write(body)
	if newline {
		_, _ = w.Write([]byte{'\n'})
	}
}

// asStatus turns any error into what an API client understands.
func asStatus(err error) *metav1.Status {
	var api apierrors.APIStatus
	if !asError(err, &api) {
		api = apierrors.NewInternalError(err)
	}
	st := api.Status()
	st.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	if st.Status == "" {
		st.Status = metav1.StatusFailure
	}
	if st.Code == 0 {
		st.Code = http.StatusInternalServerError
	}
	return &st
}

// writeError answers with an error's status.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	st := asStatus(err)
	if st.Details != nil && st.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(st.Details.RetryAfterSeconds)))
	}
	if st.Code == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="skiff"`)
	}
	audit.Response(r.Context(), st)
	writeObject(w, r, int(st.Code), st)
}

func notFound() error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound,
		Message: "the server could not find the requested resource", Details: &metav1.StatusDetails{},
	}}
}

func methodNotAllowed(r *http.Request) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusMethodNotAllowed, Reason: metav1.StatusReasonMethodNotAllowed,
		Message: fmt.Sprintf("the server does not allow %s on %s", r.Method, r.URL.Path), Details: &metav1.StatusDetails{},
	}}
}
