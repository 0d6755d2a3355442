package admit

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPreempt(t *testing.T) {
	const big, sure = `containers: [{name: a, resources: {requests: {cpu: 1500m}}}]`, `containers: [{name: a, resources: {requests: {cpu: 1500m, memory: 1Mi}, limits: {cpu: 1500m, memory: 1Mi}}}]`
	const small, idle = `containers: [{name: a, resources: {requests: {cpu: 400m}}}]`, `containers: [{name: a}]`
	critical := func(cpu string) string {
		return `{priority: 2000001000, containers: [{name: a, resources: {requests: {cpu: ` + cpu + `}}}]}`
	}
	for name, c := range map[string]struct {
		pod     string
		others  []string
		victims []string
		refused string
	}{
		"it fits":                     {pod: critical("400m"), others: []string{big}},
		"nobody goes for others":      {pod: big, others: []string{big}},
		"the one that suffices":       {pod: critical("300m"), others: []string{big, small}, victims: []string{"1"}},
		"both":                        {pod: critical(`"2"`), others: []string{small, big}, victims: []string{"0", "1"}},
		"burstable before guaranteed": {pod: critical("300m"), others: []string{sure, small}, victims: []string{"1"}},
		"guaranteed if nothing else":  {pod: critical(`"1"`), others: []string{sure, small}, victims: []string{"0"}},
		"room for one more pod":       {pod: critical("100m"), others: []string{idle, small, idle}, victims: []string{"0"}},
		"critical ones stay":          {pod: critical(`"1"`), others: []string{critical("1500m"), small}, refused: "no set of running pods found to reclaim resources: [(res: cpu, q: 500), ]"},
		"more than the node ever has": {pod: critical(`"4"`), others: []string{small}, refused: "[(res: cpu, q: 2000), ]"},
	} {
		t.Run(name, func(t *testing.T) {
			var others []*corev1.Pod
			for i, o := range c.others {
				others = append(others, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: string(rune('0' + i))}, Spec: *parse[corev1.PodSpec](t, o)})
			}
			victims, refused := Preempt(&corev1.Pod{Spec: *parse[corev1.PodSpec](t, c.pod)}, parse[corev1.Node](t, node), others)
			var names []string
			for _, v := range victims {
				names = append(names, v.Name)
			}
			slices.Sort(names)
			if !slices.Equal(names, c.victims) {
				t.Errorf("%v go, want %v", names, c.victims)
			}
			if (refused == nil) != (c.refused == "") || refused != nil && !strings.Contains(refused.Message, c.refused) {
				t.Errorf("refused: %+v, want %q", refused, c.refused)
			}
		})
	}
}
