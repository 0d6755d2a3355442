package class

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

var record = flag.String("record", "", "a file for what was decided, a line of JSON each, for test/upstream to compare with")

// decision is what was decided for a pod and all that it was decided by: test/upstream reads it, and asks kube-scheduler the same.
type decision struct {
	Seed     uint64            `json:"seed"`
	Config   string            `json:"config,omitempty"` // a KubeSchedulerConfiguration
	Objects  []json.RawMessage `json:"objects"`
	Pod      *corev1.Pod       `json:"pod"`
	Unusable string            `json:"unusable,omitempty"` // why no node was asked
	Verdicts map[string]ruling `json:"verdicts,omitempty"` // by node
}

type ruling struct {
	Reasons []string `json:"reasons,omitempty"`
	Final   bool     `json:"final,omitempty"`
	Score   int64    `json:"score"`
}

// newRecorder is where decisions are written; nil if they are not.
func newRecorder(t *testing.T) *json.Encoder {
	if *record == "" {
		return nil
	}
	f, err := os.Create(*record)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return json.NewEncoder(f)
}

// decided writes what was decided for a pod. Left out are pods with devices that stand for extended resources, and those that have a status though no node,
// which is never so; here it saves a generator. Left out, too, is who wants a claim that a pod of a node that is gone has for itself: Skiff waits until that pod is gone.
func (w *world) decided(n *cluster.Nodes, p *corev1.Pod, volumes *cluster.Volumes, why string, c *Class) {
	if w.at.records == nil || p.Annotations[backed] != "" || p.Status.ContainerStatuses != nil {
		return
	}
	for _, q := range w.pods {
		if claim := claimOf(p); claim != "" && claimOf(q) == claim && w.node(q.Spec.NodeName) == nil {
			return
		}
	}
	d := decision{Seed: w.at.seed, Config: w.at.config, Objects: w.objects(), Pod: asStored(p), Unusable: why}
	if w.siblings[p.Namespace] != nil {
		d.Pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "siblings", Controller: new(true)}}
	}
	if c != nil && volumes != nil && volumes.Missing != "" && w.rules.Runs("VolumeZone") { // the loop asks no class then
		d.Unusable, c = fmt.Sprintf("persistentvolume %q not found", volumes.Missing), nil
	}
	if c != nil {
		d.Verdicts = map[string]ruling{}
		scores := map[string]int64{}
		for i, s := range c.Scores() {
			scores[n.Name(i)] = s
		}
		for _, node := range w.nodes {
			i, _ := n.Index(node.Name)
			r := ruling{Score: scores[node.Name]}
			if v, _ := c.Why(i); v != nil {
				r.Reasons, r.Final = v.Reasons, v.Final
			}
			d.Verdicts[node.Name] = r
		}
	}
	if err := w.at.records.Encode(d); err != nil {
		panic(err)
	}
}

// objects is the whole cluster as the API would list it.
func (w *world) objects() (list []json.RawMessage) {
	add := func(kind string, version string, o crclient.Object) {
		raw, err := json.Marshal(o)
		if err != nil {
			panic(err)
		}
		list = append(list, json.RawMessage(strings.Replace(string(raw), "{", `{"kind":"`+kind+`","apiVersion":"`+version+`",`, 1)))
	}
	for _, node := range w.nodes {
		add("Node", "v1", node)
	}
	for _, p := range w.pods {
		if w.node(p.Spec.NodeName) != nil {
			add("Pod", "v1", asStored(p))
		}
	}
	for _, name := range []string{"x", "y"} {
		add("Namespace", "v1", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: w.spaces[name]}})
		if w.siblings[name] != nil {
			add("ReplicaSet", "apps/v1", &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "siblings"},
				Spec: appsv1.ReplicaSetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}}}})
		}
	}
	s := w.storage
	for _, key := range slices.Sorted(maps.Keys(s.claims)) {
		add("PersistentVolumeClaim", "v1", s.claims[key])
	}
	for _, key := range slices.Sorted(maps.Keys(s.volumes)) {
		add("PersistentVolume", "v1", s.volumes[key])
	}
	for i, r := range s.rooms {
		r = r.DeepCopy()
		r.Namespace, r.Name = "x", "room"+string(rune('a'+i))
		add("CSIStorageCapacity", "storage.k8s.io/v1", r)
	}
	for _, name := range slices.Sorted(maps.Keys(storageClasses)) {
		if name != "zonal" { // no random claim is of it
			o := &storagev1.StorageClass{}
			if err := s.Get(context.Background(), crclient.ObjectKey{Name: name}, o); err != nil {
				panic(err)
			}
			add("StorageClass", "storage.k8s.io/v1", o)
		}
	}
	for name, driver := range map[string]*storagev1.CSIDriver{csiDriver: {Spec: storagev1.CSIDriverSpec{PreventPodSchedulingIfMissing: &s.needed}}, storageClasses["measured"]: {Spec: storagev1.CSIDriverSpec{StorageCapacity: new(true)}}} {
		driver.Name = name
		add("CSIDriver", "storage.k8s.io/v1", driver)
	}
	for node, volumes := range s.told {
		for handle := range volumes {
			name := node + "-" + handle // a volume that nobody can claim, so that it is told whatever became of the one with this handle
			add("PersistentVolume", "v1", &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{StorageClassName: "none",
				PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: csiDriver, VolumeHandle: handle}}}})
			add("VolumeAttachment", "storage.k8s.io/v1", &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.VolumeAttachmentSpec{
				Attacher: csiDriver, NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &name}}})
		}
	}
	for node, limit := range s.limits {
		add("CSINode", "storage.k8s.io/v1", &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: node},
			Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: csiDriver, NodeID: node, Allocatable: &storagev1.VolumeNodeResources{Count: new(int32(limit))}}}}})
	}
	return list
}

// asStored is a pod with its label keys in the selectors, as the API writes them there.
func asStored(p *corev1.Pod) *corev1.Pod {
	p = p.DeepCopy()
	put := func(s *metav1.LabelSelector, keys []string, how metav1.LabelSelectorOperator) {
		for _, k := range keys {
			if v, has := p.Labels[k]; has && s != nil {
				s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: how, Values: []string{v}})
			}
		}
	}
	term := func(t *corev1.PodAffinityTerm) {
		put(t.LabelSelector, t.MatchLabelKeys, metav1.LabelSelectorOpIn)
		put(t.LabelSelector, t.MismatchLabelKeys, metav1.LabelSelectorOpNotIn)
	}
	if a := p.Spec.Affinity; a != nil {
		for _, list := range [][]corev1.PodAffinityTerm{a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution} {
			for i := range list {
				term(&list[i])
			}
		}
		for _, list := range [][]corev1.WeightedPodAffinityTerm{a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution, a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution} {
			for i := range list {
				term(&list[i].PodAffinityTerm)
			}
		}
	}
	for i := range p.Spec.TopologySpreadConstraints {
		c := &p.Spec.TopologySpreadConstraints[i]
		put(c.LabelSelector, c.MatchLabelKeys, metav1.LabelSelectorOpIn)
	}
	return p
}
