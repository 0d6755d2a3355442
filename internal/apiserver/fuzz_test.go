package apiserver

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternalversion "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
			var status apierrors.APIStatus
			if !asError(err, &status) || status.Status().Code < 400 || status.Status().Code >= 500 {
				t.Fatalf("refused as %v", err)
			}
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
