package api

import (
	"bytes"
	"encoding/json"
	"testing"

	"skiff.dev/skiff/internal/api/objectjson"
)

// TestJSONOfEveryKind: every kind's JSON is that of encoding/json.
func TestJSONOfEveryKind(t *testing.T) {
	eachRow(t, func(t *testing.T, r *Resource) {
		for seed := range int64(fuzzing) {
			obj := r.New()
			if seed > 0 {
				fuzzed(seed, obj)
			}
			want, err := json.Marshal(obj)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := objectjson.Marshal(obj); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("seed %d: %v\n%s\nwant\n%s", seed, err, got, want)
			}
		}
	})
}

func BenchmarkJSON(b *testing.B) {
	pod := templated(b, 1)
	for name, marshal := range map[string]func(any) ([]byte, error){"encoding/json": json.Marshal, "objectjson": objectjson.Marshal} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := marshal(pod); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
