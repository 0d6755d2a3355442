package fieldmanager

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"skiff.dev/skiff/internal/api"
)

// TestCreatedIsAsUpdated fills objects of every kind at random: whenever the walk knows an object, its entries are those that comparing finds.
func TestCreatedIsAsUpdated(t *testing.T) {
	random := filler{rand.New(rand.NewPCG(1, 2))}
	for _, r := range table.All() {
		if _, free := r.New().(runtime.Unstructured); free || r.Key == "" {
			continue
		}
		w := Write{Resource: r, Manager: "m"}
		known := 0
		const tries = 150
		sent := 0
		for range tries {
			obj := r.New()
			random.fill(reflect.ValueOf(obj).Elem(), 0)
			obj.SetManagedFields(nil)
			obj.GetObjectKind().SetGroupVersionKind(r.GVK())
			slow := obj.DeepCopyObject().(api.Object)
			if err := managers.compared(w, nil, slow); err != nil {
				continue // an object that no client can send
			}
			sent++
			fast := obj.DeepCopyObject().(api.Object)
			if !managers.created(w, fast) {
				continue
			}
			known++
			if got, want := entries(fast), entries(slow); got != want {
				t.Fatalf("%s: the walk found\n%sand comparing\n%s", r.Kind, got, want)
			}
		}
		if _, quick := Types(r).(*unchecked); quick && r.Group != "apiextensions.k8s.io" && known < sent/3 {
			t.Errorf("%s: the walk knew %d of %d objects", r.Kind, known, sent)
		}
	}
}

// TestCreatedKnowsPods makes sure that what is created most takes the short way.
func TestCreatedKnowsPods(t *testing.T) {
	w := outside(t, "Pod", "m", "")
	pod := func() *corev1.Pod {
		p := plainPod()
		p.SetGroupVersionKind(w.Resource.GVK())
		return p
	}
	slow := pod()
	if err := managers.compared(w, nil, slow); err != nil {
		t.Fatal(err)
	}
	fast := pod()
	if !managers.created(w, fast) {
		t.Fatal("it does not")
	}
	if got, want := entries(fast), entries(slow); got != want {
		t.Errorf("the walk found\n%sand comparing\n%s", got, want)
	}
	shared := fast.ManagedFields[0].FieldsV1
	e, f := fast.ManagedFields[0], slow.ManagedFields[0]
	e.Time, f.Time = nil, nil
	e.FieldsV1, f.FieldsV1 = nil, nil
	if e != f {
		t.Errorf("the entry is %+v, and by comparing %+v", e, f)
	}
	other := pod()
	managers.created(w, other)
	if shared != other.ManagedFields[0].FieldsV1 {
		t.Error("two pods alike do not share their fields' encoding")
	}
	for _, odd := range []func(*corev1.Pod){
		func(p *corev1.Pod) { p.Labels = map[string]string{"<a>": "b"} },
		func(p *corev1.Pod) { p.Finalizers = []string{"x", "x"} },
		func(p *corev1.Pod) { p.Spec.Containers = append(p.Spec.Containers, p.Spec.Containers[0]) },
	} {
		p := pod()
		odd(p)
		if managers.created(w, p) {
			t.Errorf("the walk says that it knows %v", p)
		}
	}
}

// filler makes values at random.
type filler struct{ *rand.Rand }

var texts = []string{"", "a", "b", "c-1", "example.com/x", "TCP", "UDP", `"quoted"`, "<tag>", "ümlaut"}

func (r filler) fill(v reflect.Value, depth int) {
	if r.special(v) {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && r.IntN(10+3*depth) < 8 {
				r.fill(v.Field(i), depth+1)
			}
		}
	case reflect.Pointer:
		if r.IntN(3) > 0 && depth < 12 {
			v.Set(reflect.New(v.Type().Elem()))
			r.fill(v.Elem(), depth+1)
		}
	case reflect.Slice:
		if n := r.IntN(4) - 1; n >= 0 && depth < 12 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				r.fill(v.Index(i), depth+1)
			}
		}
	case reflect.Map:
		if n := r.IntN(4) - 1; n >= 0 && depth < 12 {
			v.Set(reflect.MakeMap(v.Type()))
			for range n {
				key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
				r.fill(key, depth+1)
				r.fill(elem, depth+1)
				v.SetMapIndex(key, elem)
			}
		}
	case reflect.String:
		n := len(texts) - 3
		if r.IntN(60) == 0 {
			n = len(texts)
		}
		v.SetString(texts[r.IntN(n)])
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(int64(r.IntN(4)) * 8080)
	case reflect.Uint8:
		v.SetUint(uint64(r.IntN(200)))
	case reflect.Float64, reflect.Float32:
		v.SetFloat(float64(r.IntN(3)) / 2)
	}
}

// special fills the types that encode themselves.
func (r filler) special(v reflect.Value) bool {
	zero := r.IntN(3) == 0
	switch p := v.Addr().Interface().(type) {
	case *metav1.Time:
		if !zero {
			*p = metav1.Unix(int64(r.IntN(1000)), 0)
		}
	case *metav1.MicroTime:
		if !zero {
			*p = metav1.NewMicroTime(time.Unix(int64(r.IntN(1000)), 0))
		}
	case *resource.Quantity:
		if !zero {
			*p = *resource.NewQuantity(int64(r.IntN(3)), resource.DecimalSI)
		}
	case *intstr.IntOrString:
		*p = intstr.FromInt32(int32(r.IntN(2)))
	case *runtime.RawExtension:
		p.Raw = []byte(`{"a":{"b":1}}`)
	case *metav1.FieldsV1:
	case *metav1.TypeMeta:
	default:
		return false
	}
	return true
}
