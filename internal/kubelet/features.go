package kubelet

import (
	versionutil "k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"
	"k8s.io/component-helpers/nodedeclaredfeatures/types"

	"skiff.dev/skiff/internal/version"
)

// declared are, of the features that a node may lack, those that this kubelet has (KEP-5328): the scheduler keeps pods that need another off the node, and the
// API refuses changes of pods here that do. ExtendWebSocketsToKubelet is not among them: streams are the container runtime's, over whose WebSockets none can be
// closed.
var declared = nodedeclaredfeatures.DefaultFramework.DiscoverNodeFeatures(&types.NodeConfiguration{
	FeatureGates: types.FeatureGateMap{
		"InPlacePodLevelResourcesVerticalScaling": true,
		"InPlacePodVerticalScalingInitContainers": true,
		"RestartAllContainersOnContainerExits":    true,
	},
	Version: versionutil.MustParse(version.Kubernetes),
})
