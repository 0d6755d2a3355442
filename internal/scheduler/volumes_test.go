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
	older, region := storageVolume("older", "", ""), storageVolume("region", "", "")
	older.Labels, region.Labels = map[string]string{corev1.LabelFailureDomainBetaZone: "north__west"}, map[string]string{corev1.LabelTopologyRegion: "r"}
	sole := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	}
	first := using(pod("first", "100m"), "c")
	first.Spec.NodeName = "a"
	limit := int32(1)
	yes := true
	other := using(pod("other", "100m"), "d")
	other.Spec.NodeName = "a"
	limited := func(driver string) *storagev1.CSINode {
		return &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
			{Name: driver, NodeID: "a", Allocatable: &storagev1.VolumeNodeResources{Count: &limit}}}}}
	}
	disk := func(p *corev1.Pod, source corev1.VolumeSource) *corev1.Pod {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "disk", VolumeSource: source})
		return p
	}
	gce := corev1.VolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "g", ReadOnly: true}}
	rbd := func(monitors ...string) corev1.VolumeSource {
		return corev1.VolumeSource{RBD: &corev1.RBDVolumeSource{CephMonitors: monitors, RBDPool: "pool", RBDImage: "image"}}
	}
	old := storageVolume("old", "", "")
	old.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "o"}}
	lost := func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName, c.Status.Phase = "w", corev1.ClaimLost }
	ending := func(c *corev1.PersistentVolumeClaim) {
		c.Finalizers, c.DeletionTimestamp = []string{"kubernetes.io/pvc-protection"}, new(metav1.Now())
	}
	static := storageClass("slow", "kubernetes.io/no-provisioner", later)
	for name, tt := range map[string]struct {
		objects []crclient.Object
		want    string
		more    []string // claims beside c
		volumes []corev1.VolumeSource
	}{
		"no claim":             {nil, `persistentvolumeclaim "c" not found`, nil, nil},
		"lost":                 {[]crclient.Object{storageClaim("c", "", lost)}, `persistentvolumeclaim "c" bound to non-existent persistentvolume "w"`, nil, nil},
		"lost, and one absent": {[]crclient.Object{storageClaim("c", "", lost)}, `persistentvolumeclaim "d" not found`, []string{"d"}, nil},
		"ending":               {[]crclient.Object{storageClaim("c", "", boundTo("v"), ending), storageVolume("v", "", "")}, `persistentvolumeclaim "c" is being deleted`, nil, nil},
		"elsewhere, and nothing to bind": {[]crclient.Object{storageClaim("c", "", boundTo("v")), storageVolume("v", "", "b"), storageClaim("d", "slow"), static},
			"1 node(s) didn't find available persistent volumes to bind, 1 node(s) didn't match PersistentVolume's node affinity", []string{"d"}, nil},
		"to be made elsewhere, by its claim": {[]crclient.Object{storageClaim("c", "e", func(c *corev1.PersistentVolumeClaim) { c.Annotations = map[string]string{storage.AnnSelectedNode: "b"} }),
			storageClass("e", "e.com", later), storageClaim("d", "m"), storageClass("m", "m.com", later), &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "m.com"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: &yes}}},
			"1 node(s) didn't find available persistent volumes to bind", []string{"d"}, nil},
		"gone, and one unbound": {[]crclient.Object{storageClaim("c", "", boundTo("v")), storageClaim("d", "")}, "pod has unbound immediate PersistentVolumeClaims", []string{"d"}, nil},
		"monitors in common": {[]crclient.Object{storageClaim("c", "", boundTo("v")), storageVolume("v", "", ""), on(disk(pod("first", "100m"), rbd("m", "n")), "a")},
			"1 node(s) had no available disk", nil, []corev1.VolumeSource{rbd("n", "o")}},
		"a disk before a claim": {[]crclient.Object{storageClaim("c", "", boundTo("v"), sole), storageVolume("v", "", ""), first, on(disk(pod("second", "100m"), rbd("m")), "a")},
			"1 node(s) had no available disk", nil, []corev1.VolumeSource{rbd("m")}},
		"still attached": {[]crclient.Object{storageClaim("c", "", boundTo("v")), storageVolume("v", "", ""), storageVolume("w", "", ""), limited("e.com"), &storagev1.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: "w"}, Spec: storagev1.VolumeAttachmentSpec{Attacher: "e.com", NodeName: "a", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: new("w")}}}},
			"1 node(s) exceed max volume count", nil, nil},
		"of a plug-in that was": {[]crclient.Object{storageClaim("c", "", boundTo("old")), old, limited("pd.csi.storage.gke.io"), on(disk(pod("first", "100m"), gce), "a")},
			"1 node(s) exceed max volume count", nil, nil},
		"to be made by one": {[]crclient.Object{storageClaim("c", "gce"), storageClass("gce", "kubernetes.io/gce-pd", later), limited("pd.csi.storage.gke.io"), on(disk(pod("first", "100m"), gce), "a")},
			"1 node(s) exceed max volume count", nil, nil},
		"itself of one": {[]crclient.Object{storageClaim("c", "", boundTo("old")), old, limited("pd.csi.storage.gke.io")},
			"1 node(s) exceed max volume count", nil, []corev1.VolumeSource{gce}},

		"unbound":                       {[]crclient.Object{storageClaim("c", "")}, "pod has unbound immediate PersistentVolumeClaims", nil, nil},
		"bound to nothing":              {[]crclient.Object{storageClaim("c", "", boundTo("v"))}, `persistentvolume "v" not found`, nil, nil},
		"elsewhere":                     {[]crclient.Object{storageClaim("c", "", boundTo("v")), storageVolume("v", "", "b")}, "1 node(s) didn't match PersistentVolume's node affinity", nil, nil},
		"zone, by its old name":         {[]crclient.Object{storageClaim("c", "", boundTo("older")), older}, "1 node(s) had no available volume zone", nil, nil},
		"region, that the node has not": {[]crclient.Object{storageClaim("c", "", boundTo("region")), region}, "1 node(s) had no available volume zone", nil, nil},
		"zone":                          {[]crclient.Object{storageClaim("c", "", boundTo("zoned")), zoned}, "1 node(s) had no available volume zone", nil, nil},
		"nothing to bind": {[]crclient.Object{storageClaim("c", "slow"), static, storageVolume("v", "slow", "b")},
			"1 node(s) didn't find available persistent volumes to bind", nil, nil},
		"no room": {[]crclient.Object{storageClaim("c", "e"), storageClass("e", "e.com", later),
			&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "e.com"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: &yes}}},
			"1 node(s) did not have enough free storage", nil, nil},
		"sole": {[]crclient.Object{storageClaim("c", "", boundTo("v"), sole), storageVolume("v", "", ""), first},
			"1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod", nil, nil},
		"driver": {[]crclient.Object{storageClaim("c", "", boundTo("v")), storageVolume("v", "", ""), needed(),
			&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "other.com", NodeID: "a"}}}}},
			"1 e.com CSI driver is not installed on the node", nil, nil},
		"limit": {[]crclient.Object{storageClaim("c", "", boundTo("v")), storageVolume("v", "", ""), storageClaim("d", "", boundTo("w")), storageVolume("w", "", ""), other, limited("e.com")},
			"1 node(s) exceed max volume count", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t, append(tt.objects, labelled(node("a", "1"), corev1.LabelTopologyZone, "east"))...)
			p := using(pod("p", "100m"), append(tt.more, "c")...)
			for _, v := range tt.volumes {
				disk(p, v)
			}
			create(t, c, p)
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

// Pods with volumes that are in nobody's way.
func TestVolumesThatDoNotMatter(t *testing.T) {
	volume := func(name string, source corev1.VolumeSource) *corev1.Pod {
		p := pod(name, "100m")
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: source}}
		return p
	}
	none, driver := int32(0), "e.com"
	limited := &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
		{Name: driver, NodeID: "a", Allocatable: &storagev1.VolumeNodeResources{Count: &none}}}}}
	rbd := func(monitor string) corev1.VolumeSource {
		return corev1.VolumeSource{RBD: &corev1.RBDVolumeSource{CephMonitors: []string{monitor}, RBDPool: "pool", RBDImage: "image"}}
	}
	gce := corev1.VolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "g", ReadOnly: true}}
	zoned := storageVolume("v", "", "")
	zoned.Labels = map[string]string{corev1.LabelTopologyZone: "", corev1.LabelFailureDomainBetaRegion: "east__west"}
	for name, tt := range map[string]struct {
		pod     *corev1.Pod
		objects []crclient.Object
	}{
		"made for the pod alone":      {volume("p", corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: driver}}), []crclient.Object{limited}},
		"of other clusters":           {volume("p", rbd("m")), []crclient.Object{on(volume("first", rbd("n")), "a")}},
		"read by both":                {volume("p", gce), []crclient.Object{on(volume("first", gce), "a")}},
		"a label that says nothing":   {using(pod("p", "100m"), "c"), []crclient.Object{storageClaim("c", "", boundTo("v")), zoned}},
		"there, where no more may be": {using(pod("p", "100m"), "c"), []crclient.Object{storageClaim("c", "", boundTo("v")), storageVolume("v", "", ""), limited, on(using(pod("first", "100m"), "c"), "a")}},
		"of a driver nobody can have": {volume("p", gce), []crclient.Object{&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "pd.csi.storage.gke.io"}, Spec: storagev1.CSIDriverSpec{PreventPodSchedulingIfMissing: new(true)}}}},
		"of another plug-in that was": {volume("p", corev1.VolumeSource{AzureFile: &corev1.AzureFileVolumeSource{ShareName: "s", SecretName: "s"}}), []crclient.Object{limited}},
		"attached there, and not used": {using(pod("p", "100m"), "c"), []crclient.Object{storageClaim("c", "", boundTo("v")), storageVolume("v", "", ""), limited, &storagev1.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: storagev1.VolumeAttachmentSpec{Attacher: driver, NodeName: "a", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: new("v")}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := begin(t, append(tt.objects, labelled(node("a", "1"), corev1.LabelTopologyZone, "east", corev1.LabelTopologyRegion, "west"))...)
			create(t, c, tt.pod)
			clienttest.Eventually(t, "the pod placed", func() bool { return get(t, c, "p").Spec.NodeName == "a" })
		})
	}
}

// A pod is not bound to a node that the volume cannot be reached from which its claim got; nor does it wait for ever.
func TestVolumesThatDoNotCome(t *testing.T) {
	ctx := context.Background()
	begun := func(t *testing.T, config string) *clienttest.Client {
		_, c := beginWith(t, settingsOf(t, config), labelled(node("a", "1")), storageClaim("c", "e"), storageVolume("v", "other", "b"),
			storageClass("e", "e.com", storagev1.VolumeBindingWaitForFirstConsumer))
		create(t, c, using(pod("p", "100m"), "c"))
		return c
	}
	told := func(t *testing.T, c *clienttest.Client, want string) {
		t.Helper()
		clienttest.Eventually(t, want, func() bool {
			return why(get(t, c, "p")) == "SchedulerError: "+want && contains(c.Events(), "Warning FailedScheduling "+want)
		})
		if p := get(t, c, "p"); p.Spec.NodeName != "" || p.Status.NominatedNodeName != "" {
			t.Errorf("on %q, expected on %q", p.Spec.NodeName, p.Status.NominatedNodeName)
		}
	}
	t.Run("elsewhere", func(t *testing.T) {
		c := begun(t, "")
		var claim corev1.PersistentVolumeClaim
		clienttest.Eventually(t, "a node chosen", func() bool {
			return c.Get(ctx, crclient.ObjectKey{Namespace: "default", Name: "c"}, &claim) == nil && claim.Annotations[storage.AnnSelectedNode] == "a"
		})
		changed := claim.DeepCopy()
		changed.Spec.VolumeName, changed.Annotations[storage.AnnBindCompleted] = "v", "yes"
		if err := c.Update(ctx, changed); err != nil {
			t.Fatal(err)
		}
		changed.Status.Phase = corev1.ClaimBound
		if err := c.Status().Update(ctx, changed); err != nil {
			t.Fatal(err)
		}
		told(t, c, `running PreBind plugin "VolumeBinding": binding volumes: pv "v" node affinity doesn't match node "a": no matching NodeSelectorTerms`)
	})
	t.Run("late", func(t *testing.T) {
		c := begun(t, "profiles: [{schedulerName: default-scheduler, pluginConfig: [{name: VolumeBinding, args: {bindTimeoutSeconds: 1}}]}]")
		told(t, c, `running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded`)
	})
}

// A pod that waits for its volumes, or devices, gives way without being deleted.
func TestPodsThatWaitGiveWay(t *testing.T) {
	for plugin, tt := range map[string]struct {
		objects []crclient.Object
		low     *corev1.Pod
	}{
		"VolumeBinding":    {[]crclient.Object{storageClaim("c", "e"), storageClass("e", "e.com", storagev1.VolumeBindingWaitForFirstConsumer)}, using(pod("low", "900m"), "c")},
		"DynamicResources": {[]crclient.Object{attached("a", "big"), gpuClass("gpu", ""), claimOf("c", exactly("gpu", 1))}, claiming("low", "c")},
	} {
		t.Run(plugin, func(t *testing.T) {
			c := begin(t, append(tt.objects, labelled(node("a", "1")))...)
			tt.low.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("900m")
			create(t, c, priority(tt.low, 1))
			clienttest.Eventually(t, "the pod expected", func() bool { return get(t, c, "low").Status.NominatedNodeName == "a" })
			create(t, c, priority(pod("urgent", "900m"), 50))
			clienttest.Eventually(t, "the urgent pod placed", func() bool { return get(t, c, "urgent").Spec.NodeName == "a" })
			clienttest.Eventually(t, "the other told that it has no place", func() bool {
				return strings.HasPrefix(why(get(t, c, "low")), "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu.")
			})
			if low := get(t, c, "low"); low.DeletionTimestamp != nil || low.Status.NominatedNodeName != "" {
				t.Error("the pod was deleted, or is still expected")
			}
			events := c.Events()
			if !contains(events, "Normal Preempted Preempted by pod "+string(get(t, c, "urgent").UID)+" on node a (in kube-scheduler memory).") ||
				!contains(events, `running PreBind plugin "`+plugin+`": preempted by DefaultPreemption`) {
				t.Error("no event of it")
			}
		})
	}
}

// Who has a claim for itself gives way to a more important pod, and to no other, wherever there is room.
func TestClaimsOfOnePodGiveWay(t *testing.T) {
	sole := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	}
	c := begin(t, labelled(node("a", "1")), labelled(node("b", "4")), storageClaim("c", "", boundTo("v"), sole), storageVolume("v", "", ""), priority(on(using(pod("low", "100m"), "c"), "a"), 5))
	create(t, c, priority(using(pod("equal", "100m"), "c"), 5))
	const held = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
	clienttest.Eventually(t, "the other refused", func() bool {
		return why(get(t, c, "equal")) == "Unschedulable: 0/2 nodes are available: 2 "+held+". preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
	})
	create(t, c, priority(using(pod("urgent", "100m"), "c"), 50))
	clienttest.Eventually(t, "the urgent pod placed", func() bool { return get(t, c, "urgent").Spec.NodeName == "a" })
	if err := c.Get(context.Background(), crclient.ObjectKey{Namespace: "default", Name: "low"}, &corev1.Pod{}); err == nil {
		t.Error("both have the claim")
	}
}

// A volume that is detached at last makes room for another.
func TestDetached(t *testing.T) {
	one := int32(1)
	va := &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: "w"}, Spec: storagev1.VolumeAttachmentSpec{Attacher: "e.com", NodeName: "a", Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: new("w")}}}
	c := begin(t, labelled(node("a", "1")), storageClaim("c", "", boundTo("v")), storageVolume("v", "", ""), storageVolume("w", "", ""), va,
		&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "e.com", NodeID: "a", Allocatable: &storagev1.VolumeNodeResources{Count: &one}}}}})
	create(t, c, using(pod("p", "100m"), "c"))
	clienttest.Eventually(t, "the pod refused", func() bool { return strings.Contains(why(get(t, c, "p")), "exceed max volume count") })
	if err := c.Delete(context.Background(), va); err != nil {
		t.Fatal(err)
	}
	clienttest.Eventually(t, "the pod placed", func() bool { return get(t, c, "p").Spec.NodeName == "a" })
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
		failed = failed || strings.Contains(e, `running PreBind plugin "VolumeBinding": binding volumes: provisioning failed for PVC "c"`)
	}
	if !failed {
		t.Error("nobody was told")
	}
}
