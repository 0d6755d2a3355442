package apiserver

import (
	"bytes"
	"encoding/json"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	fielderrors "k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/randfill"

	"skiff.dev/skiff/internal/api"
	"skiff.dev/skiff/internal/registry/registrytest"
)

// FuzzBody feeds bodies to the decoders. What is refused is refused as the client's fault; what is taken says again what it said.
func FuzzBody(f *testing.F) {
	pod := corev1.SchemeGroupVersion.WithKind("Pod")
	good := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"a": "b"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "web"}}}}
	good.SetGroupVersionKind(pod)
	for _, media := range []string{mediaJSON, mediaYAML, mediaProtobuf} {
		body, err := encode(good, media)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body, media)
		f.Add(body[:len(body)/2], media)
		f.Add([]byte(nil), media)
	}
	f.Add([]byte(`{"spec":{"containers":[{"name":"a","name":"b","x":1}]}}`), mediaJSON)
	f.Add([]byte("a: &a [*a]\n"), mediaYAML)
	f.Add([]byte("? {a: b}\n: !!binary c\n"), mediaYAML)
	f.Add([]byte("k8s\x00\x0a\xff\xff\xff\xff\x0f"), mediaProtobuf)
	f.Add([]byte("{}"), `application/json; charset="`)
	f.Fuzz(func(t *testing.T, body []byte, media string) {
		obj := &corev1.Pod{}
		err := decode(body, media, obj, nil, pod, metav1.FieldValidationWarn, func(string) {})
		if err != nil {
			registrytest.ClientsFault(t, err)
			return
		}
		if obj.GroupVersionKind() != pod {
			t.Fatalf("decoded as a %s", obj.GroupVersionKind())
		}
		again := &corev1.Pod{}
		raw, err := encode(obj, mediaProtobuf)
		if err != nil {
			t.Skip("text that is not UTF-8 has no encoding in protobuf")
		}
		if err := decode(raw, mediaProtobuf, again, nil, pod, "", nil); err != nil || !apiequality.Semantic.DeepEqual(obj, again) {
			t.Fatalf("%v\n%+v\n%+v", err, obj, again)
		}
	})
}

// FuzzAccept feeds Accept headers to the negotiation.
func FuzzAccept(f *testing.F) {
	for _, s := range []string{
		"", "*/*", "application/json", "text/html, application/xhtml+xml;q=0.9, */*;q=0.8", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
		"application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", ";;;q=,,=", `application/json;q="`, "application/json;q=NaN",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, accept string) {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/pods", nil)
		r.Header["Accept"] = []string{accept}
		got, err := negotiate(r, true)
		if err != nil {
			if asStatus(err).Code != http.StatusNotAcceptable {
				t.Fatal(err)
			}
			return
		}
		switch got.media {
		case mediaJSON, mediaYAML, mediaProtobuf:
		default:
			t.Fatalf("%q is answered in %q", accept, got.media)
		}
		switch got.as {
		case "", "Table", "PartialObjectMetadata", "PartialObjectMetadataList":
		default:
			t.Fatalf("%q is answered as %q", accept, got.as)
		}
		wantsAggregated(r)
	})
}

// FuzzQuery feeds queries to the parsing of options.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{
		"", "watch=true&resourceVersion=5", "labelSelector=a%3Db%2C%21c&fieldSelector=metadata.name%3Dx", "limit=500&continue=abc", "limit=-1", "timeoutSeconds=1e9",
		"labelSelector=a+in+(", "fieldSelector=%5C%2C%3D", "sendInitialEvents=maybe", "%zz", "a=b;c=d",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/pods", nil)
		r.URL.RawQuery = query
		o, err := parameters[metainternalversion.ListOptions](r)
		if err != nil {
			if asStatus(err).Code != http.StatusBadRequest {
				t.Fatal(err)
			}
			return
		}
		if o == nil {
			t.Fatal("no options")
		}
	})
}

// Frames of a watch in protobuf are what encoding the event would give.
func FuzzFrame(f *testing.F) {
	f.Add("ADDED", []byte("k8s\x00"))
	f.Add("BOOKMARK", bytes.Repeat([]byte("x"), 200))
	f.Add("", []byte("{}"))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		if len(body) == 0 {
			t.Skip() // no event carries nothing
		}
		w := &watchWriter{f: format{media: mediaProtobuf}}
		w.frame(kind, body)
		event := metav1.WatchEvent{Type: kind}
		event.Object.Raw = body
		want, err := event.Marshal()
		if err != nil {
			t.Skip()
		}
		var got metav1.WatchEvent
		if err := got.Unmarshal(w.buf[4:]); err != nil || got.Type != kind || !bytes.Equal(got.Object.Raw, body) {
			t.Fatalf("%v: %+v", err, got)
		}
		if !bytes.Equal(want, w.buf[4:]) {
			t.Fatalf("%x\n%x", w.buf[4:], want)
		}
		text := &watchWriter{f: format{media: mediaJSON}}
		if json.Valid(body) {
			text.frame("ADDED", body)
			if !json.Valid(text.buf) {
				t.Fatalf("%s", text.buf)
			}
		}
	})
}

// rich fills the fields of an object, the same ones each time.
func rich(obj api.Object) {
	schemas := func(serializer.CodecFactory) []any {
		return []any{func(*apiextensionsv1.JSONSchemaProps, randfill.Continue) {}} // a schema holds schemas without end
	}
	fuzzer.FuzzerFor(fuzzer.MergeFuzzerFuncs(metafuzzer.Funcs, schemas), rand.NewSource(1), api.Codecs()).NilChance(0.3).NumElements(1, 1).Fill(obj)
}

var allMedia = []string{mediaJSON, mediaYAML, mediaProtobuf}

// FuzzKinds feeds bodies to the decoder, the defaults, the rules, the columns, the encoders and the other versions of every kind.
func FuzzKinds(f *testing.F) {
	rows, media := api.NewTable(api.Optional()...).All(), allMedia
	for i, row := range rows {
		obj := row.New()
		rich(obj)
		obj.GetObjectKind().SetGroupVersionKind(row.GVK())
		for m := range media {
			if body, err := encode(obj, media[m]); err == nil && len(body) < 20_000 {
				f.Add(uint16(i), uint8(m), body)
			}
		}
	}
	for i, row := range rows { // characters that are none in YAML, or end a line in it
		if row.Kind == "ConfigMap" {
			f.Add(uint16(i), uint8(0), []byte("{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"\u0097\"},\"data\":{\"\x7f\":\"\u0080\u0085 \u2028\ufeff\uffff\"}}"))
		}
	}
	f.Fuzz(func(t *testing.T, which uint16, how uint8, body []byte) {
		row := rows[int(which)%len(rows)]
		obj := row.New()
		err := decode(body, media[int(how)%len(media)], obj, row, row.GVK(), metav1.FieldValidationStrict, func(string) {})
		if err != nil {
			registrytest.ClientsFault(t, err)
			return
		}
		exercise(row, obj)
		if utf8.Valid(body) { // other text is written as U+FFFD in JSON, as upstream does
			keeps(t, row, obj)
		}
	})
}

// keeps checks that an object comes back whole from each encoding and, if it is valid, from each other version that it is served in.
func keeps(t *testing.T, row *api.Resource, obj api.Object) {
	t.Helper()
	obj.GetObjectKind().SetGroupVersionKind(row.GVK())
	through := func(gvk schema.GroupVersionKind, obj, into api.Object) {
		for _, m := range allMedia {
			raw, err := encode(obj, m)
			if err != nil {
				t.Fatalf("%s in %s: %v", gvk, m, err)
			}
			again := into.DeepCopyObject().(api.Object)
			if err := decode(raw, m, again, nil, gvk, metav1.FieldValidationStrict, nil); err != nil {
				t.Fatalf("%s in %s: %v\n%s", gvk, m, err, raw)
			}
			if !alike(t, obj, again) {
				t.Fatalf("%s in %s was\n%s\nand is\n%s", gvk, m, asText(obj), asText(again))
			}
		}
	}
	through(row.GVK(), obj, row.New())
	for i := range row.Also {
		s := &row.Also[i]
		served := s.To(obj.DeepCopyObject().(api.Object))
		through(schema.GroupVersionKind{Group: s.Group, Version: s.Version, Kind: s.Kind}, served, s.New())
		if back := s.From(served); len(row.Validate(obj)) == 0 && !alike(t, obj, back) {
			t.Fatalf("%s by way of %s/%s was\n%s\nand is\n%s", row.GVK(), s.Group, s.Version, asText(obj), asText(back))
		}
	}
}

// alike says whether objects are the same, or at least look so to clients: times have whole seconds for them, the order of what is within raw JSON means
// nothing, and an empty value is as good as none.
func alike(t *testing.T, a, b any) bool {
	t.Helper()
	seen := func(v any) (out any) {
		d := json.NewDecoder(strings.NewReader(asText(v)))
		d.UseNumber()
		if err := d.Decode(&out); err != nil {
			t.Fatalf("%v: %+v", err, v)
		}
		return withoutEmpty(out)
	}
	return apiequality.Semantic.DeepEqual(a, b) || reflect.DeepEqual(seen(a), seen(b))
}

func withoutEmpty(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, in := range v {
			if in = withoutEmpty(in); in == nil || in == "" {
				delete(v, k)
			} else {
				v[k] = in
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = withoutEmpty(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	}
	return v
}

func asText(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// exercise puts an object through what its row does with one.
func exercise(row *api.Resource, obj api.Object) {
	old := obj.DeepCopyObject().(api.Object)
	for _, change := range []func(api.Object){row.Default, row.PrepareCreate} {
		if change != nil {
			change(obj)
		}
	}
	for _, change := range []func(obj, old api.Object){row.PrepareUpdate, row.PrepareStatus} {
		if change != nil {
			change(obj, old)
		}
	}
	if row.Validate != nil {
		row.Validate(obj)
	}
	for _, rule := range []func(obj, old api.Object) fielderrors.ErrorList{row.ValidateUpdate, row.ValidateStatus} {
		if rule != nil {
			rule(obj, old)
			rule(obj, row.New())
		}
	}
	if row.Warn != nil {
		row.Warn(obj, nil)
		row.Warn(obj, old)
	}
	if row.Fields != nil {
		row.Fields(obj)
	}
	for _, index := range row.Indexes {
		index(obj)
	}
	for _, c := range row.Columns {
		c.Cell(obj, time.Now())
	}
}
