package expect

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"skiff.dev/skiff/internal/controller/harness"
)

func TestBook(t *testing.T) {
	var b Book
	key := harness.Key{Namespace: "a", Name: "b"}
	want := func(met bool, when string) {
		t.Helper()
		if b.Met(key) != met {
			t.Errorf("%s: met is %v", when, !met)
		}
	}
	want(true, "nothing expected")
	b.Changes(key, 2, []*corev1.Pod{{ObjectMeta: metav1.ObjectMeta{UID: "x"}}})
	want(false, "two to come, one to go")
	b.Created(key)
	b.Give(key, 1)
	want(false, "one to go")
	b.Deleted(key, "y")
	want(false, "another went")
	b.Deleted(key, "x")
	want(true, "all seen")
	b.Changes(key, 1, nil)
	b.Forget(key)
	want(true, "forgotten")
}
