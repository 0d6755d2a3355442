package scheduler

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
)

const restartsAll = "RestartAllContainersOnContainerExits"

// restartingAll has a rule that only some nodes know: those that declare the feature.
func restartingAll(p *corev1.Pod) {
	never := corev1.ContainerRestartPolicyNever
	p.Spec.Containers[0].RestartPolicy = &never
	p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: corev1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}}}}
}

func declaring(features ...string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Status.DeclaredFeatures = features }
}

// Where nodes of two versions are, pods that need what the newer ones have go there, and others anywhere. One that only an older node has room for waits,
// says why, preempts nobody, and goes once the node declares the feature.
func TestNodesOfTwoVersions(t *testing.T) {
	ctx := context.Background()
	s, c := beginScheduler(t, changed(node("new", "1"), declaring("ExtendWebSocketsToKubelet", restartsAll)), node("old", "4"))
	create(t, c, changed(pod("needs", "600m"), restartingAll), pod("any", "600m"))
	clienttest.Eventually(t, "both bound", func() bool {
		return get(t, c, "needs").Spec.NodeName == "new" && get(t, c, "any").Spec.NodeName == "old"
	})
	create(t, c, changed(pod("waits", "600m"), restartingAll, func(p *corev1.Pod) { p.Spec.Priority = new(int32(-1)) }))
	const reason = "Unschedulable: 0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't match Pod's required features."
	clienttest.Eventually(t, "why the third waits", func() bool { return strings.HasPrefix(why(get(t, c, "waits")), reason) })
	told, text := explained(t, s, "waits")
	if !strings.Contains(text, "not declared by the node: "+restartsAll) || !told.Nodes[1].Final || told.Nodes[1].Plugin != "NodeDeclaredFeatures" {
		t.Errorf("got:\n%s", text)
	}
	var old corev1.Node
	if err := c.Get(ctx, crclient.ObjectKey{Name: "old"}, &old); err != nil {
		t.Fatal(err)
	}
	declaring(restartsAll)(&old)
	if err := c.Status().Update(ctx, &old); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the third bound", func() bool { return get(t, c, "waits").Spec.NodeName == "old" })
}

// A profile may leave it to the nodes.
func TestFeaturesNotAskedFor(t *testing.T) {
	_, c := beginWith(t, settingsOf(t, "profiles: [{plugins: {filter: {disabled: [{name: NodeDeclaredFeatures}]}}}]"), node("old", "4"))
	create(t, c, changed(pod("p", "1"), restartingAll))
	clienttest.Eventually(t, "it bound", func() bool { return get(t, c, "p").Spec.NodeName == "old" })
}
