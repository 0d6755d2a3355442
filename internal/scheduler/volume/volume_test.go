package volume

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	storage "k8s.io/component-helpers/storage/volume"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"

	"skiff.dev/skiff/internal/scheduler/cluster"
)

// shelf is what there is of storage.
type shelf struct {
	claims  map[string]*corev1.PersistentVolumeClaim
	volumes map[string]*corev1.PersistentVolume
	classes map[string]*storagev1.StorageClass
	drivers map[string]*storagev1.CSIDriver
	rooms   []storagev1.CSIStorageCapacity
}

func (s *shelf) Get(_ context.Context, key crclient.ObjectKey, o crclient.Object, _ ...crclient.GetOption) error {
	found := false
	switch o := o.(type) {
	case *corev1.PersistentVolumeClaim:
		if c := s.claims[key.Name]; c != nil && key.Namespace == "x" {
			found, *o = true, *c
		}
	case *corev1.PersistentVolume:
		if v := s.volumes[key.Name]; v != nil {
			found, *o = true, *v
		}
	case *storagev1.StorageClass:
		if c := s.classes[key.Name]; c != nil {
			found, *o = true, *c
		}
	case *storagev1.CSIDriver:
		if d := s.drivers[key.Name]; d != nil {
			found, *o = true, *d
		}
	}
	if !found {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	return nil
}

func (s *shelf) List(_ context.Context, list crclient.ObjectList, _ ...crclient.ListOption) error {
	switch list := list.(type) {
	case *corev1.PersistentVolumeList:
		for _, v := range s.volumes {
			list.Items = append(list.Items, *v)
		}
		slices.SortFunc(list.Items, func(a, b corev1.PersistentVolume) int { return strings.Compare(a.Name, b.Name) })
	case *storagev1.CSIStorageCapacityList:
		list.Items = s.rooms
	}
	return nil
}

func claim(name, class string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: types.UID(name)}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &class, Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("5Gi")}}}}
	for _, f := range change {
		f(c)
	}
	return c
}

func boundTo(volume string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) {
		c.Spec.VolumeName, c.Annotations = volume, map[string]string{storage.AnnBindCompleted: "yes"}
	}
}

func volumeOf(name, class string, source corev1.PersistentVolumeSource) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{StorageClassName: class, PersistentVolumeSource: source}}
}

func csi(driver, handle string) corev1.PersistentVolumeSource {
	return corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: handle}}
}

func podWith(name string, sources ...corev1.VolumeSource) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: types.UID(name)}}
	for k, s := range sources {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprint("v", k), VolumeSource: s})
	}
	return p
}

func of(claim string) corev1.VolumeSource {
	return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}
}

// stocked is a shelf with a bit of everything.
func stocked() *shelf {
	class := func(name, provisioner string, mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &mode}
	}
	const later, now = storagev1.VolumeBindingWaitForFirstConsumer, storagev1.VolumeBindingImmediate
	s := &shelf{claims: map[string]*corev1.PersistentVolumeClaim{}, volumes: map[string]*corev1.PersistentVolume{}, classes: map[string]*storagev1.StorageClass{}, drivers: map[string]*storagev1.CSIDriver{}}
	for _, c := range []*storagev1.StorageClass{class("made", "e.com", later), class("now", "e.com", now), class("static", storage.NotSupportedProvisioner, later), class("gce", "kubernetes.io/gce-pd", later),
		class("file", "kubernetes.io/azure-file", later), class("nobody", "", later), {ObjectMeta: metav1.ObjectMeta{Name: "modeless"}, Provisioner: "e.com"}} {
		s.classes[c.Name] = c
	}
	for _, v := range []*corev1.PersistentVolume{volumeOf("csi", "", csi("e.com", "h")), volumeOf("gce", "", corev1.PersistentVolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "disk"}}),
		volumeOf("local", "", corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/"}}),
		volumeOf("file", "", corev1.PersistentVolumeSource{AzureFile: &corev1.AzureFilePersistentVolumeSource{ShareName: "s", SecretName: "s"}})} {
		s.volumes[v.Name] = v
	}
	for _, c := range []*corev1.PersistentVolumeClaim{claim("csi", "", boundTo("csi")), claim("again", "", boundTo("csi")), claim("gce", "", boundTo("gce")), claim("local", "", boundTo("local")), claim("file", "", boundTo("file")),
		claim("made", "made"), claim("static", "static"), claim("gcemade", "gce"), claim("filemade", "file"), claim("nobody", "nobody"), claim("now", "now"), claim("classless", ""), claim("unknown", "unknown"), claim("modeless", "modeless"),
		claim("lost", "made", boundTo("gone")), claim("half", "made", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "csi" }),
		claim("sole", "", boundTo("local"), func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
		})} {
		s.claims[c.Name] = c
	}
	return s
}

// What a pod's volumes have attached to its node, and what waits for it; or why no node will do.
func TestOf(t *testing.T) {
	disk := corev1.VolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: "disk"}}
	const gone = "pod has unbound immediate PersistentVolumeClaims"
	for name, tt := range map[string]struct {
		pod  *corev1.Pod
		want string // attached; claims that wait; or why
	}{
		"no volumes that matter":   {podWith("p", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), "none"},
		"a volume for it alone":    {podWith("p", corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "e.com"}}), "none"},
		"a driver's":               {podWith("p", of("csi")), "[{e.com h}] []"},
		"twice the same":           {podWith("p", of("csi"), of("again")), "[{e.com h} {e.com h}] []"},
		"one that nobody attaches": {podWith("p", of("local")), "[] []"},
		"one of a plug-in that was, by a claim": {podWith("p", of("gce")),
			"[{pd.csi.storage.gke.io projects/UNSPECIFIED/zones/UNSPECIFIED/disks/disk}] []"},
		"itself":                                {podWith("p", disk), "[{pd.csi.storage.gke.io projects/UNSPECIFIED/zones/UNSPECIFIED/disks/disk}] []"},
		"of one that does not count":            {podWith("p", of("file")), "[] []"},
		"to be made":                            {podWith("p", of("made")), "[{e.com claim/x/made}] [made]"},
		"to be made by one that was":            {podWith("p", of("gcemade")), "[{pd.csi.storage.gke.io claim/x/gcemade}] [gcemade]"},
		"to be made by one that does not count": {podWith("p", of("filemade")), "[] [filemade]"},
		"to be found":                           {podWith("p", of("static")), "[] [static]"},
		"bound to a volume that is gone":        {podWith("p", of("lost")), "[{e.com claim/x/lost}] [], gone is gone"},
		"at once":                               {podWith("p", of("now")), gone},
		"of no class":                           {podWith("p", of("classless")), gone},
		"of a class that is not there":          {podWith("p", of("unknown")), gone},
		"of a class without a mode":             {podWith("p", of("modeless")), gone},
		"half bound":                            {podWith("p", of("half")), gone},
		"not there":                             {podWith("p", of("made"), of("absent")), `persistentvolumeclaim "absent" not found`},
		"not made yet":                          {podWith("p", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}), `waiting for ephemeral volume controller to create the persistentvolumeclaim "p-v0"`},
	} {
		b := NewBook(stocked(), cluster.New())
		got, why, err := b.Of(tt.pod)
		text := why
		switch {
		case err != nil:
			t.Fatal(err)
		case got == nil && why == "":
			text = "none"
		case why == "":
			waits := []string{}
			for _, u := range got.Unbound {
				waits = append(waits, u.Claim.Name)
			}
			if text = fmt.Sprint(got.Attached, " ", waits); got.Lost {
				text += ", " + got.Missing + " is gone"
			}
		}
		if text != tt.want {
			t.Errorf("%s: %s, want %s", name, text, tt.want)
		}
		placed := b.Placed(tt.pod)
		if (placed != nil) != (tt.want != "none") {
			t.Errorf("%s: placed %v", name, placed)
		}
		if placed != nil && got != nil && fmt.Sprint(placed.Attached) != fmt.Sprint(got.Attached) {
			t.Errorf("%s: placed with %v", name, placed.Attached)
		}
	}
}

// A claim made for another pod is none, whatever else is in order; one of its own is as any other.
func TestEphemeralClaims(t *testing.T) {
	s := stocked()
	p := podWith("p", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}})
	other := claim("p-v0", "", boundTo("csi"))
	s.claims["p-v0"] = other
	b := NewBook(s, cluster.New())
	if _, why, _ := b.Of(p); why != "PVC x/p-v0 was not created for pod x/p (pod is not owner)" {
		t.Error(why)
	}
	other.OwnerReferences = []metav1.OwnerReference{{Name: "p", UID: p.UID, Controller: new(true)}}
	if v, why, _ := b.Of(p); why != "" || len(v.Bound) != 1 {
		t.Error(why, v)
	}
	other.Spec.VolumeName = "gone"
	if v, why, _ := b.Of(p); why != "" || !v.Lost || v.Missing != "" {
		t.Error("VolumeZone does not look at these:", why, v)
	}
}

// Attachments that a node has already are told from those that are new everywhere, and which drivers must be there.
func TestSharedAndFresh(t *testing.T) {
	n := cluster.New()
	b := NewBook(stocked(), n)
	look := func() string {
		v, why, err := b.Of(podWith("p", of("csi"), of("again"), of("made"), of("gce")))
		if why != "" || err != nil {
			t.Fatal(why, err)
		}
		return fmt.Sprint(v.Shared, v.Fresh, v.Needed)
	}
	want := func(what, want string) {
		t.Helper()
		if got := look(); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	want("at first", "[] map[e.com:2 pd.csi.storage.gke.io:1] []")
	n.SetAttachment("va", "n", cluster.Attachment{Driver: "e.com", Handle: "h"})
	want("attached", "[{e.com h}] map[e.com:1 pd.csi.storage.gke.io:1] []")
	n.SetAttachment("va", "n", cluster.Attachment{Driver: "e.com", Handle: "h"})
	n.SetAttachment("va", "n", cluster.Attachment{})
	want("detached", "[] map[e.com:2 pd.csi.storage.gke.io:1] []")
	q := cluster.PodOf(podWith("q", of("csi")))
	q.Volumes = b.Placed(q.Pod)
	n.Place(q, "n")
	want("used", "[{e.com h}] map[e.com:1 pd.csi.storage.gke.io:1] []")
	for _, name := range []string{"e.com", "pd.csi.storage.gke.io", "other.com"} {
		b.DriverChanged(nil, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.CSIDriverSpec{PreventPodSchedulingIfMissing: new(true)}})
	}
	want("needed", "[{e.com h}] map[e.com:1 pd.csi.storage.gke.io:1] [{e.com false} {pd.csi.storage.gke.io true}]")
	b.DriverChanged(&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "e.com"}}, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "e.com"}, Spec: storagev1.CSIDriverSpec{PreventPodSchedulingIfMissing: new(false)}})
	b.DriverChanged(&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "pd.csi.storage.gke.io"}}, nil)
	want("needed no more", "[{e.com h}] map[e.com:1 pd.csi.storage.gke.io:1] []")
}

// What VolumeAttachments tell of.
func TestAttachment(t *testing.T) {
	b := NewBook(stocked(), cluster.New())
	for name, want := range map[string]cluster.Attachment{"csi": {Driver: "a.com", Handle: "h"}, "gce": {}, "absent": {}, "": {}} {
		va := &storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{Attacher: "a.com", NodeName: "n"}}
		if name != "" {
			va.Spec.Source.PersistentVolumeName = &name
		}
		if got := b.Attachment(va); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// Who has a claim for itself.
func TestHeld(t *testing.T) {
	n := cluster.New()
	b := NewBook(stocked(), n)
	for _, name := range []string{"q", "r"} {
		q := cluster.PodOf(podWith(name, of("sole")))
		q.Volumes = b.Placed(q.Pod)
		n.Place(q, "n")
	}
	for p, want := range map[*corev1.Pod]string{podWith("p", of("sole")): "[q r]", podWith("q", of("sole")): "[r]", podWith("p", of("local")): "[]"} {
		v, _, _ := b.Of(p)
		names := []string{}
		for _, h := range v.Held {
			names = append(names, h.Name)
		}
		if fmt.Sprint(names) != want {
			t.Errorf("%s: held by %v, want %s", p.Name, names, want)
		}
	}
}

// Volumes that a claim may be bound to are of its class, free, and promised to nobody else.
func TestCandidates(t *testing.T) {
	s := stocked()
	for _, name := range []string{"v1", "v2", "v3", "v4"} {
		s.volumes[name] = volumeOf(name, "static", csi("e.com", name))
	}
	s.volumes["other"] = volumeOf("other", "made", csi("e.com", "other"))
	s.volumes["v2"].Spec.ClaimRef = &corev1.ObjectReference{Namespace: "x", Name: "somebody", UID: "somebody"}
	s.volumes["v3"].Spec.ClaimRef = &corev1.ObjectReference{Namespace: "x", Name: "static", UID: "static"}
	b := NewBook(s, cluster.New())
	look := func() string {
		v, why, err := b.Of(podWith("p", of("static")))
		if why != "" || err != nil {
			t.Fatal(why, err)
		}
		names := []string{}
		for _, c := range v.Unbound[0].Candidates {
			names = append(names, c.Name)
		}
		return fmt.Sprint(names, v.Unbound[0].Makes)
	}
	want := func(want string) {
		t.Helper()
		if got := look(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	want("[v1 v3 v4] false")
	b.Promise("v1", "x/other")
	b.Promise("v4", "x/static")
	want("[v3 v4] false")
	b.Forget("v1")
	want("[v1 v3 v4] false")
}

// How much room a driver tells of, if it does.
func TestRooms(t *testing.T) {
	s := stocked()
	where := &metav1.LabelSelector{MatchLabels: map[string]string{"zone": "east"}}
	room := func(class string, free, largest *resource.Quantity, where *metav1.LabelSelector) storagev1.CSIStorageCapacity {
		return storagev1.CSIStorageCapacity{StorageClassName: class, Capacity: free, MaximumVolumeSize: largest, NodeTopology: where}
	}
	ten, three := new(resource.MustParse("10Gi")), new(resource.MustParse("3Gi"))
	s.rooms = []storagev1.CSIStorageCapacity{room("other", ten, nil, where), room("made", nil, nil, where), room("made", ten, nil, nil), room("made", ten, nil, where), room("made", ten, three, where), room("made", nil, three, where),
		room("made", ten, nil, &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "k", Operator: "Like"}}})}
	b := NewBook(s, cluster.New())
	look := func() string {
		v, _, _ := b.Of(podWith("p", of("made")))
		text := fmt.Sprint(v.Unbound[0].Measured)
		for _, r := range v.Unbound[0].Rooms {
			text += fmt.Sprintf(" %s/%s %t", r.Free.String(), r.Largest.String(), r.Where.Matches(labels.Set{"zone": "east"}) && !r.Where.Matches(labels.Set{}))
		}
		return text
	}
	for _, step := range []struct {
		driver *storagev1.CSIDriver
		want   string
	}{
		{nil, "false"}, {&storagev1.CSIDriver{}, "false"}, {&storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{StorageCapacity: new(false)}}, "false"},
		{&storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{StorageCapacity: new(true)}}, "true 10Gi/10Gi true 10Gi/3Gi true 0/3Gi true"},
	} {
		s.drivers["e.com"] = step.driver
		if got := look(); got != step.want {
			t.Errorf("%v: %s, want %s", step.driver, got, step.want)
		}
	}
}

// Which disks two pods of a node cannot have both.
func TestDisks(t *testing.T) {
	gce := func(name string, readOnly bool) corev1.VolumeSource {
		return corev1.VolumeSource{GCEPersistentDisk: &corev1.GCEPersistentDiskVolumeSource{PDName: name, ReadOnly: readOnly}}
	}
	aws := func(id string, readOnly bool) corev1.VolumeSource {
		return corev1.VolumeSource{AWSElasticBlockStore: &corev1.AWSElasticBlockStoreVolumeSource{VolumeID: id, ReadOnly: readOnly}}
	}
	iscsi := func(iqn, portal string, readOnly bool) corev1.VolumeSource {
		return corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{IQN: iqn, TargetPortal: portal, ReadOnly: readOnly}}
	}
	rbd := func(pool, image string, readOnly bool, monitors ...string) corev1.VolumeSource {
		return corev1.VolumeSource{RBD: &corev1.RBDVolumeSource{CephMonitors: monitors, RBDPool: pool, RBDImage: image, ReadOnly: readOnly}}
	}
	for _, tt := range []struct {
		name      string
		a, b      corev1.VolumeSource
		conflicts bool
	}{
		{"GCE", gce("d", false), gce("d", false), true}, {"GCE, one reads", gce("d", false), gce("d", true), true}, {"GCE, both read", gce("d", true), gce("d", true), false},
		{"GCE, others", gce("d", false), gce("e", false), false},
		{"EBS", aws("d", false), aws("d", false), true}, {"EBS, both read", aws("d", true), aws("d", true), true}, {"EBS, others", aws("d", false), aws("e", false), false},
		{"iSCSI", iscsi("i", "p", false), iscsi("i", "q", false), true}, {"iSCSI, both read", iscsi("i", "p", true), iscsi("i", "p", true), false}, {"iSCSI, others", iscsi("i", "p", false), iscsi("j", "p", false), false},
		{"RBD", rbd("p", "i", false, "m"), rbd("p", "i", false, "m"), true}, {"RBD, a monitor in common", rbd("p", "i", false, "m", "n"), rbd("p", "i", true, "n", "o"), true},
		{"RBD, both read", rbd("p", "i", true, "m"), rbd("p", "i", true, "m"), false}, {"RBD of other clusters", rbd("p", "i", false, "m"), rbd("p", "i", false, "n"), false},
		{"RBD, other images", rbd("p", "i", false, "m"), rbd("p", "j", false, "m"), false}, {"RBD, other pools", rbd("p", "i", false, "m"), rbd("q", "i", false, "m"), false},
		{"of different kinds", gce("d", false), aws("d", false), false},
	} {
		b := NewBook(stocked(), cluster.New())
		p, q := b.Placed(podWith("p", tt.a)), b.Placed(podWith("q", tt.b))
		if x, y := p.Disks[0], q.Disks[0]; x.Conflicts(y) != tt.conflicts || y.Conflicts(x) != tt.conflicts {
			t.Errorf("%s: %v and %v", tt.name, x, y)
		}
	}
}

// Pods whose volumes nodes could tell apart have different keys, others the same.
func TestKeys(t *testing.T) {
	s := stocked()
	for name, size := range map[string]string{"big": "9Gi", "small": "1Gi", "same": "9Gi"} {
		s.claims[name] = claim(name, "made", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse(size)
		})
	}
	s.claims["chosen"] = claim("chosen", "made", func(c *corev1.PersistentVolumeClaim) { c.Annotations = map[string]string{storage.AnnSelectedNode: "n"} })
	for _, name := range []string{"v", "w", "zoned"} {
		s.volumes[name] = volumeOf(name, "", csi("e.com", name))
		s.claims[name] = claim(name, "", boundTo(name))
	}
	s.volumes["zoned"].Labels = map[string]string{corev1.LabelTopologyZone: "z"}
	b := NewBook(s, cluster.New())
	key := func(sources ...corev1.VolumeSource) string {
		v, why, err := b.Of(podWith("p", sources...))
		if why != "" || err != nil {
			t.Fatal(why, err)
		}
		return v.Key
	}
	rbd := func(readOnly bool, monitors ...string) corev1.VolumeSource {
		return corev1.VolumeSource{RBD: &corev1.RBDVolumeSource{CephMonitors: monitors, RBDPool: "p", RBDImage: "i", ReadOnly: readOnly}}
	}
	if key(of("big")) != key(of("same")) || key(of("big")) != key(of("small")) || key(of("v")) != key(of("w")) {
		t.Error("claims that are alike for every node have different keys")
	}
	seen := map[string]string{}
	for name, k := range map[string]string{
		"made": key(of("made")), "chosen": key(of("chosen")), "two": key(of("made"), of("big")), "static": key(of("static")), "bound": key(of("v")), "zoned": key(of("zoned")), "lost": key(of("lost")),
		"local": key(of("local")), "gce": key(of("gce")), "rbd": key(rbd(false, "m")), "rbd, read": key(rbd(true, "m")), "rbd elsewhere": key(rbd(false, "n")),
	} {
		if other, same := seen[k]; same {
			t.Errorf("%s and %s have one key", name, other)
		}
		seen[k] = name
	}
	s.volumes["free"] = volumeOf("free", "made", csi("e.com", "free"))
	if key(of("big")) == key(of("same")) {
		t.Error("claims that may get different volumes have one key")
	}
	before := key(of("big"))
	b.Changed()
	if key(of("big")) == before {
		t.Error("a change of volumes makes no difference")
	}
}

// The smallest claims choose first.
func TestOrderOfClaims(t *testing.T) {
	s := stocked()
	for name, size := range map[string]string{"big": "9Gi", "small": "1Gi"} {
		s.claims[name] = claim(name, "made", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse(size)
		})
	}
	v, _, _ := NewBook(s, cluster.New()).Of(podWith("p", of("big"), of("static"), of("small")))
	names := ""
	for _, u := range v.Unbound {
		names += u.Claim.Name + " "
	}
	if names != "small static big " {
		t.Error(names)
	}
}

func TestBound(t *testing.T) {
	half := claim("c", "")
	half.Spec.VolumeName = "v"
	if !Bound(claim("c", "", boundTo("v"))) || Bound(claim("c", "")) || Bound(half) || Bound(claim("c", "", boundTo(""))) {
		t.Error("a claim is bound once both sides say so")
	}
}
