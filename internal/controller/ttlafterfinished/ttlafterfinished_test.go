package ttlafterfinished

import (
	"context"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
)

func TestReconcile(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ttl := int32(60)
	for name, tt := range map[string]struct {
		ttl     *int32
		ended   bool
		elapsed time.Duration
		after   time.Duration
		gone    bool
	}{
		"no ttl": {ended: true, elapsed: time.Hour}, "still at work": {ttl: &ttl, elapsed: time.Hour},
		"too early": {ttl: &ttl, ended: true, elapsed: 45 * time.Second, after: 15 * time.Second}, "due": {ttl: &ttl, ended: true, elapsed: time.Minute, gone: true},
	} {
		j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "j"}, Spec: batchv1.JobSpec{TTLSecondsAfterFinished: tt.ttl}}
		if tt.ended {
			j.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon)}}
		}
		c := clienttest.New(t, j)
		r := &reconciler{client: c, now: func() time.Time { return noon.Add(tt.elapsed) }}
		after, err := r.reconcile(context.Background(), crclient.ObjectKeyFromObject(j))
		if err != nil || after != tt.after {
			t.Errorf("%s: again after %s, %v", name, after, err)
		}
		if left := len(c.Names(t, &batchv1.JobList{})); (left == 0) != tt.gone {
			t.Errorf("%s: %d jobs left", name, left)
		}
	}
}
