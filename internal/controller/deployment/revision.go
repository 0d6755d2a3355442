package deployment

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/dump"
)

// The annotations by which kubectl and other tools read a rollout.
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"
	rollbackAnnotation = "deprecated.deployment.rollback.to"
	hashLabel          = appsv1.DefaultDeploymentUniqueLabelKey

	historyBytes = 2000 // the longest list of former revisions
)

// notCopied are the Deployment's annotations that say nothing about its ReplicaSets.
var notCopied = map[string]bool{
	corev1.LastAppliedConfigAnnotation: true, revisionAnnotation: true, historyAnnotation: true, desiredAnnotation: true,
	maxAnnotation: true, rollbackAnnotation: true,
}

// adoptRevision brings an existing new ReplicaSet up to date with the Deployment: revision, annotations, minReadySeconds.
func (r *rollout) adoptRevision() {
	if r.current == nil {
		return
	}
	r.stamp(r.current, r.nextRevision())
	r.current.minReady = r.d.Spec.MinReadySeconds
	r.plan.revision = r.current.annotations[revisionAnnotation]
	if hasDeadline(r.d) && findCondition(&r.status, appsv1.DeploymentProgressing) == nil {
		message := fmt.Sprintf("Found new replica set %q", r.current.Name)
		setCondition(&r.status, condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonFound, message, r.now))
	}
}

// ensureCurrent makes sure that there is a ReplicaSet with the Deployment's template, if only in the plan.
func (r *rollout) ensureCurrent() {
	if r.current != nil {
		r.adoptRevision()
		return
	}
	rs := newReplicaSet(r.d)
	s := &set{ReplicaSet: rs, minReady: rs.Spec.MinReadySeconds}
	r.created, r.current = true, s
	r.stamp(s, r.nextRevision())
	r.resize(s, r.sizeOfNew())
	r.plan.revision = s.annotations[revisionAnnotation]
	if hasDeadline(r.d) {
		message := fmt.Sprintf("Created new replica set %q", rs.Name)
		setCondition(&r.status, condition(appsv1.DeploymentProgressing, corev1.ConditionTrue, reasonCreated, message, r.now))
	}
}

func (r *rollout) nextRevision() int64 {
	highest := int64(0)
	for _, s := range r.old {
		highest = max(highest, revisionOf(s.annotations))
	}
	return highest + 1
}

// stamp copies the Deployment's annotations and raises the revision, remembering the former one.
func (r *rollout) stamp(s *set, revision int64) {
	for key, value := range r.d.Annotations {
		if !notCopied[key] {
			s.annotate(key, value)
		}
	}
	former, had := s.annotations[revisionAnnotation]
	if was := revisionOf(s.annotations); was < revision {
		s.annotate(revisionAnnotation, strconv.FormatInt(revision, 10))
		if had && was > 0 {
			s.annotate(historyAnnotation, appendHistory(s.annotations[historyAnnotation], former))
		}
	}
}

// appendHistory keeps the newest revisions that fit.
func appendHistory(history, revision string) string {
	if history == "" {
		return revision
	}
	history += "," + revision
	for len(history) > historyBytes {
		_, rest, cut := strings.Cut(history, ",")
		if !cut {
			break
		}
		history = rest
	}
	return history
}

func revisionOf(annotations map[string]string) int64 {
	n, err := strconv.ParseInt(annotations[revisionAnnotation], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// newReplicaSet is the ReplicaSet of the Deployment's present template, with no replicas yet.
func newReplicaSet(d *appsv1.Deployment) *appsv1.ReplicaSet {
	template := *d.Spec.Template.DeepCopy()
	hash := templateHash(&template, d.Status.CollisionCount)
	template.Labels = with(template.Labels, hashLabel, hash)
	selector := d.Spec.Selector.DeepCopy()
	selector.MatchLabels = with(selector.MatchLabels, hashLabel, hash)
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: d.Namespace, Name: d.Name + "-" + hash, Labels: template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, gvk)},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: new(int32), MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: template},
	}
}

func with(labels map[string]string, key, value string) map[string]string {
	labels = maps.Clone(labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[key] = value
	return labels
}

// templateHash is upstream's, so that a ReplicaSet made by either is found by the other.
func templateHash(template *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%v", dump.ForHash(*template))
	if collisions != nil {
		var b [8]byte
		binary.LittleEndian.PutUint32(b[:], uint32(*collisions))
		_, _ = h.Write(b[:])
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// sameTemplate compares two templates, the hash label aside.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	return equality.Semantic.DeepEqual(withoutHash(a), withoutHash(b))
}

func withoutHash(t *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	if _, has := t.Labels[hashLabel]; !has {
		return t
	}
	bare := *t
	bare.Labels = maps.Clone(t.Labels)
	delete(bare.Labels, hashLabel)
	return &bare
}

func decimal(n int32) string { return strconv.FormatInt(int64(n), 10) }
