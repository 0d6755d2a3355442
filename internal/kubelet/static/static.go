// Package static reads the pods that a node runs by itself: manifests in a folder of the host, one pod a file.
//
// A pod's uid follows from its file's name and content, so a file that changed is another pod, and one that didn't is the same after a restart. Names,
// annotations and what such a pod may not have are upstream's. Package kubelet runs the pods and shows them in the API.
package static

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"skiff.dev/skiff/internal/api"
)

// Annotations of static pods and of their mirrors.
const (
	HashAnnotation   = "kubernetes.io/config.hash"
	SourceAnnotation = "kubernetes.io/config.source"
)

// Parse makes the pod of a manifest, which is YAML or JSON.
func Parse(file string, manifest []byte, node string) (*corev1.Pod, error) {
	var p corev1.Pod
	if err := yaml.UnmarshalStrict(manifest, &p); err != nil {
		return nil, err
	}
	if p.Kind != "Pod" || p.APIVersion != "v1" {
		return nil, fmt.Errorf("is %s of %q, but only v1 Pods can be static", p.Kind, p.APIVersion)
	}
	if p.Name == "" {
		return nil, errors.New("metadata.name: a static pod needs a name")
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s", node, file, manifest))
	p.UID = types.UID(hex.EncodeToString(sum[:16]))
	p.Name = p.Name + "-" + node
	if p.Namespace == "" {
		p.Namespace = metav1.NamespaceDefault
	}
	p.ResourceVersion, p.GenerateName, p.OwnerReferences, p.Finalizers, p.DeletionTimestamp = "", "", nil, nil, nil
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	p.Annotations[HashAnnotation], p.Annotations[SourceAnnotation] = string(p.UID), "file"
	p.Spec.NodeName = node
	p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute})
	what := api.References(&p.Spec)
	if p.Spec.ServiceAccountName != "" {
		what = "serviceaccounts"
	}
	if what != "" {
		return nil, fmt.Errorf("spec: static pods may not reference %s", what)
	}
	if errs := api.CompletePod(&p); len(errs) > 0 {
		return nil, errs.ToAggregate()
	}
	p.Spec.Priority = new(api.NodeCriticalPriority) // the node cannot do without it
	return &p, nil
}

// Mirror is what the API shows of a static pod. Its priority is for the API server's admission to find.
func Mirror(p *corev1.Pod, node *corev1.Node) *corev1.Pod {
	m := p.DeepCopy()
	m.UID, m.ResourceVersion, m.Status = "", "", corev1.PodStatus{}
	m.Annotations[corev1.MirrorPodAnnotationKey] = string(p.UID)
	m.Spec.Priority, m.Spec.PreemptionPolicy = nil, nil
	yes := true
	m.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID, Controller: &yes}}
	return m
}

// Folder of manifests.
type Folder struct {
	path, node string
	last       map[string]*corev1.Pod // by file: what is kept while the file is broken
}

// Open a folder, which is made if it isn't there.
func Open(path, node string) (*Folder, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of static pods: %w", err)
	}
	return &Folder{path: path, node: node, last: map[string]*corev1.Pod{}}, nil
}

// Read all manifests. The pod of a file that cannot be read is what it was before, and why is in the error. Hidden files and folders don't count.
func (f *Folder) Read() (pods map[types.UID]*corev1.Pod, err error) {
	entries, err := os.ReadDir(f.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var errs []error
	now, names, pods := map[string]*corev1.Pod{}, map[string]string{}, map[types.UID]*corev1.Pod{}
	for _, e := range entries { // in the order of their names
		path := filepath.Join(f.path, e.Name())
		if info, err := os.Stat(path); strings.HasPrefix(e.Name(), ".") || err == nil && !info.Mode().IsRegular() {
			continue
		}
		p, err := f.read(path)
		if err != nil {
			errs, p = append(errs, fmt.Errorf("%s: %w", path, err)), f.last[path]
		}
		if p == nil {
			continue
		}
		now[path] = p
		name := p.Namespace + "/" + p.Name
		if other, taken := names[name]; taken {
			errs = append(errs, fmt.Errorf("%s: the pod %s is in %s already", path, name, other))
			continue
		}
		names[name], pods[p.UID] = path, p
	}
	f.last = now
	return pods, errors.Join(errs...)
}

func (f *Folder) read(path string) (*corev1.Pod, error) {
	manifest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, manifest, f.node)
}
