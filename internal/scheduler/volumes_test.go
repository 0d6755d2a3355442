package scheduler

import (
	"context"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/controller/clienttest"
)

func using(p *corev1.Pod, claims ...string) *corev1.Pod {
	for _, c := range claims {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: c, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c}}})
	}
	return p
}

func storageClaim(name, class string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class,
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}}
	for _, f := range change {
		f(c)
	}
	return c
}

func boundTo(volume string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.VolumeName, c.Status.Phase = volume, corev1.ClaimBound
		c.Annotations = map[string]string{storage.AnnBindCompleted: "yes"}
	}
}

func storageVolume(name, class, on string) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: class,
		Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "e.com", VolumeHandle: name}},
	}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
	if on != "" {
		v.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{on}}}}}}}
	}
	return v
}

func storageClass(name, provisioner string, mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &mode}
}

func labelled(n *corev1.Node, labels ...string) *corev1.Node {
	n.Labels = map[string]string{corev1.LabelHostname: n.Name}
	for i := 0; i < len(labels); i += 2 {
		n.Labels[labels[i]] = labels[i+1]
	}
	return n
}

// What pods wait for, in upstream's words, and that they go on once it comes.
func TestPodsWaitForVolumes(t *testing.T) {
	const later = storagev1.VolumeBindingWaitForFirstConsumer
	zoned := storageVolume("zoned", "", "")
	zoned.Labels = map[string]string{corev1.LabelTopologyZone: "west"}
	sole := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	}
	first := using(pod("first", "100m"), "c")
	first.Spec.NodeName = "a"
	limit := int32(1)
	yes := true
	other := using(pod("other", "100m"), "d")
	other.Spec.NodeName = "a"
	for name, tt := range map[string]struct {
		objects []crclient.Object
		want    string
	}{
		"no claim": {nil, `persistentvolumeclaim "c" not found`},
		"unbound":  {[]crclient.Object{storageClaim("c", "")}, "pod has unbound immediate PersistentVolumeClaims"},
		"bound to nothing": {[]crclient.Object{storageClaim("c", "", boundTo("v"))},
			`persistentvolumeclaim "c" bound to non-existent persistentvolume "v"`},
		"elsewhere": {[]crclient.Object{storageClaim("c", "", boundTo("v")), storageVolume("v", "", "b")}, "1 node(s) didn't match PersistentVolume's node affinity"},
		"zone":      {[]crclient.Object{storageClaim("c", "", boundTo("zoned")), zoned}, "1 node(s) had no available volume zone"},
		"nothing to bind": {[]crclient.Object{storageClaim("c", "slow"), storageClass("slow", "kubernetes.io/no-provisioner", later), storageVolume("v", "slow", "b")},
			"1 node(s) didn't find available persistent volumes to bind"},
		"no room": {[]crclient.Object{storageClaim("c", "e"), storageClass("e", "e.com", later),
			&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "e.com"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: &yes}}},
			"1 node(s) did not have enough free storage"},
		"sole": {[]crclient.Object{storageClaim("c", "", boundTo("v"), sole), storageVolume("v", "", ""), first},
			"1 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"},
		"driver": {[]crclient.Object{storageClaim("c", "", boundTo("v")), storageVolume("v", "", ""), needed(),
			&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "other.com", NodeID: "a"}}}}},
			"1 e.com CSI driver is not installed on the node"},
		"limit": {[]crclient.Object{storageClaim("c", "", boundTo("v")), storageVolume("v", "", ""), storageClaim("d", "", boundTo("w")), storageVolume("w", "", ""), other,
			&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
				{Name: "e.com", NodeID: "a", Allocatable: &storagev1.VolumeNodeResources{Count: &limit}}}}}},
			"1 node(s) exceed max volume count"},
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t, append(tt.objects, labelled(node("a", "1"), corev1.LabelTopologyZone, "east"))...)
			if err := c.Create(context.Background(), using(pod("p", "100m"), "c")); err != nil {
				t.Fatal(err)
			}
			clienttest.Eventually(t, "the reason", func() bool {
				return strings.HasPrefix(why(get(t, c, "p")), "Unschedulable: 0/1 nodes are available: "+tt.want+".")
			})
			// Without the claim's needs it goes.
			if err := c.Create(context.Background(), labelled(node("b", "1"))); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A claim is bound on the node that the pod gets, and the pod only after it.
func TestVolumesAreBoundBeforeThePod(t *testing.T) {
	const later = storagev1.VolumeBindingWaitForFirstConsumer
	ctx := context.Background()
	c := begin(t, labelled(node("a", "1")), labelled(node("b", "2")), storageClaim("kept", "slow"), storageClaim("made", "e"),
		storageClass("slow", "kubernetes.io/no-provisioner", later), storageClass("e", "e.com", later), storageVolume("v", "slow", "a"))
	if err := c.Create(ctx, using(pod("p", "100m"), "kept", "made")); err != nil {
		t.Fatal(err)
	}
	claim := func(name string) *corev1.PersistentVolumeClaim {
		var out corev1.PersistentVolumeClaim
		if err := c.Get(ctx, crclient.ObjectKey{Namespace: "default", Name: name}, &out); err != nil {
			t.Fatal(err)
		}
		return &out
	}
	var v corev1.PersistentVolume
	clienttest.Eventually(t, "the choices written", func() bool {
		return c.Get(ctx, crclient.ObjectKey{Name: "v"}, &v) == nil && v.Spec.ClaimRef != nil && v.Spec.ClaimRef.Name == "kept" &&
			claim("made").Annotations[storage.AnnSelectedNode] == "a"
	})
	if p := get(t, c, "p"); p.Spec.NodeName != "" || p.Status.NominatedNodeName != "a" {
		t.Fatalf("before its claims the pod was bound to %q and expected on %q", p.Spec.NodeName, p.Status.NominatedNodeName)
	}
	for name, volume := range map[string]string{"kept": "v", "made": "w"} {
		cl := claim(name)
		boundTo(volume)(cl)
		cl.Annotations[storage.AnnSelectedNode] = "a"
		if err := c.Update(ctx, cl.DeepCopy()); err != nil {
			t.Fatal(err)
		}
		cl = claim(name)
		cl.Status.Phase = corev1.ClaimBound
		if err := c.Status().Update(ctx, cl); err != nil {
			t.Fatal(err)
		}
	}
	clienttest.Eventually(t, "the pod bound", func() bool { return get(t, c, "p").Spec.NodeName == "a" })
}

// A pod is expected on the node where it waits, and no more as soon as the wait ends without it. One that need not wait is never said to be.
func TestExpectedNode(t *testing.T) {
	l := writing(t, nil, func(write func(context.Context)) { write(context.Background()) })
	devices := attached("a", "big")
	create(t, l.client, storageClass("e", "e.com", storagev1.VolumeBindingWaitForFirstConsumer), storageClaim("c", "e"), devices, gpuClass("gpu", ""), claimOf("d", exactly("gpu", 1)),
		using(pod("p", "100m"), "c"), claiming("q", "d"), pod("r", "100m"))
	l.sliceChanged(nil, devices)
	l.happen(nodeIs(labelled(node("a", "1"))))
	p, q, r := get(t, l.client, "p"), get(t, l.client, "q"), get(t, l.client, "r")
	for _, one := range []*corev1.Pod{p, q, r} {
		l.podChanged(nil, one)
		l.schedule(l.queue.Pop(l.now()))
	}
	hear := func() {
		for _, do := range l.mail.take() {
			do()
		}
	}
	expected := func(name string) string { return get(t, l.client, name).Status.NominatedNodeName }
	clienttest.Eventually(t, "two expected and the third bound", func() bool {
		hear()
		return l.binding[p.UID] != nil && l.awaiting[q.UID] != nil && expected("p") == "a" && expected("q") == "a" && get(t, l.client, "r").Spec.NodeName == "a"
	})
	if l.nodes.Placed(r.UID).Expected {
		t.Error("one that need not wait was said to be expected")
	}
	l.giveUp(l.binding[p.UID], errors.New("it cannot be made"))
	l.notReady(l.awaiting[q.UID], errors.New("it is broken"))
	clienttest.Eventually(t, "neither expected", func() bool { return expected("p") == "" && expected("q") == "" })
}

// Of two nodes the one with more storage left is taken, though the other has more left of all else; or as the profile says.
func TestStorageScores(t *testing.T) {
	room := func(node, free string) *storagev1.CSIStorageCapacity {
		return &storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: node}, StorageClassName: "e", Capacity: new(resource.MustParse(free)),
			NodeTopology: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: node}}}
	}
	for config, want := range map[string]string{
		"": "roomy",
		"pluginConfig: [{name: VolumeBinding, args: {shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]}}]": "idle",
		"plugins: {score: {disabled: [{name: VolumeBinding}]}}":                                                             "idle",
	} {
		_, c := beginWith(t, settingsOf(t, "profiles: [{schedulerName: default-scheduler, "+config+"}]"), labelled(node("roomy", "1")), labelled(node("idle", "8")),
			room("roomy", "100Gi"), room("idle", "2Gi"), storageClass("e", "e.com", storagev1.VolumeBindingWaitForFirstConsumer), storageClaim("c", "e"),
			&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "e.com"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: new(true)}})
		create(t, c, using(pod("p", "100m"), "c"))
		var claim corev1.PersistentVolumeClaim
		clienttest.Eventually(t, "a node chosen", func() bool {
			return c.Get(context.Background(), crclient.ObjectKey{Namespace: "default", Name: "c"}, &claim) == nil && claim.Annotations[storage.AnnSelectedNode] != ""
		})
		if got := claim.Annotations[storage.AnnSelectedNode]; got != want {
			t.Errorf("%q: on %s, want %s", config, got, want)
		}
	}
}

// A provisioner that cannot make the volume hands the choice back, and the pod is tried again.
func TestProvisioningElsewhere(t *testing.T) {
	ctx := context.Background()
	c := begin(t, labelled(node("a", "1")), storageClaim("c", "e"), storageClass("e", "e.com", storagev1.VolumeBindingWaitForFirstConsumer))
	if err := c.Create(ctx, using(pod("p", "100m"), "c")); err != nil {
		t.Fatal(err)
	}
	var claim corev1.PersistentVolumeClaim
	selected := func() bool {
		return c.Get(ctx, crclient.ObjectKey{Namespace: "default", Name: "c"}, &claim) == nil && claim.Annotations[storage.AnnSelectedNode] == "a"
	}
	clienttest.Eventually(t, "a node chosen", selected)
	delete(claim.Annotations, storage.AnnSelectedNode)
	if err := c.Update(ctx, &claim); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "a node chosen again", selected)
	failed := false
	for _, e := range c.Events() {
		failed = failed || strings.Contains(e, `running PreBind plugin "VolumeBinding": provisioning failed for PVC "c"`)
	}
	if !failed {
		t.Error("nobody was told")
	}
}
