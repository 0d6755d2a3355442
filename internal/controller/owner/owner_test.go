package owner

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func TestJudge(t *testing.T) {
	match, other := map[string]string{"app": "web"}, map[string]string{"app": "db"}
	ref := func(uid string) []metav1.OwnerReference {
		if uid == "" {
			return nil
		}
		return []metav1.OwnerReference{{UID: "mere-owner"}, {UID: "me", Controller: new(uid == "me")}, {UID: "you", Controller: new(uid == "you")}}
	}
	for _, tt := range []struct {
		name            string
		owner           string
		labels          map[string]string
		deleting, going bool
		want            Verdict
	}{
		{name: "ours", owner: "me", labels: match, want: Keep},
		{name: "ours, owner going", owner: "me", labels: match, deleting: true, want: Keep},
		{name: "no longer ours", owner: "me", labels: other, want: Release},
		{name: "no longer ours, owner going", owner: "me", labels: other, deleting: true, want: Ignore},
		{name: "another's", owner: "you", labels: match, want: Ignore},
		{name: "orphan", labels: match, want: Adopt},
		{name: "orphan of another kind", labels: other, want: Ignore},
		{name: "orphan, owner going", labels: match, deleting: true, want: Ignore},
		{name: "orphan that goes", labels: match, going: true, want: Ignore},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: tt.labels, OwnerReferences: ref(tt.owner)}}
			if tt.going {
				pod.DeletionTimestamp = &metav1.Time{Time: time.Now()}
			}
			if got := Judge(pod, "me", labels.SelectorFromSet(match), tt.deleting); got != tt.want {
				t.Errorf("verdict %d, want %d", got, tt.want)
			}
		})
	}
}

func TestOrphans(t *testing.T) {
	var o Orphans[*corev1.Pod]
	free := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"}}
	owned := free.DeepCopy()
	owned.OwnerReferences = []metav1.OwnerReference{{UID: "me", Controller: new(true)}}
	o.Saw(nil, free)
	if len(o.In("a")) != 1 || len(o.In("b")) != 0 {
		t.Error("the orphan was not noted")
	}
	o.Saw(free, owned)
	if len(o.In("a")) != 0 {
		t.Error("the adopted pod is still an orphan")
	}
	o.Saw(owned, free)
	o.Saw(free, nil)
	if len(o.In("a")) != 0 {
		t.Error("the pod that went is still an orphan")
	}
}
