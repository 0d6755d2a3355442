package cluster

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	versionutil "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"

	"skiff.dev/skiff/internal/version"
)

// What a pod needs is what the library says it does, whatever of its containers makes it so.
func TestFeaturesOf(t *testing.T) {
	framework := nodedeclaredfeatures.DefaultFramework
	rules := corev1.Container{RestartPolicyRules: []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers}}}
	mount := corev1.Container{VolumeMounts: []corev1.VolumeMount{{}, {BindMountOptions: []string{"nodev"}}}}
	needed := map[string]bool{}
	for _, spec := range []corev1.PodSpec{
		{Containers: []corev1.Container{{}, {VolumeMounts: []corev1.VolumeMount{{}}}}},
		{HostNetwork: true}, {HostUsers: new(false)}, {HostNetwork: true, HostUsers: new(false)},
		{Containers: []corev1.Container{{}, rules}}, {InitContainers: []corev1.Container{{}, rules}},
		{Containers: []corev1.Container{{RestartPolicyRules: []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestart}}}}},
		{Containers: []corev1.Container{{}, mount}}, {InitContainers: []corev1.Container{{}, mount}},
		{HostNetwork: true, HostUsers: new(false), Containers: []corev1.Container{rules, mount}},
	} {
		set, err := framework.InferForPodScheduling(&nodedeclaredfeatures.PodInfo{Spec: &spec}, versionutil.MustParse(version.Kubernetes))
		if err != nil {
			t.Fatal(err)
		}
		want, err := framework.Unmap(set)
		if err != nil {
			t.Fatal(err)
		}
		if got := featuresOf(&corev1.Pod{Spec: spec}); !slices.Equal(got, want) {
			t.Errorf("%+v needs %v, want %v", spec, got, want)
		}
		for _, name := range want {
			needed[name] = true
		}
	}
	// Those that scheduling never asks for. A feature that is in neither set is new to the library: what it is about may be more than plain looks at.
	others := []string{"DRANodeAllocatableResources", "DRAOptionalNodeOperations", "ExtendWebSocketsToKubelet", "InPlacePodLevelResourcesVerticalScaling",
		"InPlacePodVerticalScalingInitContainers", "InPlacePodVerticalScalingMemoryBackedVolumes"}
	for _, f := range declarable {
		if !needed[f.Name()] && !slices.Contains(others, f.Name()) {
			t.Errorf("what needs %s?", f.Name())
		}
	}
}
