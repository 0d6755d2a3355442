package device

import (
	"cmp"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
)

// Most is what Preferred comes to where each request gets the first of its alternatives; 0 if none has a choice, so that all nodes are alike.
func (n *Need) Most() (most int64) {
	choice := false
	for _, claim := range n.open {
		for k := range claim.Spec.Devices.Requests {
			if list := claim.Spec.Devices.Requests[k].FirstAvailable; len(list) > 0 {
				choice = choice || len(list) > 1
				most += resourcev1.FirstAvailableDeviceRequestMaxSize
			}
		}
	}
	if !choice {
		return 0
	}
	for k := range n.places {
		if claim := n.places[k].claim; claim.Status.Allocation != nil {
			most += preferred(claim, claim.Status.Allocation)
		}
	}
	return most
}

// Preferred is how much those devices, and those that claims have already, are what they prefer.
func (n *Need) Preferred(list []Claimed) (much int64) {
	for _, c := range list {
		if a := cmp.Or(c.Allocation, c.Claim.Status.Allocation); a != nil {
			much += preferred(c.Claim, a)
		}
	}
	return much
}

// preferred is upstream's score of a claim: the earlier in a request's list, the more.
func preferred(claim *resourcev1.ResourceClaim, a *resourcev1.AllocationResult) (much int64) {
	given := sets.New[string]()
	for k := range a.Devices.Results {
		given.Insert(a.Devices.Results[k].Request)
	}
	for k := range claim.Spec.Devices.Requests {
		r := &claim.Spec.Devices.Requests[k]
		for at := range r.FirstAvailable {
			if given.Has(resourceclaim.CreateSubRequestRef(r.Name, r.FirstAvailable[at].Name)) {
				much += int64(resourcev1.FirstAvailableDeviceRequestMaxSize - at)
			}
		}
	}
	return much
}
