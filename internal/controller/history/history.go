// Package history is the memory of what a StatefulSet's or a DaemonSet's pods were made of: its ControllerRevisions.
//
// Its invariant is what kubectl rollout reads: a revision's data is a patch that restores the pod template, the highest number is the present
// template, and no two revisions of an owner hold the same template. Choose and Excess are pure; a Keeper carries out what they say.
package history

import (
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/rand"
	kjson "sigs.k8s.io/json"

	"skiff.dev/skiff/internal/api/exponent"
)

// data is a template as a revision holds it.
type data struct {
	Spec struct {
		Template corev1.PodTemplateSpec `json:"template"`
	} `json:"spec"`
}

// Patch is the strategic merge patch that puts t in its owner's place for a template. It goes through a map as kubectl does, which compares
// the bytes to know whether an undo would change anything.
func Patch(t *corev1.PodTemplateSpec) ([]byte, error) {
	raw, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	var template map[string]any
	if err := json.Unmarshal(raw, &template); err != nil {
		return nil, err
	}
	template["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": template}})
}

// Template reads a revision's pod template.
func Template(r *appsv1.ControllerRevision) (*corev1.PodTemplateSpec, error) {
	var d data
	err := exponent.JSON(r.Data.Raw, &d) // anybody may have written it, and nothing but its reader looks into it
	if err == nil {
		err = kjson.UnmarshalCaseSensitivePreserveInts(r.Data.Raw, &d)
	}
	if err != nil {
		return nil, fmt.Errorf("read the template in ControllerRevision %s: %w", r.Name, err)
	}
	return &d.Spec.Template, nil
}

// Sort orders revisions by number; those that share one by age, then by name.
func Sort(revisions []*appsv1.ControllerRevision) {
	slices.SortFunc(revisions, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// Choose finds the revision of the present template among sorted ones and says what number it is to have; nil means that it is to be made.
func Choose(revisions []*appsv1.ControllerRevision, t *corev1.PodTemplateSpec, patch []byte) (present *appsv1.ControllerRevision, number int64) {
	highest := int64(0)
	for _, r := range revisions {
		highest = max(highest, r.Revision)
		if same(r, t, patch) {
			present = r
		}
	}
	if present != nil && present.Revision == highest && revisions[len(revisions)-1] == present {
		return present, highest
	}
	return present, highest + 1
}

// same compares bytes first; if they differ, the templates may still be equal: another version may have left out what is empty.
func same(r *appsv1.ControllerRevision, t *corev1.PodTemplateSpec, patch []byte) bool {
	if string(r.Data.Raw) == string(patch) {
		return true
	}
	was, err := Template(r)
	return err == nil && equality.Semantic.DeepEqual(was, t)
}

// Excess lists the sorted revisions that may go: all but the newest limit of those that nothing uses.
func Excess(revisions []*appsv1.ControllerRevision, used func(r *appsv1.ControllerRevision) bool, limit int32) []*appsv1.ControllerRevision {
	var idle []*appsv1.ControllerRevision
	for _, r := range revisions {
		if !used(r) {
			idle = append(idle, r)
		}
	}
	return idle[:max(0, len(idle)-int(limit))]
}

// Hash names a revision by its data. collisions counts how often the name was found taken by something else.
func Hash(patch []byte, collisions int32) string {
	h := fnv.New32a()
	_, _ = h.Write(patch)
	if collisions > 0 {
		_, _ = h.Write([]byte(strconv.FormatInt(int64(collisions), 10)))
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// longestPrefix leaves room for the hash in a name.
const longestPrefix = 223

func name(owner, hash string) string {
	if len(owner) > longestPrefix {
		owner = owner[:longestPrefix]
	}
	return owner + "-" + hash
}
