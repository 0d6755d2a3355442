package fieldmanager

import (
	"testing"

	"k8s.io/client-go/applyconfigurations"
	"sigs.k8s.io/structured-merge-diff/v6/typed"
	"sigs.k8s.io/structured-merge-diff/v6/value"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	corev1 "k8s.io/api/core/v1"
	"skiff.dev/skiff/internal/api"
)

type noConv struct{runtime.ObjectConvertor}
func (noConv) ConvertToVersion(in runtime.Object, gv runtime.GroupVersioner) (runtime.Object, error) { return in, nil }

func BenchmarkUnvalidated(b *testing.B) {
	c := applyconfigurations.NewTypeConverter(api.Scheme())
	p := pod()
	tv, _ := c.ObjectToTyped(p, typed.AllowDuplicates)
	b.ReportAllocs()
	for b.Loop() {
		v, _ := value.NewValueReflect(p)
		tv := typed.AsTypedUnvalidated(v, tv.Schema(), tv.TypeRef())
		s, _ := tv.ToFieldSet()
		_, _ = s.ToJSON()
	}
}
func BenchmarkValidate(b *testing.B) {
	c := applyconfigurations.NewTypeConverter(api.Scheme())
	p := pod()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = c.ObjectToTyped(p, typed.AllowDuplicates)
	}
}
func BenchmarkLib(b *testing.B) {
	c := applyconfigurations.NewTypeConverter(api.Scheme())
	fm, err := managedfields.NewDefaultFieldManager(c, noConv{}, api.Scheme(), api.Scheme(), schema.GroupVersionKind{Version:"v1",Kind:"Pod"}, schema.GroupVersion{Version:"v1"}, "", nil)
	if err != nil { b.Fatal(err) }
	p := pod()
	b.ReportAllocs()
	for b.Loop() {
		p.ManagedFields = nil
		_, err := fm.Update(&corev1.Pod{TypeMeta: p.TypeMeta}, p, "x")
		if err != nil { b.Fatal(err) }
	}
	b.Log(len(p.ManagedFields[0].FieldsV1.GetRawBytes()))
}
func BenchmarkLibStatus(b *testing.B) {
	c := applyconfigurations.NewTypeConverter(api.Scheme())
	fm, err := managedfields.NewDefaultFieldManager(c, noConv{}, api.Scheme(), api.Scheme(), schema.GroupVersionKind{Version:"v1",Kind:"Pod"}, schema.GroupVersion{Version:"v1"}, "", nil)
	if err != nil { b.Fatal(err) }
	p := pod()
	_, err = fm.Update(&corev1.Pod{TypeMeta: p.TypeMeta}, p, "x")
	p.UID = "a"
	b.ReportAllocs()
	for b.Loop() {
	p2 := p.DeepCopy()
	p2.Status.Phase = "Running"
	p2.Status.Conditions = []corev1.PodCondition{{Type:"Ready"}}
		_, err := fm.Update(p, p2, "y")
		if err != nil { b.Fatal(err) }
	}
}
