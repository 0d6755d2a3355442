package operator

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var groupVersion = schema.GroupVersion{Group: "bees.example.com", Version: "v1"}

// Definition of the operator's kind, to be applied before it starts.
const Definition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: hives.bees.example.com}
spec:
  group: bees.example.com
  scope: Namespaced
  names: {plural: hives, singular: hive, kind: Hive}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {bees: {type: integer}}}
          status:
            type: object
            properties:
              observedGeneration: {type: integer, format: int64}
              conditions: {type: array, items: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`

// Hive wants a ConfigMap that says how many bees there are.
type Hive struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   HiveSpec   `json:"spec,omitempty"`
	Status HiveStatus `json:"status,omitempty"`
}

// HiveSpec is what is wanted.
type HiveSpec struct {
	Bees int `json:"bees,omitempty"`
}

// HiveStatus is what the operator has seen to.
type HiveStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
}

// HiveList is a list of hives.
type HiveList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Hive `json:"items"`
}

// DeepCopyObject is what generated code would be.
func (h *Hive) DeepCopyObject() runtime.Object {
	out := *h
	h.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	out.Status.Conditions = append([]metav1.Condition(nil), h.Status.Conditions...)
	return &out
}

// DeepCopyObject is what generated code would be.
func (l *HiveList) DeepCopyObject() runtime.Object {
	out := *l
	l.ListMeta.DeepCopyInto(&out.ListMeta)
	out.Items = make([]Hive, len(l.Items))
	for i := range l.Items {
		out.Items[i] = *l.Items[i].DeepCopyObject().(*Hive)
	}
	return &out
}

func addToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(groupVersion, &Hive{}, &HiveList{})
	metav1.AddToGroupVersion(s, groupVersion)
	return nil
}
