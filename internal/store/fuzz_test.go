package store

import (
	"encoding/json"
	"strconv"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FuzzSplice feeds stored values to the decoder. What is read is the same when its resourceVersion has been spliced into its bytes.
func FuzzSplice(f *testing.F) {
	good, err := encode(pods, pod("a", func(p *corev1.Pod) { p.Spec.Containers = []corev1.Container{{Name: "x", Image: "y"}} }))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, int64(7))
	f.Add(good[:len(good)-4], int64(1)) // without the envelope's last fields
	f.Add([]byte("k8s\x00\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), int64(1))
	f.Add([]byte("k8s\x00\x12\x00\x0a\x00"), int64(1<<62)) // the object before its kind
	f.Add([]byte("k8s\x00\x12\x03\x0a\x01\x00"), int64(-1))
	f.Add([]byte(`{"metadata":{"name":"a"}}`), int64(1))
	f.Fuzz(func(t *testing.T, value []byte, rev int64) {
		read, err := decode(pods, value)
		if err != nil {
			return
		}
		rv := strconv.FormatInt(rev, 10)
		c := &Collection{s: &Store{}}
		c.res.Store(pods)
		e, err := decodeEntry(c, "default/a", value, rev)
		if err != nil {
			return // an object that has no encoding: text that isn't UTF-8
		}
		wire, err := e.Bytes(Protobuf)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decode(pods, wire)
		if err != nil || again.GetResourceVersion() != rv {
			t.Fatalf("%v, resourceVersion %q, want %q", err, again.GetResourceVersion(), rv)
		}
		read.SetResourceVersion(rv)
		read.GetObjectKind().SetGroupVersionKind(again.GetObjectKind().GroupVersionKind())
		if !apiequality.Semantic.DeepEqual(read, again) {
			t.Fatalf("stored %+v\nspliced %+v", read, again)
		}
	})
}

// FuzzSpliceJSON feeds stored custom resources to what puts their resourceVersion in.
func FuzzSpliceJSON(f *testing.F) {
	for _, s := range []string{
		`{"apiVersion":"a/v1","kind":"B","metadata":{"name":"c"}}`, `{"metadata":{}}`, `{"a":{"metadata":{"x":1}},"metadata":{"x":"\"}"}}`,
		`{"metadata":null}`, `{"metadata":[{}]}`, `{"meta\"data":1,"metadata" : { "a" : 1 } }`, `{"metadata":{`, `"`, `{"metadata`, `{"metadata":"{"}`,
	} {
		f.Add([]byte(s), int64(5))
	}
	f.Fuzz(func(t *testing.T, stored []byte, rev int64) {
		out := jsonWithResourceVersion(stored, rev)
		var before, after struct{ Metadata metav1.PartialObjectMetadata }
		if out == nil || json.Unmarshal(stored, &before) != nil {
			return
		}
		if !json.Valid(out) {
			t.Fatalf("%s\nbecame %s", stored, out)
		}
		_ = json.Unmarshal(out, &after)
	})
}
