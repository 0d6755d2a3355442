// Package addon knows what an add-on is: an Addon object, the bundle of manifests behind it, the order they are applied in, and how the health of what was
// applied is told from its status.
//
// A bundle is a folder, a zip archive or a Helm chart. It does not say how it came to be in the cluster: a command or the drop-in folder pack it into a
// Secret beside the Addon, shipped ones are in this program. The package is decisions alone: it reads bundles from an fs.FS and does no other I/O.
// controller/addon carries them out; the command line packs and lists. Its invariant: what a bundle renders to depends on the bundle, the values
// and the add-on's name, nothing else.
package addon

import (
	_ "embed"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Names that add-ons go by.
const (
	// Label is on every object of an add-on; its value is the add-on's name.
	Label = "addons.skiff.dev/name"
	// Finalizer keeps an Addon until what it brought is gone.
	Finalizer = "addons.skiff.dev/objects"
	// SecretNamespace holds the bundles, in Secrets of SecretType under SecretKey.
	SecretNamespace = "kube-system"
	SecretType      = "addons.skiff.dev/bundle"
	SecretKey       = "bundle.zip"
	// Origin is an annotation on Addons that came from the drop-in folder of a server.
	Origin = "addons.skiff.dev/folder"
	// Entry is one, too: what of that folder it was.
	Entry = "addons.skiff.dev/entry"
)

// Place is where in a server's drop-in folder an add-on lies. The zero value is nowhere: somebody installed it by hand.
type Place struct{ Server, Entry string }

// GVK of an Addon.
var GVK = schema.GroupVersionKind{Group: "skiff.dev", Version: "v1", Kind: "Addon"}

// Definition is the CustomResourceDefinition of Addons.
//
//go:embed definition.yaml
var Definition []byte

// Addon is one add-on of the cluster.
type Addon struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   Spec   `json:"spec"`
	Status Status `json:"status,omitempty"`
}

// Spec is what the user wants.
type Spec struct {
	Enabled     *bool          `json:"enabled,omitempty"` // true unless it says otherwise
	Description string         `json:"description,omitempty"`
	Source      Source         `json:"source"`
	Namespace   string         `json:"namespace,omitempty"` // of objects that name none
	After       []string       `json:"after,omitempty"`     // add-ons that must be ready before
	Values      map[string]any `json:"values,omitempty"`    // of a chart
	ValuesFrom  []ValuesSource `json:"valuesFrom,omitempty"`
}

// Source says where the manifests are; exactly one of part, shipped and secret is set.
type Source struct {
	Part    string `json:"part,omitempty"`    // a part of Skiff itself, which has no manifests
	Shipped string `json:"shipped,omitempty"` // a bundle in this program
	Secret  string `json:"secret,omitempty"`  // a bundle in a Secret of kube-system
	Digest  string `json:"digest,omitempty"`  // of that bundle, so that another one is another generation of the Addon
}

// ValuesSource is YAML in a ConfigMap that values are read from; those in the Addon itself win.
type ValuesSource struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Key       string `json:"key,omitempty"` // "values.yaml" if it says nothing
}

// State of an add-on, in one word.
type State string

const (
	Ready       State = "Ready"
	Progressing State = "Progressing"
	Waiting     State = "Waiting" // for another add-on
	Failed      State = "Failed"
	Disabled    State = "Disabled"
)

// Status is what there is.
type Status struct {
	State              State     `json:"state,omitempty"`
	Message            string    `json:"message,omitempty"`
	Version            string    `json:"version,omitempty"`
	ObservedGeneration int64     `json:"observedGeneration,omitempty"`
	Digest             string    `json:"digest,omitempty"` // of what was applied last
	Applied            []Applied `json:"applied,omitempty"`
}

// Applied is one object that the add-on brought.
type Applied struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
	UID        string `json:"uid,omitempty"`
	Health     State  `json:"health,omitempty"`
	Message    string `json:"message,omitempty"`
}

// Key identifies an object whatever version it is spoken of in.
type Key struct{ Group, Kind, Namespace, Name string }

func (a Applied) Key() Key {
	gv, _ := schema.ParseGroupVersion(a.APIVersion)
	return Key{gv.Group, a.Kind, a.Namespace, a.Name}
}

func (a Applied) String() string { return describe(a.Kind, a.Namespace, a.Name) }

func describe(kind, namespace, name string) string {
	if namespace == "" {
		return kind + " " + name
	}
	return kind + " " + namespace + "/" + name
}

// Wanted says whether the add-on shall be there.
func (a *Addon) Wanted() bool {
	return a.DeletionTimestamp == nil && (a.Spec.Enabled == nil || *a.Spec.Enabled)
}

// From reads an Addon as the API has it.
func From(u *unstructured.Unstructured) (*Addon, error) {
	a := &Addon{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, a); err != nil {
		return nil, fmt.Errorf("read the add-on %s: %w", u.GetName(), err)
	}
	return a, nil
}

// Unstructured is the Addon as the API takes it.
func (a *Addon) Unstructured() (*unstructured.Unstructured, error) {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(a)
	if err != nil {
		return nil, fmt.Errorf("write the add-on %s: %w", a.Name, err)
	}
	u := &unstructured.Unstructured{Object: content}
	u.SetGroupVersionKind(GVK)
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	return u, nil
}

// Empty is an Addon without anything, to read into or to watch.
func Empty() *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	u.SetGroupVersionKind(GVK)
	return u
}

// EmptyList is a list to read Addons into.
func EmptyList() *unstructured.UnstructuredList {
	l := &unstructured.UnstructuredList{}
	l.SetGroupVersionKind(GVK.GroupVersion().WithKind(GVK.Kind + "List"))
	return l
}
