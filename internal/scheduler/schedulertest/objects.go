package schedulertest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1beta1 "k8s.io/api/scheduling/v1beta1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"
)

const (
	volumeDriver = "ebs.csi.aws.com"
	deviceDriver = "test-driver.cdi.k8s.io"
	deviceClass  = "test-class"
	template     = "test-claim-template"

	attachable = 39 // volumes a node takes
	perNode    = 10 // devices a node has
)

// Mark is the label of all objects besides nodes and pods, by which they are found again.
const Mark = "scheduler-perf"

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{Mark: "true"}}
}

var withVolume = shaped("volume", func(p *corev1.Pod, i int) {
	p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claimName(i)}}}}
})

func claimName(i int) string { return fmt.Sprintf("claim-%06d", i) }

// boundVolume is a volume of a CSI driver and the claim that has it.
func boundVolume(i int) []Object {
	size := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	modes := []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}
	volume := &corev1.PersistentVolume{ObjectMeta: meta("", fmt.Sprintf("volume-%06d", i)), Spec: corev1.PersistentVolumeSpec{
		Capacity: size, AccessModes: modes, ClaimRef: &corev1.ObjectReference{Kind: "PersistentVolumeClaim", Namespace: "default", Name: claimName(i)},
		PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		PersistentVolumeSource: corev1.PersistentVolumeSource{
			CSI: &corev1.CSIPersistentVolumeSource{Driver: volumeDriver, VolumeHandle: fmt.Sprintf("vol-%06d", i)}}}}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: meta("default", claimName(i)), Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: modes, StorageClassName: new(string), VolumeName: volume.Name, Resources: corev1.VolumeResourceRequirements{Requests: size}}}
	claim.Annotations = map[string]string{storage.AnnBindCompleted: "true"}
	return []Object{volume, claim}
}

// attachLimits says how many volumes a node takes.
func attachLimits(i int) []Object {
	name := Node(i).Name
	return []Object{&storagev1.CSINode{ObjectMeta: meta("", name), Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
		{Name: volumeDriver, NodeID: name, Allocatable: &storagev1.VolumeNodeResources{Count: new(int32(attachable))}}}}}}
}

var withDevice = shaped("device", func(p *corev1.Pod, _ int) {
	p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "device", ResourceClaimTemplateName: new(template)}}
	p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "device"}}
})

// deviceTemplate is a class of all devices of the driver, and what makes a claim of one of them for every pod.
func deviceTemplate() []Object {
	class := &resourcev1.DeviceClass{ObjectMeta: meta("", deviceClass), Spec: resourcev1.DeviceClassSpec{Selectors: []resourcev1.DeviceSelector{
		{CEL: &resourcev1.CELDeviceSelector{Expression: fmt.Sprintf("device.driver == %q", deviceDriver)}}}}}
	claim := &resourcev1.ResourceClaimTemplate{ObjectMeta: meta("default", template)}
	claim.Spec.Spec.Devices.Requests = []resourcev1.DeviceRequest{{Name: "req-0", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: deviceClass}}}
	return []Object{class, claim}
}

func gangName(k int) string { return fmt.Sprintf("gang-%d", k) }

// podGroups are so many gangs, each of so many pods and of no fewer.
func podGroups(n, pods int) (list []Object) {
	for k := range n {
		g := &schedulingv1beta1.PodGroup{ObjectMeta: meta("default", gangName(k))}
		g.Spec.SchedulingPolicy.Gang = &schedulingv1beta1.GangSchedulingPolicy{MinCount: int32(pods)}
		list = append(list, g)
	}
	return list
}

// inGang makes pods of which each so many, one after the other, are a gang's.
func inGang(pods int) Shape {
	return shaped("gang", func(p *corev1.Pod, i int) {
		p.Spec.SchedulingGroup = &corev1.PodSchedulingGroup{PodGroupName: new(gangName(i / pods))}
		p.Spec.Containers[0].Resources.Requests[corev1.ResourceMemory] = resource.MustParse("100Mi")
	})
}

// devices are those of a node.
func devices(i int) []Object {
	name := Node(i).Name
	s := &resourcev1.ResourceSlice{ObjectMeta: meta("", name), Spec: resourcev1.ResourceSliceSpec{
		Driver: deviceDriver, NodeName: &name, Pool: resourcev1.ResourcePool{Name: name, ResourceSliceCount: 1}}}
	for k := range perNode {
		s.Spec.Devices = append(s.Spec.Devices, resourcev1.Device{Name: fmt.Sprintf("device-%d", k)})
	}
	return []Object{s}
}
