package schedulertest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	storage "k8s.io/component-helpers/storage/volume"
)

const (
	volumeDriver = "ebs.csi.aws.com"
	attachable   = 39 // volumes a node takes
)

func volumes(n func(int) int) []Workload {
	limited := func(annotated string) Nodes {
		nodes := some(n(5000), attaches(attachable))
		nodes.Objects = attachLimits(nodes.Node, attachable, annotated)
		return nodes
	}
	claimants := func(count int, of source, measured bool) Pods {
		return Pods{Count: count, Shape: kind("pod", claims), Objects: boundVolumes(of, corev1.ReadOnlyMany), Measured: measured}
	}
	return []Workload{
		{Name: "SchedulingSecrets/5000Nodes_10000Pods", Floor: 790, Steps: []Step{some(n(5000)), Pods{Count: n(1000), Shape: kind("secret-volume", mountsSecret)},
			Pods{Count: n(10000), Shape: kind("secret-volume", mountsSecret), Measured: true}}},
		{Name: "SchedulingInTreePVs/5000Nodes_2000Pods", Floor: 290, Steps: []Step{some(n(5000)), claimants(n(1000), blockStore, false), claimants(n(2000), blockStore, true)}},
		{Name: "SchedulingMigratedInTreePVs/5000Nodes_5000Pods", Floor: 100, Steps: []Step{limited("kubernetes.io/aws-ebs"),
			claimants(n(5000), blockStore, false), claimants(n(5000), blockStore, true)}},
		{Name: "SchedulingCSIPVs/5000Nodes_5000Pods", Floor: 100, Steps: []Step{limited(""), claimants(n(5000), byCSI, false), claimants(n(5000), byCSI, true)}},
		{Name: "PreemptionPVs/1000Nodes", Steps: []Step{classes(10), some(n(1000)), Pods{Count: 4 * n(1000), Shape: lowPriority},
			Pods{Count: n(1000), Shape: kind("pod-high-priority", takes("3", "500Mi", true), important(10), claims), Objects: boundVolumes(blockStore, corev1.ReadOnlyMany), Measured: true}}},
	}
}

func mountsSecret(p *corev1.Pod, _ int) {
	p.Spec.Volumes = []corev1.Volume{{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "secret"}}}}
}

// claims gives each pod the volume of its number.
func claims(p *corev1.Pod, i int) {
	p.Spec.Volumes = []corev1.Volume{{Name: "vol", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(i)}}}}
}

func claimName(i int) string { return fmt.Sprintf("pvc-%d", i) }

// source is where a volume is.
type source func(id string) corev1.PersistentVolumeSource

func byCSI(id string) corev1.PersistentVolumeSource {
	return corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: volumeDriver, VolumeHandle: id}}
}

func blockStore(id string) corev1.PersistentVolumeSource {
	return corev1.PersistentVolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: id}}
}

// boundVolumes are a volume and the claim that has it for each pod.
func boundVolumes(of source, mode corev1.PersistentVolumeAccessMode) func(namespace string, i int) []Object {
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	return func(namespace string, i int) []Object {
		name := fmt.Sprintf("%s-vol-%d", namespace, i)
		volume := &corev1.PersistentVolume{ObjectMeta: meta("", name), Spec: corev1.PersistentVolumeSpec{
			Capacity: size, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany},
			ClaimRef:                      &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: namespace, Name: claimName(i)},
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain, PersistentVolumeSource: of(name)}}
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: meta(namespace, claimName(i)), Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{mode}, StorageClassName: new(string), VolumeName: name, Resources: corev1.VolumeResourceRequirements{Requests: size}}}
		claim.Annotations = map[string]string{storage.AnnBindCompleted: "true"}
		return []Object{claim, volume}
	}
}

// attaches says in the old way how many volumes a node takes.
func attaches(count int) func(n *corev1.Node, _ int) {
	return func(n *corev1.Node, _ int) {
		n.Status.Allocatable["attachable-volumes-csi-"+volumeDriver] = *resource.NewQuantity(int64(count), resource.DecimalSI)
	}
}

// attachLimits say so for the CSI driver, and which plug-ins have become drivers.
func attachLimits(node func(i int) *corev1.Node, count int32, migrated string) func(i int) []Object {
	return func(i int) []Object {
		name := node(i).Name
		n := &storagev1.CSINode{ObjectMeta: meta("", name), Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
			{Name: volumeDriver, NodeID: name, Allocatable: &storagev1.VolumeNodeResources{Count: new(count)}}}}}
		n.Annotations = map[string]string{corev1.MigratedPluginsAnnotationKey: migrated}
		return []Object{n}
	}
}
