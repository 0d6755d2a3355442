package exponent_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/kubernetes/scheme"
	kjson "sigs.k8s.io/json"

	"skiff.dev/skiff/internal/api/exponent"
)

var long = []string{"1e9999", "1E+9999", "-1.5e-9999", "e99999", ".5e0123456789", "0.0000000000000000000000001e999999999", " 1e999999999 ", "1e99999999999999999999"}

var short = []string{"1", "1e3", "1E999", "1e-999", "1e0000000003", "5E", "9Ei", "100m", "", "e", "none99999", "1e9999m", "1e5e9999", "1.2.3e9999"}

func TestLong(t *testing.T) {
	for _, s := range long {
		if !exponent.Long(s) || !exponent.Anywhere([]byte(`{"cpu":"`+s+`"}`)) {
			t.Errorf("%q is taken for harmless", s)
		}
	}
	for _, s := range short {
		if exponent.Long(s) {
			t.Errorf("%q is refused", s)
		}
	}
	for _, s := range []string{`"6ba7b810-9dad-11d1-80b4-00c04fd430c8"`, `"ab1e123456"`, `"1e12345a"`, "1e999", "release 2", "e", ""} {
		if exponent.Anywhere([]byte(s)) {
			t.Errorf("%q could be an exponent", s)
		}
	}
}

// podWith has a text in the place of quantities, each in its own way, and of what are none.
func podWith(text string) string {
	quoted, _ := json.Marshal(text)
	return fmt.Sprintf(`{"metadata":{"labels":{"cpu":%[1]s}},"spec":{"overhead":{"cpu":%[1]s},"nodeSelector":{"memory":%[1]s},"containers":[{"name":%[1]s,"resources":{"limits":{"cpu":%[1]s}}}]}}`, quoted)
}

func TestJSON(t *testing.T) {
	for _, s := range long {
		err := exponent.JSON([]byte(podWith(s)), &corev1.Pod{})
		if err == nil || !strings.Contains(err.Error(), "spec.overhead.cpu: ") {
			t.Errorf("%q: %v", s, err)
		}
	}
	for name, body := range map[string]string{
		"a number":        `{"spec":{"overhead":{"cpu":1e9999}}}`,
		"twice":           `{"spec":{"overhead":{"cpu":"1e9999"}},"spec":{"overhead":{"cpu":"1"}}}`,
		"escaped":         `{"spec":{"overhead":{"cpu":"1\u006599999"}}}`,
		"an escaped name": `{"\u0073pec":{"overhead":{"cpu":"1e9999"}}}`,
		"behind others":   `{"x":[[{"y":[]}]],"spec":{"containers":[{},{"resources":{"claims":[{}],"requests":{"a":"1","b":"1e9999"}}}]}}`,
		"a pointer":       `{"spec":{"volumes":[{"emptyDir":{"sizeLimit":"1e9999"}}]}}`,
	} {
		if err := exponent.JSON([]byte(body), &corev1.Pod{}); err == nil {
			t.Errorf("%s is taken for harmless", name)
		}
	}
	for _, body := range []string{
		`{"metadata":{"labels":{"a":"1e999999"},"name":"1e99999999"},"spec":{"containers":[{"image":"1e12345"}]}}`, `{"spec":{"overhead":"1e99999"}}`, `["1e99999"]`, `"1e99999"`, `1e99999`,
		`{"spec":{"overhead":{"cpu":"1e99`, `{"spec":[`, `}`, ``, `{"a":"1e9999",`, strings.Repeat("[", 100_000) + `1e99999`,
	} {
		if err := exponent.JSON([]byte(body), &corev1.Pod{}); err != nil {
			t.Errorf("%.60s: %v", body, err)
		}
	}
}

// encoded is the protobuf of a pod with a text in the place of quantities. The library writes what it is given.
func encoded(t *testing.T, text string) []byte {
	t.Helper()
	const place = "1234567890"
	q := resource.MustParse(place)
	p := &corev1.Pod{Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "a"}, {Name: "b", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": q}}}},
		Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &q}}}},
	}}
	p.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
	raw, err := runtime.Encode(protobuf.NewSerializer(scheme.Scheme, scheme.Scheme), p)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(strings.ReplaceAll(string(raw), place, text))
}

func TestProtobuf(t *testing.T) {
	err := exponent.Protobuf(encoded(t, "1e99999999"), &corev1.Pod{})
	if err == nil || !strings.Contains(err.Error(), ": \"1e99999999\" is no quantity: its exponent must not have more than 3 digits") {
		t.Error(err)
	}
	for _, more := range []string{"", "b", strings.Repeat("0", 60)} { // what comes after and before may be bytes like letters
		p := &corev1.Pod{Spec: corev1.PodSpec{Overhead: corev1.ResourceList{"cpu": resource.MustParse("1")}}}
		p.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Pod"))
		text := more + "1e99999999"
		quantity := append([]byte{0x0a, byte(len(text))}, text...)
		entry := append(append([]byte("\x0a\x03cpu"), 0x12, byte(len(quantity))), quantity...)
		for _, tag := range []protowire.Number{12, 32} {
			overhead := append(protowire.AppendTag(nil, 32, protowire.BytesType), byte(len(entry)))
			spec := protowire.AppendTag(append(overhead, entry...), tag, protowire.VarintType)
			body := append(append([]byte{0x12}, protowire.AppendVarint(nil, uint64(len(spec)+1))...), append(spec, 1)...)
			envelope := append(append([]byte("k8s\x00\x12"), protowire.AppendVarint(nil, uint64(len(body)))...), body...)
			if err := exponent.Protobuf(envelope, p); (err == nil) != (more == "b") {
				t.Errorf("%q: %v", envelope, err)
			}
		}
	}
	raw := encoded(t, "1e00000001")
	if err := exponent.Protobuf(raw, &corev1.Pod{}); err != nil {
		t.Error(err)
	}
	if err := exponent.Protobuf(encoded(t, "1e99999999"), &corev1.Secret{}); err != nil {
		t.Errorf("another kind has no quantity there: %v", err)
	}
	for i := range raw { // whatever is broken is somebody else's to refuse
		_ = exponent.Protobuf(append(encoded(t, "1e99999999")[:i:i], 0xff), &corev1.Pod{})
	}
}

// In expressions, only what is written out can be looked at; what policies' expressions compute is looked at when they do.
func TestExpressions(t *testing.T) {
	for text, refused := range map[string]bool{
		`device.capacity["a"].b.compareTo(quantity("10Gi")) >= 0`: false, `sign(quantity("1e999999999")) > 0`: true, `isQuantity("1e-99999")`: true,
		`sign(quantity("1e" + "99999")) > 0`: true, `["1e99999"].all(s, isQuantity(s))`: true, `device.?x.orValue("") == "1e99999"`: false, `quantity(`: false, `quantity()`: false,
	} {
		if err := exponent.Expression(text); (err != nil) != refused {
			t.Errorf("%s: %v", text, err)
		}
	}
	env, err := exponent.Environment().Env(environment.StoredExpressions)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`quantity("1e999999999").isGreaterThan(quantity("1"))`: "its exponent is too long", `isQuantity("1e" + "999999999")`: "false", `isQuantity("1e9")`: "true",
		`quantity("1.5Gi").isGreaterThan(quantity("1"))`: "true", `quantity("many").isInteger()`: "quantities must match the regular expression",
	} {
		tree, issues := env.Compile(text)
		if issues.Err() != nil {
			t.Fatal(issues.Err())
		}
		program, err := env.Program(tree)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := program.Eval(map[string]any{})
		if text2 := fmt.Sprint(got, err); !strings.Contains(text2, want) {
			t.Errorf("%s is %s, want %s", text, text2, want)
		}
	}
}

// FuzzJSON feeds texts to the search for quantities: no quantity with a long exponent gets past it into the decoder.
func FuzzJSON(f *testing.F) {
	for _, s := range append(long, short...) {
		f.Add([]byte(podWith(s)))
	}
	f.Add([]byte(`{"spec":{"overhead":{"cpu":1e9999}}}`))
	f.Add([]byte(`{"spec":{"overhead":{"cpu":"\u0031e9999"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if exponent.JSON(body, &corev1.Pod{}) != nil || exponent.JSON(body, &apiextensionsv1.JSONSchemaProps{}) != nil {
			return
		}
		var p struct {
			Spec struct {
				Overhead map[string]json.RawMessage `json:"overhead"`
			} `json:"spec"`
		}
		if kjson.UnmarshalCaseSensitivePreserveInts(body, &p) != nil {
			return
		}
		for k, raw := range p.Spec.Overhead {
			if text := strings.Trim(string(raw), `"`); exponent.Long(text) && raw[0] != '{' && raw[0] != '[' {
				t.Fatalf("%s is %s", k, raw)
			}
		}
	})
}
