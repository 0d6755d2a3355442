package api

// Finalizers that keep what is used from going: admission gives them, controllers take them away.
const (
	ClaimFinalizer           = "kubernetes.io/pvc-protection"
	VolumeFinalizer          = "kubernetes.io/pv-protection"
	AttributesClassFinalizer = "kubernetes.io/vac-protection"
	PodGroupFinalizer        = "scheduling.k8s.io/podgroup-protection"
)
