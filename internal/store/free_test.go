package store

import "testing"

func TestResourceVersionIsPutIntoMetadata(t *testing.T) {
	for stored, want := range map[string]string{
		`{"kind":"A","metadata":{"name":"x"}}`:                                 `{"kind":"A","metadata":{"resourceVersion":"7","name":"x"}}`,
		`{"data":{"metadata":{"name":"y"}},"metadata" : { "name":"x"}}` + "\n": `{"data":{"metadata":{"name":"y"}},"metadata" : { "resourceVersion":"7","name":"x"}}`,
		`{"a":"\"metadata\":{\"","b":["{","}"],"metadata":{"name":"x"}}`:       `{"a":"\"metadata\":{\"","b":["{","}"],"metadata":{"resourceVersion":"7","name":"x"}}`,
		`{"kind":"A","metadata":{}}`:                                           "",
		`{"kind":"A","metadata":null,"z":{"q":1}}`:                             "",
		`{"kind":"A"}`: "",
		`{"kind":"metadata","x":{"metadata":{"name":"x"}}}`: "",
	} {
		if got := string(jsonWithResourceVersion([]byte(stored), 7)); got != want {
			t.Errorf("%s became %s, want %s", stored, got, want)
		}
	}
}
