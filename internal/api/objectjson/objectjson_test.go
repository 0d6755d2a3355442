package objectjson

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

type (
	named   string
	flat    struct{ A, B int }
	upper   struct{ Text string }
	pointed struct{ N int }
	other1  struct {
		A int `json:"a"`
		flat
	}
	twice struct {
		A int `json:"A"`
		flat
	}
	embeds  struct{ *flat }
	strange struct {
		Quoted int     `json:"quoted,string"`
		Float  float64 `json:"float"`
	}
	rec struct {
		Name string `json:"name,omitempty"`
		More []rec  `json:"more,omitempty"`
		Up   *rec   `json:"up"`
	}
	everything struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata,omitempty"`
		Skipped           string `json:"-"`
		NoTag             string
		hidden            string
		Any               any
		Number            json.Number `json:"number,omitempty"`
		Raw               json.RawMessage
		Bytes             []byte            `json:"bytes"`
		Array             [2]int            `json:"array,omitempty"`
		Names             map[named]float64 `json:"names"`
		Ints              map[int]string    `json:"ints"`
		Upper             upper             `json:"upper"`
		UpperP            *upper            `json:"upperP,omitempty"`
		Uppers            map[string]upper  `json:"uppers"`
		Pointed           pointed           `json:"pointed,omitzero"`
		Pointeds          map[string]pointed
		Zero              metav1.Time       `json:"zero,omitzero"`
		Time              metav1.Time       `json:"time,omitempty"`
		Micro             *metav1.MicroTime `json:"micro"`
		Quantity          resource.Quantity `json:"quantity"`
		Port              intstr.IntOrString
		Extension         runtime.RawExtension
		Fields            *metav1.FieldsV1
		Labels            map[string]string `json:"labels"`
		Pods              []*corev1.Pod
		Float             float32
		Unsigned          uint16 `json:"unsigned,omitempty"`
		Duration          metav1.Duration
	}
)

func (u upper) MarshalText() ([]byte, error)    { return []byte(strings.ToUpper(u.Text)), nil }
func (p *pointed) MarshalJSON() ([]byte, error) { return json.Marshal(map[string]int{"is": p.N}) }
func (p *pointed) IsZero() bool                 { return p.N == 7 }

func whole() *everything {
	moment := time.Date(2026, 11, 25, 1, 2, 3, 456_789_000, time.FixedZone("", 3600))
	return &everything{
		ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: map[string]string{"b": "<&>", "a": "ü", "": "\u2028"}, CreationTimestamp: metav1.NewTime(moment)},
		Skipped:    "s", NoTag: "\x00\"\\\n\x7f\xff", hidden: "h", Any: map[string]any{"z": 1.5, "a": nil}, Number: "12",
		Raw: json.RawMessage(` {"a" : "<" } `), Bytes: []byte("bytes"), Names: map[named]float64{"b": 1e30, "a": math.Pi}, Ints: map[int]string{2: "two", 1: "one"},
		Upper: upper{"u"}, UpperP: &upper{"p"}, Uppers: map[string]upper{"k": {"v"}}, Pointed: pointed{3}, Pointeds: map[string]pointed{"p": {1}},
		Time: metav1.NewTime(moment), Micro: &metav1.MicroTime{Time: moment}, Quantity: resource.MustParse("1500m"), Port: intstr.FromString("<http>"),
		Extension: runtime.RawExtension{Raw: []byte(`{"k": 1}`)}, Fields: &metav1.FieldsV1{Raw: []byte(`{"f:a b":{}, "f:<":{}}`)},
		Labels: map[string]string{}, Pods: []*corev1.Pod{nil, {}}, Float: 0.1, Duration: metav1.Duration{Duration: time.Minute},
	}
}

func TestAsEncodingJSON(t *testing.T) {
	flatOnly := &embeds{&flat{1, 2}}
	sevenIsZero := whole()
	sevenIsZero.Pointed.N = 7
	for name, v := range map[string]any{
		"nothing": nil, "no pointer": flat{1, 2}, "a nil pointer": (*flat)(nil), "empty": &everything{}, "whole": whole(), "its own zero": sevenIsZero,
		"embedded": &other1{1, flat{2, 3}}, "a name twice": &twice{1, flat{2, 3}}, "an embedded pointer": flatOnly, "options": &strange{1, 2.5},
		"itself": &rec{Name: "a", More: []rec{{Name: "b"}, {}}, Up: &rec{Name: "c"}}, "text": new("<"), "a list": &[]named{"a"}, "itself marshalled": &pointed{1},
		"a field set that is none": &metav1.FieldsV1{}, "a port that is neither": &intstr.IntOrString{Type: 9},
	} {
		want, wantErr := json.Marshal(v)
		got, err := Marshal(v)
		if !bytes.Equal(got, want) || (err == nil) != (wantErr == nil) {
			t.Errorf("%s:\n%s, %v, want\n%s, %v", name, got, err, want, wantErr)
		}
	}
}

// What encoding/json refuses is refused.
func TestErrors(t *testing.T) {
	for name, v := range map[string]any{
		"infinity": &strange{Float: math.Inf(1)}, "a field set that is no JSON": &everything{Fields: &metav1.FieldsV1{Raw: []byte(`{"f:a":`)}},
		"a time too late, deep": &corev1.PodList{Items: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{ManagedFields: []metav1.ManagedFieldsEntry{{FieldsV1: &metav1.FieldsV1{Raw: []byte("x")}}}}}}},
		"a channel":             &struct{ C chan int }{make(chan int)},
	} {
		if _, err := json.Marshal(v); err == nil {
			t.Fatalf("%s: encoding/json takes it", name)
		}
		if got, err := Marshal(v); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Nobody finds half of a writer, and buffers are not shared.
func TestTogether(t *testing.T) {
	type fresh struct{ rec }
	v := &fresh{rec{Name: "a", Up: &rec{Name: strings.Repeat("b", 100)}}}
	want, _ := json.Marshal(v)
	for range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for range 100 {
				if got, err := Marshal(v); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s, %v", got, err)
				}
			}
		})
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"", "plain", "<&>", "\u2028", "\xff", "\x7f", `"\`} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		v := &struct {
			M map[string]string
			F *metav1.FieldsV1
			R runtime.RawExtension
		}{map[string]string{key: value, value: key}, &metav1.FieldsV1{Raw: []byte(value)}, runtime.RawExtension{Raw: []byte(key)}}
		want, wantErr := json.Marshal(v)
		got, err := Marshal(v)
		if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s, %v, want %s, %v", got, err, want, wantErr)
		}
	})
}
