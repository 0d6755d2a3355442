package device

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	crclient "sigs.k8s.io/controller-runtime/pkg/client"
)

// claims are what a Book reads: they, and a class for each model of device and one for all.
type claims map[string]*resourcev1.ResourceClaim

func (c claims) Get(_ context.Context, key crclient.ObjectKey, o crclient.Object, _ ...crclient.GetOption) error {
	switch o := o.(type) {
	case *resourcev1.ResourceClaim:
		if claim := c[key.Name]; claim != nil {
			claim.DeepCopyInto(o)
			return nil
		}
	case *resourcev1.DeviceClass:
		expression := "true"
		switch {
		case strings.HasPrefix(key.Name, "share"):
			expression = "device.allowMultipleAllocations"
		case key.Name != "any":
			expression = fmt.Sprintf("device.attributes['d'].model == %q", key.Name)
		}
		*o = resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: key.Name}, Spec: resourcev1.DeviceClassSpec{
			Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: expression}}}}}
		return nil
	}
	return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
}

func (c claims) List(context.Context, crclient.ObjectList, ...crclient.ListOption) error { return nil }

// have is the reference: which models the free devices of a node are of.
type have map[string]map[string]string // by node, then device

// whole is the capacity of a device that several may share: those of the models shared, and stepped, of which 1, 2 or 4 are had.
const whole = 4

func shares(model string) bool { return model == "shared" || model == "stepped" }

// cost is how much of a device of some model a request takes, -1 if it does not want any. A device that is not shared has one to give.
func cost(want, model string) int {
	much, asks := strings.CutPrefix(want, "share")
	n, _ := strconv.Atoi(much)
	switch {
	case asks && model == "shared":
		return n
	case asks && model == "stepped":
		return map[int]int{1: 1, 2: 2, 3: 4}[n]
	case want == "any" && model == "shared":
		return whole // who does not say takes all
	case !asks && (want == "any" || want == model):
		return 1 // stepped's default is as much
	}
	return -1
}

// left is what is free of a device.
type left struct {
	model string
	much  int
}

// gives tries all ways to give each request a device of its own, or its share of one.
func gives(free []left, wants []string) bool {
	if len(wants) == 0 {
		return true
	}
	for k, one := range free {
		if c := cost(wants[0], one.model); c >= 0 && c <= one.much {
			after := slices.Clone(free)
			after[k].much -= c
			if gives(after, wants[1:]) {
				return true
			}
		}
	}
	return false
}

// scene is a random history, drawn before it is played, so that a failing one can be shortened: what each node has, then what happens.
type scene struct {
	stock   have
	plugins map[string][]string // by node: extended resources of which plug-ins have any number there
	acts    []act
}

// act is a pod that comes, with so many claims for so many models, or the claim of an earlier one that goes.
type act struct {
	pod      string
	wants    [][]string // by claim, then request
	extended []string   // by container, each for one device of a class, by the extended resource that the class stands for
	gone     int        // of the claims there are, in order, if no pod comes
}

var extendedClasses = []string{"any", "big", "small"}

func extendedName(class string) corev1.ResourceName {
	return corev1.ResourceName("example.com/" + class)
}

func drawScene(d *rand.Rand) scene {
	s := scene{stock: have{}, plugins: map[string][]string{}}
	for _, node := range []string{"n1", "n2", "n3"} {
		s.stock[node] = map[string]string{}
		if d.IntN(3) == 0 {
			s.plugins[node] = []string{extendedClasses[d.IntN(len(extendedClasses))]}
		}
		for k := range d.IntN(5) {
			s.stock[node][fmt.Sprintf("%s-%d", node, k)] = []string{"big", "small", "shared", "stepped"}[d.IntN(4)]
		}
	}
	for k := range 12 {
		a := act{gone: d.IntN(10)}
		if d.IntN(4) > 0 {
			a.pod = fmt.Sprintf("p%d", k)
			for range 1 + d.IntN(2) {
				var claim []string
				for range 1 + d.IntN(2) {
					claim = append(claim, []string{"any", "big", "small", "share1", "share2", "share3"}[d.IntN(6)])
				}
				a.wants = append(a.wants, claim)
			}
			for range max(0, d.IntN(5)-2) {
				a.extended = append(a.extended, extendedClasses[d.IntN(len(extendedClasses))])
			}
		}
		s.acts = append(s.acts, a)
	}
	return s
}

// shorten leaves out what happens, then devices, as long as what is left still fails.
func (s scene) shorten(fails func(scene) bool) scene {
	for k := 0; k < len(s.acts); {
		if less := (scene{s.stock, s.plugins, slices.Delete(slices.Clone(s.acts), k, k+1)}); fails(less) {
			s = less
		} else {
			k++
		}
	}
	for node, devices := range s.stock {
		for name := range devices {
			less := scene{maps.Clone(s.stock), s.plugins, s.acts}
			less.stock[node] = maps.Clone(s.stock[node])
			if delete(less.stock[node], name); fails(less) {
				s = less
			}
		}
	}
	return s
}

// For any devices and claims, a node has devices for a pod's claims exactly if there is a way to give each request one that nobody has, or a share of one; what is given is
// free, of the right model and on the node; and a Book that saw everything happen says what one says that saw how it is.
func TestLikeTheReference(t *testing.T) {
	first := uint64(time.Now().UnixNano())
	t.Logf("seeds from %d", first)
	for seed := first; seed < first+300; seed++ {
		s := drawScene(rand.New(rand.NewPCG(seed, 1)))
		if err := play(s); err != nil {
			s = s.shorten(func(s scene) bool { return play(s) != nil })
			t.Fatalf("seed %d: %v\nshortest: %v of %v: %v", seed, err, s.acts, s.stock, play(s))
		}
	}
}

// A history that is too long is shortened to what it takes.
func TestShorten(t *testing.T) {
	s := drawScene(rand.New(rand.NewPCG(1, 1)))
	s.stock["n1"]["n1-0"] = "big"
	s.acts[7] = act{pod: "p7", wants: [][]string{{"big"}}}
	less := s.shorten(func(s scene) bool {
		return s.stock["n1"]["n1-0"] == "big" && slices.ContainsFunc(s.acts, func(a act) bool { return a.pod == "p7" })
	})
	if len(less.acts) != 1 || len(less.stock["n1"])+len(less.stock["n2"])+len(less.stock["n3"]) != 1 {
		t.Errorf("left: %v of %v", less.acts, less.stock)
	}
}

func play(s scene) error {
	known, offers := claims{}, []*resourcev1.ResourceSlice{}
	b := NewBook(known)
	classesOf(b)
	for _, node := range slices.Sorted(maps.Keys(s.stock)) {
		slice := &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: resourcev1.ResourceSliceSpec{
			Driver: "d", NodeName: &node, Pool: resourcev1.ResourcePool{Name: node, ResourceSliceCount: 1}}}
		for _, name := range slices.Sorted(maps.Keys(s.stock[node])) {
			slice.Spec.Devices = append(slice.Spec.Devices, deviceOf(name, s.stock[node][name]))
		}
		offers = append(offers, slice)
		b.SliceChanged(nil, slice)
	}
	for k, a := range s.acts {
		if a.pod == "" && len(known) > 0 { // a claim goes, and what it had is free
			name := slices.Sorted(maps.Keys(known))[a.gone%len(known)]
			gone := known[name]
			delete(known, name)
			b.ClaimChanged(gone, nil)
		} else if a.pod != "" {
			if err := try(b, a, known, s, offers); err != nil {
				return fmt.Errorf("step %d: %w", k, err)
			}
		}
	}
	return nil
}

func classesOf(b *Book) {
	for _, name := range extendedClasses {
		b.ClassChanged(nil, &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: new(string(extendedName(name)))}})
	}
}

func deviceOf(name, model string) resourcev1.Device {
	d := resourcev1.Device{Name: name, Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"model": {StringValue: &model}}}
	if shares(model) {
		d.AllowMultipleAllocations = new(true)
		d.Capacity = map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{"units": {Value: *resource.NewQuantity(whole, resource.DecimalSI)}}
	}
	if model == "stepped" {
		one, two, four := *resource.NewQuantity(1, resource.DecimalSI), *resource.NewQuantity(2, resource.DecimalSI), *resource.NewQuantity(whole, resource.DecimalSI)
		d.Capacity["units"] = resourcev1.DeviceCapacity{Value: four, RequestPolicy: &resourcev1.CapacityRequestPolicy{Default: &one, ValidValues: []resource.Quantity{one, two, four}}}
	}
	return d
}

// claim makes a pod's claims, and says which models they ask for together.
func (a act) claim(b *Book, known claims) (p *corev1.Pod, wants []string) {
	p = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: a.pod, UID: types.UID(a.pod)}}
	for k, models := range a.wants {
		name := fmt.Sprintf("%s-%d", a.pod, k)
		c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: types.UID(name)}}
		for r, class := range models {
			exactly := &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1}
			if much, is := strings.CutPrefix(class, "share"); is {
				exactly.Capacity = &resourcev1.CapacityRequirements{Requests: map[resourcev1.QualifiedName]resource.Quantity{"units": resource.MustParse(much)}}
			}
			c.Spec.Devices.Requests = append(c.Spec.Devices.Requests, resourcev1.DeviceRequest{Name: fmt.Sprint("r", r), Exactly: exactly})
		}
		wants = append(wants, models...)
		known[name] = c
		b.ClaimChanged(nil, c)
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: name, ResourceClaimName: &name})
	}
	for k, class := range a.extended {
		c := corev1.Container{Name: fmt.Sprint("c", k)}
		c.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("1"), extendedName(class): resource.MustParse("1")}
		p.Spec.Containers = append(p.Spec.Containers, c)
	}
	return p, wants
}

// try has a pod with one or two claims looked at on every node, by a Book that was there all the time and by a new one, and gives it devices where it can.
func try(b *Book, a act, known claims, s scene, offers []*resourcev1.ResourceSlice) error {
	p, asked := a.claim(b, known)
	stock, fresh := s.stock, NewBook(known)
	classesOf(fresh)
	taken := map[string]int{}
	for _, c := range known {
		fresh.ClaimChanged(nil, c)
		if c.Status.Allocation != nil {
			for k, r := range c.Status.Allocation.Devices.Results {
				taken[r.Device] += cost(c.Spec.Devices.Requests[k].Exactly.DeviceClassName, modelOf(stock, r.Device))
			}
		}
	}
	for _, s := range offers {
		fresh.SliceChanged(nil, s)
	}
	for _, node := range slices.Sorted(maps.Keys(stock)) {
		var free []left
		for name, model := range stock[node] {
			free = append(free, left{model, most(model) - taken[name]})
		}
		wants, extended := slices.Clone(asked), map[corev1.ResourceName]int64{}
		object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}, Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{}}}
		for _, class := range a.extended {
			extended[extendedName(class)]++
			if slices.Contains(s.plugins[node], class) {
				object.Status.Allocatable[extendedName(class)] = resource.MustParse("100")
			} else {
				wants = append(wants, class)
			}
		}
		var list []Claimed
		for _, book := range []*Book{fresh, b} {
			need, why, err := book.Of(p, book.Backed(extended), Limits{})
			if why != "" || err != nil {
				return fmt.Errorf("%s, %w", why, err)
			}
			var reason string
			list, reason, err = book.On(need, object)
			if err != nil || (reason == "") != gives(free, wants) {
				return fmt.Errorf("on %s with %v free for %v: %q, %w", node, free, wants, reason, err)
			}
		}
		if gives(free, wants) {
			return take(b, p, list, known, stock[node], taken)
		}
	}
	return nil
}

func modelOf(stock have, device string) string {
	for _, devices := range stock {
		if model, is := devices[device]; is {
			return model
		}
	}
	return ""
}

func most(model string) int {
	if shares(model) {
		return whole
	}
	return 1
}

// take writes what a pod's claims were given, and checks it.
func take(b *Book, p *corev1.Pod, list []Claimed, known claims, devices map[string]string, taken map[string]int) error {
	b.Promise(p.UID, list)
	for _, one := range list {
		old := known[one.Claim.Name]
		if len(one.Mappings) > 0 {
			old = one.Claim.DeepCopy()
			old.Name, old.UID = p.Name+"-extended", p.UID+"-extended"
			if len(one.Mappings) != len(one.Allocation.Devices.Results) {
				return fmt.Errorf("mappings %v for %v", one.Mappings, one.Allocation.Devices.Results)
			}
			b.Created(p.UID, old)
			b.ClaimChanged(nil, old)
		}
		for k, r := range one.Allocation.Devices.Results {
			class := old.Spec.Devices.Requests[k].Exactly.DeviceClassName
			model, here := devices[r.Device]
			much, consumed := cost(class, model), r.ConsumedCapacity["units"]
			taken[r.Device] += much
			if !here || much < 0 || taken[r.Device] > most(model) || (r.ShareID != nil) != shares(model) || shares(model) && consumed.Value() != int64(much) {
				return fmt.Errorf("%s got %s for %s: taken %d, %q, consumed %v", old.Name, r.Device, class, taken[r.Device], model, &consumed)
			}
		}
		written := old.DeepCopy()
		written.Status.Allocation = one.Allocation
		known[old.Name] = written
		b.ClaimChanged(old, written)
	}
	return nil
}
